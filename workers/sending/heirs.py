"""Heirs: where claims lie whose lane was divided since they were made.

A claim is known by the lane in which it was made, and lies with its bucket: in the lanes that its
own was divided into, under the same fence token. Until these are open nobody can reach it; that
takes a second or two.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import redis

from producers.settings import Settings
from producers.store import Client
from producers.store.lanes.fence import QUESTION, layout_of
from workers.sending.claim import Claim

_PAUSE_S: Final = 0.1

T = TypeVar("T")


class Heirs:
    """Knows it for one worker; belongs to one event loop.

    Args:
        client: Redis, for the loop.
        settings: which lanes there are; told of others.
    """

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._look: asyncio.Task[None] | None = None

    def is_divided(self, lane: int) -> bool:
        """Say whether a lane was divided, as far as is known."""
        return lane not in self._settings.layout.lanes

    def parted(
        self, lane: int, some: Iterable[T], claim_of: Callable[[T], Claim]
    ) -> dict[int, list[T]]:
        """Return what is of claims of one lane, by the lanes in which they lie now."""
        layout = self._settings.layout
        if lane in layout.lanes:
            return {lane: [*some]}
        found: dict[int, list[T]] = {}
        for one in some:
            found.setdefault(layout.of_number(claim_of(one).bucket), []).append(one)
        return found

    async def look(self) -> None:
        """Learn whether there are other lanes by now; where there are none, wait a little."""
        if self._look is None or self._look.done():
            self._look = asyncio.ensure_future(self._ask())
        await asyncio.shield(self._look)  # of all who wait

    async def _ask(self) -> None:
        before = self._settings.layout
        with contextlib.suppress(redis.RedisError):  # it is asked again
            layout = layout_of(await self._client.execute_command(*QUESTION))
            if layout is not None:
                self._settings.live_in(layout)
        if self._settings.layout == before:
            await asyncio.sleep(_PAUSE_S)

    async def close(self) -> None:
        """Ask no more."""
        if self._look is not None:
            self._look.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._look
