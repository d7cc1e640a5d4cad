"""The batcher: permits of many small requests, stored by one script run.

A request that finds nobody at work goes at once. Those that come while others are being stored wait
for them, and then share a trip to Redis: the busier it is, the more share one, and nobody waits
for company. Each is answered when its own trip is, so that what a client reads as stored is stored,
and gets a report of its own items. A bad one among them never shows in another's, nor does a node
of a cluster that is away to those whose users lie on the others: each node has trips of its own.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Final

from producers.errors import StoreUnavailableError
from producers.permits.collect import Collector
from producers.permits.report import Report
from producers.web.traffic.threads import on_thread

_TRIPS: Final = 2
"""Trips of one app (and node) at once: while Redis is at one, the next is being made."""
_FULL: Final = 200
"""Uploads of one trip: the users of one script run."""

_Group = tuple[str, object]
"""An app; of a cluster, the node that its users lie on."""
_Waiting = tuple[Sequence[object], "asyncio.Future[Report]"]


class Batcher:
    """Stores small uploads together. Belongs to one event loop.

    Args:
        collector: stores them.
        pool: where it does.
        node_of: returns the node that a user lies on, None where it is not known, or is the only
            one; asks nobody.
    """

    def __init__(
        self, collector: Collector, pool: Executor, node_of: Callable[[str], object]
    ) -> None:
        self._collector = collector
        self._pool = pool
        self._node_of = node_of
        self._waiting: dict[_Group, deque[_Waiting]] = {}
        self._trips: dict[_Group, int] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def collect(self, app: str, uploads: Sequence[object]) -> Report:
        """Store a few uploads; as `Collector.collect`."""
        answer: asyncio.Future[Report] = asyncio.get_running_loop().create_future()
        group = (app, self._node(uploads))
        self._waiting.setdefault(group, deque()).append((uploads, answer))
        if self._trips.get(group, 0) < _TRIPS:
            self._trips[group] = self._trips.get(group, 0) + 1
            task = asyncio.ensure_future(self._travel(group))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return await answer

    async def close(self) -> None:
        """Wait until all that waits is stored."""
        while self._running:
            await asyncio.gather(*self._running, return_exceptions=True)

    def _node(self, uploads: Sequence[object]) -> object:
        """Return the node of all users of a request, None where they lie on several."""
        nodes = {
            self._node_of(openid)
            for upload in uploads
            if isinstance(upload, dict) and isinstance(openid := upload.get("openid"), str)
        }
        return nodes.pop() if len(nodes) == 1 else None

    async def _travel(self, group: _Group) -> None:
        """Store what waits, one trip after another, until nothing does."""
        waiting = self._waiting[group]
        try:
            while waiting:
                batch = [waiting.popleft()]
                count = len(batch[0][0])
                while waiting and count + len(waiting[0][0]) <= _FULL:
                    batch.append(waiting.popleft())
                    count += len(batch[-1][0])
                await self._store(group[0], batch)
        finally:
            self._trips[group] -= 1

    async def _store(self, app: str, batch: Sequence[_Waiting]) -> None:
        uploads = [mine for mine, _ in batch]
        try:
            reports = await on_thread(self._pool, self._collector.collect_each, app, uploads)
        except Exception as error:  # noqa: BLE001 - each of them is told
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), report in zip(batch, reports, strict=True):
            if answer.done():
                continue  # its client gave up
            if isinstance(report, StoreUnavailableError):
                answer.set_exception(report)
            else:
                answer.set_result(report)
