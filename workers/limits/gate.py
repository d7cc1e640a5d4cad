"""The gate: what one worker knows of one app's limits, so that it takes only what it may soon send.

A memory, not the truth: the truth is the limiter in Redis, which grants or does not. It saves
claims that would only be handed back, and calls that would only be refused.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from producers.lanes.bounds import NONE, Bounding, Bounds
from producers.words import Channel
from workers.limits.breaker import Breaker
from workers.limits.hours import ALWAYS, Calendar, Hours
from workers.limits.limiter import AHEAD_US, Grant

HORIZON_MS: Final = 100
"""A worker takes only while the limiter's horizon is nearer than this: little is ever held.

Where Redis is far, its way there and back comes on top (`Gate.way_s`).
"""

BATCH: Final = 256
"""Claims per take: about 2 ms of Redis."""

_ASK_AGAIN_S: Final = 30.0
_LONGEST_S: Final = 7 * 86_400.0
_SLOWEST: Final = 0.001
"""Sends per second: a rate below it, or one that is no number, is remembered as this one.

What is stored may come from another version; a memory must not break on it.
"""
_BATCH_S: Final = 0.2
"""A batch holds at most what all workers together send in this time."""


class Claimed(Protocol):
    """What a gate looks at of a claim."""

    @property
    def broadcast(self) -> str:
        """Its broadcast."""

    @property
    def rate(self) -> float:
        """Sends per second that the broadcast may have; 0 = the app's alone."""


