"""What WeChat says of templates, well-formed and hostile."""

import json
import time
from typing import Any

import orjson
import pytest
import samples

from producers.templates import Field
from producers.templates.catalogue import from_json
from producers.words import Channel
from workers.templates.answers import MOST, MOST_BYTES, stored, templates_in


def listed(*rows: Any) -> dict[str, Any]:
    return {"errcode": 0, "errmsg": "ok", "data": list(rows)}


def one(**row: Any) -> Any:
    found, _ = templates_in(Channel.SUBSCRIBE, listed({"priTmplId": "T1", **row}))
    return found[0]


def test_the_documented_answers_are_understood() -> None:
    if not samples.CASES.is_file():
        pytest.skip(samples.ABSENT)
    cases = {case["id"]: case for case in samples.cases()}
    answer = json.loads(cases["res-gettemplate"]["body"])
    found, is_whole = templates_in(Channel.SUBSCRIBE, answer)
    assert is_whole
    assert [row["priTmplId"] for row in answer["data"]] == [each.template_id for each in found]
    assert found[0].kind == "one_off"
    assert {"date2", "thing1"} >= {field.key for field in found[0].fields} != set()
    assert all(field.label and field.example for field in found[0].fields)
    form = json.loads(cases["res-2018-getTemplateList"]["body"])
    found, is_whole = templates_in(Channel.TEMPLATE, form)
    assert is_whole
    assert found[0].kind == ""
    assert found[0].fields[0].key.startswith("keyword")


def test_fields_have_their_labels_examples_and_values() -> None:
    template = one(
        title="会议\n通知",
        type=3,
        content="会议时间：{{date2.DATA}}\n状态:{{enum_string3.DATA}}！\n",
        example="会议时间：2016年8月8日\n状态:开！\n",
        keywordEnumValueList=[{"keywordCode": "enum_string3.DATA", "enumValueList": ["开", "关"]}],
    )
    assert (template.title, template.kind) == ("会议 通知", "long_term")
    assert template.fields == (
        Field("date2", "date", "会议时间", "2016年8月8日"),
        Field("enum_string3", "enum_string", "状态", "开", ("开", "关")),
    )


@pytest.mark.parametrize(
    ("content", "example", "values"),
    [
        ("时间：{{date1.DATA}}！", "时间：2016年！", ["2016年"]),
        ("时间：{{date1.DATA}}！", "地点：2016年！", [""]),
        ("时间：{{date1.DATA}}！", "时间：2016年？", [""]),
        ("从{{date1.DATA}}到{{date2.DATA}}", "从2016年到{{date2.DATA}}", ["", ""]),
    ],
)
def test_an_example_is_what_stands_in_its_fields_place_of_the_same_line(
    content: str, example: str, values: list[str]
) -> None:
    assert [field.example for field in one(content=content, example=example).fields] == values


@pytest.mark.parametrize(
    "content",
    [
        None,
        7,
        "x" * 5000,
        "".join(f"{{{{thing{n}.DATA}}}}\n" for n in range(40)),
        "{{first.DATA}}\n{{thing1.DATA}}",
        "{{thing1\u0000.DATA}}",
        "{{" * 1900,
    ],
)
def test_content_that_is_not_all_understood_lets_any_data_pass(content: Any) -> None:
    assert one(content=content).fields == ()


@pytest.mark.parametrize(
    "row", [None, 7, [], {}, {"priTmplId": 7}, {"priTmplId": "a b"}, {"priTmplId": "x" * 129}]
)
def test_a_row_of_another_shape_is_left_out_and_the_list_is_not_whole(row: Any) -> None:
    found, is_whole = templates_in(Channel.SUBSCRIBE, listed({"priTmplId": "T1"}, row))
    assert ([each.template_id for each in found], is_whole) == (["T1"], False)


@pytest.mark.parametrize("answer", [{}, {"data": None}, {"data": {}}, {"list": []}])
def test_what_is_no_list_is_an_error(answer: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no list"):
        templates_in(Channel.SUBSCRIBE, answer)


def test_values_of_another_shape_let_any_value_pass() -> None:
    for values in (None, 7, ["a", 7], ["x" * 101], ["a"] * 201, ["\x1b[31ma"]):
        code = {"keywordCode": "enum_string1.DATA", "enumValueList": values}
        for listed_values in ([code], code, [7, code]):
            found = one(content="{{enum_string1.DATA}}", keywordEnumValueList=listed_values)
            assert found.fields[0].values == ()


@pytest.mark.parametrize("content", ["{{" + " " * 3990, "{{a.DATA" + " " * 3990, "{{" * 2000])
def test_no_content_takes_long_to_read(content: str) -> None:
    rows = [{"priTmplId": f"T{n}", "content": content} for n in range(250)]  # a whole answer
    began = time.process_time()
    found, _ = templates_in(Channel.SUBSCRIBE, listed(*rows))
    assert time.process_time() - began < 0.5  # it was three seconds, of all apps' event loop
    assert {one.fields for one in found} == {()}


def test_ten_thousand_templates_are_cut_and_take_a_bounded_place() -> None:
    line = "".join(f"标签{n}:{{{{thing{n}.DATA}}}}\n" for n in range(20))
    rows = [{"priTmplId": f"T{n}", "title": "题" * 900, "content": line} for n in range(10_000)]
    found, is_whole = templates_in(Channel.SUBSCRIBE, listed(*rows))
    assert (len(found), is_whole) == (MOST, False)
    text = stored(found, is_whole=True)
    assert len(text.encode()) <= MOST_BYTES
    kept, is_whole = from_json(text)
    assert 0 < len(kept) < MOST
    assert not is_whole


def test_what_is_stored_is_text_whatever_wechat_says() -> None:
    row = orjson.loads(b'{"priTmplId": "T1", "title": "\\u0007\\u2028<b>", "example": "\\u0000"}')
    found, _ = templates_in(Channel.SUBSCRIBE, listed(row))
    assert found[0].title == "<b>"
