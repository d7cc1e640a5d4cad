"""The schedule: repeatable, complete, and always with a unit that lives."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.local.chaos.door import Crowd
from producers.local.chaos.schedule import ALL, Fault, Plan, Strike, schedule

seeds = st.integers(0, 2**32)


@given(seeds)
def test_the_same_seed_gives_the_same_schedule(seed: int) -> None:
    assert schedule(Plan(seed)) == schedule(Plan(seed))


def test_another_seed_gives_another_schedule() -> None:
    assert schedule(Plan(1)) != schedule(Plan(2))


@given(seeds, st.integers(0, 60))
def test_every_kill_has_its_moment_within_the_sending(seed: int, kills: int) -> None:
    plan = Plan(seed, kills=kills)
    strikes = [strike for strike in schedule(plan) if strike.fault is Fault.KILLS]
    assert len(strikes) == kills
    assert all(0 < strike.at_s < plan.seconds for strike in strikes)


@given(seeds)
def test_every_fault_with_a_moment_strikes(seed: int) -> None:
    lasting = {Fault.LOST_REPLIES, Fault.WECHAT}
    assert {strike.fault for strike in schedule(Plan(seed))} == ALL - lasting


@given(seeds)
def test_strikes_are_in_their_order(seed: int) -> None:
    moments = [strike.at_s for strike in schedule(Plan(seed, kills=20))]
    assert moments == sorted(moments)


@pytest.mark.parametrize("fault", sorted(ALL))
def test_a_fault_alone_strikes_when_it_strikes_among_all(fault: Fault) -> None:
    def moments(plan: Plan) -> list[tuple[float, float]]:
        return [(one.at_s, one.lasts_s) for one in schedule(plan) if one.fault is fault]

    plan = Plan(3, rate=50)
    assert moments(replace(plan, faults=frozenset({fault}))) == moments(plan)


@given(seeds, st.integers(3, 8))
def test_at_every_moment_one_unit_has_lived_for_a_while(seed: int, units: int) -> None:
    plan = Plan(seed, recipients=10_000, kills=50, units=units)
    strikes = [strike for strike in schedule(plan) if strike.unit >= 0]

    def is_hurt(strike: Strike, unit: int, from_s: float, until_s: float) -> bool:
        ends_s = strike.at_s + strike.lasts_s
        return strike.unit == unit and strike.at_s <= until_s and ends_s >= from_s

    for tenths in range(0, round(plan.seconds * 10), 5):
        now = tenths / 10
        assert any(
            not any(is_hurt(strike, unit, now - 6, now) for strike in strikes)
            for unit in range(units)
        ), now


def test_every_unit_is_struck() -> None:
    strikes = schedule(Plan(5, kills=40))
    assert {strike.unit for strike in strikes if strike.fault is Fault.KILLS} == {0, 1, 2}
    assert {strike.unit for strike in strikes if strike.fault is Fault.ROLLING} == {0, 1, 2}


def test_a_unit_alone_can_be_killed_too() -> None:
    assert {one.unit for one in schedule(Plan(5, units=1)) if one.fault is Fault.KILLS} == {0}


def test_the_mob_changes_nothing_of_what_else_strikes() -> None:
    plan = Plan(5, faults=frozenset({Fault.KILLS}))
    assert schedule(replace(plan, faults=plan.faults | {Fault.HOSTILE})) == schedule(plan)


@pytest.mark.parametrize(
    ("before", "beside", "failed", "wrong"),
    [
        ([5.0] * 20, [49.0] * 20, {}, ""),
        ([5.0] * 20, [51.0] * 20, {}, "51 ms beside the mob"),
        ([40.0] * 20, [79.0] * 20, {}, ""),
        ([40.0] * 20, [81.0] * 20, {}, "81 ms beside the mob"),
        ([40.0] * 20, [40.0] * 20, {503: 1}, "1 honest requests failed"),
        ([], [40.0], {}, "no honest request was measured"),
    ],
)
def test_honest_phones_may_wait_twice_as_long(
    before: list[float], beside: list[float], failed: dict[int, int], wrong: str
) -> None:
    crowd = Crowd(before, beside, Counter(failed), {"lie": {"200": 1}})
    assert [wrong in fault for fault in crowd.faults] == ([True] if wrong else [])
