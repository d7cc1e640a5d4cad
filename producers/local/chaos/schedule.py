"""The schedule of a chaos run: which fault strikes when, made from a seed alone.

A pure function: the same plan gives the same schedule, to the millisecond. What the schedule
cannot repeat is the operating system's own timing between two strikes.

At every moment one unit, the guardian, is spared by kills, zombies and rolling restarts: the
promise is that others send a dead worker's messages *given one that lives*, and who judges peers
must have lived for a lease. The guardian changes every 24 s, so every unit is struck.
"""

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from producers.local import parts
from producers.words import Channel


class Fault(StrEnum):
    """What goes wrong."""

    KILLS = "kills"
    """kill -9 of a worker: its whole unit, or its child process alone."""
    ZOMBIES = "zombies"
    """SIGSTOP to a unit for longer than its lease, then SIGCONT."""
    ROLLING = "rolling"
    """SIGTERM to unit after unit."""
    REDIS = "redis"
    """kill -9 of Redis and a restart; every write is on disk first (appendfsync always)."""
    REDIS_EVERYSEC = "redis-everysec"
    """The same with appendfsync everysec: Redis may forget the last two seconds."""
    CUTS = "cuts"
    """No connection between workers and Redis for a while."""
    LOST_REPLIES = "lost-replies"
    """Redis does what it is told, and its reply is lost with the connection."""
    WECHAT = "wechat"
    """WeChat answers -1 or 502, cuts connections before or after its work, or hangs."""
    PAUSE = "pause"
    """An operator pauses and resumes."""
    NODES = "nodes"
    """kill -9 of a primary of a cluster: its replica takes over, and it comes back as a replica."""
    PARTITIONS = "partitions"
    """A primary stands still until it was replaced, and goes on with what it was told."""
    RESHARDS = "reshards"
    """The slot of a lane moves to another node of the cluster while it is in use."""
    HOSTILE = "hostile"
    """Logged-in phones lie, flood, reject, replay and upload junk, see `mob`."""


OF_A_CLUSTER: Final = frozenset({Fault.NODES, Fault.PARTITIONS, Fault.RESHARDS})
"""Those that only a cluster has."""

ALL: Final = frozenset(Fault) - {Fault.REDIS_EVERYSEC, Fault.HOSTILE} - OF_A_CLUSTER
"""Those that must not do any harm together; where Redis is down all phones wait, the honest too."""

UNCOUNTED: Final = frozenset({Fault.ROLLING, Fault.REDIS_EVERYSEC, Fault.HOSTILE})
"""Those after which what is counted cannot be equal: a worker that ends takes the figures of its
last moment along (a kill is held back until it was asked for them, see `figures`), a Redis that
forgets knows less than the lines, and hostile phones come to be recipients."""

MOB_AT: Final = 0.3
"""Share of the sending after which the mob is let loose: until then honest phones are alone."""

GUARD_S: Final = 24.0
"""Longer than the longest zombie and the next guardian's election together."""

ELECT_S: Final = 7.0
"""The next guardian is spared for so long before its time: it may just have been killed, and a
unit that keeps ending young is started again after up to 5 s."""

_FIRST_S: Final = 1.5
"""The first strike: the canary has opened, or is open right now."""

_EVERY_S: Final = {
    Fault.ZOMBIES: 15.0,
    Fault.ROLLING: 5.0,
    Fault.REDIS: 15.0,
    Fault.REDIS_EVERYSEC: 15.0,
    Fault.CUTS: 8.0,
    Fault.PAUSE: 8.0,
    Fault.NODES: 15.0,
    Fault.PARTITIONS: 25.0,
    Fault.RESHARDS: 8.0,
}
"""One of each in so many seconds, at a random moment of them."""

_LASTS_S: Final = {
    Fault.ZOMBIES: (10.0, 14.0),
    Fault.REDIS: (0.0, 1.0),
    Fault.REDIS_EVERYSEC: (0.0, 1.0),
    Fault.CUTS: (0.2, 3.0),
    Fault.PAUSE: (0.5, 2.0),
    Fault.NODES: (0.0, 2.0),
    Fault.PARTITIONS: (0.0, 2.0),
}
_LEAST_S: Final = 30.0
_PER_KILL_S: Final = 2.5


