"""Redis: opening it, and checking that the deployment was born with the same lanes and buckets.

A connection waits as the settings say, and no longer than the deadline of the call that uses it
(`deadline`). It leaves a server that may not be written to (`primary`).
"""

import os
import re
import socket
from typing import Any, Final, Literal

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from producers.errors import LayoutMismatchError, StoreUnavailableError
from producers.settings import Settings
from producers.store import deadline, keys, trouble
from producers.store.primary import Fleet, fleet_to, is_no_primary

Client = Any
"""A redis-py client. Its stubs give every reply as bytes or text, whatever ``decode_responses``
says, and as awaitable or not; replies are narrowed where they are read."""

LAYOUT = 1
"""Version of the key layout; a deployment of another one is refused."""


Role = Literal["producer", "worker", "web", "cli"]
"""What a connection is for, as ``CLIENT LIST`` shows it."""


def _is_since(version: str, first: tuple[int, int]) -> bool:
    major, minor = version.split(".")[:2]
    return (int(major), int(minor)) >= first


_SHORTEST_S: Final = 0.05
"""A wait that is not worth halving."""


def _patience_s(most_s: float) -> float:
    """Return how long to wait for Redis once: at most what the settings say.

    Of what the call has left it is the half, so that there is time for another connection.

    Raises:
        redis.TimeoutError: nothing is left.
    """
    left_s = deadline.left_s()
    if left_s is None:
        return most_s
    if left_s <= 0:
        raise redis.TimeoutError("the call's time is over")
    return min(most_s, max(left_s / 2, min(left_s, _SHORTEST_S)))


class _Patient(redis.connection.AbstractConnection):
    """A connection whose timeouts end with the deadline of the call that uses it.

    It closes itself when its server, or that of another one to the address, is no primary any more.
    """

    def __init__(self, fleet: Fleet, **kwargs: Any) -> None:
        self._fleet = fleet
        self._since = fleet.left
        self._most_s = float(kwargs["socket_timeout"])
        super().__init__(**kwargs)

    def _connect(self) -> Any:
        self._since = self._fleet.left
        self.socket_connect_timeout = self.socket_timeout = _patience_s(self._most_s)
        return super()._connect()  # type: ignore[safe-super, no-untyped-call]

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().read_response(*args, **kwargs)
        except redis.RedisError as error:
            if not is_no_primary(error):
                raise
            self.disconnect()  # type: ignore[no-untyped-call]
            raise self._fleet.leave(error) from None

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        if self._since != self._fleet.left:
            self.disconnect()  # type: ignore[no-untyped-call]  # sending connects anew
        patience_s = _patience_s(self._most_s)
        if self._sock is not None and self._sock.gettimeout() != patience_s:
            self._sock.settimeout(patience_s)
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]


class _PatientConnection(_Patient, redis.Connection):
    """Over TCP."""


class _PatientSslConnection(_Patient, redis.SSLConnection):
    """Over TLS."""


class _PatientUnixConnection(_Patient, redis.UnixDomainSocketConnection):
    """Over a socket of this machine."""


_CONNECTIONS: Final = {
    "redis": _PatientConnection,
    "rediss": _PatientSslConnection,
    "unix": _PatientUnixConnection,
}


class _Async(redis.asyncio.connection.AbstractConnection):
    """As `_Patient`, for an event loop; nothing there has a deadline."""

    def __init__(self, fleet: Fleet, **kwargs: Any) -> None:
        self._fleet = fleet
        self._since = fleet.left
        super().__init__(**kwargs)

    async def _connect(self) -> Any:
        self._since = self._fleet.left
        return await super()._connect()  # type: ignore[safe-super, no-untyped-call]

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().read_response(*args, **kwargs)
        except redis.RedisError as error:
            if not is_no_primary(error):
                raise
            await self.disconnect()
            raise self._fleet.leave(error) from None

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        if self._since != self._fleet.left:
            await self.disconnect()
        await super().send_packed_command(command, check_health)


class _AsyncConnection(_Async, redis.asyncio.Connection):
    """Over TCP."""


class _AsyncSslConnection(_Async, redis.asyncio.SSLConnection):
    """Over TLS."""


class _AsyncUnixConnection(_Async, redis.asyncio.UnixDomainSocketConnection):
    """Over a socket of this machine."""


_ASYNC_CONNECTIONS: Final = {
    "redis": _AsyncConnection,
    "rediss": _AsyncSslConnection,
    "unix": _AsyncUnixConnection,
}


