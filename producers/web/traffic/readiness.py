"""Readiness: whether Redis answers and has this layout, asked once for all who ask.

Anybody may ask without a key, a thousand times a second; Redis hears of it a few times.
"""

import asyncio
import time
from concurrent.futures import Executor
from typing import Final

from producers import store
from producers.errors import WxbroadcastError
from producers.settings import Settings
from producers.store import Client
from producers.web.traffic.threads import on_thread

_PATIENCE_S: Final = 2.0
_FRESH_S: Final = 0.2
"""How long an answer is good."""


class Readiness:
    """Looks at Redis. Belongs to one event loop."""

    def __init__(self, client: Client, settings: Settings, pool: Executor) -> None:
        self._client = client
        self._settings = settings
        self._pool = pool
        self._look: asyncio.Task[str] | None = None
        self._until = 0.0

    async def fault(self) -> str:
        """Return why the process cannot do its work now, '' if it can."""
        if self._look is None or (self._look.done() and time.monotonic() > self._until):
            self._look = asyncio.ensure_future(self._found())
        return await asyncio.shield(self._look)

    async def _found(self) -> str:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await on_thread(self._pool, store.check_layout, self._client, self._settings)
        except WxbroadcastError as error:
            return str(error)
        except TimeoutError:
            return f"Redis did not answer within {_PATIENCE_S:g} s"
        else:
            return ""
        finally:
            self._until = time.monotonic() + _FRESH_S
