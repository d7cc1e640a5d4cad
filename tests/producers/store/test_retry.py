"""Repeating: bounded by tries or by a deadline, and never in step with others."""

import time

import pytest
import redis

from producers.errors import StoreUnavailableError
from producers.store import deadline
from producers.store.retry import ATTEMPTS, pause_s, repeat


@pytest.mark.parametrize(
    ("attempt", "longest"), [(1, 0.1), (2, 0.2), (3, 0.4), (5, 1.6), (6, 2.0), (50, 2.0)]
)
def test_a_pause_doubles_and_is_drawn_by_lot(attempt: int, longest: float) -> None:
    """Workers that lost Redis at the same moment spread over half of the pause."""
    pauses = [pause_s(attempt) for _ in range(1000)]
    assert longest / 2 <= min(pauses) < 0.55 * longest
    assert 0.95 * longest < max(pauses) <= longest


class Silence:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        raise redis.ConnectionError


def test_without_a_deadline_the_tries_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producers.store.retry.pause_s", lambda attempt: 0.001 * attempt)
    silence = Silence()
    with pytest.raises(StoreUnavailableError, match=f"{ATTEMPTS} attempts"):
        repeat("asking", silence)
    assert silence.calls == ATTEMPTS


def test_a_deadline_bounds_the_tries_and_no_pause_outlasts_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("producers.store.retry.pause_s", lambda _: 0.02)
    silence = Silence()
    began = time.monotonic()
    with deadline.within(0.5), pytest.raises(StoreUnavailableError, match=r"0\.5 s allowed"):
        repeat("asking", silence)
    assert 0.4 < time.monotonic() - began <= 0.6
    assert silence.calls > ATTEMPTS


def test_a_deadline_within_another_ends_no_later() -> None:
    with deadline.within(10):
        with deadline.within(20):
            assert 9 < deadline.left_s() <= 10
        with deadline.within(1):
            assert 0 < deadline.left_s() <= 1
        assert 9 < deadline.left_s() <= 10
    assert deadline.left_s() is None


def test_a_batch_has_the_whole_time_and_reading_it_costs_none() -> None:
    def reading() -> object:
        for number in range(3):
            time.sleep(0.05)
            yield number

    left = []
    with deadline.within(1):
        for number in deadline.paced(reading()):
            left.append(deadline.left_s())
            if number == 1:
                time.sleep(0.05)
                left.append(deadline.left_s())
        left.append(deadline.left_s())
    assert min(left) > 0.85
    assert left[1] > left[2] + 0.04
    assert left[3] > left[2] + 0.04
