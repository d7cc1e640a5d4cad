"""Distance: a TCP proxy that lets bytes come half a round trip later, each way, and counts trips.

Bandwidth is as it is: what comes while other bytes are under way follows them. A trip is a question
on one connection that leaves after an answer on it has come: as many as a caller waits for one
after the other, whatever a pipeline holds, where all of that leaves within the round trip.
`tests.bench.away` runs one in a process of its own.

Own code, because Toxiproxy delays, but counts no trips, and is another program to install.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any, Final, cast
from urllib.parse import urlsplit

import uvloop

_HOST: Final = "127.0.0.1"
_START_S: Final = 10.0


class Distance:
    """Passes bytes between clients and one server on this machine; one event loop's.

    Args:
        port: the server's.

    Attributes:
        port: where it listens itself, once it runs.
        one_way_s: how long each byte takes; may be changed from any thread.
        trips: of all connections so far.
        connections: made so far.
    """

    def __init__(self, port: int, rtt_ms: float = 0.0) -> None:
        self.port = 0
        self.one_way_s = rtt_ms / 2000
        self.trips = self.connections = 0
        self._server_port = port
        self._loop = uvloop.new_event_loop()
        self._transports: set[asyncio.Transport] = set()
        self._connecting: set[asyncio.Task[None]] = set()

    def run(self, started: "threading.Event") -> None:
        """Serve until `stop`; sets `started` as soon as it listens."""
        asyncio.set_event_loop(self._loop)
        listening = self._loop.create_server(lambda: _Client(self), _HOST, 0)
        server: Any = self._loop.run_until_complete(listening)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        try:
            self._loop.run_forever()
        finally:
            server.close()
            for transport in list(self._transports):
                transport.abort()
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()

    def stop(self) -> None:
        """End `run`; from any thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)

    def join(self, client: "_Client") -> None:
        """Connect a client to the server."""
        self.connections += 1
        task = self._loop.create_task(self._join(client))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _join(self, client: "_Client") -> None:
        try:
            await self._loop.create_connection(
                lambda: _Server(self, client), _HOST, self._server_port
            )
        except OSError:
            client.transport.abort()

    def keep(self, transport: asyncio.Transport) -> None:
        """A connection is there."""
        self._transports.add(transport)

    def forget(self, transport: asyncio.Transport) -> None:
        """It is gone."""
        self._transports.discard(transport)


class _End(asyncio.Protocol):
    """One end of a connection; what it reads goes to the other one, later."""

    def __init__(self, distance: Distance) -> None:
        self._distance = distance
        self._loop = asyncio.get_event_loop()
        self._on_the_way: deque[tuple[float, bytes]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport
        self.other: _End | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._distance.keep(self.transport)

    def data_received(self, data: bytes) -> None:
        self._on_the_way.append((self._loop.time() + self._distance.one_way_s, data))
        if self._timer is None:
            self.arrive()

    def arrive(self) -> None:
        """Give the other end what has been under way for long enough."""
        self._timer = None
        if self.other is None:
            return
        now, way = self._loop.time(), self._on_the_way
        while way and way[0][0] <= now:
            self.give(way.popleft()[1])
        if way:
            self._timer = self._loop.call_later(max(0.0, way[0][0] - now), self.arrive)

    def give(self, data: bytes) -> None:
        """Give the other end what has come so far."""
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._distance.forget(self.transport)
        if self._timer is not None:
            self._timer.cancel()
        for _, data in self._on_the_way:
            self.give(data)
        if self.other is not None:
            self.other.transport.close()


class _Client(_End):
    """Where a client asks."""

    answered = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._distance.join(self)

    def data_received(self, data: bytes) -> None:
        if self.answered:
            self.answered = False
            self._distance.trips += 1
        super().data_received(data)


class _Server(_End):
    """Where the server answers."""

    def __init__(self, distance: Distance, client: _Client) -> None:
        super().__init__(distance)
        self.other: _Client = client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.other.other = self
        if self.other.transport.is_closing():
            self.transport.abort()
        self.other.arrive()

    def give(self, data: bytes) -> None:
        self.other.answered = True  # what it asks from now on may follow from that
        super().give(data)


def through(distance: Distance, url: str) -> str:
    """Return the URL of a Redis through a distance to it."""
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}{at}{_HOST}:{distance.port}").geturl()


@contextlib.contextmanager
def away(url: str, rtt_ms: float = 0.0) -> Iterator[Distance]:
    """Run a distance to a local Redis on a thread, and end it with its connections."""
    distance = Distance(urlsplit(url).port or 6379, rtt_ms)
    listening = threading.Event()
    thread = threading.Thread(target=distance.run, args=(listening,), name="distance", daemon=True)
    thread.start()
    if not listening.wait(_START_S):
        raise OSError("the distance does not listen")
    try:
        yield distance
    finally:
        distance.stop()
        thread.join(_START_S)
