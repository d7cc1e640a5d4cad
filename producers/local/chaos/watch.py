"""Recoveries: how long what a dead worker had in flight stays under its name.

A worker's id holds the pid of its process, and an entry in flight begins with the worker's id. From
the moment of a kill (or of a stop) until no such entry is left, nobody sends these messages. While
Redis is out of reach nobody can, whatever the protocol: that time is measured too, and taken off.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass, field

from producers.store import Client, keys

_ARRIVED_S = 0.5
"""After so long, what a killed worker had sent to Redis has arrived there."""


@dataclass
class _Loss:
    """What a dead or stopped worker left."""

    fault: str
    pids: frozenset[int]
    since: float
    until: float | None
    down_s: float
    fences: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Recovery:
    """One loss that is over.

    Attributes:
        fault: what struck.
        messages: how many were in flight under the worker's name.
        wait_s: until none was.
        seconds: the same without the time in which Redis was out of reach.
    """

    fault: str
    messages: int
    wait_s: float
    seconds: float


class Watch:
    """Watches the entries in flight of one broadcast.

    Attributes:
        broadcast: its id.
        recoveries: of each worker that had something in flight.
    """

    def __init__(self, client: Client, lanes: int) -> None:
        self._client = client
        self._lanes = lanes
        self._losses: list[_Loss] = []
        self._out: dict[str, float] = {}
        self._down_s = 0.0
        self.broadcast = ""
        self.recoveries: list[Recovery] = []

    def lost(self, fault: str, pids: Collection[int], lasts_s: float = 0.0) -> None:
        """Processes were killed, or stopped for so long, just now.

        A stopped one takes new messages under its old name when it goes on: only those that it
        had before count then.
        """
        now = time.monotonic()
        until = now + lasts_s if lasts_s else None
        self._losses.append(_Loss(fault, frozenset(pids), now, until, self._down(now)))

    def out(self, part: str) -> None:
        """Redis is out of reach of the workers, because of this part."""
        self._out.setdefault(part, time.monotonic())

    def back(self, part: str) -> None:
        """This part works again."""
        now = time.monotonic()
        down_s = self._down(now)
        if self._out.pop(part, None) is not None:
            self._down_s = down_s
            self._out = dict.fromkeys(self._out, now)

    @property
    def waiting(self) -> bool:
        """Whether some loss is not recovered yet."""
        return bool(self._losses)

    def look(self) -> None:
        """Look once; call it a few times a second.

        Raises:
            redis.RedisError: Redis did not answer; look again later.
        """
        if not self._losses:
            return
        now = time.monotonic()
        held = self._held()
        for loss in list(self._losses):
            mine = set().union(*(held.get(pid, set()) for pid in loss.pids))
            if loss.until is None or now < loss.until:
                loss.fences |= mine
            else:
                mine &= loss.fences
            if not mine and now - loss.since > _ARRIVED_S:
                self._close(loss, now)

    def give_up(self) -> None:
        """Count what is still not recovered as if it were now."""
        for loss in list(self._losses):
            self._close(loss, time.monotonic())

    @property
    def longest_s(self) -> float:
        """The longest recovery while Redis was within reach; 0 without any."""
        return max((recovery.seconds for recovery in self.recoveries), default=0.0)

    @property
    def longest_wait_s(self) -> float:
        """The longest recovery by the clock on the wall."""
        return max((recovery.wait_s for recovery in self.recoveries), default=0.0)

    def _held(self) -> dict[int, set[str]]:
        """Return what is in flight: pid of the worker → lanes and fence tokens."""
        held: dict[int, set[str]] = {}
        for lane in range(self._lanes):
            for entry in self._client.hvals(keys.flight(lane, self.broadcast)):
                worker, fence = entry.split(" ", 2)[:2]
                _, _, rest = worker.partition(":")
                pid = rest.partition(":")[0]
                if pid.isdigit():
                    held.setdefault(int(pid), set()).add(f"{lane} {fence}")
        return held

    def _down(self, now: float) -> float:
        """Return how long Redis was out of reach so far."""
        return self._down_s + (now - min(self._out.values()) if self._out else 0.0)

    def _close(self, loss: _Loss, now: float) -> None:
        self._losses.remove(loss)
        if loss.fences:
            wait_s = now - loss.since
            seconds = wait_s - (self._down(now) - loss.down_s)
            self.recoveries.append(
                Recovery(loss.fault, len(loss.fences), round(wait_s, 2), round(seconds, 2))
            )
