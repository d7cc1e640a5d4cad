"""The breaker: whether this worker's POSTs of one app come through.

A worker's own trouble closes its own gate of that app, and nobody else's: what slows all workers is
WeChat's own limit answers alone. There are two kinds of trouble.

* *no connection*: none came up, so nothing was sent. One such POST is enough. Connections are tried
  without a message, at no one's cost, at most 10 s apart, until one comes up; then a message
  probes.
* *no answer*: `SILENT` POSTs in a row were cut, timed out or answered by something that is not
  WeChat. Each of them may leave a person in doubt, so one message at a time probes: after 1 s, then
  2 s after the last probe was lost. An app that was away for a moment is back within seconds, and
  one that hangs costs one POST per timeout.

Any answer of WeChat's opens the gate; one to a token call only a gate that no lost send closed.
"""

import math
import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

SILENT: Final = 10
"""Unanswered POSTs in a row, as many as a canary risks."""

_FIRST_S: Final = 1.0


class Trouble(StrEnum):
    """Why a worker takes nothing for an app."""

    NO_CONNECTION = "no connection"
    NO_ANSWER = "no answer"


_MOST_S: Final = {Trouble.NO_CONNECTION: 10.0, Trouble.NO_ANSWER: 2.0}
"""Longest pause between probes: those of a connection cost nothing, those with a message do."""


@dataclass(slots=True)
class Breaker:
    """One app's; fed by the event loop, read by the pump's thread.

    Attributes:
        trouble: what is wrong; None while nothing is.
        since: monotonic seconds at which it began.
        silent: POSTs without an answer since the last one that had one; not 0 in trouble.
        next_at: monotonic seconds before which nothing is taken.
    """

    trouble: Trouble | None = None
    since: float = 0.0
    silent: int = 0
    next_at: float = 0.0
    _pause_s: float = 0.0
    _probe: bool = False
    _probing: bool = False

    def answered(self) -> bool:
        """WeChat answered; returns whether that ends a trouble."""
        was = self.trouble
        self.trouble, self.silent, self.next_at, self._pause_s = None, 0, 0.0, 0.0
        self._probe = self._probing = False
        return was is not None

    def heard(self) -> bool:
        """WeChat answered a call that is no send; returns whether that ends a trouble.

        It says that connections come up, and nothing about sends that were lost.
        """
        return self.silent < SILENT and self.answered()

    def unanswered(self, now: float) -> bool:
        """A POST was not answered; returns whether a trouble begins."""
        self.silent += 1
        if self._probing:
            self._probing, self.next_at = False, now + self.pause_s()
        if self.trouble or self.silent < SILENT:
            return False
        self.trouble, self.since = Trouble.NO_ANSWER, now
        self.next_at = now + self.pause_s()
        return True

    def unsent(self, now: float) -> bool:
        """No connection came up; returns whether connections are to be tried from now on."""
        self.silent = max(self.silent, 1)
        if self.trouble is Trouble.NO_CONNECTION:
            return False
        if self.trouble is None:
            self.since = now
        self.trouble, self.next_at = Trouble.NO_CONNECTION, math.inf
        self._probe = self._probing = False
        return True

    def connected(self, now: float) -> None:
        """A connection came up: the next message probes."""
        if self.trouble is Trouble.NO_CONNECTION:
            self.trouble, self.next_at = Trouble.NO_ANSWER, now

    def probe(self, now: float) -> None:
        """A message was taken to probe; the next one is after a pause, should it not be posted."""
        self._probe = True
        self.next_at = max(self.next_at, now + self.pause_s())

    def connects(self) -> bool:
        """Say whether connections come up, as far as is known."""
        return self.trouble is not Trouble.NO_CONNECTION

    @property
    def probed(self) -> bool:
        """Whether there was a pause since the last answer."""
        return self._pause_s > 0

    def lets_pass(self) -> bool:
        """Say whether a message is posted; while there is trouble, one at a time, to probe.

        Who is told yes tells what became of it: until then nothing else probes.
        """
        if self.trouble is None:
            return True
        passes, self._probe = self._probe, False
        if passes:
            self._probing, self.next_at = True, math.inf
        return passes

    def pause_s(self) -> float:
        """Return the next pause: 1 s doubling up to `_MOST_S`, less up to a quarter by lot."""
        most_s = _MOST_S[self.trouble or Trouble.NO_ANSWER]
        self._pause_s = min(max(_FIRST_S, self._pause_s * 2), most_s)
        return self._pause_s * random.uniform(0.75, 1)  # noqa: S311 - a lot, not a secret
