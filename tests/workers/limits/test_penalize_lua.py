"""penalize.lua: a limit error holds everyone back, longer each time, until a send goes through."""

from lane_driver import Lane

from producers.store import keys
from workers.limits.limiter import PENALIZE, PenalizeArgs, PenalizeKeys

BASE, MOST = 1000, 30_000


def penalize(lane: Lane, base: int = BASE) -> tuple[int, int]:
    args = PenalizeArgs(base, MOST if base else 0)
    until_ms, level, *_ = lane.run(PENALIZE, PenalizeKeys(keys.limiter("shop")), args)
    return (int(until_ms) - lane.now_ms if int(until_ms) else 0), level


def test_the_wait_doubles_with_each_error_in_a_row_up_to_the_longest(lane: Lane) -> None:
    for level, wait in enumerate([1000, 2000, 4000, 8000, 16_000, 30_000, 30_000], start=1):
        assert penalize(lane) == (wait, level)
        lane.now_ms += wait


def test_errors_of_sends_that_had_started_before_count_once(lane: Lane) -> None:
    assert penalize(lane) == (1000, 1)
    lane.now_ms += 999
    assert penalize(lane) == (1, 1)
    lane.now_ms += 1
    assert penalize(lane) == (2000, 2)


def test_an_accepted_send_lifts_it_after_the_wait_and_not_before(lane: Lane) -> None:
    penalize(lane)
    lane.now_ms += 999
    assert penalize(lane, 0) == (1, 1)
    lane.now_ms += 1
    assert penalize(lane, 0) == (0, 0)
    assert penalize(lane) == (1000, 1)


def test_lifting_what_was_never_limited_leaves_nothing_without_a_ttl(lane: Lane) -> None:
    assert penalize(lane, 0) == (0, 0)
    assert lane.client.pttl(keys.limiter("shop")) != -1


def test_many_errors_do_not_overflow(lane: Lane) -> None:
    for _ in range(60):
        wait, level = penalize(lane)
        lane.now_ms += wait
    assert (wait, level) == (MOST, 60)
    assert 0 < lane.client.pttl(keys.limiter("shop")) <= 2 * 86_400_000
