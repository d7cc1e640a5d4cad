"""What data a template takes, and what is said of those that it does not."""

import pytest

from producers.templates import Catalogue, Field, Template, faults_of
from producers.templates.catalogue import from_json, to_json
from producers.words import Channel

MEETING = Template(
    "T1",
    "会议通知",
    "one_off",
    (
        Field("date2", "date", "会议时间", "2016年8月8日"),
        Field("thing1", "thing", "会议地点", "TIT会议室"),
        Field("enum_string3", "enum_string", "状态", "", ("开", "关")),
    ),
)
GOOD = {"date2": "2026-11-24", "thing1": "三楼", "enum_string3": "开"}


def without(*names: str, **more: str) -> dict[str, str]:
    return {key: value for key, value in {**GOOD, **more}.items() if key not in names}


def test_data_that_fit_have_no_fault() -> None:
    assert faults_of(MEETING, GOOD) == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            without("thing1"),
            "data lacks thing1 (会议地点); template T1 会议通知 has date2 会议时间",
        ),
        (without(thing9="x"), "data has thing9, which template T1 会议通知 has not; it has date2"),
        (without(enum_string3="半"), "enum_string3 is '半'; template T1 会议通知 has 开, 关"),
    ],
)
def test_each_fault_names_what_the_template_has(data: dict[str, str], said: str) -> None:
    (fault,) = faults_of(MEETING, data)
    assert fault.startswith(said)


def test_values_that_are_yet_to_be_filled_in_are_not_looked_at() -> None:
    assert faults_of(MEETING, without(enum_string3="{state}"), values=False) == []
    assert len(faults_of(MEETING, without("date2", enum_string3="{state}"), values=False)) == 1


def test_a_template_whose_fields_are_not_known_takes_any_data() -> None:
    assert faults_of(Template("T"), {"thing1": "x"}) == []


def catalogue(*templates: Template, **more: object) -> Catalogue:
    named = {one.template_id: one for one in templates}
    return Catalogue("shop", Channel.SUBSCRIBE, named, read_at_ms=1000, now_ms=13_000, **more)


def test_an_unknown_template_is_a_fault_that_names_some_that_there_are() -> None:
    many = [Template(f"T{number}") for number in range(2, 9)]
    (fault,) = catalogue(MEETING, *many).faults("T0", GOOD)
    assert (
        "'T0': app shop has no such template on channel subscribe, says WeChat's list of 12 s ago"
        in fault
    )
    assert "T1 会议通知 (date2 会议时间, thing1 会议地点, enum_string3 状态); T2;" in fault
    assert fault.endswith("; and 3 more (wxbroadcast templates --app shop)")


def test_a_list_that_is_empty_or_not_whole_calls_no_template_unknown() -> None:
    assert catalogue().faults("T0", GOOD) == []
    assert catalogue(MEETING, is_whole=False).faults("T0", GOOD) == []
    assert len(catalogue(MEETING, is_whole=False).faults("T1", {})) == 3


def test_a_stored_list_is_read_back_and_what_another_version_added_is_left_out() -> None:
    text = to_json([MEETING, Template("L", kind="long_term")], is_whole=True)
    found, is_whole = from_json(text.replace('"key":', '"new":1,"key":'))
    assert (found["T1"], is_whole) == (MEETING, True)
    assert catalogue(*found.values()).long_term == {"L"}
    for spoilt in ("", "[]", "7", '{"templates": [{}]}', '{"templates": [7]}'):
        with pytest.raises(ValueError, match=r"."):
            from_json(spoilt)
