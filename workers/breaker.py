"""The breaker: whether this worker's POSTs of one app come through.

A worker's own trouble closes its own gate of that app, and nobody else's: what slows all workers is
WeChat's own limit answers alone. There are two kinds of trouble.

* *no connection*: none came up, so nothing was sent. One such POST is enough. Connections are tried
  without a message, at no one's cost, until one comes up; then a message probes.
* *no answer*: `SILENT` POSTs in a row were cut, timed out or answered by something that is not
  WeChat. Each of them may leave a person in doubt, so one message at a time probes, after 1 s, 2 s
  and so on, at most 10 s.

Any answer of WeChat's opens the gate.
"""

import math
import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

SILENT: Final = 10
"""Unanswered POSTs in a row, as many as a canary risks."""

_FIRST_S: Final = 1.0
_MOST_S: Final = 10.0


class Trouble(StrEnum):
    """Why a worker takes nothing for an app."""

    NO_CONNECTION = "no connection"
    NO_ANSWER = "no answer"


@dataclass(slots=True)
class Breaker:
    """One app's; fed by the event loop, read by the pump's thread.

    Attributes:
        trouble: what is wrong; None while nothing is.
        since: monotonic seconds at which it began.
        silent: POSTs without an answer since the last one that had one.
        next_at: monotonic seconds before which nothing is taken.
    """

    trouble: Trouble | None = None
    since: float = 0.0
    silent: int = 0
    next_at: float = 0.0
    _pause_s: float = 0.0
    _probe: bool = False

    def answered(self) -> bool:
        """WeChat answered; returns whether that ends a trouble."""
        was = self.trouble
        self.trouble, self.silent, self.next_at, self._pause_s = None, 0, 0.0, 0.0
        self._probe = False
        return was is not None

    def unanswered(self, now: float) -> bool:
        """A POST was not answered; returns whether a trouble begins."""
        self.silent += 1
        if self.trouble or self.silent < SILENT:
            return False
        self.trouble, self.since = Trouble.NO_ANSWER, now
        self.next_at = now + self.pause_s()
        return True

    def unsent(self, now: float) -> bool:
        """No connection came up; returns whether connections are to be tried from now on."""
        self.silent += 1
        if self.trouble is Trouble.NO_CONNECTION:
            return False
        if self.trouble is None:
            self.since = now
        self.trouble, self.next_at, self._probe = Trouble.NO_CONNECTION, math.inf, False
        return True

    def connected(self, now: float) -> None:
        """A connection came up: the next message probes."""
        if self.trouble is Trouble.NO_CONNECTION:
            self.trouble, self.next_at = Trouble.NO_ANSWER, now

    def probe(self, now: float) -> None:
        """A message was taken to probe; the next one is, after a pause."""
        self._probe = True
        self.next_at = max(self.next_at, now + self.pause_s())

    @property
    def probed(self) -> bool:
        """Whether there was a pause since the last answer."""
        return self._pause_s > 0

    def lets_pass(self) -> bool:
        """Say whether a message may be posted; while there is trouble, one for each probe."""
        if self.trouble is None:
            return True
        passes, self._probe = self._probe, False
        return passes

    def pause_s(self) -> float:
        """Return the next pause: 1 s doubling, at most 10 s, less up to a quarter by lot."""
        self._pause_s = min(max(_FIRST_S, self._pause_s * 2), _MOST_S)
        return self._pause_s * random.uniform(0.75, 1)  # noqa: S311 - a lot, not a secret
