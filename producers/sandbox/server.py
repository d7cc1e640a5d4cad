"""The sandbox: the socket, and all that is behind it.

In a test::

    async with Sandbox(SandboxConfig(permits="any")) as sandbox:
        ...  # POST to sandbox.url + "/cgi-bin/message/subscribe/send?access_token=…"

As a process: ``run("127.0.0.1", 0, SandboxConfig())``.
"""

import asyncio
import contextlib
import random
import signal
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import orjson

from producers.sandbox.config import SandboxConfig
from producers.sandbox.connection import Connection
from producers.sandbox.control.orders import Control
from producers.sandbox.http1 import Request, Sheet
from producers.sandbox.pushes.events import Callback, Event
from producers.sandbox.pushes.pusher import Pusher
from producers.sandbox.state import State


class Sandbox:
    """A local WeChat.

    Args:
        config: what it is told; the defaults when None.
        host: to listen on; loopback, for it has no password.
        port: 0 takes a free one.
        now: epoch seconds; tests hold it.
        rng: all randomness; tests seed it.

    Attributes:
        state: all that it knows.
        orders: the control API as methods: ``give``, ``set_faults``, ``configure``, ``reset``,
            ``stats``.
    """

    def __init__(
        self,
        config: SandboxConfig | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        now: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self._host = host
        self._port = port
        # nothing here guards anything: tokens and rids of a fake
        rng = rng or random.Random()  # noqa: S311
        self.state = State(config or SandboxConfig(), now, rng)
        self.orders = Control(self.state, self._renew_pusher, self.announce, self._pushes)
        self.connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._pusher: Pusher | None = None
        self._callback: Callback | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end; to be used as WeChat's base address."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the port is taken.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self), self._host, self._port, backlog=4096
        )
        self._port = self._server.sockets[0].getsockname()[1]
        self._renew_pusher()

    async def stop(self) -> None:
        """Stop listening, and close every connection at once."""
        if self._server is None:
            return
        self._server.close()
        connections = tuple(self.connections)
        for connection in connections:
            connection.abort()
        await asyncio.gather(*(connection.closed for connection in connections))
        await self._server.wait_closed()
        self._server = None
        if self._pusher is not None:
            await self._pusher.stop()
            self._pusher = self._callback = None
        await asyncio.gather(*self._closing)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    def control(self, request: Request) -> Sheet:
        """Answer a control request."""
        return self.orders.handle(request)

    def announce(self, event: Event) -> None:
        """Push an event in the background, if there is a callback."""
        if self._pusher is not None:
            self._pusher.offer(event)

    async def announce_first(self, event: Event) -> None:
        """Push an event and wait for its answer."""
        if self._pusher is not None:
            await self._pusher.push(event)

    async def drain_events(self) -> None:
        """Wait until every event has been delivered or given up."""
        if self._pusher is not None:
            await self._pusher.drain()

    def _pushes(self) -> dict[str, int]:
        return self._pusher.counts if self._pusher is not None else {}

    def _renew_pusher(self) -> None:
        callback = self.state.config.callback
        if callback == self._callback or self._server is None:
            return
        if self._pusher is not None:
            closing = asyncio.get_running_loop().create_task(self._pusher.stop())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        self._callback, self._pusher = callback, None
        if callback is not None:
            self._pusher = Pusher(callback, self.state.now, self.state.rng)
            self._pusher.start()


async def _serve(host: str, port: int, config: SandboxConfig) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C still ends it
            loop.add_signal_handler(number, ended.set)
    async with Sandbox(config, host=host, port=port) as sandbox:
        line = {"event": "sandbox_started", "url": sandbox.url}
        sys.stdout.write(orjson.dumps(line).decode() + "\n")
        sys.stdout.flush()
        await ended.wait()


def run(host: str, port: int, config: SandboxConfig) -> None:
    """Run a sandbox until SIGTERM or SIGINT.

    When it listens, one JSON line on stdout says so: ``{"event":"sandbox_started","url":"…"}``.

    Args:
        host: to listen on.
        port: 0 takes a free one.
        config: what it is told.

    Raises:
        OSError: the port is taken.
    """
    if sys.platform == "win32":
        asyncio.run(_serve(host, port, config))
        return
    import uvloop  # noqa: PLC0415 - there is none for Windows

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(host, port, config))
