"""The climb: a WeChat that takes less than an app may send is met near what it takes.

Its play is `squeezed`: the real scripts, gates and counts on a clock of its own.
"""

import os

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from lane_driver import Lane
from squeezed import Play

from producers.quotas.climb import climbed
from producers.sandbox.memory.quota import Quota
from producers.store import keys
from workers.limits.limiter import PENALIZE, PenalizeArgs, PenalizeKeys

SPAN = 10_000
LONG = "WXB_LONG_CLIMB" in os.environ
"""Plays minutes instead of one, and more rates."""

SQUEEZES = [
    (300, Quota(per_second=100), 70, 0.01),
    (300, Quota(per_minute=6000), 240, 0.02),
    *(
        [
            (300, Quota(per_second=30), 300, 0.015),
            (300, Quota(per_second=280), 300, 0.01),
            (1000, Quota(per_second=600), 300, 0.01),
            (300, Quota(per_minute=600), 900, 0.025),
            (300, Quota(per_minute=12_000), 600, 0.02),
        ]
        if LONG
        else []
    ),
]


def test_fewer_are_sent_after_a_refusal_and_the_rate_comes_back(lane: Lane) -> None:
    """Near what WeChat takes, all workers together, and never above the app's rate (I4)."""
    for rate, quota, seconds, refusals in SQUEEZES:
        lane.client.flushall()
        play = Play(lane, rate)
        assert play.go_on(3).refused == {}
        first = play.go_on(15 if quota.per_second else 120, quota)
        spell = play.go_on(seconds, quota)
        takes = quota.per_second or (quota.per_minute or 0) / 60
        assert spell.taken >= 0.85 * takes * seconds, (quota, spell.taken)
        assert spell.refusals <= refusals, (quota, spell.refused)
        assert sum(first.refused.values()) <= 1.5 * rate, (quota, first.refused)
        for one in (first, spell):
            arrived = one.moments
            most = max(
                sum(begin <= moment < begin + 1 for moment in arrived)
                for begin in arrived[:: len(arrived) // 20]
            )
            assert most <= rate * 1.01 + 1 + rate * 0.06  # and what the way there may crowd
        assert spell.restored == []
        # two spans and one for each doubling that is left, of ten seconds or a minute
        after = play.go_on(60 if quota.per_second else 240)
        assert len(after.restored) == 1, "told to one worker alone"
        assert after.limits[-1][1] == 0


def test_without_errors_nothing_is_lowered(lane: Lane) -> None:
    spell = Play(lane, 300).go_on(10, Quota(per_second=310))
    assert spell.refused == {}
    assert {limit for _, limit in spell.limits} == {0}
    assert spell.sent >= 2990


def test_an_app_is_not_slowed_by_another_ones_errors(lane: Lane) -> None:
    slowed, other = Play(lane, 100, workers=2), Play(lane, 100, workers=2, app="club")
    slowed.go_on(5, Quota(per_second=20))
    assert other.go_on(5).sent >= 495
    assert lane.client.hget(keys.limiter("club"), "limit") is None


def hit(
    lane: Lane, base: int = 1000, *, took: int = 50, rate: float = 300, span: int = SPAN
) -> tuple[float, float, int]:
    """Return the limit before and after, and the level."""
    args = PenalizeArgs(base, 5000 if base else 0, span, 0, took, round(rate * 1000))
    _, level, before, after = lane.run(PENALIZE, PenalizeKeys(keys.limiter("shop")), args)
    return before / 1000, after / 1000, level


def test_the_first_error_halves_and_holds(lane: Lane) -> None:
    assert hit(lane) == (300, 150, 1)


@pytest.mark.parametrize(
    ("held", "after"), [(24_000, 150), (18_000, 150), (15_000, 225), (6000, 90)]
)
def test_an_error_of_the_minute_lowers_to_nine_tenths_of_what_it_held(
    lane: Lane, held: int, after: float
) -> None:
    marks = f"{lane.now_ms // 1000 - 60} 1000"
    given = {"sent": 1000 + held, "marks": marks}
    lane.client.hset(keys.limiter("shop"), mapping=given)
    args = PenalizeArgs(1000, 5000, SPAN, 1, 50, 300_000)
    _, level, before, lowered = lane.run(PENALIZE, PenalizeKeys(keys.limiter("shop")), args)
    assert (level, before, lowered) == (1, 300_000, after * 1000)


def test_where_the_climb_meets_the_limit_again_a_sixth_goes_and_nobody_waits(lane: Lane) -> None:
    hit(lane)
    lane.now_ms += 1000
    assert hit(lane, 0)[2] == 0
    lane.now_ms += 9000  # of the span, so at 285
    assert hit(lane) == (285, pytest.approx(242.25), 0)


def test_errors_of_sends_that_were_given_before_lower_nothing_more(lane: Lane) -> None:
    hit(lane)
    lane.now_ms += 2000
    hit(lane, 0)
    assert hit(lane, took=1600) == (0, 0, 0), "its slot was given just before"
    assert hit(lane, took=1500)[1] > 0


def test_an_error_of_the_day_says_nothing_of_the_pace(lane: Lane) -> None:
    assert hit(lane, span=0) == (0, 0, 1)
    assert lane.client.hget(keys.limiter("shop"), "limit") is None


def test_a_refused_probe_lowers_nothing_and_waits_longer(lane: Lane) -> None:
    hit(lane)
    lane.now_ms += 1000
    assert hit(lane) == (0, 0, 2)


@given(
    low=st.integers(1, 10**7),
    more=st.integers(0, 10**7),
    span=st.integers(1, 600_000),
    spans=st.floats(-3, 5),
)
def test_for_people_it_is_reckoned_as_the_limiter_does(
    valkey_url: str, low: int, more: int, span: int, spans: float
) -> None:
    with redis.Redis.from_url(valkey_url, decode_responses=True) as client:
        lane = Lane(client)
        client.delete(keys.limiter("shop"))
        text = f"{low} {low + more} {lane.now_ms - round(spans * span)} {span} 0"
        client.hset(keys.limiter("shop"), "limit", text)
        before, _, _ = hit(lane, rate=2**40 / 1000)
        mine = climbed(text, lane.now_ms)
        assert before == pytest.approx(mine or 2**40 / 1000, abs=0.0015)
        client.delete(keys.limiter("shop"))


@given(st.lists(st.tuples(st.integers(0, 30_000), st.integers(0, 8000)), max_size=30))
def test_a_limit_lies_between_one_a_second_and_the_rate(
    valkey_url: str, errors: list[tuple[int, int]]
) -> None:
    with redis.Redis.from_url(valkey_url, decode_responses=True) as client:
        lane = Lane(client)
        client.delete(keys.limiter("shop"))
        for pause_ms, took in errors:
            lane.now_ms += pause_ms
            before, after, level = hit(lane, took=took)
            assert (before, after) == (0, 0) or 1 <= after < before <= 300
            if level:
                hit(lane, 0)
        client.delete(keys.limiter("shop"))


@pytest.mark.parametrize("text", ["", "x", "1 2 3 4", "5 2 3 4 5", "0 2 3 4 5", "1 2 3 0 5"])
def test_what_somebody_spoiled_is_no_limit(lane: Lane, text: str) -> None:
    assert climbed(text, lane.now_ms) is None
    lane.client.hset(keys.limiter("shop"), "limit", text)
    assert hit(lane)[:2] == (300, 150)
