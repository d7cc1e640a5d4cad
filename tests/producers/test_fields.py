"""WeChat's field rules: official samples pass, what the table forbids is named in one answer."""

import json
from typing import Any

import pytest
import samples
from hypothesis import given
from hypothesis import strategies as st

from producers.errors import InvalidInputError
from producers.fields import (
    FIELD_TYPES,
    FieldFault,
    check,
    check_emphasis_keyword,
    check_page,
    check_template_id,
    parse_data,
    utf16_units,
)
from producers.words import Channel

# The samples printed in WeChat docs, subscribe-message sendMessage, and the forms that its table
# describes; a few are the anomalies: allowed by the table though WeChat was seen refusing them.
ACCEPTED = [
    ("thing1", "广州至北京"),
    ("thing01", "a" * 20),
    ("thing1", "🎉" * 10),
    ("thing1", " "),
    ("thing1", "第1场 (A座)!"),
    ("number1", "1"),
    ("number1", "9" * 32),
    ("number1", "3.1415"),
    ("number1", "-5"),
    ("number1", ".5"),
    ("letter1", "abcXYZ"),
    ("letter1", "z" * 32),
    ("symbol1", "+-*/="),
    ("symbol1", "★"),
    ("character_string1", "AB-2019/10 #7"),
    ("character_string1", "x" * 32),
    ("time1", "15:01"),
    ("time1", "9:05"),
    ("time1", "15:01:59"),
    ("time1", "24:00"),
    ("time1", "2019年10月1日 15:01"),
    ("time1", "2019年10月1日15:01"),
    ("time1", "2021-09-10 19:00:00"),
    ("time1", "10月1日 15:01"),
    ("time1", "15:01~16:30"),
    ("time1", "15:01 ~ 16:30"),
    ("time1", "2019年10月1日 15:01~2019年10月2日 16:30"),
    ("date1", "2019年10月1日"),
    ("date1", "2019年10月1日 15:01"),
    ("date2", "2019-12-25 09:42"),
    ("date1", "2020年03月19日"),
    ("date1", "2018-01-01"),
    ("date1", "2018/01/01"),
    ("date1", "2018.01.01"),
    ("date1", "2018-01"),
    ("date1", "2018年1月"),
    ("date1", "01-01"),
    ("date1", "1月1日"),
    ("date1", "02-29"),
    ("date1", "2019年10月1日~2019年10月7日"),
    ("date1", "2019年10月1日 15:01~16:30"),
    ("amount1", "￥100"),
    ("amount1", "¥99.00"),
    ("amount1", "$1234567890.12"),
    ("amount1", "100元"),
    ("amount1", "€5元"),
    ("phone_number1", "+86-0766-66888866"),
    ("phone_number1", "13800138000"),
    ("phone_number1", "(020) 81167888"),
    ("car_number1", "粤A8Z888挂"),
    ("car_number1", "粤AD12345"),
    ("car_number1", "A"),
    ("name1", "某某"),
    ("name1", "订阅"),
    ("name1", "王" * 10),
    ("name1", "O'Brien, Ann-Marie W"),
    ("phrase1", "配送中"),
    ("phrase3", "审核通过"),
    ("phrase1", "匀城毛尖茶"),
    ("enum_string2", "3号洗衣机"),
    ("const1", "固定的话"),
]

