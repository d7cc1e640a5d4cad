"""Readings of WeChat's quota: how much of the day's is left, per app and channel.

An app that sends is asked about each ten minutes, each minute once a tenth is left, and soon after
WeChat said that the day is used up (45009); one that rests each six hours. All workers together
make at most 500 calls a day for an app. A private deployment that does not answer leaves the quota
unknown, and nothing waits for it.

What remained when it was asked, less all slots given since, is what the limiter lets through
(reserve.lua). Slots that were given just before may not have arrived at WeChat: so the count is
taken first, and the question asked a moment later. What is counted twice by that is corrected by
the next reading.
"""

import asyncio
import random
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import redis

from producers import logs
from producers.logs.events import QuotaRead, QuotaUnknown, StoreUnreachable
from producers.settings import Settings
from producers.store import Client, keys
from producers.store.scripts import Script
from producers.words import Channel
from workers.limits.gate import Gate
from workers.quotas.asking import Asking, NoAnswerError
from workers.wechat.envelope import SUBSCRIBE_SEND, TEMPLATE_SEND

PATH: Final = "/cgi-bin/openapi/quota/get"
PATHS: Final = {Channel.SUBSCRIBE: SUBSCRIBE_SEND, Channel.TEMPLATE: TEMPLATE_SEND}

MOST: Final = 500
"""Calls a day for one app."""
_FAR_MS: Final = 600_000
_NEAR_MS: Final = 60_000
_URGENT_MS: Final = 30_000
_RESTS_MS: Final = 6 * 3_600_000

_LOOK_S: Final = 5.0
"""How often a worker looks whether it is time to ask for an app that sends, …"""
_REST_S: Final = 1800.0
"""… and for one that rests."""
_AT_WORK_S: Final = 600.0
_AT_ONCE: Final = 8
_DAY_MS: Final = 86_400_000


class NoteKeys(NamedTuple):
    """KEYS of quota_note.lua."""

    quotas: str
    limiter: str


class NoteArgs(NamedTuple):
    """ARGV of quota_note.lua."""

    channel: str
    limit: int
    used: int
    remain: int
    per: int
    per_s: int
    sent: int
    until_ms: int


NOTE: Final = Script(__package__, "quota_note", NoteKeys, NoteArgs, clock=True)


class Readings:
    """Reads for one worker; belongs to one event loop.

    Args:
        client: Redis.
        settings: which apps are asked about, and when their days end.
        asking: asks.
        gates: app → what this worker knows of its limits.
        server_time: epoch seconds by the Redis server's clock.
        settle_s: how long after the count WeChat is asked.
    """

    def __init__(
        self,
        client: Client,
        settings: Settings,
        asking: Asking,
        gates: Mapping[str, Gate],
        server_time: Any,
        settle_s: float = 2.0,
    ) -> None:
        self._settings = settings
        self._asking = asking
        self._gates = gates
        self._server_time = server_time
        self._settle_s = settle_s
        self._note = NOTE.on(client)
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._next_at: dict[tuple[str, Channel], float] = {}
        self._unknown: dict[tuple[str, str], str] = {}

    def due(self, now: float) -> bool:  # noqa: ARG002
        """Say yes: it looks whether anything is due."""
        return True

    async def rest(self) -> None:
        """Sleep for a second."""
        await asyncio.sleep(1.0)

    async def run(self) -> None:
        """Read what is due, several at once; lets nothing out."""
        now = time.monotonic()
        due = [
            (app, channel)
            for app, one in self._settings.apps.items()
            if one.read_quota and app in self._gates
            for channel in Channel
            if self._is_due(app, channel, now)
        ]
        if due:
            await asyncio.gather(*(self._read(app, channel) for app, channel in due))

    def _is_at_work(self, app: str, channel: Channel, now: float) -> bool:
        gate = self._gates[app]
        return now - gate.used.get(channel, -_AT_WORK_S) < _AT_WORK_S or channel in gate.spent

    def _is_due(self, app: str, channel: Channel, now: float) -> bool:
        gate, place = self._gates[app], (app, channel)
        at_work = self._is_at_work(app, channel, now)
        if place not in self._next_at:  # not all of them at once
            self._next_at[place] = now + random.uniform(2, 60)  # noqa: S311
        if at_work and self._next_at[place] > now + _LOOK_S:
            self._next_at[place] = now  # it has just begun
        if not at_work and channel is Channel.TEMPLATE:
            return False  # retired: nobody asks before somebody sends by it
        if now < self._next_at[place] and channel not in gate.urgent:
            return False
        pause_s = _LOOK_S if at_work else _REST_S
        self._next_at[place] = now + pause_s * random.uniform(0.75, 1)  # noqa: S311
        return self._asking.can(app)

    async def _read(self, app: str, channel: Channel) -> None:
        async with self._places:
            try:
                await self._ask(app, channel)
            except redis.RedisError as error:
                logs.emit(StoreUnreachable("reading the quota", type(error).__name__, 1))
            except Exception as error:  # noqa: BLE001  (it may be unknown: nothing waits for it)
                logs.emit(QuotaUnknown(app, channel, type(error).__name__))

    async def _ask(self, app: str, channel: Channel) -> None:
        gate = self._gates[app]
        far_ms = _FAR_MS if self._is_at_work(app, channel, time.monotonic()) else _RESTS_MS
        near_ms = _NEAR_MS
        if channel in gate.urgent:
            gate.urgent.discard(channel)
            far_ms = near_ms = _URGENT_MS
        sent = await self._asking.may(app, keys.quotas(app), channel, far_ms, near_ms, MOST)
        if sent is None:
            return
        await asyncio.sleep(self._settle_s)
        try:
            answer = await self._asking.call(app, PATH, {"cgi_path": PATHS[channel]})
            said = _numbers(answer)
        except NoAnswerError as error:
            if self._unknown.get((app, channel)) != str(error):
                self._unknown[app, channel] = str(error)
                logs.emit(QuotaUnknown(app, channel, str(error)))
            await self._asking.jot(keys.quotas(app), f"error:{channel}", str(error))
            return
        self._unknown.pop((app, channel), None)
        now_ms = round(self._server_time() * 1000)
        passed_ms = (now_ms + self._settings.app(app).day_offset_ms()) % _DAY_MS
        limit, used, remain, per, per_s = said
        await self._note(
            NoteKeys(keys.quotas(app), keys.limiter(app)),
            NoteArgs(channel, limit, used, remain, per, per_s, sent, now_ms - passed_ms + _DAY_MS),
        )
        logs.emit(QuotaRead(app, channel, limit, used, remain))


def _numbers(answer: dict[str, Any]) -> tuple[int, int, int, int, int]:
    """Return limit, used, remain, and calls in so many seconds (0, 0: not told).

    Raises:
        NoAnswerError: they are no numbers, or there is no limit.
    """
    quota, rate = answer.get("quota"), answer.get("rate_limit")
    try:
        told = quota if isinstance(quota, dict) else {}
        limit, used, remain = (int(told[name]) for name in ("daily_limit", "used", "remain"))
        per, per_s = 0, 0
        if isinstance(rate, dict):
            per, per_s = int(rate["call_count"]), int(rate["refresh_second"])
    except (KeyError, TypeError, ValueError):
        raise NoAnswerError("not the numbers of a quota") from None
    if not 0 < limit < 2**52 or not 0 <= per < 2**52 or not 0 <= per_s < 2**31:
        raise NoAnswerError("no limit is told")
    return limit, min(max(0, used), 2**52), min(max(0, remain), limit), per, per_s