@dataclass(slots=True)
class Gate:
    """One app's limits, as last seen.

    Attributes:
        rate: sends per second as it is set; 0 = unlimited.
        limit: sends per second in force below it, since WeChat's limit errors; 0 = none.
        level: WeChat's limit errors in force; above 0 one send at a time probes.
        tight: the last grant fell short by more than a second.
        not_before: monotonic seconds before which nothing is taken.
        horizon: monotonic seconds of the app's next free slot.
        unused: channel → slots that passed unused since its last reserve.
        used: channel → monotonic seconds of its last reserve.
        spent: channel → monotonic seconds at which its day ends, while that is used up.
        unexplained: errcode that nobody knows → the rid of a refusal, a few at the most.
        urgent: channels whose quota is to be asked for soon: WeChat says that it is used up.
        given, wasted: slots that were given since the start, and those of them that passed unused.
        waited_s: seconds that it was told to wait, since the start.
        own_next: broadcast with a rate of its own → (rate, monotonic seconds of its next slot).
        breaker: whether this worker's POSTs come through.
        calendar: when its broadcasts may be sent; None: always.
        bounding: what its broadcasts leave to each user; None: nothing.
        way_s: seconds that a take and a reserve take on their way: so much sooner it is asked.
    """

    rate: float
    limit: float = 0.0
    level: int = 0
    tight: bool = False
    not_before: float = 0.0
    horizon: float = 0.0
    unused: dict[str, int] = field(default_factory=dict)
    used: dict[str, float] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    urgent: set[str] = field(default_factory=set)
    unexplained: dict[int, str] = field(default_factory=dict)
    given: int = 0
    wasted: int = 0
    waited_s: float = 0.0
    own_next: dict[str, tuple[float, float]] = field(default_factory=dict)
    breaker: Breaker = field(default_factory=Breaker)
    calendar: Calendar | None = None
    bounding: Bounding | None = None
    way_s: float = 0.0

    @property
    def pace(self) -> float:
        """Sends per second in force; 0 = unlimited."""
        return self.limit or self.rate

    @property
    def probes(self) -> bool:
        """Whether one claim at a time finds out if more may be taken."""
        return bool(self.level or self.tight or self.breaker.trouble)

    def most(self, now: float, workers: int) -> int:
        """Return how many claims may be taken now; 0 = none before `next_at`."""
        if now < self.next_at:
            return 0
        if self.probes:
            return 1
        return self._batch(workers)

    def _batch(self, workers: int) -> int:
        if not self.pace:
            return BATCH
        return max(1, math.ceil(min(BATCH, self.pace * _BATCH_S / workers)))

    @property
    def next_at(self) -> float:
        """Monotonic seconds at which it is worth asking again."""
        not_before = max(self.not_before, self.breaker.next_at)
        if not self.pace:
            return not_before
        return max(not_before, self.horizon - self._near_s)

    @property
    def _near_s(self) -> float:
        return HORIZON_MS / 1000 + self.way_s

    def allowances(self, now: float, workers: int) -> dict[str, tuple[int, float, int]]:
        """Return broadcast → (claims it may have now, its own rate, ms until it may have one).

        It may have what has a slot no later than the last of those that are taken now: a broadcast
        that was passed over by a batch would have none as long as that lasts.
        """
        allowed = {}
        reach = now + self._near_s
        if self.pace and not self.probes:
            reach = max(reach, max(now, self.horizon) + self._batch(workers) / self.pace)
        for broadcast, (rate, next_slot) in list(self.own_next.items()):
            ahead = reach - next_slot
            if ahead > 10:
                del self.own_next[broadcast]  # long unused: take.lua's default will do
            else:
                allowed[broadcast] = (
                    math.ceil(max(0, min(BATCH, ahead * rate))),
                    rate,
                    math.ceil(max(0.0, min(-ahead, _LONGEST_S)) * 1000),
                )
        return allowed

    def own_next_at(self, now: float) -> float:
        """Return when the first broadcast with a rate of its own has a slot again."""
        near_s = self._near_s
        return min(
            (at - near_s for _, at in list(self.own_next.values()) if at - near_s > now + 1e-6),
            default=math.inf,
        )

    def set_rate(self, rate: float) -> None:
        """The app's rate was changed: ask anew at once."""
        rate = _sane(rate)
        if rate != self.rate:
            self.rate = rate
            self.ask_anew()  # what was waited for is the old rate's, or will be said again

    def ask_anew(self) -> None:
        """The app's limits were changed: what was waited for may be over."""
        self.horizon = 0.0
        self.spent.clear()
        if not self.level:  # WeChat's own is not theirs
            self.not_before, self.tight = 0.0, False

    def waste(self, channel: str, slots: int = 1) -> None:
        """Slots passed unused: the day gets them back with the next reserve."""
        self.unused[channel] = self.unused.get(channel, 0) + slots

    def spent_ms(self, channel: str, now: float) -> int:
        """Return how long the day of a channel that is used up lasts; 0: it is not used up."""
        ends_at = self.spent.get(channel)
        if ends_at is None:
            return 0
        if ends_at <= now:
            self.spent.pop(channel, None)
            return 0
        return math.ceil((ends_at - now) * 1000)

    def hours(self, server_time: Callable[[], float]) -> Hours:
        """Return when its broadcasts may be sent: now, or next; epoch seconds by Redis's clock."""
        return self.calendar.at(server_time()) if self.calendar else ALWAYS

    def bounds(self, server_time: Callable[[], float]) -> Bounds:
        """Return what its broadcasts leave to each user; epoch seconds by Redis's clock."""
        return self.bounding.at(int(server_time() * 1000)) if self.bounding else NONE

    def expect(self, claims: Iterable[Claimed], now: float) -> None:
        """Claims were made that have no slots yet: until `learn` says more, reckon them as given.

        Args:
            claims: of this app.
            now: monotonic seconds.
        """
        for claim in claims:
            if self.pace:
                self.horizon = max(self.horizon, now) + 1 / self.pace
            if claim.rate:
                _, at = self.own_next.get(claim.broadcast, (0.0, now))
                step_s = 1 / max(_sane(claim.rate), _SLOWEST)
                self.own_next[claim.broadcast] = (claim.rate, max(at, now) + step_s)

    def learn(
        self,
        grant: Grant,
        own: dict[str, tuple[float, int]],
        now: float,
        channel: str = Channel.SUBSCRIBE,
    ) -> None:
        """Take in what a reserve for a channel answered."""
        self.used[channel] = now
        if grant.spent_s:
            self.spent[channel] = now + grant.spent_s
        self.level = grant.level
        self.given += sum(map(len, grant.slots))
        self.waited_s += grant.wait_s
        self.rate, self.limit = _sane(grant.rate), _sane(grant.limit)
        self.horizon = grant.horizon
        for (broadcast, (rate, wanted)), slots in zip(own.items(), grant.slots[1:], strict=True):
            if slots:
                self.own_next[broadcast] = (rate, slots[-1] + 1 / max(_sane(rate), _SLOWEST))
            elif wanted:
                self.own_next[broadcast] = (rate, now + AHEAD_US / 1e6 + grant.wait_s)
        # a used-up minute is asked for again now and then, one claim at a time
        self.tight = grant.wait_s > 1 and not own
        if grant.wait_s and not own:
            self.not_before = now + min(grant.wait_s, _ASK_AGAIN_S)


def _sane(rate: float) -> float:
    """Return a rate as a number that can be reckoned with; 0 = unlimited."""
    if rate == 0:
        return 0.0
    return min(rate, 1e9) if rate >= _SLOWEST else _SLOWEST