@dataclass(frozen=True, slots=True)
class Plan:
    """What a chaos run does.

    Attributes:
        seed: of all that is random.
        recipients: users in the audience, each with one good permit.
        kills: workers to kill.
        faults: what goes wrong.
        channel: which WeChat API.
        units: worker units.
        lanes: lanes in Redis.
        rate: sends per second; 0: so that the sending lasts long enough for the kills.
        lost: share of Redis's replies that `Fault.LOST_REPLIES` swallows.
        latency_ms: how long the sandbox takes to answer.
        logs: where the units' log lines are kept; None: gone with the rest.
        metrics_port: where the first worker tells its figures, to be compared with what all others
            say (see `views`); 0: nothing is compared.
        cluster: whether Redis is a cluster of three primaries with a replica each.
        replicas: replicas that claims and outcomes wait for (``WXB_REDIS_REPLICAS``).
    """

    seed: int
    recipients: int = 2000
    kills: int = 5
    faults: frozenset[Fault] = ALL
    channel: Channel = Channel.TEMPLATE
    units: int = 3
    lanes: int = 1
    rate: float = 0
    lost: float = 0.005
    latency_ms: float = 100
    logs: Path | None = None
    metrics_port: int = 0
    cluster: bool = False
    replicas: int = 0

    @property
    def seconds(self) -> float:
        """How long the sending takes when nothing goes wrong."""
        if self.rate:
            return self.recipients / self.rate
        return max(_LEAST_S, _PER_KILL_S * self.kills * (Fault.KILLS in self.faults))

    @property
    def demo(self) -> parts.Plan:
        """The same for the parts that it shares with the demo."""
        rate = self.rate or max(1.0, round(self.recipients / self.seconds, 1))
        return parts.Plan(
            self.recipients,
            rate,
            self.channel,
            self.units,
            self.lanes,
            self.latency_ms,
            self.logs,
            self.metrics_port,
            self.replicas,
        )


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault at one moment.

    Attributes:
        at_s: seconds after the start of the broadcast.
        fault: which.
        unit: whom, counted from 0; -1 where it strikes no unit.
        lasts_s: until it is over; 0 where it has no end.
        whole: whether a kill takes the whole unit, or the child process alone.
    """

    at_s: float
    fault: Fault
    unit: int = -1
    lasts_s: float = 0.0
    whole: bool = True


def schedule(plan: Plan) -> tuple[Strike, ...]:
    """Return the strikes of a plan in their order."""
    rng = random.Random(plan.seed)  # noqa: S311 - a fault, not a secret
    end_s = max(_FIRST_S + 1, 0.95 * plan.seconds)
    guards = _guardians(plan, rng, end_s)
    strikes: list[Strike] = []
    if Fault.KILLS in plan.faults:
        for at_s in _moments(rng, end_s, plan.kills):
            unit = _victim(plan, rng, guards, at_s, at_s)
            whole = rng.random() < 0.5
            strikes.append(Strike(at_s, Fault.KILLS, unit, whole=whole))
    for fault, every_s in _EVERY_S.items():
        # drawn for absent faults too: each fault's moments do not depend on which others there are
        own = random.Random(f"{plan.seed} {fault}")  # noqa: S311
        if fault in plan.faults:
            count = max(1, round((end_s - _FIRST_S) / every_s))
            strikes += _repeated(plan, own, guards, fault, _moments(own, end_s, count))
    return tuple(sorted(strikes, key=lambda strike: (strike.at_s, strike.fault)))


def _moments(rng: random.Random, end_s: float, count: int) -> list[float]:
    """Return one random moment in each of ``count`` equal parts of the time."""
    part = (end_s - _FIRST_S) / max(1, count)
    return [round(_FIRST_S + (number + rng.random()) * part, 3) for number in range(count)]


def _repeated(
    plan: Plan, rng: random.Random, guards: list[int], fault: Fault, moments: list[float]
) -> Iterator[Strike]:
    queue = deque(range(plan.units))
    for at_s in moments:
        low, high = _LASTS_S.get(fault, (0.0, 0.0))
        lasts_s = round(rng.uniform(low, high), 3)
        unit = -1
        if fault is Fault.ZOMBIES:
            unit = _victim(plan, rng, guards, at_s, at_s + lasts_s)
        elif fault is Fault.ROLLING:
            spared = {_guard(guards, at_s), _guard(guards, at_s + ELECT_S)}
            for _ in range(plan.units):
                if queue[0] in spared:
                    queue.rotate(-1)  # its turn comes when it is not the guardian
            unit = queue.popleft()
            queue.append(unit)
        yield Strike(at_s, fault, unit, lasts_s)


def _guardians(plan: Plan, rng: random.Random, end_s: float) -> list[int]:
    """Return the guardian of each span of `GUARD_S`, never the same twice in a row."""
    guards = [rng.randrange(plan.units)]
    while len(guards) * GUARD_S < end_s + GUARD_S:
        guards.append((guards[-1] + 1 + rng.randrange(max(1, plan.units - 1))) % plan.units)
    return guards


def _guard(guards: list[int], at_s: float) -> int:
    return guards[min(len(guards) - 1, int(at_s / GUARD_S))]


def _victim(
    plan: Plan, rng: random.Random, guards: list[int], from_s: float, until_s: float
) -> int:
    """Return a unit that guards at neither moment; where there is none, not at the first."""
    first, last = _guard(guards, from_s), _guard(guards, until_s + ELECT_S)
    free = [unit for unit in range(plan.units) if unit not in {first, last}]
    free = free or [unit for unit in range(plan.units) if unit != first]
    return rng.choice(free or [0])
