"""The link: a TCP proxy in front of Redis that can be cut, lose replies, and hold replicas back.

For `chaos` and tests. It runs on an event loop in a thread of its own. What Redis sends in one
piece counts as one reply: commands that wait for their answer, as ours do, come one at a time. A
lost reply is the worst case of a network: the command ran, nobody heard of it, the connection is
gone. A replica that lags is the worst case of a failover: it takes over without the last moments.

Own code, because Toxiproxy and its like cut and delay; they do not swallow one reply.
"""

import asyncio
import contextlib
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

import uvloop

_HOST: Final = "127.0.0.1"
_START_S: Final = 10.0
_SYNC: Final = b"PSYNC"
"""What only a replica asks for."""

_TICK_S: Final = 0.001


class Link:
    """Passes bytes between clients and one server, until told otherwise.

    Its methods may be called from any thread; they take effect within a turn of the loop.

    Args:
        port: the server's port on the loopback address.
        seed: of the choice which replies are lost.

    Attributes:
        port: where it listens itself.
        connections: clients served so far.
        replies: pieces that the server sent.
        lost: replies that were swallowed.
    """

    def __init__(self, port: int, seed: int = 0) -> None:
        self.port = 0
        self.connections = self.replies = self.lost = 0
        self._server_port = port
        self._rng = random.Random(seed)  # noqa: S311 - a fault, not a secret
        self._probability = 0.0
        self._lag_s = 0.0
        self._is_cut = False
        self._loop = uvloop.new_event_loop()
        self._sides: set[_Side] = set()
        self._connecting: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The URL of Redis through this link."""
        return f"redis://{_HOST}:{self.port}/0"

    @property
    def is_cut(self) -> bool:
        """Whether no connection comes through."""
        return self._is_cut

    def cut(self) -> None:
        """Drop all connections, and every new one until `heal`."""
        self._is_cut = True
        self._soon(self._drop_all)

    def heal(self) -> None:
        """Let connections through again."""
        self._is_cut = False

    def lead_to(self, port: int) -> None:
        """Lead to another server of this machine: what is open is dropped, as at a failover."""
        self._server_port = port
        self._soon(self._drop_all)

    def lose(self, probability: float) -> None:
        """Swallow each reply with this probability from now on, and drop its connection."""
        self._probability = probability

    def lag(self, seconds: float) -> None:
        """Let replicas have so much later what the server streams to them; 0: at once.

        What they have not got when it dies, or the link is cut, they never get.
        """
        self._lag_s = seconds

    # -- the loop's own ---------------------------------------------------------------------

    def run(self, started: Callable[[], None]) -> None:
        """Serve until `stop`; for a thread of its own.

        Args:
            started: called as soon as it listens.
        """
        asyncio.set_event_loop(self._loop)
        listening = self._loop.create_server(lambda: _Side(self), _HOST, 0)
        server: Any = self._loop.run_until_complete(listening)
        self.port = server.sockets[0].getsockname()[1]
        started()
        try:
            self._loop.run_forever()
        finally:
            server.close()
            self._drop_all()
            self._loop.run_until_complete(server.wait_closed())
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()

    def stop(self) -> None:
        """End `run`."""
        self._soon(self._loop.stop)

    def _soon(self, call: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call)

    @property
    def lag_s(self) -> float:
        """How much later replicas get what they are streamed."""
        return self._lag_s

    def _drop_all(self) -> None:
        for task in self._connecting:
            task.cancel()
        for side in list(self._sides):
            side.drop()

    def welcome(self, client: "_Side") -> None:
        """Connect a new client to the server, unless the link is cut."""
        self._sides.add(client)
        if self._is_cut:
            client.drop()
            return
        self.connections += 1
        task = self._loop.create_task(self._connect(client))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, client: "_Side") -> None:
        try:
            _, server = await self._loop.create_connection(
                lambda: _Side(self, client), _HOST, self._server_port
            )
        except OSError:
            client.drop()
            return
        self._sides.add(server)
        client.join(server)

    def passes(self) -> bool:
        """Say whether the next reply gets through."""
        self.replies += 1
        if self._probability and self._rng.random() < self._probability:
            self.lost += 1
            return False
        return True

    def forget(self, side: "_Side") -> None:
        """A side's connection is gone."""
        self._sides.discard(side)


class _Side(asyncio.Protocol):
    """One end of a connection; without a partner yet, or ever, it keeps what it reads.

    Args:
        link: whose.
        client: the client's side, when this is the server's.

    Attributes:
        is_replica: whether this is the side of a replica.
    """

    def __init__(self, link: Link, client: "_Side | None" = None) -> None:
        self._link = link
        self._partner = client
        self._is_server = client is not None
        self._early: list[bytes] = []
        self._transport: Any = None
        self.is_replica = False
        self._late: deque[tuple[float, bytes]] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if not self._is_server:
            self._link.welcome(self)

    def join(self, server: "_Side") -> None:
        """Take the server's side as the partner, and give it what was read so far."""
        self._partner = server
        if self._transport.is_closing():
            server.drop()
            return
        for data in self._early:
            server.write(data)
        self._early.clear()

    def write(self, data: bytes) -> None:
        """Send on to this side's peer."""
        self._transport.write(data)

    def drop(self) -> None:
        """Close at once, both ends; what was not sent is gone."""
        for side in (self, self._partner):
            if side is not None and side._transport is not None:  # noqa: SLF001 - its own kind
                side._transport.abort()  # noqa: SLF001

    def data_received(self, data: bytes) -> None:
        if self._is_server:
            self._reply(data)
        else:
            self.is_replica = self.is_replica or _SYNC in data
            if self._partner is None:
                self._early.append(data)
            else:
                self._partner.write(data)

    def _reply(self, data: bytes) -> None:
        """Pass on what the server said: at once, never, or later to a replica."""
        client = cast("_Side", self._partner)
        if not client.is_replica and not self._link.passes():
            self.drop()
            return
        lag_s = self._link.lag_s if client.is_replica else 0.0
        if not lag_s and not self._late:
            client.write(data)
            return
        loop = asyncio.get_running_loop()
        self._late.append((loop.time() + lag_s, data))
        if len(self._late) == 1:
            loop.call_at(self._late[0][0], self._reply_late)

    def _reply_late(self) -> None:
        loop = asyncio.get_running_loop()
        client = cast("_Side", self._partner)
        while self._late and self._late[0][0] <= loop.time() + _TICK_S:
            client.write(self._late.popleft()[1])
        if self._late:
            loop.call_at(self._late[0][0], self._reply_late)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._link.forget(self)
        self._late.clear()
        partner = self._partner
        if partner is not None and partner._transport is not None:  # noqa: SLF001
            partner._transport.close()  # noqa: SLF001 - what was read before is sent on first

    def pause_writing(self) -> None:
        if self._partner is not None:
            self._partner._transport.pause_reading()  # noqa: SLF001

    def resume_writing(self) -> None:
        if self._partner is not None and not self._partner._transport.is_closing():  # noqa: SLF001
            self._partner._transport.resume_reading()  # noqa: SLF001


@contextlib.contextmanager
def opened(port: int, seed: int = 0) -> Iterator[Link]:
    """Run a link in front of a local server, and end it with its connections."""
    link = Link(port, seed)
    listening = threading.Event()
    thread = threading.Thread(target=link.run, args=(listening.set,), name="link", daemon=True)
    thread.start()
    if not listening.wait(_START_S):
        raise OSError("the link does not listen")
    try:
        yield link
    finally:
        link.stop()
        thread.join(_START_S)
