"""Threads: where the calls of an `AsyncProducer` wait for Redis, so that no event loop does.

They are a pool of their own. On the loop's default one, calls that hang with a stalled Redis would
hold every thread that the host application needs for its files and its name lookups. Threads, and
not an asynchronous client beside the blocking one: every verb exists once, with one way of
repeating, and a call costs a tenth of a millisecond more.

Calls that work as long as their iterable lasts have a pool beside it, so that uploads by slow
clients do not hold up the others.
"""

import asyncio
import contextvars
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Final, TypeVar

from producers.errors import StoreUnavailableError
from producers.store import deadline

R = TypeVar("R")

_CALLS: Final = 32
"""Calls at once. Together with the streams no more than the connections of a producer (64)."""
_STREAMS: Final = 32


class Threads:
    """Runs calls on threads of this process; safe in forks, threads and any number of loops."""

    def __init__(self) -> None:
        self._pid = 0
        self._executors: tuple[Executor, Executor] = ()  # type: ignore[assignment]

    async def run(self, call: Callable[[], R], timeout_s: float, *, stream: bool = False) -> R:
        """Run a call whose deadline counts from now, waiting for a thread included.

        A task that is cancelled takes back a call that no thread has begun. One that was begun goes
        on, on its thread, until its deadline: it may have been made.

        Args:
            call: what to do.
            timeout_s: its deadline.
            stream: whether it works as long as its caller's iterable lasts.

        Raises:
            StoreUnavailableError: no thread was free in time, so nothing was done; or as the call.
        """
        since = time.monotonic()

        def begin() -> R:
            with deadline.within(timeout_s, since):
                return call()

        run = contextvars.copy_context().run
        future = self._executor(stream=stream).submit(run, begin)
        answer = asyncio.wrap_future(future)
        try:
            await asyncio.wait({answer}, timeout=timeout_s)
            if future.cancel():
                raise StoreUnavailableError(
                    f"no thread was free within {timeout_s:g} s, as Redis is slow or "
                    f"{_CALLS} calls are under way; nothing was done"
                )
            return await answer
        except asyncio.CancelledError:
            answer.cancel()
            raise

    def close(self) -> None:
        """Let the threads end when their calls have; a later call makes new ones."""
        if self._pid == os.getpid():
            self._pid = 0
            for executor in self._executors:
                executor.shutdown(wait=False)

    def _executor(self, *, stream: bool) -> Executor:
        """Return the threads of this process; a fork has those of its parent's in name only."""
        if self._pid != os.getpid():
            self._executors = (
                ThreadPoolExecutor(_CALLS, "wxbroadcast"),
                ThreadPoolExecutor(_STREAMS, "wxbroadcast-stream"),
            )
            self._pid = os.getpid()
        return self._executors[stream]
