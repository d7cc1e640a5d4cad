"""The clerk: reads the lists of templates that somebody wants, from WeChat into Redis.

What is wanted lies in `keys.TEMPLATES_DUE` (template_want.lua); every worker has a clerk that looks
there each second, and at once when it hears of it. A lease in Redis gives each call to one of them
(template_begin.lua), spares WeChat's quota for all of them, and makes nothing of it should that one
die. Apps are read side by side, one that hangs holds one of `_AT_ONCE` places for `_WHOLE_S` at the
most, and less and less often: it delays the others by seconds, and spends no quota of theirs.

A worker without a token of the app, or without a connection to its WeChat, leaves it to the others.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import aiohttp
import redis

from producers import logs
from producers.errors import StoreUnavailableError
from producers.logs.events import DutyFailed, StoreUnreachable, TemplatesFailed, TemplatesRead
from producers.logs.redaction import redacted
from producers.outward import NEVER_SENT, named
from producers.settings import Settings
from producers.store import Client, keys
from producers.store.scripts import Script
from producers.templates.template import Template
from producers.templates.templates import TTL_MS
from producers.words import Channel
from workers.templates.answers import MOST, stored, templates_in
from workers.wechat.client import WeChat
from workers.wechat.errcodes import Disposition, rule
from workers.wechat.tokens import TokenKeeper

_EVERY_S: Final = 1.0
_AT_ONCE: Final = 8
"""Apps that one worker reads at the same time."""

_EARLY_S: Final = 0.05
"""How far the server's clock, as it is known here, may be behind; the script decides."""

_WHOLE_S: Final = 8.0
"""One list, all its pages."""

_LEASE_MS: Final = 15_000
"""Longer than reading a list, and telling of it."""

PAUSE_MS: Final = 3_000
QUICK: Final = 50
SLOW_MS: Final = 600_000
"""Calls for one list begin so far apart; after so many in a day, so far: under 200 a day.

WeChat publishes no quota of these calls; 45009 was seen.
"""

_AGAIN_MS: Final = 60_000
_MOST_MS: Final = 3_600_000
"""After a failure, and at most: a deployment that does not know the call is asked each hour."""

_AWAY_S: Final = 20.0
"""So long a worker that could not ask leaves an app to the others."""

_SOON_S: Final = 0.9
"""As `_AWAY_S`, where there is no token yet: another worker may be fetching it."""

_PAGE: Final = 20
"""Templates of a page of the form_id API's list, WeChat's most."""

_PAGES: Final = 10
"""Pages that are read; an account had at most 25 templates (WeChat docs, 2018)."""

_ANSWER_BYTES: Final = 1_048_576

PATHS: Final = {
    Channel.SUBSCRIBE: "/wxaapi/newtmpl/gettemplate",
    Channel.TEMPLATE: "/cgi-bin/wxopen/template/list",
}


class ListKeys(NamedTuple):
    """KEYS of template_begin.lua and template_end.lua."""

    list: str
    due: str


class BeginArgs(NamedTuple):
    """ARGV of template_begin.lua."""

    member: str
    worker: str
    lease_ms: int
    pause_ms: int
    quick: int
    slow_ms: int
    ttl_ms: int


class EndArgs(NamedTuple):
    """ARGV of template_end.lua."""

    member: str
    worker: str
    began_ms: int
    outcome: str
    list: str
    trouble: str
    again_ms: int
    most_ms: int
    ttl_ms: int


BEGIN: Final = Script(__package__, "template_begin", ListKeys, BeginArgs, clock=True)
END: Final = Script(__package__, "template_end", ListKeys, EndArgs, clock=True)


class _RefusedError(Exception):
    """WeChat answered with an errcode."""

    def __init__(self, errcode: int, errmsg: str) -> None:
        super().__init__(f"{errcode} {errmsg}")
        self.errcode = errcode


class _TooLongError(Exception):
    """The answer has more bytes than any list."""


