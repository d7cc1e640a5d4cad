"""One process of the HTTP service: it listens, answers, and ends gracefully.

SIGTERM or SIGINT: no new connection is taken, idle ones are closed, what runs is finished and its
connection closed with the answer; what has not ended after eight seconds is cut. If the process is
killed instead, whatever was answered is stored, and what was not is sent again by its client.
"""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson
import redis
from aiohttp import web

from producers import logs, store
from producers.errors import InvalidInputError, SettingsError
from producers.logs.events import WebOutlived, WebStarted, WebStopped, WebStopping
from producers.settings import Settings, import_log_processors
from producers.store import deadline
from producers.store.lanes.layout import follow, is_older
from producers.web.entry import Entry
from producers.web.http.connection import Bounds, Server
from producers.web.routes import TABLE
from producers.web.routing.openapi import document
from producers.web.routing.page import page
from producers.web.routing.router import Router
from producers.web.services import Documents, Services

_AIOHTTP: Final = (3, 14, 4)
"""Older ones give a client who never sends a whole head all the time in the world."""

_DRAIN_S: Final = 8.0
_END_S: Final = 1.5
"""After the drain, for what is cut to notice."""
_LOOK_S: Final = 1.0
_SURE: Final = 2
"""Looks in a row that found fewer lanes: one answer may have been overtaken by a newer one."""
_OUTLIVED: Final = 75
"""Exit code: start it anew (EX_TEMPFAIL of sysexits.h), as a worker's."""
_BACKLOG: Final = 1024
_DOORS: Final = 1 if sys.platform == "win32" else 16
"""Times that the event loop listens on the socket: uvloop takes one new connection a turn of each,
and a new one waits behind all that came before it. Windows' own loop takes all."""
_GARBAGE: Final = (50_000, 20, 50)
"""Python looks for cycles once in so many new objects: requests leave none, and bulk bodies are
many objects at once."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where to listen.

    Attributes:
        host: address or name.
        port: 0 takes a free one.
        shared: whether other processes of the same service listen there too.
    """

    host: str
    port: int
    shared: bool = False


