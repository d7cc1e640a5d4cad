"""The course of a broadcast, reckoned: shares, hours, the day's budget, its end."""

import math
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.rehearsals.course import Course, Road, Runner, reckon
from producers.times.windows import Window

SHANGHAI = ZoneInfo("Asia/Shanghai")
NOON = round(datetime(2026, 12, 1, 12, tzinfo=SHANGHAI).astimezone(UTC).timestamp() * 1000)
HOUR = 3_600_000
DAY = 24 * HOUR


def s(course: Course) -> float:
    assert course.ends_at_ms is not None
    return (course.ends_at_ms - NOON) / 1000


def test_alone_it_has_the_apps_rate_and_never_more_than_its_own() -> None:
    alone = reckon(Runner(3000), [], Road(300), NOON)
    assert (alone.begins_at_ms, s(alone), alone.in_time) == (NOON, 10, 3000)
    assert s(reckon(Runner(3000, rate=100), [], Road(300), NOON)) == 30


def test_the_rate_is_shared_evenly_until_another_is_through() -> None:
    # 150 each for 10 s, then all of it
    assert s(reckon(Runner(3000), [Runner(1500)], Road(300), NOON)) == pytest.approx(15)
    # what another one's own rate leaves is ours
    assert s(reckon(Runner(2900), [Runner(9000, rate=10)], Road(300), NOON)) == pytest.approx(10)
    # who has priority goes before us, and we before who has not
    first = [Runner(3000, priority=True)]
    assert s(reckon(Runner(3000), first, Road(300), NOON)) == pytest.approx(20)
    assert s(reckon(Runner(3000, priority=True), [Runner(3000)], Road(300), NOON)) == 10


def test_a_share_is_by_weight() -> None:
    heavy = Runner(9000, weight=2)
    assert s(reckon(Runner(1000), [heavy], Road(300), NOON)) == pytest.approx(10)
    # of what it does not want the others have more
    heavy = Runner(9000, weight=2, rate=20)
    assert s(reckon(Runner(2800), [heavy], Road(300), NOON)) == pytest.approx(10)


def test_another_that_starts_later_or_expires_takes_its_share_meanwhile() -> None:
    later = Runner(300, starts_at_ms=NOON + 5000)
    assert s(reckon(Runner(3000), [later], Road(300), NOON)) == pytest.approx(11)
    dying = Runner(90_000, expires_at_ms=NOON + 4000)
    assert s(reckon(Runner(3000), [dying], Road(300), NOON)) == pytest.approx(12)


def test_it_waits_for_its_start_and_for_the_hours() -> None:
    window = Window.read("20:00-02:00", SHANGHAI)
    road = Road(10, window)
    course = reckon(Runner(10 * 6 * 3600 + 100), [], road, NOON)
    assert course.begins_at_ms == NOON + 8 * HOUR
    assert course.ends_at_ms == NOON + DAY + 8 * HOUR + 10_000  # six hours, and the next evening
    late = reckon(Runner(100, starts_at_ms=NOON + 9 * HOUR), [], road, NOON)
    assert late.begins_at_ms == NOON + 9 * HOUR


def test_a_day_carries_what_is_left_of_it() -> None:
    road = Road(100, day_left=1000, per_day=5000, day_ends_at_ms=NOON + 12 * HOUR)
    course = reckon(Runner(3000), [], road, NOON)
    assert course.ends_at_ms == NOON + 12 * HOUR + 20_000
    assert course.today == pytest.approx(1000)
    assert reckon(Runner(3000), [Runner(500)], road, NOON).today == pytest.approx(500)
    empty = reckon(Runner(10), [], Road(100, None, 0, 0, NOON + HOUR), NOON)
    assert (empty.begins_at_ms, empty.ends_at_ms, empty.in_time) == (None, None, 0)


def test_what_starts_after_its_end_is_late() -> None:
    course = reckon(Runner(3000, expires_at_ms=NOON + 4000), [], Road(300), NOON)
    assert (course.in_time, s(course)) == (pytest.approx(1200), 10)
    shut = Road(300, Window.read("20:00-22:00", SHANGHAI))
    never = reckon(Runner(3000, expires_at_ms=NOON + HOUR), [], shut, NOON)
    assert (never.in_time, never.begins_at_ms) == (0, NOON + 8 * HOUR)


def test_without_any_limit_nobody_knows_how_fast_the_workers_are() -> None:
    course = reckon(Runner(3000), [Runner(10)], Road(math.inf), NOON)
    assert (course.begins_at_ms, course.ends_at_ms, course.in_time) == (NOON, None, 3000)
    assert s(reckon(Runner(3000, rate=100), [Runner(10)], Road(math.inf), NOON)) == 30
    spent = Road(math.inf, day_left=10, per_day=100, day_ends_at_ms=NOON + HOUR)
    assert reckon(Runner(30), [Runner(10)], spent, NOON).begins_at_ms == NOON + HOUR


sends = st.integers(1, 100_000)
rates = st.one_of(st.just(math.inf), st.floats(0.5, 1000))
runners = st.builds(
    Runner,
    sends=sends,
    rate=rates,
    starts_at_ms=st.integers(NOON, NOON + DAY),
    priority=st.booleans(),
)


@settings(max_examples=20)
@given(runners, st.lists(runners, max_size=4), st.floats(1, 2000))
def test_the_last_of_all_is_through_when_the_road_has_carried_them(
    own: Runner, others: list[Runner], rate: float
) -> None:
    everybody = [own, *others]
    courses = [
        reckon(one, [*everybody[:place], *everybody[place + 1 :]], Road(rate), NOON)
        for place, one in enumerate(everybody)
    ]
    for one, course in zip(everybody, courses, strict=True):
        if course.ends_at_ms is None:
            continue  # further than anybody looks
        assert course.in_time == pytest.approx(one.sends)
        assert course.begins_at_ms is not None
        assert course.begins_at_ms >= one.starts_at_ms
        alone_s = one.sends / min(rate, one.rate)
        assert course.ends_at_ms >= one.starts_at_ms + alone_s * 1000 - 2
        assert course.ends_at_ms <= NOON + DAY + 2 + sum(
            1000 * each.sends / min(rate, each.rate) for each in everybody
        )
