"""Threads: where library code runs, which blocks.

So many calls at once, more wait. On a cluster a call that takes long waits for a node that is
silent, most often, and those for the other nodes must not wait with it: after a moment it is
counted no more, and another one begins, on a spare thread. Of these there are as many as requests
may wait.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, Final, ParamSpec, TypeVar

from producers.store import deadline

P = ParamSpec("P")
R = TypeVar("R")

_LONG_S: Final = 0.1
"""Calls take milliseconds; one that takes longer waits for somebody."""


async def on_thread(pool: Executor, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run library code, which blocks, on a thread of a pool."""
    return await asyncio.get_running_loop().run_in_executor(pool, partial(call, *args, **kwargs))


class Threads(Executor):
    """Threads whose calls wait for Redis no longer than a producer's would (see `deadline`).

    Calls come from one event loop.

    Args:
        most: calls at once.
        name: of its threads.
        seconds: the deadline of a call; it runs while the call waits for a thread, too.
        spare: threads for others in place of calls that take long; 0: these are waited for.
    """

    def __init__(self, most: int, name: str, seconds: float, spare: int = 0) -> None:
        self._most, self._spare, self._seconds = most, spare, seconds
        self._pool = ThreadPoolExecutor(most + spare, name)
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Future[Any], Callable[[], None]]] = deque()
        self._begun: dict[object, float] = {}  # in the order of their begin
        self._looking: asyncio.TimerHandle | None = None

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run a call, now or when it is its turn."""
        since = time.monotonic()

        def within() -> R:
            with deadline.within(self._seconds, since, waits=False):
                return fn(*args, **kwargs)

        if not self._spare:
            return self._pool.submit(within)
        future: Future[R] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                found = within()
            except BaseException as error:  # noqa: BLE001  (the caller's, as of any executor)
                future.set_exception(error)
            else:
                future.set_result(found)

        with self._lock:
            self._waiting.append((future, run))
        self._begin()
        if self._waiting and self._looking is None:
            self._look_later()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As of any executor; what waits for a thread never begins."""
        with self._lock:
            while self._waiting:
                self._waiting.popleft()[0].cancel()
        self._pool.shutdown(wait, cancel_futures=cancel_futures)

    def _begin(self) -> None:
        """Begin what waits, as far as there is room."""
        with self._lock:
            while self._waiting and self._has_room():
                token = object()
                self._begun[token] = time.monotonic()
                self._pool.submit(self._run, token, self._waiting.popleft()[1])

    def _has_room(self) -> bool:
        if len(self._begun) < self._most:
            return True
        if len(self._begun) >= self._most + self._spare:
            return False
        last = next(islice(reversed(self._begun.values()), self._most - 1, None))
        return time.monotonic() - last > _LONG_S

    def _run(self, token: object, run: Callable[[], None]) -> None:
        try:
            run()
        finally:
            with self._lock:
                del self._begun[token]
            self._begin()

    def _look_later(self) -> None:
        self._looking = asyncio.get_running_loop().call_later(_LONG_S, self._look)

    def _look(self) -> None:
        self._looking = None
        self._begin()
        if self._waiting:
            self._look_later()