REFUSED = [
    ("thing1", "a" * 21),
    ("thing1", "🎉" * 11),
    ("thing1", "两\n行"),
    ("thing1", "nul\x00"),
    ("thing1", "half a pair \ud83c"),
    ("number1", "9" * 33),
    ("number1", "一"),
    ("number1", "1,000"),
    ("number1", "1.2.3"),
    ("number1", "."),
    ("number1", "1\n"),
    ("letter1", "abc1"),
    ("letter1", "字"),
    ("letter1", "z" * 33),
    ("symbol1", "++++++"),
    ("symbol1", "a+"),
    ("symbol1", "1"),
    ("symbol1", "好"),
    ("character_string1", "x" * 33),
    ("character_string1", "订单7"),
    ("time1", "25:00"),
    ("time1", "15:60"),
    ("time1", "24:01"),
    ("time1", "下午3点"),
    ("time1", "2019年10月1日"),
    ("time1", "15:01-16:30"),
    ("time1", "15:01~16:00~17:00"),
    ("time1", "15:01~"),
    ("time1", "2019-13-01 15:01"),
    ("date1", "2019"),
    ("date1", "明天"),
    ("date1", "2019-13-01"),
    ("date1", "2019-02-29"),
    ("date1", "0000-01-01"),
    ("date1", "2019-10/01"),
    ("date1", "2019-10-0115:01"),
    ("date1", "15:01"),
    ("date1", "2019-10-01~2019-10-02~2019-10-03"),
    ("amount1", "12345678901"),
    ("amount1", "￥"),
    ("amount1", "￥￥1"),
    ("amount1", "1,000元"),
    ("amount1", "x100"),
    ("amount1", "免费"),
    ("phone_number1", "+86-0766-668888661111"),
    ("phone_number1", "电话13800138000"),
    ("phone_number1", "138ext1"),
    ("car_number1", "粤A8Z888挂9"),
    ("car_number1", "粤A·12345"),
    ("car_number1", "A粤88888"),
    ("name1", "王" * 11),
    ("name1", "王abcdefghij"),
    ("name1", "a" * 21),
    ("name1", "张三2"),
    ("phrase1", "六个汉字不行"),
    ("phrase1", "ok"),
    ("phrase1", "配送中!"),
    ("const1", "a" * 21),
    ("enum_string1", "a" * 1025),
]


@pytest.mark.parametrize(("key", "value"), ACCEPTED)
def test_what_the_table_allows_passes(key: str, value: str) -> None:
    assert check(Channel.SUBSCRIBE, {key: value}) == []


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_what_the_table_forbids_is_one_invalid_fault(key: str, value: str) -> None:
    (fault,) = check(Channel.SUBSCRIBE, {key: value})
    assert (fault.key, fault.kind) == (key, "invalid")
    assert fault.reason.startswith(f"{key} is ")
    assert "accepted: " in fault.reason
    fault.reason.encode()  # it can be logged and answered, whatever the value held


@pytest.mark.parametrize("name", FIELD_TYPES)
def test_every_type_is_tried_with_good_and_empty_values(name: str) -> None:
    assert any(key.rstrip("0123456789") == name for key, _ in ACCEPTED)
    (fault,) = check(Channel.SUBSCRIBE, {f"{name}1": ""})
    assert (fault.key, fault.kind) == (f"{name}1", "empty")


@pytest.mark.parametrize(
    "key",
    ["thing1.DATA", "thing", "thing1a", "Thing1", "keyword1", "site01", "1", "", "thing1\n", "事1"],
)
def test_unknown_subscribe_keys_are_key_faults(key: str) -> None:
    (fault,) = check(Channel.SUBSCRIBE, {key: "x"})
    assert (fault.key, fault.kind) == (key, "key")


@pytest.mark.parametrize("key", ["keyword1.DATA", "keyword", "keyword0", "keyword01", "thing1", ""])
def test_unknown_template_keys_are_key_faults(key: str) -> None:
    (fault,) = check(Channel.TEMPLATE, {key: "x"})
    assert (fault.key, fault.kind) == (key, "key")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("腾讯微信总部", None),
        ("第一行\n第二行", None),
        ("a" * 1024, None),
        ("a" * 1025, "invalid"),
        ("a\tb", "invalid"),
        ("", "empty"),
    ],
)
def test_keyword_values_are_long_free_texts(value: str, kind: str | None) -> None:
    faults = check(Channel.TEMPLATE, {"keyword12": value})
    assert [fault.kind for fault in faults] == ([kind] if kind else [])


def test_faults_come_in_the_order_of_the_data() -> None:
    faults = check(Channel.SUBSCRIBE, {"x": "1", "thing1": "ok", "thing2": "", "number3": "x"})
    assert faults == [
        FieldFault("x", "key", faults[0].reason),
        FieldFault("thing2", "empty", faults[1].reason),
        FieldFault("number3", "invalid", faults[2].reason),
    ]


def test_a_long_value_is_shown_shortened() -> None:
    (fault,) = check(Channel.SUBSCRIBE, {"thing1": "长" * 5000})
    assert "5,000 characters" in fault.reason
    assert fault.reason.count("长") < 50


