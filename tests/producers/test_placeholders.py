"""Texts with holes: filled, shortened to what WeChat takes, no character cut in half."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.fields import check, columns_of, filled, filled_page, utf16_units
from producers.words import Channel

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("{name}，连续签到 {days} 天", {"name": "张三", "days": "3"}, "张三，连续签到 3 天"),
        ("{name|thing}", {"name": "长" * 30}, "长" * 20),
        (
            "{name|thing}，连续签到 {days} 天",
            {"name": "长" * 30, "days": "12"},
            "长" * 10 + "，连续签到 12 天",
        ),
        ("{a|thing}-{b|thing}", {"a": "1" * 15, "b": "2" * 15}, "1" * 15 + "-2222"),
        ("{a|phrase}", {"a": "已经完成了吗"}, "已经完成了"),
        ("{a|thing}", {"a": FAMILY * 3}, FAMILY * 2),
        ("a{a|thing}", {"a": "\U0001f1e8\U0001f1f3" * 6}, "a" + "\U0001f1e8\U0001f1f3" * 4),
        ("{a|thing}", {"a": "ab" + "\U0001f44d\U0001f3fd" * 6}, "ab" + "\U0001f44d\U0001f3fd" * 4),
        ("{a|phrase}", {"a": "e\u0301" * 6}, "e\u0301" * 2),
        ("{a|phrase}", {"a": "\U0001f468\u200d\U0001f469"}, "\U0001f468\u200d\U0001f469"),
        ("{a|name}", {"a": "长" * 12}, "长" * 10),
        ("{a|name}", {"a": "b" * 30}, "b" * 20),
        ("{a|character_string}", {"a": "b" * 40}, "b" * 32),
        ("{a|thing}", {"a": "x" * 19 + "🎉"}, "x" * 19),
        ("{{{a}}} {{a}}", {"a": "b"}, "{b} {a}"),
        ("{ a }", {"a": "b"}, "b"),
        ("{a}", {"a": "{b}"}, "{b}"),
    ],
)
def test_holes_are_filled(text: str, values: dict[str, str], expected: str) -> None:
    assert filled(text, values) == expected


def test_what_stands_in_a_page_is_percent_encoded() -> None:
    page = "pages/x?name={name|phrase}&id={id}"
    assert filled_page(page, {"name": "已经完成了吗", "id": "a&b=c d/"}) == (
        "pages/x?name=%E5%B7%B2%E7%BB%8F%E5%AE%8C%E6%88%90%E4%BA%86&id=a%26b%3Dc%20d%2F"
    )


def test_columns_are_told_once_in_their_order() -> None:
    assert columns_of(["{b} {a|thing}", "{b}{{c}}"]) == ("b", "a")


@given(
    st.text(st.characters(blacklist_categories=["Cc", "Cs"]), min_size=1),
    st.text("长a🎉", max_size=9),
)
def test_a_shortened_value_always_fits(value: str, around: str) -> None:
    text = filled(around + "{value|thing}", {"value": value})
    assert text.startswith(around)
    assert utf16_units(text) <= 20
    assert text == "" or check(Channel.SUBSCRIBE, {"thing1": text}) == []
