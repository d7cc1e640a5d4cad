"""The deadline of a call: how long it may wait for Redis in all, retries and pauses included.

It goes with the context (a contextvar) and not through every signature: it concerns each trip to
Redis that a call makes, and no answer. Who sets none, as the workers do, waits as `retry` and the
settings say. A connection cuts its timeouts to what is left (`store`), `retry` begins no pause that
would end after it.

A call that works batch by batch has the whole time for each batch, and the clock stands while the
caller's own iterable is read: an import takes as long as it takes, a Redis that is silent does not.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Final, TypeVar

Batch = TypeVar("Batch")


class _Deadline:
    """A clock that runs down, and may stand."""

    def __init__(self, seconds: float, left_s: float, *, waits: bool) -> None:
        self.seconds = seconds
        self.waits = waits
        self._left_s = left_s
        self._since: float | None = time.monotonic()

    def left_s(self) -> float:
        if self._since is None:
            return self._left_s
        return self._left_s - (time.monotonic() - self._since)

    def stand(self) -> None:
        self._left_s, self._since = self.left_s(), None

    def run(self) -> None:
        if self._since is None:
            self._since = time.monotonic()

    def renew(self) -> None:
        self._left_s, self._since = self.seconds, time.monotonic()


_CURRENT: Final[ContextVar[_Deadline | None]] = ContextVar("deadline", default=None)


@contextlib.contextmanager
def within(seconds: float, since: float | None = None, *, waits: bool = True) -> Iterator[None]:
    """Give what is done inside so many seconds; one inside another ends no later than that.

    Args:
        seconds: for all of it, or for each of its batches.
        since: when the time began to run, of the monotonic clock; default: now.
        waits: whether what comes back in a second or two is waited for; not by a thread that many
            others wait for.
    """
    outer = left_s()
    mine = seconds if since is None else seconds - (time.monotonic() - since)
    left = mine if outer is None else min(mine, outer)
    before = _CURRENT.set(_Deadline(seconds, left, waits=waits))
    try:
        yield
    finally:
        _CURRENT.reset(before)


def left_s() -> float | None:
    """Return the seconds that are left, below 0 when it is over; None: there is no deadline."""
    deadline = _CURRENT.get()
    return None if deadline is None else deadline.left_s()


def allowed_s() -> float | None:
    """Return the seconds of the whole deadline, for words; None: there is none."""
    deadline = _CURRENT.get()
    return None if deadline is None else deadline.seconds


def waits() -> bool:
    """Say whether what comes back in a second or two is waited for; see `within`."""
    deadline = _CURRENT.get()
    return deadline is None or deadline.waits


def stand() -> None:
    """Stop the clock: what follows is not waiting for Redis."""
    deadline = _CURRENT.get()
    if deadline is not None:
        deadline.stand()


def run() -> None:
    """Let the clock go on."""
    deadline = _CURRENT.get()
    if deadline is not None:
        deadline.run()


def renew() -> None:
    """Give what follows the whole time: the call got on."""
    deadline = _CURRENT.get()
    if deadline is not None:
        deadline.renew()


def paced(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield batches; each has the whole time for what is done with it, and reading costs none."""
    source = iter(batches)
    first = True
    while True:
        stand()
        try:
            batch = next(source)
        except StopIteration:
            return
        finally:
            run()
        if not first:
            renew()
        first = False
        yield batch