class _PatientPool(redis.BlockingConnectionPool):
    """A pool in which a call waits for a connection no longer than its deadline."""

    @property
    def timeout(self) -> float:
        """Seconds to wait for a connection."""
        return _patience_s(self._most_s)

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._most_s = seconds


_LENT_FOR: Final = () if _is_since(redis.__version__, (5, 3)) else ("EVALSHA",)
"""redis-py before 5.3 wants to know the command, later ones warn of it."""


def lend(pool: Any) -> Any:
    """Return a connection of a pool, which is to be released."""
    return pool.get_connection(*_LENT_FOR)


def client_name(role: Role) -> str:
    """Return the name under which Redis lists this process's connections, its place included.

    A name that stands in the URL (``?client_name=``) goes before it.
    """
    host = re.sub(r"[^!-~]", "-", socket.gethostname())[:64]
    return f"wxbroadcast-{role}-{host}-{os.getpid()}"


def connect(settings: Settings, connections: int = 64, *, role: Role = "producer") -> Client:
    """Open a thread-safe client; it connects when first used.

    Args:
        settings: where Redis is, and how long a command may take.
        connections: how many may be open at once; further calls wait for one.
        role: what for.
    """
    return redis.Redis.from_pool(open_pool(settings, connections, role=role))


def open_pool(
    settings: Settings, connections: int, *, role: Role, decode_responses: bool = True
) -> redis.BlockingConnectionPool:
    """Open the pool of a client; as `connect`."""
    seconds = settings.redis_timeout.total_seconds()
    url = settings.redis_url.get_secret_value()
    return _PatientPool.from_url(
        url,
        connection_class=_CONNECTIONS[url.partition("://")[0]],
        fleet=fleet_to(url),
        max_connections=connections,
        timeout=seconds,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        health_check_interval=30,
        client_name=client_name(role),
        decode_responses=decode_responses,
        retry=Retry(NoBackoff(), 0),  # scripts carry tokens; their callers repeat them
    )


def connect_async(settings: Settings, connections: int = 64, *, role: Role = "worker") -> Client:
    """Open a client for one event loop; as `connect`."""
    seconds = settings.redis_timeout.total_seconds()
    url = settings.redis_url.get_secret_value()
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        connection_class=_ASYNC_CONNECTIONS[url.partition("://")[0]],
        fleet=fleet_to(url),
        max_connections=connections,
        timeout=seconds,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        health_check_interval=30,
        client_name=client_name(role),
        decode_responses=True,
        retry=AsyncRetry(NoBackoff(), 0),
    )
    return redis.asyncio.Redis.from_pool(pool)


def ms_of(clock: tuple[int, int]) -> int:
    """Return epoch ms from an answer to ``TIME``: (seconds, microseconds)."""
    seconds, micros = clock
    return int(seconds) * 1000 + int(micros) // 1000


def now_ms(client: Client) -> int:
    """Return the server's clock, in epoch ms.

    Raises:
        redis.RedisError: whatever asking raises; nothing is repeated.
    """
    return ms_of(client.time())


def check_layout(client: Client, settings: Settings) -> None:
    """Give birth to the deployment, or check that it was born with these lanes and buckets.

    One attempt: a start says at once what is wrong.

    Raises:
        LayoutMismatchError: it was born with others; the message says what to set.
        StoreUnavailableError: Redis did not answer, or cannot; the message says what to change.
    """
    try:
        compare_layout(client, settings)
    except redis.RedisError as error:
        raise StoreUnavailableError(trouble.in_words(error)) from error


def compare_layout(client: Client, settings: Settings) -> None:
    """As `check_layout`; what Redis raises comes as it is.

    It writes only what is not there, so that a Redis which is full or a replica can be read.
    """
    mine = {"lanes": settings.lanes, "buckets": settings.buckets, "layout": LAYOUT}
    born = client.hgetall(keys.DEPLOYMENT)
    if not mine.keys() <= born.keys():
        for field, value in mine.items():
            client.hsetnx(keys.DEPLOYMENT, field, str(value))
        born = client.hgetall(keys.DEPLOYMENT)
    faults = [
        f"WXB_{field.upper()} is {value}, this deployment was born with {born[field]}"
        for field, value in mine.items()
        if int(born[field]) != value
    ]
    if faults:
        raise LayoutMismatchError("; ".join(faults) + ": set the value it was born with")
