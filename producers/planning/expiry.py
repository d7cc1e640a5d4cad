"""Expiry: how many uses will end unsent, when sends go at some rate, those first that end first."""

from collections.abc import Mapping, Sequence
from typing import Final

HOUR_MS: Final = 3_600_000
LIFE_MS: Final = 7 * 24 * HOUR_MS
"""No use ends later than this after it was collected, so none later than this from now."""
_SLICES: Final = 12
"""Parts of an hour, so that an hour that is cut by now, or by the end, is cut at five minutes."""


def last_end_ms(hour: int, now_ms: int) -> int:
    """Return the last moment at which a use of an epoch hour may end."""
    return min((hour + 1) * HOUR_MS, now_ms + LIFE_MS)


def unsent(
    by_hour: Mapping[int, float], now_ms: int, rate: float, within_ms: Sequence[int]
) -> list[float]:
    """Return how many uses will have ended unsent within each time.

    The uses of an hour are taken to end evenly in it: those of this hour in what is left of it,
    those of the last possible one before `LIFE_MS` from now. Sends go on at the rate without a
    pause, each with the use that ends first.

    Args:
        by_hour: epoch hour → uses to be had now that end in it.
        now_ms: server epoch ms.
        rate: sends per second.
        within_ms: times from now, in any order.
    """
    sent = 0.0
    ended = [0.0] * len(within_ms)
    for hour in sorted(by_hour):
        if (hour + 1) * HOUR_MS <= now_ms:
            continue  # over: the keeper counts it as expired
        begin = max(now_ms, hour * HOUR_MS)
        end = max(begin, last_end_ms(hour, now_ms))
        length, uses = (end - begin) / _SLICES, by_hour[hour] / _SLICES
        for part in range(1, _SLICES + 1):
            ends_at = begin + part * length
            could = rate * (ends_at - now_ms) / 1000 - sent
            sends = min(uses, max(0.0, could))
            sent += sends
            for place, within in enumerate(within_ms):
                if ends_at <= now_ms + within:
                    ended[place] += uses - sends
    return ended
