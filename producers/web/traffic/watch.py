"""The watch: one look at the board a second, for however many watch.

While somebody watches, one task looks; what it saw is made into bytes once for all who may see the
same apps. Who reads too slowly misses looks, not their end: each gets the newest one.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final

import orjson

from producers.access.api_keys import ANY_APP, ApiKey
from producers.board import Board
from producers.errors import WxbroadcastError
from producers.web.http.problem import ProblemError, retry_after

EVERY_S: Final = 1.0
MOST: Final = 500
"""Who watches one process."""
OF_KEY: Final = 50
"""Who watches it with one key."""

_PING_S: Final = 15.0
"""Something is written so often, or what lies between takes the connection for dead."""
_AGAIN_MS: Final = 5000


class Watch:
    """Belongs to one event loop.

    Args:
        look: looks at the board.
        stopping: whether the process ends.
    """

    def __init__(self, look: Callable[[], Awaitable[Board]], stopping: Callable[[], bool]) -> None:
        self._look = look
        self._stopping = stopping
        self._watchers: dict[str, int] = {}
        self._seen: dict[str, Any] | None = None
        self._error = ""
        self._texts: dict[frozenset[str], bytes] = {}
        self._number = 0
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def events(
        self, key: ApiKey, ended: Callable[[], Awaitable[bool]]
    ) -> AsyncGenerator[bytes, None]:
        """Return server-sent events for whoever has a key: the board, whenever it has changed.

        Args:
            key: who watches.
            ended: asked with each look whether the key may watch no more; then the events end.

        Raises:
            ProblemError: busy: too many watch.
        """
        here = self._watchers.get(key.id, 0)
        if here >= OF_KEY or sum(self._watchers.values()) >= MOST:
            raise ProblemError(
                "busy", "too many watch already", headers=retry_after(_AGAIN_MS), close=True
            )
        events = self._events(key, ended)
        await anext(events)  # its place is taken; what follows is the client's
        return events

    async def _events(
        self, key: ApiKey, ended: Callable[[], Awaitable[bool]]
    ) -> AsyncGenerator[bytes, None]:
        self._watchers[key.id] = self._watchers.get(key.id, 0) + 1
        try:
            yield b""
            yield b"retry: 2000\n\n"
            told, number = b"", -1
            while not self._stopping():
                if self._task is None:  # nobody looked yet, or what looked has failed
                    self._task = asyncio.create_task(self._keep_looking())
                if number == self._number:
                    if not await self._next():
                        yield b": still here\n\n"
                    continue
                number = self._number
                if await ended():
                    return
                text = self._text(key)
                if text and text != told:
                    yield text
                    told = text
        finally:
            self._watchers[key.id] -= 1
            if not self._watchers[key.id]:
                del self._watchers[key.id]

    async def _next(self) -> bool:
        """Wait for the next look; say whether it came before something must be written."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PING_S):
                await self._changed.wait()
                return True
        return False

    async def _keep_looking(self) -> None:
        """Look as long as somebody watches."""
        try:
            while self._watchers:
                try:
                    self._seen, self._error = _lasting((await self._look()).as_dict()), ""
                except WxbroadcastError as error:
                    self._error = str(error)
                self._texts.clear()
                self._number += 1
                self._changed.set()
                self._changed = asyncio.Event()
                await asyncio.sleep(EVERY_S)
        finally:
            self._task = None

    def _text(self, key: ApiKey) -> bytes:
        """Return the event for those who may see a key's apps; b'' before the first look."""
        text = self._texts.get(key.apps)
        if text is None:
            text = self._texts[key.apps] = self._made(key)
        return text

    def _made(self, key: ApiKey) -> bytes:
        if self._error:
            return b"event: away\ndata: " + orjson.dumps({"error": self._error}) + b"\n\n"
        if self._seen is None:
            return b""
        seen = self._seen
        if ANY_APP not in key.apps:
            mine = [one for one in seen["apps"] if one["app"] in key.apps]
            own = [one for one in seen["broadcasts"] if one["app"] in key.apps]
            closed = [one for one in seen["workers"]["closed"] if one["app"] in key.apps]
            workers = {**seen["workers"], "closed": closed}
            seen = {**seen, "apps": mine, "broadcasts": own, "workers": workers, "left_out": 0}
        return b"event: board\ndata: " + orjson.dumps(seen) + b"\n\n"


def _lasting(board: dict[str, Any]) -> dict[str, Any]:
    """Return a board without what changes by itself: where nothing happens, nothing is written."""
    apps = [{**one, "token_s": int(one["token_s"] > 0)} for one in board["apps"]]
    return {**{name: value for name, value in board.items() if name != "at_ms"}, "apps": apps}
