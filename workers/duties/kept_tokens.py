"""Keeping tokens: each app's token keeper ticks each second while the app is at work.

Otherwise it ticks now and then, so that hundreds of idle apps cost next to nothing, and when work
begins.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from typing import Final

from producers import logs
from producers.logs.events import StoreUnreachable
from workers.wechat.tokens import TokenKeeper

_AT_WORK_S: Final = 10.0
"""An app with nothing to take for so long is not at work: its token is looked at less often."""

_READY_S: Final = 1.0
_MISSING_S: Final = 0.25
_IDLE_S: Final = 200.0


class KeptToken:
    """One app's; belongs to one event loop, but for `begin_work`.

    Args:
        keeper: ticks.
        loop: the event loop.
        has_work: says whether there may be something to take of the app.
        wake: called when there is a token again.
    """

    def __init__(
        self,
        keeper: TokenKeeper,
        loop: asyncio.AbstractEventLoop,
        has_work: Callable[[], object],
        wake: Callable[[], None],
    ) -> None:
        self._keeper = keeper
        self._loop = loop
        self._has_work = has_work
        self._wake = wake
        self._begins = asyncio.Event()
        self._worked_at = float("-inf")
        self._again_s = _MISSING_S
        self._next_at = float("-inf")

    def begin_work(self) -> None:
        """There may be something to take, as there was not a moment ago; from any thread."""
        now = time.monotonic()
        before, self._worked_at = self._worked_at, now
        if now - before > _AT_WORK_S:
            self._loop.call_soon_threadsafe(self._begins.set)

    def due(self, now: float) -> bool:
        """Say whether it is time for a tick, or work begins."""
        return now >= self._next_at or self._begins.is_set()

    async def rest(self) -> None:
        """Sleep until it is, or does."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._next_at - time.monotonic())):
                await self._begins.wait()

    async def run(self) -> None:
        """Tick once."""
        self._begins.clear()
        was_ready = self._keeper.ready is not None
        try:
            await self._keeper.tick()
        except Exception as error:  # noqa: BLE001  (without a token its app would stand still)
            logs.emit(StoreUnreachable("reading the token", type(error).__name__, 1))
        if self._keeper.ready is not None and not was_ready:
            self._wake()
        if self._is_at_work():
            self._again_s = _READY_S if self._keeper.ready else _MISSING_S
        else:  # nothing is sent with it: no look before it is to be renewed
            self._again_s = min(max(2 * self._again_s, self._keeper.due_in_s), _IDLE_S)
            self._again_s *= random.uniform(0.75, 1)  # noqa: S311
        self._next_at = time.monotonic() + self._again_s

    def _is_at_work(self) -> bool:
        return time.monotonic() - self._worked_at < _AT_WORK_S or bool(self._has_work())