@pytest.mark.parametrize(
    ("channel", "raw", "data"),
    [
        (Channel.SUBSCRIBE, {"thing1": "a"}, {"thing1": "a"}),
        (Channel.SUBSCRIBE, {"thing1": {"value": "a"}}, {"thing1": "a"}),
        (Channel.SUBSCRIBE, '{"thing1": "a", "number2": 7}', {"thing1": "a", "number2": "7"}),
        (Channel.SUBSCRIBE, ' {"thing1": {"value": "a"}}\n', {"thing1": "a"}),
        (Channel.SUBSCRIBE, '{"amount1": 12.50}', {"amount1": "12.50"}),
        (Channel.SUBSCRIBE, {"number1": 7, "number2": 0.5}, {"number1": "7", "number2": "0.5"}),
        (Channel.SUBSCRIBE, {"number1": {"value": 7}}, {"number1": "7"}),
        (Channel.TEMPLATE, {"keyword1": {"value": "a", "color": "#173177"}}, {"keyword1": "a"}),
        (Channel.TEMPLATE, "a,b,c", {"keyword1": "a", "keyword2": "b", "keyword3": "c"}),
        (Channel.TEMPLATE, " a b , c ", {"keyword1": "a b", "keyword2": "c"}),
        (Channel.TEMPLATE, "签到，领奖", {"keyword1": "签到，领奖"}),
        (Channel.TEMPLATE, "[新] a,b", {"keyword1": "[新] a", "keyword2": "b"}),
        (Channel.TEMPLATE, '{"keyword1": "a,b"}', {"keyword1": "a,b"}),
    ],
)
def test_every_shape_of_data_is_read(channel: Channel, raw: object, data: dict[str, str]) -> None:
    assert parse_data(channel, raw) == data


