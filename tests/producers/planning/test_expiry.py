"""How many uses end unsent: the reckoning against sends that are made one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.planning.expiry import HOUR_MS, LIFE_MS, unsent

NOW = 1_000 * HOUR_MS
HOURS = st.dictionaries(st.integers(999, 1167), st.integers(0, 500), max_size=8)
RATES = st.floats(0, 2)
DAY, WEEK = 24 * HOUR_MS, 7 * 24 * HOUR_MS


def one_by_one(by_hour: dict[int, int], now_ms: int, rate: float, within_ms: int) -> int:
    """Send with the use that ends first, again and again; return what ended unsent within a time.

    The uses of an hour end evenly in what is left of it.
    """
    ends: list[float] = []
    for hour, uses in by_hour.items():
        begin, end = max(now_ms, hour * HOUR_MS), min((hour + 1) * HOUR_MS, now_ms + LIFE_MS)
        if end > now_ms:
            ends += [begin + (end - begin) * (n + 1) / uses for n in range(uses)]
    lost = sent = 0
    for end in sorted(ends):
        if rate and now_ms + (sent + 1) * 1000 / rate <= end:
            sent += 1
        elif end <= now_ms + within_ms:
            lost += 1
    return lost


@pytest.mark.parametrize("into_ms", [0, HOUR_MS // 3, HOUR_MS - 1])
@given(by_hour=HOURS, rate=RATES)
def test_it_is_what_sending_one_by_one_comes_to(
    into_ms: int, by_hour: dict[int, int], rate: float
) -> None:
    now = NOW + into_ms
    for within in (HOUR_MS, DAY, WEEK):
        (reckoned,) = unsent(by_hour, now, rate, [within])
        # an hour is cut into twelve: of an hour at an edge a twelfth may lie on either side
        hours = [uses for hour, uses in by_hour.items() if (hour + 1) * HOUR_MS > now]
        slack = len(hours) + max(hours, default=0) / 12 + rate * HOUR_MS / 1000 / 12
        assert abs(reckoned - one_by_one(by_hour, now, rate, within)) <= slack


@given(by_hour=HOURS, rate=RATES)
def test_later_is_never_less_and_faster_is_never_more(by_hour: dict[int, int], rate: float) -> None:
    within = [0, HOUR_MS, DAY, WEEK, 2 * WEEK]
    ended = unsent(by_hour, NOW, rate, within)
    assert ended == sorted(ended)
    assert ended[0] == 0
    assert ended[-1] <= sum(by_hour.values()) + 1e-6
    faster = unsent(by_hour, NOW, rate * 2, within)
    assert all(one <= other + 1e-6 for one, other in zip(faster, ended, strict=True))


def test_without_a_send_all_of_it_ends() -> None:
    by_hour = {999: 7, 1000: 60, 1001: 60, 1030: 5, 1100: 1}
    within = [0, HOUR_MS, DAY, WEEK]
    assert unsent(by_hour, NOW, 0.0, within) == pytest.approx([0, 60, 120, 126])
    half = NOW + HOUR_MS // 2  # what is left of this hour ends in its second half
    assert unsent(by_hour, half, 0.0, [HOUR_MS]) == pytest.approx([90])


def test_fast_enough_nothing_ends() -> None:
    assert unsent({1000: 3600, 1001: 3600}, NOW, 1.0, [WEEK]) == pytest.approx([0])


def test_what_one_hour_does_not_need_saves_the_next() -> None:
    # 1.5 sends a second come to 5,400 an hour: the first hour needs 600 of them
    assert unsent({1000: 600, 1001: 9000}, NOW, 1.5, [WEEK]) == pytest.approx([0], abs=1)
    assert unsent({1001: 12_000}, NOW, 1.5, [WEEK]) == pytest.approx([1200], abs=1)


@pytest.mark.parametrize("into_ms", [0, 1, HOUR_MS // 2, HOUR_MS - 1])
def test_all_that_is_there_ends_within_a_permit_s_life(into_ms: int) -> None:
    by_hour = {1000: 5, 1167: 7, **({1168: 9} if into_ms else {})}
    (ended,) = unsent(by_hour, NOW + into_ms, 0.0, [WEEK])
    assert ended == pytest.approx(sum(by_hour.values()))


def test_no_permits_no_loss() -> None:
    assert unsent({}, NOW, 1.0, [0, WEEK]) == [0, 0]
