"""The plan: whether a broadcast takes so long that permits would end before their turn."""

from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest

from producers.ordering.plan import MOST, SLOTS, Outlook, planned
from producers.times.windows import Window

HOUR = 3_600_000
NOON = 494_004 * HOUR
"""2026-05-11 12:00 UTC."""

EVENLY = {NOON // HOUR + n: 1000 for n in range(168)}
LONG = Outlook(now_ms=NOON, members=168_000, rate=10, ending=EVENLY, everybody=168_000)
"""4 hours 40 minutes of sending, while 1,000 users' last uses end an hour."""


def test_a_long_broadcast_hurries_those_whose_last_use_ends_within_it_and_a_quarter() -> None:
    plan = planned(LONG)
    assert plan is not None
    assert (plan.length_s, plan.at_stake) == (16_800, 4667)
    assert plan.from_ms == NOON
    assert plan.until_ms - NOON == pytest.approx(1.25 * 16_800_000, abs=SLOTS)


@pytest.mark.parametrize(
    "changes",
    [
        {"rate": 0.0},
        {"rate": 100_000.0},
        {"members": 0},
        {"ending": {}},
        {"ending": {NOON // HOUR - 1: 168_000}},
        {"ending": {NOON // HOUR + 167: 168_000}},
        {"ending": {NOON // HOUR: 100}},
    ],
    ids=["unlimited", "short", "nobody", "no permits", "past", "none ends in it", "too few"],
)
def test_any_other_goes_in_no_order(changes: dict[str, object]) -> None:
    assert planned(replace(LONG, **changes)) is None  # type: ignore[arg-type]


def test_of_everybody_only_those_with_a_permit_cost_time() -> None:
    plan = planned(replace(LONG, members=1_680_000, everybody=1_680_000, all_of_them=True))
    assert plan is not None
    assert plan.length_s == 16_800


def test_a_part_of_the_app_has_its_share_of_those_at_stake() -> None:
    whole, half = planned(LONG), planned(replace(LONG, everybody=336_000))
    assert whole is not None
    assert half is not None
    assert half.at_stake == pytest.approx(whole.at_stake / 2, abs=1)


def test_the_hours_outside_the_send_window_count() -> None:
    window = Window.read("08:00-14:00", ZoneInfo("UTC"))
    plan = planned(replace(LONG, window=window))
    assert plan is not None
    assert plan.length_s == 2 * 3600 + 18 * 3600 + 9600  # two hours today, the rest tomorrow


def test_a_pass_holds_so_many_at_the_most() -> None:
    ending = {hour: 1000 * users for hour, users in EVENLY.items()}
    everybody = 168_000_000
    plan = planned(
        replace(LONG, members=everybody, everybody=everybody, rate=10_000.0, ending=ending)
    )
    assert plan is not None
    assert plan.at_stake > MOST
    hours = (plan.until_ms - NOON) / HOUR
    assert 0.7 * MOST < hours * 1_000_000 <= 1.01 * MOST


def test_who_went_first_already_is_not_at_stake_any_more() -> None:
    first = planned(LONG)
    assert first is not None
    assert planned(replace(LONG, since_ms=first.until_ms)) is None
    longer = planned(replace(LONG, since_ms=first.until_ms, rate=5.0))
    assert longer is not None
    assert longer.at_stake == pytest.approx(2 * 4667 - 1.25 * 4667, abs=2)


def test_a_use_is_of_no_use_a_while_before_its_end() -> None:
    plan, sooner = planned(replace(LONG, margin_ms=HOUR // 2)), planned(LONG)
    assert plan is not None
    assert sooner is not None
    assert plan.at_stake - sooner.at_stake == pytest.approx(500, abs=1)
    assert plan.until_ms - sooner.until_ms == pytest.approx(HOUR // 2, abs=SLOTS)
    assert plan.length_s == sooner.length_s
