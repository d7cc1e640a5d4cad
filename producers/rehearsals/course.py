"""The course of a broadcast: when its sends would start, and how many of them in time.

A reckoning and no promise: the app's rate is shared by weight among all that are under way,
priority ones first and each within its own rate, as the ring shares it; nothing is sent outside the
app's hours, nor beyond the day's budget. Workers fast enough are taken for granted, and what is
created, or collected, later is not known.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from producers.times.windows import Window

NEVER_MS: Final = 2**53
"""Later than anything: an end that nobody set."""

_DAY_MS: Final = 86_400_000
_FAR_MS: Final = 40 * _DAY_MS
"""No course is followed further: a broadcast starts within 30 days, and lives for seven."""
_STEPS: Final = 2000
"""Moments at which something changes; more are not looked at."""
_LEAST: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Runner:
    """What is to be sent by one broadcast.

    Attributes:
        sends: how many, recipients without a permit left out.
        rate: its own, sends per second; infinite: none.
        starts_at_ms: epoch ms.
        expires_at_ms: after that the rest is late, epoch ms.
        priority: served before the others.
        weight: its share beside theirs.
    """

    sends: float
    rate: float = math.inf
    starts_at_ms: int = 0
    expires_at_ms: int = NEVER_MS
    priority: bool = False
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Road:
    """What all broadcasts of an app share.

    Attributes:
        rate: sends per second; infinite: no limit is set.
        window: the hours in which it sends; None: at any time.
        day_left: sends left today; infinite: no limit.
        per_day: sends of each further day.
        day_ends_at_ms: when the next day begins, epoch ms.
    """

    rate: float
    window: Window | None = None
    day_left: float = math.inf
    per_day: float = math.inf
    day_ends_at_ms: int = NEVER_MS


@dataclass(frozen=True, slots=True)
class Course:
    """How it would go.

    Attributes:
        begins_at_ms: the first send, epoch ms; None: there is none that can be foreseen.
        ends_at_ms: the last one, were it never late; None: nobody knows, for no rate is set, or
            it lies too far ahead.
        in_time: sends that start before it is late.
        today: sends that start before the day of its first one is over.
    """

    begins_at_ms: int | None
    ends_at_ms: int | None
    in_time: float
    today: float


def reckon(own: Runner, others: Sequence[Runner], road: Road, now_ms: int) -> Course:
    """Return the course of a broadcast beside others.

    Args:
        own: the broadcast.
        others: those that are under way, or wait for their start.
        road: what they share.
        now_ms: the server's clock.
    """
    if math.isinf(road.rate):  # then nobody takes from another but the day's budget
        road = replace(road, day_left=max(0.0, road.day_left - sum(one.sends for one in others)))
        others = []
    return _Race(own, others, road, now_ms).run()


class _Race:
    """Follows own and others from one moment at which something changes to the next."""

    def __init__(self, own: Runner, others: Sequence[Runner], road: Road, now_ms: int) -> None:
        self._runners = [own, *others]
        self._left = [one.sends for one in self._runners]
        self._road = road
        self._now = float(now_ms)
        self._until = float(now_ms + _FAR_MS)
        self._day_ends, self._day_left = float(road.day_ends_at_ms), road.day_left
        self._begins: float | None = None
        self._in_time = self._today = 0.0
        self._first_day_ends = 0.0

    def run(self) -> Course:
        own = self._runners[0]
        for _ in range(_STEPS):
            if self._left[0] <= _LEAST or self._now >= self._until:
                break
            changes_at = self._next_hours()
            if changes_at is None:
                continue
            speeds = self._speeds()
            if math.isinf(speeds[0]):  # no limit anywhere: as fast as there are workers
                begins = round(self._now)
                return Course(begins, None, own.sends, min(own.sends, self._day_left))
            self._go(speeds, min(changes_at, self._next_change(speeds)))
        through = self._left[0] <= _LEAST
        return Course(
            None if self._begins is None else round(self._begins),
            round(self._now) if through else None,
            own.sends if through and self._now <= own.expires_at_ms else self._in_time,
            self._today,
        )

    def _next_hours(self) -> float | None:
        """Return when the hours or the day end; None: it waited for those to come."""
        while self._now >= self._day_ends:
            self._day_ends += _DAY_MS
            self._day_left = self._road.per_day
        closes: float = math.inf
        if self._road.window is not None:
            opens, closes = self._road.window.around(math.floor(self._now))
            if self._now < opens:
                self._now = float(opens)
                return None
        if self._day_left <= _LEAST:
            self._now = self._day_ends
            return None
        return min(closes, self._day_ends)

    def _speeds(self) -> list[float]:
        """Return the sends per second of each: the ring's shares, now."""
        speeds = [0.0] * len(self._runners)
        rest = self._road.rate
        for priority in (True, False):
            at_work = sorted(
                (one.rate / one.weight, place)
                for place, one in enumerate(self._runners)
                if one.priority is priority and self._is_at_work(place)
            )
            weights = sum(self._runners[place].weight for _, place in at_work)
            for _, place in at_work:  # who wants least of its share first: it leaves more
                one = self._runners[place]
                speeds[place] = min(
                    one.rate, rest if math.isinf(rest) else rest * one.weight / weights
                )
                rest -= 0 if math.isinf(rest) else speeds[place]
                weights -= one.weight
        return speeds

    def _is_at_work(self, place: int) -> bool:
        one = self._runners[place]
        ended = place > 0 and self._now >= one.expires_at_ms
        return one.starts_at_ms <= self._now and self._left[place] > _LEAST and not ended

    def _next_change(self, speeds: Sequence[float]) -> float:
        """Return the next moment at which the shares are others."""
        moments = [
            float(moment)
            for one in self._runners
            for moment in (one.starts_at_ms, one.expires_at_ms)
            if moment > self._now
        ]
        moments += [
            self._now + left / speed * 1000
            for left, speed in zip(self._left, speeds, strict=True)
            if speed > 0 and left > _LEAST
        ]
        total = sum(speeds)
        if total > 0:
            moments.append(self._now + self._day_left / total * 1000)
        return min(moments, default=self._until)

    def _go(self, speeds: Sequence[float], until: float) -> None:
        passed_s = (until - self._now) / 1000
        own = self._runners[0]
        if speeds[0] > 0 and self._begins is None:
            self._begins, self._first_day_ends = self._now, self._day_ends
        sent = min(self._left[0], speeds[0] * passed_s)
        if self._now < own.expires_at_ms:
            self._in_time += sent
        if self._now < self._first_day_ends:
            self._today += sent
        for place, speed in enumerate(speeds):
            self._left[place] = max(0.0, self._left[place] - speed * passed_s)
        self._day_left = max(0.0, self._day_left - sum(speeds) * passed_s)
        self._now = until
