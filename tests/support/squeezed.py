"""A WeChat that takes less than an app may send, and the app's workers: played, second by second.

The limiter's scripts, the gates and the sandbox's counts are the real ones; the clock is the play's
own, so that minutes pass in a moment and every run of one seed is the same.
"""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lane_driver import Lane

from producers.sandbox.memory.quota import Quota, Usages
from producers.sandbox.replies import RefusalError
from producers.store import keys
from workers.limits.gate import Gate
from workers.limits.limiter import (
    AHEAD_US,
    PENALIZE,
    RESERVE,
    PenalizeArgs,
    PenalizeKeys,
    ReserveArgs,
    ReserveKeys,
    _grant,
)
from workers.wechat.errcodes import BACK_OFFS

PATH = "/cgi-bin/message/subscribe/send"


@dataclass
class Spell:
    """What came of the sends of some time.

    Attributes:
        sent, taken: sends that arrived, and those of them that WeChat took.
        refused: errcode → refusals.
        moments: when each arrived, seconds from the play's begin.
        limits: (seconds, limit in force) as the workers learned it.
        restored: when the rate was back.
    """

    sent: int = 0
    taken: int = 0
    refused: dict[int, int] = field(default_factory=dict)
    moments: list[float] = field(default_factory=list)
    limits: list[tuple[float, float]] = field(default_factory=list)
    restored: list[float] = field(default_factory=list)

    @property
    def refusals(self) -> float:
        """The share of the sends that were refused."""
        return sum(self.refused.values()) / max(1, self.sent)


class Play:
    """Workers with always more to send.

    Args:
        lane: runs the scripts.
        rate: sends per second of the app.
        workers: how many.
        app: its alias.
        seed: of the network's time.
        latency_s: shortest and longest time that a send takes, there or back.
        most: sends that a worker has at a time, each 20 ms; without a rate nothing else bounds it.
    """

    def __init__(
        self,
        lane: Lane,
        rate: float,
        *,
        workers: int = 4,
        app: str = "shop",
        seed: int = 1,
        latency_s: tuple[float, float] = (0.01, 0.06),
        most: int = 256,
    ) -> None:
        self._most = most
        self._lane = lane
        self._rate = rate
        self._app = app
        self._latency_s = latency_s
        self._random = random.Random(seed)
        self._begin_s = lane.now_ms / 1000
        self._now = 0.0
        self._number = itertools.count()
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._gates = {f"w{n}": Gate(rate) for n in range(workers)}
        self._asking: set[str] = set()
        self.quota = Quota()
        self.usages = Usages()
        self.spell = Spell()

    def go_on(self, seconds: float, quota: Quota | None = None) -> Spell:
        """Play on for so long; returns what came of it."""
        self.quota = quota or Quota()
        self.spell = spell = Spell()
        until = self._now + seconds
        for worker in self._gates:
            if worker not in self._asking:
                self._at(self._now, self._ask, worker)
                self._asking.add(worker)
        while self._events and self._events[0][0] <= until:
            self._now, _, happens, args = heapq.heappop(self._events)
            happens(*args)
        self._now = until
        return spell

    def _at(self, when: float, happens: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self._events, (when, next(self._number), happens, args))

    @property
    def _now_us(self) -> int:
        return round((self._begin_s + self._now) * 1e6)

    def _ask(self, worker: str) -> None:
        gate = self._gates[worker]
        most = min(gate.most(self._now, len(self._gates)), self._most)
        if most:
            answer = self._lane.run(
                RESERVE,
                ReserveKeys(keys.limiter_reply(self._app, worker), keys.limiter(self._app)),
                ReserveArgs(round(self._rate * 1000), 0, 0, 0, 0, AHEAD_US, most, "subscribe"),
                now=self._now_us,
            )
            grant = _grant(answer, 1, self._now, 0)
            gate.learn(grant, {}, self._now)
            self.spell.limits.append((self._now, grant.limit))
            if grant.restored:
                self.spell.restored.append(self._now)
            for slot in grant.slots[0]:
                there, back = (self._random.uniform(*self._latency_s) for _ in range(2))
                self._at(slot + there, self._arrive, worker, slot, back)
        self._at(max(self._now + 0.02, gate.next_at), self._ask, worker)

    def _arrive(self, worker: str, started: float, back: float) -> None:
        spell, errcode = self.spell, 0
        spell.sent += 1
        spell.moments.append(self._now)
        try:
            self.usages.spend("wx", PATH, self.quota, self._begin_s + self._now)
        except RefusalError as refusal:
            errcode = refusal.errcode
            spell.refused[errcode] = spell.refused.get(errcode, 0) + 1
        else:
            spell.taken += 1
        self._at(self._now + back, self._answer, worker, started, errcode)

    def _answer(self, worker: str, started: float, errcode: int) -> None:
        """As `sending.consequences`."""
        gate = self._gates[worker]
        if errcode:
            off = BACK_OFFS[errcode]
            took_ms = round((self._now - started) * 1000)
            args = PenalizeArgs(
                off.first_ms,
                off.most_ms,
                off.span_ms,
                int(off.minute),
                took_ms,
                round(self._rate * 1000),
            )
            until_ms, gate.level, _, after = self._penalize(args)
            if gate.level:
                gate.not_before = max(gate.not_before, int(until_ms) / 1000 - self._begin_s)
            gate.limit = after / 1000 or gate.limit
        elif gate.level:
            _, gate.level, *_ = self._penalize(PenalizeArgs(0, 0))

    def _penalize(self, args: PenalizeArgs) -> Any:
        names = PenalizeKeys(keys.limiter(self._app))
        return self._lane.run(PENALIZE, names, args, now=self._now_us // 1000)