class _Got(NamedTuple):
    """What came of a call: read, failed or left; why; and what was read."""

    outcome: str
    trouble: str = ""
    errcode: int = 0
    text: str = ""
    found: int = 0
    is_whole: bool = True


class Clerk:
    """One worker's; belongs to one event loop, but for `hurry`.

    Args:
        client: Redis, for the loop.
        settings: the apps.
        wechat: the client.
        tokens: app → its token keeper.
        connects: says whether connections to an app's WeChat come up.
        worker: this worker's id.
        server_time: epoch seconds by the Redis server's clock.
        loop: the event loop.
    """

    def __init__(
        self,
        client: Client,
        settings: Settings,
        wechat: WeChat,
        tokens: Mapping[str, TokenKeeper],
        connects: Callable[[str], bool],
        worker: str,
        server_time: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._client = client
        self._settings = settings
        self._wechat = wechat
        self._tokens = tokens
        self._connects = connects
        self._worker = worker
        self._server_time = server_time
        self._loop = loop
        self._begin = BEGIN.on(client)
        self._end = END.on(client)
        self._hurried = asyncio.Event()
        self._next_at = float("-inf")
        self._away_until: dict[str, float] = {}
        self._reading: dict[str, asyncio.Task[None]] = {}

    def hurry(self) -> None:
        """Something is wanted; from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._hurried.set)

    def due(self, now: float) -> bool:
        """Say whether it is time for a look."""
        return now >= self._next_at or self._hurried.is_set()

    async def rest(self) -> None:
        """Sleep until it is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._next_at - time.monotonic())):
                await self._hurried.wait()

    async def run(self) -> None:
        """Begin to read what is wanted, as far as there are places."""
        self._hurried.clear()
        self._next_at = time.monotonic() + _EVERY_S
        if len(self._reading) >= _AT_ONCE:
            return
        try:
            wanted = await self._client.zrange(keys.TEMPLATES_DUE, 0, -1, withscores=True)
        except (redis.RedisError, StoreUnavailableError) as error:
            logs.emit(StoreUnreachable("looking for lists to read", type(error).__name__, 1))
            return
        now_ms = self._server_time() * 1000
        random.shuffle(wanted)  # so that workers do not all try the same one
        for member, at_ms in wanted:
            wait_s = (at_ms - now_ms) / 1000
            if wait_s > _EARLY_S:  # it comes up at its time
                self._next_at = min(self._next_at, time.monotonic() + wait_s)
                continue
            channel, _, app = member.partition(" ")
            if (
                member in self._reading
                or app not in self._tokens
                or channel not in PATHS
                or self._away_until.get(app, 0.0) > time.monotonic()
                or not self._connects(app)
            ):
                continue
            if len(self._reading) >= _AT_ONCE:
                return
            task = asyncio.get_running_loop().create_task(self._serve(app, Channel(channel)))
            self._reading[member] = task
            task.add_done_callback(partial(self._ended, member))

    def _ended(self, member: str, task: asyncio.Task[None]) -> None:
        self._reading.pop(member, None)
        error = None if task.cancelled() else task.exception()
        if error is not None:  # the other apps go on; it comes again after its lease
            logs.emit(DutyFailed("read templates", -1, type(error).__name__))

    async def close(self) -> None:
        """Stop; leases end by themselves."""
        tasks = list(self._reading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, app: str, channel: Channel) -> None:
        """Read one list, unless another worker does."""
        try:
            token = await self._token(app)
            if not token:
                self._leave(app, _SOON_S)
                return
            await self._read(app, channel, token)
        except (redis.RedisError, StoreUnavailableError) as error:  # it stays wanted
            logs.emit(StoreUnreachable("reading templates", type(error).__name__, 1))
            self._leave(app, _SOON_S)

    def _leave(self, app: str, away_s: float) -> None:
        self._away_until[app] = time.monotonic() + away_s

    async def _token(self, app: str) -> str:
        """Return an app's access token, or '' when there is none now."""
        keeper = self._tokens[app]
        if keeper.ready is None:
            await keeper.tick()
        return keeper.ready.value if keeper.ready else ""

    async def _read(self, app: str, channel: Channel, token: str) -> None:
        here = ListKeys(keys.templates(app, channel), keys.TEMPLATES_DUE)
        member = f"{channel} {app}"
        begin = BeginArgs(member, self._worker, _LEASE_MS, PAUSE_MS, QUICK, SLOW_MS, TTL_MS)
        begun, began_ms = await self._begin(here, begin)
        if not int(begun):
            return
        started = time.monotonic()
        got = await self._fetch(app, channel, token)
        ended, next_ms = await self._end(
            here,
            EndArgs(
                member,
                self._worker,
                int(began_ms),
                got.outcome,
                got.text,
                got.trouble[:200],
                _AGAIN_MS,
                _MOST_MS,
                TTL_MS,
            ),
        )
        if not int(ended):
            return  # it took longer than the lease
        if got.outcome == "read":
            took_ms, size = round((time.monotonic() - started) * 1000), len(got.text.encode())
            logs.emit(TemplatesRead(app, channel, got.found, got.is_whole, size, took_ms))
        else:
            wait_ms = max(0, int(next_ms) - round(self._server_time() * 1000))
            logs.emit(TemplatesFailed(app, channel, got.errcode, got.trouble[:200], wait_ms))

    async def _fetch(self, app: str, channel: Channel, token: str) -> "_Got":
        try:
            async with asyncio.timeout(_WHOLE_S):
                templates, is_whole = await self._pages(app, channel, token)
        except _RefusedError as error:
            if rule(error.errcode).disposition is Disposition.REFRESH_TOKEN:
                self._tokens[app].refuse(token)
            return _Got("failed", str(error), error.errcode)
        # an error's text may hold the URL, and with it the token: only its name is said
        except NEVER_SENT as error:
            self._leave(app, _AWAY_S)
            return _Got("left", named(error))
        except _TooLongError:
            return _Got("failed", f"the answer has more than {_ANSWER_BYTES:,} bytes")
        except TimeoutError:
            return _Got("failed", "no answer in time")
        except ValueError as error:
            return _Got("failed", f"no list in the answer: {redacted(str(error))}")
        except (aiohttp.ClientError, OSError) as error:
            return _Got("failed", type(error).__name__)
        text = stored(templates, is_whole=is_whole)
        return _Got("read", text=text, found=len(templates), is_whole=is_whole)

    async def _pages(self, app: str, channel: Channel, token: str) -> tuple[list[Template], bool]:
        """Return a whole list; subscribe's comes at once, the other's in pages."""
        if channel is Channel.SUBSCRIBE:
            return templates_in(channel, await self._call(app, channel, token, None))
        found: list[Template] = []
        is_whole = True
        for offset in range(0, _PAGES * _PAGE, _PAGE):
            page = {"offset": offset, "count": _PAGE}
            answer = await self._call(app, channel, token, page)
            templates, whole = templates_in(channel, answer)
            found, is_whole = found + templates, is_whole and whole
            if len(answer["list"]) < _PAGE:
                return found[:MOST], is_whole and len(found) <= MOST
        return found[:MOST], False

    async def _call(
        self, app: str, channel: Channel, token: str, page: dict[str, int] | None
    ) -> dict[str, Any]:
        answer = await self._wechat.ask(
            app, token, PATHS[channel], json=page, most_bytes=_ANSWER_BYTES
        )
        if answer is None:
            raise _TooLongError
        errcode = answer.get("errcode") or 0
        if errcode:
            known = errcode if isinstance(errcode, int) and abs(errcode) < 2**31 else -1
            raise _RefusedError(known, redacted(str(answer.get("errmsg", "")))[:150])
        return answer
