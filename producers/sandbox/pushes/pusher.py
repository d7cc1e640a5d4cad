"""The pusher: takes events to the callback address, in the background.

Bounded twice: events that wait, and pushes at the same time. What does not fit is dropped, and
counted, rather than held.
"""

import asyncio
import random
from collections.abc import Callable

import aiohttp

from producers.sandbox.pushes.events import Callback, Event, write_push


class Pusher:
    """Pushes the events of one callback.

    Attributes:
        counts: ``delivered``, ``redelivered`` (tries after the first), ``failed`` (given up),
            ``dropped`` (the queue was full).
    """

    def __init__(self, callback: Callback, now: Callable[[], float], rng: random.Random) -> None:
        self._callback = callback
        self._now = now
        self._rng = rng
        self._waiting: asyncio.Queue[tuple[float, Event]] = asyncio.Queue(callback.queue)
        self._session: aiohttp.ClientSession | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.counts = {"delivered": 0, "redelivered": 0, "failed": 0, "dropped": 0}

    def start(self) -> None:
        """Start pushing, on the running loop."""
        timeout = aiohttp.ClientTimeout(total=self._callback.timeout_s)
        connector = aiohttp.TCPConnector(limit=self._callback.concurrency)
        self._session = aiohttp.ClientSession(timeout=timeout, connector=connector)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._run()) for _ in range(self._callback.concurrency)]

    async def stop(self) -> None:
        """Stop, leaving what waits."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def drain(self) -> None:
        """Wait until every event has been delivered or given up."""
        await self._waiting.join()

    def offer(self, event: Event) -> None:
        """Queue an event and its duplicates."""
        due_s = asyncio.get_running_loop().time() + self._callback.delay_ms / 1000
        for _ in range(1 + self._callback.duplicates):
            try:
                self._waiting.put_nowait((due_s, event))
            except asyncio.QueueFull:
                self.counts["dropped"] += 1

    async def push(self, event: Event) -> bool:
        """Push an event now, again if it must be.

        Returns:
            Whether it was answered.
        """
        for attempt in range(1 + self._callback.redeliveries):
            if attempt:
                self.counts["redelivered"] += 1
                await asyncio.sleep(self._callback.redelivery_delay_ms / 1000)
            if await self._try(event):
                self.counts["delivered"] += 1
                return True
        self.counts["failed"] += 1
        return False

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s, event = await self._waiting.get()
            try:
                await asyncio.sleep(max(0.0, due_s - loop.time()))
                await self.push(event)
            finally:
                self._waiting.task_done()

    async def _try(self, event: Event) -> bool:
        if self._session is None:
            return False
        push = write_push(self._callback, event, self._now(), self._rng)
        headers = {"Content-Type": push.content_type}
        try:
            async with self._session.post(push.url, data=push.body, headers=headers) as response:
                await response.read()
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