def bind(place: Place) -> socket.socket:
    """Return a bound socket.

    Raises:
        InvalidInputError: the address is not one of this machine, or is in use.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            place.host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if place.shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
    except OSError as error:
        raise InvalidInputError(
            [f"cannot listen on {place.host}:{place.port}: {error.strerror}"]
        ) from error
    bound.setblocking(False)
    return bound


class Service:
    """The running service.

    Attributes:
        port: where it listens.
        entry: what answers.
    """

    def __init__(self, settings: Settings) -> None:
        self.services = Services(settings, _documents())
        self.entry = Entry(self.services, Router(TABLE))
        self.port = 0
        self._server: Server
        self._runner: web.ServerRunner | None = None

    async def start(self, bound: socket.socket) -> None:
        """Listen."""
        settings = self.services.settings
        await self.services.open()
        bounds = Bounds(
            settings.web_connections,
            None if settings.web_proxies else settings.web_connections_of_address,
            settings.web_keepalive.total_seconds(),
        )
        self._server = Server(self.entry, bounds)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=_DRAIN_S)
        await self._runner.setup()
        for door in (bound, *(bound.dup() for _ in range(_DOORS - 1))):
            await web.SockSite(self._runner, door, backlog=_BACKLOG).start()
        host, self.port = bound.getsockname()[:2]
        logs.emit(WebStarted(host, self.port, os.getpid()))

    async def stop(self) -> None:
        """Finish what runs, and close everything."""
        began = time.monotonic()
        self.services.stopping = True
        logs.emit(WebStopping(self.entry.at_work))
        if self._runner is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_S):
                    await self._drained(self._runner)
            left = self.entry.at_work
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_S):
                    await self._runner.cleanup()
        else:
            left = 0
        await self.services.close()
        logs.emit(WebStopped(left, round(time.monotonic() - began, 3)))

    async def _drained(self, runner: web.ServerRunner) -> None:
        """Take no new connection, and wait until every request has its answer."""
        for site in list(runner.sites):
            await site.stop()
        while self._server.close_idle() or self.entry.at_work:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)


def _documents() -> Documents:
    made = document(TABLE)
    return Documents(orjson.dumps(made), page(made).encode())


@contextlib.asynccontextmanager
async def serving(settings: Settings, place: Place) -> AsyncIterator[Service]:
    """Run the service within a block; for tests, and for `run`."""
    bound = bind(place)
    service = Service(settings)
    await service.start(bound)
    try:
        yield service
    finally:
        await service.stop()


async def _follow_lanes(client: Any, settings: Settings, outlived: Callable[[], None]) -> None:
    """Learn each second which lanes there are, whether anybody asks this process or nobody.

    A Redis that knows of fewer forgot them, or is a backup: nothing more may be stored where nobody
    would look for it. `outlived` is called, and the process is to be started anew.
    """

    def look() -> bool:
        with deadline.within(_LOOK_S), contextlib.suppress(redis.RedisError):
            return not follow(client, settings) and is_older(client, settings)
        return False

    older = 0
    while True:
        older = older + 1 if await asyncio.to_thread(look) else 0
        if older >= _SURE:
            outlived()
        await asyncio.sleep(_LOOK_S)


async def _until_signal(settings: Settings, place: Place, parent: int | None) -> int:
    """Serve until told to stop; returns the exit code."""
    ended, code = asyncio.Event(), 0

    def outlived() -> None:
        nonlocal code
        if not ended.is_set():
            logs.emit(WebOutlived(os.getpid(), "redis knows of fewer lanes than there were"))
            code = _OUTLIVED
            ended.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    if parent is not None:
        loop.add_reader(parent, ended.set)  # its end of the pipe is closed: it is no more
    async with serving(settings, place) as service:
        gc.collect()
        gc.freeze()  # what exists by now stays
        gc.set_threshold(*_GARBAGE)
        looking = asyncio.create_task(_follow_lanes(service.services.client, settings, outlived))
        await ended.wait()
        looking.cancel()
        if parent is not None:
            loop.remove_reader(parent)
    return code


def check_aiohttp() -> None:
    """Refuse an aiohttp that does not bound what clients may do (see `http.connection`).

    Producers and workers bear older ones, which a backend may pin.

    Raises:
        SettingsError: it is such a one; the message says what to install.
    """
    found = tuple(int(part) for part in aiohttp.__version__.split(".")[:3] if part.isdecimal())
    if found < _AIOHTTP:
        oldest = ".".join(map(str, _AIOHTTP))
        raise SettingsError(
            f"aiohttp {aiohttp.__version__} waits for a request's head without end: the HTTP "
            f"service needs {oldest} or newer (pip install 'aiohttp>={oldest}')"
        )


def run(settings: Settings, place: Place, *, parent: int | None = None) -> int:
    """Run one process until SIGTERM, SIGINT, or the end of its parent.

    Args:
        settings: as loaded.
        place: where to listen.
        parent: descriptor of a pipe that the parent holds open.

    Returns:
        The exit code.

    Raises:
        SettingsError: an aiohttp is installed on which the service would not be safe.
        LayoutMismatchError: the deployment has other lanes or buckets.
        StoreUnavailableError: Redis does not answer.
        InvalidInputError: cannot listen there.
    """
    check_aiohttp()
    logs.configure_unless_hosted(f"web-{os.getpid()}", import_log_processors(settings))
    client = store.connect(settings, 2, role="web")
    try:
        store.check_layout(client, settings)
    finally:
        client.connection_pool.disconnect()
    main = _until_signal(settings, place, parent)
    if sys.platform == "win32":
        code = asyncio.run(main)
    else:
        import uvloop  # noqa: PLC0415 - there is none for Windows

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            code = runner.run(main)
    if any(one.name.startswith("web") for one in threading.enumerate()):
        logs.close()
        os._exit(code)  # a thread still waits for Redis, and nobody for it
    return code