@pytest.mark.parametrize(
    ("channel", "raw", "found"),
    [
        (Channel.SUBSCRIBE, None, "data is null"),
        (Channel.SUBSCRIBE, ["a"], "data is a list"),
        (Channel.SUBSCRIBE, 7, "data is a number"),
        (Channel.SUBSCRIBE, True, "data is a boolean"),
        (Channel.SUBSCRIBE, b"{}", "data is of type bytes"),
        (Channel.SUBSCRIBE, {}, "data has no fields"),
        (Channel.SUBSCRIBE, "{}", "data has no fields"),
        (Channel.SUBSCRIBE, "", "data is the text ''"),
        (Channel.SUBSCRIBE, "a,b", "data is the text 'a,b'"),
        (Channel.SUBSCRIBE, '{"thing1": ', "data is no JSON object"),
        (Channel.SUBSCRIBE, '{"thing1": NaN}', "data is no JSON object"),
        (Channel.SUBSCRIBE, '{"thing1": "a", "thing1": "b"}', "'thing1' stands there twice"),
        (Channel.SUBSCRIBE, '{"a":' * 100_000, "data is no JSON object"),
        (Channel.SUBSCRIBE, {1: "a"}, "a key is a number"),
        (Channel.SUBSCRIBE, {"thing1": True}, "'thing1' is a boolean"),
        (Channel.SUBSCRIBE, {"thing1": None}, "'thing1' is null"),
        (Channel.SUBSCRIBE, {"thing1": ["a"]}, "'thing1' is a list"),
        (Channel.SUBSCRIBE, {"thing1": {"value": None}}, "'thing1' is null"),
        (Channel.SUBSCRIBE, {"thing1": {"value": {"value": "a"}}}, "'thing1' is an object"),
        (Channel.SUBSCRIBE, {"thing1": {}}, "'thing1' has no \"value\""),
        (Channel.SUBSCRIBE, {"thing1": {"value": "a", "color": "#f00"}}, "more than its"),
        (Channel.TEMPLATE, {"keyword1": {"value": "a", "size": 3}}, "more than its"),
        (Channel.SUBSCRIBE, {"number1": float("nan")}, "out of range"),
        (Channel.SUBSCRIBE, {"number1": float("inf")}, "out of range"),
        (Channel.SUBSCRIBE, {"number1": 10**5000}, "out of range"),
        (Channel.TEMPLATE, "a,,c", "keyword2 is empty"),
        (Channel.TEMPLATE, "", "keyword1 is empty"),
        (Channel.TEMPLATE, "{name},b", "data is no JSON object"),
    ],
)
def test_other_shapes_are_refused_by_what_was_found(
    channel: Channel, raw: object, found: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_data(channel, raw)
    (fault,) = caught.value.faults
    assert found in fault
    assert "accepted: " in fault


def test_one_error_lists_every_fault() -> None:
    raw = {"thing1": "", "bad": None, "number2": "x", "thing3": True, "phrase4": "配送中"}
    with pytest.raises(InvalidInputError) as caught:
        parse_data(Channel.SUBSCRIBE, raw)
    faults = caught.value.faults
    assert len(faults) == 5
    for part in ("thing1 is empty", "'bad' is null", "key 'bad'", "number2 is", "'thing3' is a b"):
        assert any(part in fault for fault in faults), part


@pytest.mark.parametrize(
    ("page", "faults"),
    [
        ("index", 0),
        ("index?foo=bar", 0),
        ("/pages/index/index?a=1&t=15:01", 0),
        ("pages/详情?id=1", 0),
        ("p" * 1024, 0),
        ("p" * 1025, 1),
        ("", 1),
        ("https://example.com/", 1),
        ("weixin:foo", 1),
        ("//example.com/a", 1),
        ("index?q=a b", 1),
        ("index\n", 1),
        ("index\u3000", 1),
        ("index\ud800", 1),
        ("javascript:alert( 1)", 2),
    ],
)
def test_a_page_is_a_page_of_the_mini_program(page: str, faults: int) -> None:
    assert len(check_page(page)) == faults


@pytest.mark.parametrize(
    ("template_id", "good"),
    [
        ("9Aw5ZV1j9xdWTFEkqCpZ7mIBbSC34khK55OtzUPl0rU", True),
        ("cy_DfOZL7lypxHh3ja3DyAUbn1GYQRGwezuy5LBTFME", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("", False),
        ("a b", False),
        ("abc\n", False),
        ("模板", False),
    ],
)
def test_a_template_id_is_visible_ascii(template_id: str, good: bool) -> None:
    assert (check_template_id(template_id) == []) is good


@pytest.mark.parametrize("keyword", ["keyword1", "keyword1.DATA"])
def test_an_emphasis_keyword_is_written_as_wechat_wants_it(keyword: str) -> None:
    assert check_emphasis_keyword(keyword, {"keyword1": "a"}) == "keyword1.DATA"


@pytest.mark.parametrize("keyword", ["keyword2", "keyword1.data", "keyword1.DATA.DATA", "", "1"])
def test_an_emphasis_keyword_must_be_in_the_data(keyword: str) -> None:
    with pytest.raises(InvalidInputError, match=r"accepted: a keyword of the data \(keyword1\)"):
        check_emphasis_keyword(keyword, {"keyword1": "a"})


@given(st.text())
def test_lengths_are_counted_in_utf16_units(text: str) -> None:
    assert utf16_units(text) == sum(2 if ord(char) > 0xFFFF else 1 for char in text)


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
KEYS = st.sampled_from(["thing1", "date2", "amount3", "name4", "keyword1", "time5"]) | st.text()


@given(st.sampled_from(Channel), st.text() | JSON_LIKE | st.dictionaries(KEYS, JSON_LIKE))
def test_whatever_comes_is_checked_data_or_one_error(channel: Channel, raw: object) -> None:
    try:
        data = parse_data(channel, raw)
    except InvalidInputError as error:
        str(error).encode()
    else:
        assert data
        assert check(channel, data) == []
        assert parse_data(channel, data) == data
        assert parse_data(channel, {key: {"value": value} for key, value in data.items()}) == data
        assert parse_data(channel, json.dumps(data)) == data


def _samples() -> list[Any]:
    requests = [case for case in samples.cases() if "body" in case]
    return [
        pytest.param(channel, json.loads(case["body"])["data"], id=case["id"])
        for case in requests
        for channel, path in (
            (Channel.SUBSCRIBE, "subscribe/send"),
            (Channel.TEMPLATE, "/wxopen/template/send"),
        )
        if case["kind"] == "request" and case["api"].endswith(path)
    ]


@samples.needs_cases
@pytest.mark.parametrize(("channel", "data"), _samples())
def test_collected_requests_pass(channel: Channel, data: dict[str, dict[str, str]]) -> None:
    assert parse_data(channel, data) == {key: field["value"] for key, field in data.items()}
    assert parse_data(channel, json.dumps(data)) == parse_data(channel, data)
