"""The courier: takes webhook events that are due, posts them, and says what came of it.

Each second it looks at the lanes, and at once at one whose event was just posted: what is due is
found by level, and nothing else is needed. Every worker has one; leases in Redis (outbox_take.lua)
keep an event from two of them, the order within a broadcast, and an app within its places, so that
an endpoint that hangs fills its own app's places and no others. A lane that cannot be looked at, as
its node of a cluster is away or its keys are broken, holds up no other; the lanes begin in turn.

If the process dies with events in hand they are posted again after their leases, under their ids.

An event lies in the heir of a lane that was divided since it was taken, and is what it was.
"""

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import Final

import redis

from producers import logs
from producers.errors import StoreUnavailableError
from producers.logs.events import (
    DutyFailed,
    StoreUnreachable,
    WebhookDead,
    WebhookDelivered,
    WebhookFailed,
)
from producers.settings import Settings, ms
from producers.store import Client
from producers.store.connection import is_cluster
from producers.store.lanes.fence import is_refusal
from producers.store.lanes.reach import in_turn
from producers.store.retry import LOST, pause_s
from producers.webhooks.outbox import Letter, Outbox
from workers.webhooks.patience import delay_ms, is_over
from workers.webhooks.post import Answer, Poster

_EVERY_S: Final = 1.0
_PAUSE_S: Final = 0.05
"""Between two looks: with `_AT_ONCE` the bound of what webhooks take of a worker's time."""

_AT_ONCE: Final = 16
"""Events taken in one look, of all apps."""

_ATTEMPTS: Final = 9
"""So often it is said what came of a post, where Redis does not answer."""

_DIVIDED_S: Final = 0.2
"""Between two looks whether the lane of an event has an heir by now."""

_CLOSE_S: Final = 1.0
"""What is posted is not waited for longer at the end."""

_GRACE_MS: Final = 10_000
"""A lease is so much longer than a post may take: to say what came of it."""


class Courier:
    """One worker's; belongs to one event loop.

    Args:
        client: Redis, for the loop.
        settings: whose webhooks go where.
    """

    def __init__(self, client: Client, settings: Settings) -> None:
        self._settings = settings
        self._poster = Poster(settings)
        self._outbox = Outbox(client, settings, {}, ms(settings.webhook_timeout) + _GRACE_MS)
        self._apart = is_cluster(client)
        self.follow()
        self._asked = asyncio.Event()
        self._busy_lanes = set[int]()
        self._tasks = set[asyncio.Task[None]]()
        self._looked_at = self._all_at = float("-inf")
        self._turn = 0

    def follow(self) -> None:
        """Take for the apps, and post to the URLs, that the settings have now."""
        self._poster.follow()
        apps = self._settings.apps.now
        self._outbox.places = [
            (app, apps[app].webhook_in_flight) for app in self._poster.apps if app in apps
        ]

    def due(self, now: float) -> bool:
        """Say whether it is time for a look."""
        return now >= self._all_at + _EVERY_S or (
            bool(self._busy_lanes) and now >= self._looked_at + _PAUSE_S
        )

    async def rest(self) -> None:
        """Sleep until it is, or until something was posted."""
        self._asked.clear()
        if self._busy_lanes:
            await asyncio.sleep(_PAUSE_S)
            return
        left_s = self._all_at + _EVERY_S - time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, left_s)):
                await self._asked.wait()

    async def run(self) -> None:
        """Take what is due, and let it be posted."""
        now = self._looked_at = time.monotonic()
        layout = self._settings.layout
        open_ones = [lane for lane in layout.lanes if lane != layout.shut]
        lanes = sorted(self._busy_lanes.intersection(open_ones))
        if now >= self._all_at + _EVERY_S:
            self._all_at = now
            try:
                lanes = await self._outbox.lanes(open_ones)
            except Exception as error:  # noqa: BLE001  (the next look makes it good)
                logs.emit(DutyFailed("webhooks", -1, type(error).__name__))
                return
        self._busy_lanes.clear()
        left = _AT_ONCE
        self._turn += 1
        for lane in in_turn(lanes, self._turn):
            if left < 1:
                self._busy_lanes.add(lane)
                continue
            try:
                letters = await self._outbox.take(lane, left)
            except Exception as error:  # noqa: BLE001  (the next look makes it good)
                if is_refusal(error):  # it was divided meanwhile
                    continue
                logs.emit(DutyFailed("webhooks", lane, type(error).__name__))
                if isinstance(error, LOST) and not self._apart:
                    return  # Redis is away for all of them
                continue
            left -= len(letters)
            for letter in letters:
                task = asyncio.get_running_loop().create_task(self._deliver(letter))
                self._tasks.add(task)
                task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logs.emit(DutyFailed("webhooks", -1, type(error).__name__))

    async def _deliver(self, letter: Letter) -> None:
        event = letter.event
        at_s = letter.taken_at_ms // 1000
        answer = await self._poster.post(event.app, event.id, at_s, event.body())
        await self._say(letter, answer)
        self._busy_lanes.add(self._settings.layout.heir(event.lane))
        self._asked.set()

    async def _say(self, letter: Letter, answer: Answer) -> None:
        """Record what came of a post until Redis takes it, or the lease is over."""
        attempts = letter.attempts + 1
        age_ms = letter.taken_at_ms - letter.event.at_ms
        wait_ms = delay_ms(attempts, answer.retry_after_s)
        over = answer.final or is_over(attempts, age_ms)
        until = time.monotonic() + _GRACE_MS / 1000
        attempt = 0
        while attempt < _ATTEMPTS and time.monotonic() < until:
            lies = self._where_it_lies(letter)
            attempt += 1
            try:
                if not answer.error:
                    await self._outbox.delivered(lies)
                elif over:
                    await self._outbox.died(lies, answer.error)
                else:
                    await self._outbox.failed(lies, answer.error, wait_ms)
            except (redis.RedisError, StoreUnavailableError) as error:
                if is_refusal(error):
                    attempt -= 1
                    await asyncio.sleep(_DIVIDED_S)  # its worker learns of the heir (`duties`)
                    continue
                logs.emit(StoreUnreachable("webhooks", type(error).__name__, attempt))
                await asyncio.sleep(pause_s(attempt))
            else:
                break
        _log(letter, answer, attempts, over=over, wait_ms=wait_ms)

    def _where_it_lies(self, letter: Letter) -> Letter:
        """Return a letter as it lies in its lane, or in the heir of that."""
        event, heir = letter.event, self._settings.layout.heir(letter.event.lane)
        return letter if heir == event.lane else letter._replace(event=replace(event, lane=heir))

    async def close(self) -> None:
        """Post nothing more; what is out comes again, from another worker."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE_S)
        await self._poster.close()


def _log(letter: Letter, answer: Answer, attempts: int, *, over: bool, wait_ms: int) -> None:
    event = letter.event
    what = (event.app, event.broadcast, event.id, event.type, attempts, answer.status)
    if not answer.error:
        logs.emit(WebhookDelivered(*what, latency_ms=answer.latency_ms))
    elif over:
        logs.emit(WebhookDead(*what, error=answer.error))
    else:
        logs.emit(WebhookFailed(*what, error=answer.error, wait_ms=wait_ms))
