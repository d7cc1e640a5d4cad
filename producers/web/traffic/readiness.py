"""Readiness: whether Redis answers and has this layout, asked once for all who ask.

Anybody may ask without a key, a thousand times a second; Redis hears of it a few times.

A node of a cluster that is away is a fault, but what lies on the others goes on, in every process
alike: a balancer that left them all would stop that as well. So a process is ready while any node
answers.
"""

import asyncio
import time
from concurrent.futures import Executor
from typing import Final, NamedTuple

import redis

from producers import store
from producers.errors import WxbroadcastError
from producers.settings import Settings
from producers.store import Client, trouble
from producers.store.lanes.layout import compare_layout
from producers.web.traffic.threads import on_thread

_PATIENCE_S: Final = 2.0
_FRESH_S: Final = 0.2
"""How long an answer is good."""


class Found(NamedTuple):
    """What was found.

    Attributes:
        ready: whether it can do its work, or a part of it.
        faults: one sentence each.
    """

    ready: bool
    faults: list[str]


class Readiness:
    """Looks at Redis. Belongs to one event loop."""

    def __init__(self, client: Client, settings: Settings, pool: Executor) -> None:
        self._client = client
        self._settings = settings
        self._pool = pool
        self._look: asyncio.Task[Found] | None = None
        self._until = 0.0

    async def look(self) -> Found:
        """Return whether the process can do its work now, and what is wrong."""
        if self._look is None or (self._look.done() and time.monotonic() > self._until):
            self._look = asyncio.ensure_future(self._found())
        return await asyncio.shield(self._look)

    async def _found(self) -> Found:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await on_thread(self._pool, compare_layout, self._client, self._settings)
                fault = ""
        except WxbroadcastError as error:
            return Found(False, [str(error)])
        except redis.RedisError as error:
            fault = trouble.in_words(error)
            if trouble.lasts(error):
                return Found(False, [fault])
        except TimeoutError:
            fault = f"Redis did not answer within {_PATIENCE_S:g} s"
        finally:
            self._until = time.monotonic() + _FRESH_S
        try:
            async with asyncio.timeout(_PATIENCE_S):
                away, others = await on_thread(self._pool, store.away, self._client)
        except (redis.RedisError, TimeoutError):
            away, others = [], False
        self._until = time.monotonic() + _FRESH_S
        faults = [fault] if fault and fault not in away else []
        return Found(not fault or others, [*faults, *away])
