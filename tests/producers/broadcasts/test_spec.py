"""The spec of a broadcast: checked whole before anything is stored, and told apart by content."""

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.broadcasts.spec import LANGS, MAX_LIFE, STATES, Spec
from producers.errors import InvalidInputError
from producers.words import Channel

TEMPLATE = "zun-LzcQyW-edafCVvzPkK4de2Rllr1fFpw2A_x0oXE"


def checked(**changes: Any) -> Spec:
    fields = {
        "app": "shop",
        "channel": "subscribe",
        "template_id": TEMPLATE,
        "audience": "vip",
        "data": {"thing1": "签到提醒"},
    }
    return Spec.checked(**{**fields, **changes})


def faults(**changes: Any) -> tuple[str, ...]:
    with pytest.raises(InvalidInputError) as caught:
        checked(**changes)
    assert str(caught.value) == "; ".join(caught.value.faults)
    return caught.value.faults


def test_what_is_left_out_has_defaults() -> None:
    assert checked() == Spec(
        app="shop",
        channel=Channel.SUBSCRIBE,
        template_id=TEMPLATE,
        data={"thing1": "签到提醒"},
        audience="vip",
        page="",
        emphasis_keyword="",
        miniprogram_state="formal",
        lang="zh_CN",
        rate=0,
        expires_in_ms=7 * 24 * 3_600_000,
        priority=False,
    )


@pytest.mark.parametrize(
    ("channel", "data", "flat"),
    [
        ("subscribe", {"thing1": "a"}, {"thing1": "a"}),
        ("subscribe", {"thing1": {"value": "a"}}, {"thing1": "a"}),
        ("subscribe", '{"thing1": {"value": "a"}}', {"thing1": "a"}),
        ("template", {"keyword1": "a"}, {"keyword1": "a"}),
        ("template", {"keyword1": {"value": "a", "color": "#173177"}}, {"keyword1": "a"}),
        ("template", "a,b,c", {"keyword1": "a", "keyword2": "b", "keyword3": "c"}),
    ],
)
def test_data_comes_in_every_accepted_form(channel: str, data: Any, flat: dict[str, str]) -> None:
    assert checked(channel=channel, data=data).data == flat


def test_the_form_of_the_data_is_not_part_of_the_content() -> None:
    assert checked(data={"thing1": "a"}).digest() == checked(data='{"thing1":"a"}').digest()
    assert checked(data={"thing1": {"value": "a"}}) == checked(data={"thing1": "a"})


def test_an_emphasis_keyword_is_written_as_wechat_wants_it() -> None:
    for written in ("keyword2", "keyword2.DATA"):
        spec = checked(channel="template", data="a,b", emphasis_keyword=written)
        assert spec.emphasis_keyword == "keyword2.DATA"


def test_every_fault_is_in_the_one_error() -> None:
    found = faults(
        template_id="two words",
        data={"thing1": "x" * 21, "nonsense": "y"},
        page="https://example.com/",
        emphasis_keyword="keyword1",
        miniprogram_state="release",
        lang="de_DE",
        rate=-1,
        expires_in=timedelta(days=8),
    )
    for part in (
        "template_id",
        "thing1",
        "nonsense",
        "page",
        "emphasis_keyword",
        "'release'",
        "'de_DE'",
        "rate",
        "expires_in",
    ):
        assert [fault for fault in found if part in fault], part
    assert len(found) == 9


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"channel": "sms"}, "channel 'sms': take template or subscribe"),
        ({"channel": ""}, "take template or subscribe"),
        ({"template_id": ""}, "template_id"),
        ({"data": "a,b,c"}, "data"),
        ({"data": {}}, "data"),
        ({"data": {"keyword1": "a"}}, "keyword1"),
        ({"data": {"thing1": ""}}, "thing1"),
        ({"channel": "template", "data": {"thing1": "a"}}, "thing1"),
        ({"channel": "template", "data": "a", "emphasis_keyword": "keyword2"}, "keyword2"),
        ({"page": "a b"}, "page"),
        ({"miniprogram_state": ""}, "developer, trial, formal"),
        ({"lang": ""}, "zh_CN"),
        ({"rate": float("nan")}, "rate"),
        ({"rate": float("inf")}, "rate"),
        ({"expires_in": timedelta(0)}, "expires_in"),
        ({"expires_in": timedelta(seconds=-5)}, "expires_in"),
        ({"expires_in": MAX_LIFE + timedelta(milliseconds=1)}, "expires_in"),
    ],
)
def test_a_fault_says_what_is_accepted(changes: dict[str, Any], said: str) -> None:
    (fault,) = faults(**changes)
    assert said in fault


@pytest.mark.parametrize(
    "changes",
    [
        *({"miniprogram_state": state} for state in STATES),
        *({"lang": lang} for lang in LANGS),
        {"rate": 0.5},
        {"rate": 100, "priority": True},
        {"carry_over": True},
        {"page": "pages/index?id=7"},
        {"expires_in": timedelta(seconds=1)},
        {"expires_in": MAX_LIFE},
        {"channel": "template", "data": "a,b", "emphasis_keyword": "keyword1"},
    ],
)
def test_a_spec_survives_being_stored(changes: dict[str, Any]) -> None:
    spec = checked(**changes)
    again = Spec.from_json(spec.to_json())
    assert again == spec
    assert isinstance(again.channel, Channel)
    assert again.digest() == spec.digest()
    assert json.loads(spec.to_json())["template_id"] == TEMPLATE


@given(
    st.dictionaries(
        st.integers(1, 99).map(lambda n: f"thing{n}"),
        st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=10),
        min_size=1,
    ),
    st.randoms(),
)
def test_the_order_of_the_data_is_not_part_of_the_content(data: dict[str, str], rng: Any) -> None:
    shuffled = list(data.items())
    rng.shuffle(shuffled)
    assert checked(data=dict(shuffled)).digest() == checked(data=data).digest()


def test_equal_numbers_are_the_same_content() -> None:
    assert checked(rate=5).digest() == checked(rate=5.0).digest()


def test_every_field_tells_contents_apart() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"app": "news"},
        {"channel": "template", "data": "a"},
        {"template_id": "T"},
        {"data": {"thing1": "b"}},
        {"audience": "all"},
        {"page": "index"},
        {"miniprogram_state": "trial"},
        {"lang": "en_US"},
        {"rate": 1},
        {"expires_in": timedelta(days=1)},
        {"priority": True},
        {"carry_over": True},
    ]
    assert len({checked(**change).digest() for change in changes}) == len(changes)


def test_a_digest_is_one_word_that_never_changes() -> None:
    digest = checked().digest()
    assert digest == checked().digest()
    assert len(digest) == 32
    assert digest.isalnum()


def test_what_a_later_version_stored_is_read_without_what_it_added() -> None:
    spec = checked(rate=5)
    stored = {**json.loads(spec.to_json()), "urgency": 3}
    del stored["priority"]  # an earlier one may know less
    assert Spec.from_json(json.dumps(stored)) == spec
    payload = {**json.loads(checked(page="pages/a").payload()), "urgency": 3, "app": "other"}
    assert spec.with_payload(json.dumps(payload)) == checked(rate=5, page="pages/a")
