"""Patience: connections that wait as long as their call may, and leave who is no primary.

A connection waits as the settings say, and no longer than the deadline of the call that uses it
(`deadline`). It leaves a server that may not be written to (`primary`). Where sentinels know the
primary, each connection is made to the one that they name at that moment, and left when they name
another one.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import redis
import redis.asyncio

from producers.store import deadline
from producers.store.lanes.fence import QUESTION, Fence, Turn
from producers.store.primary import Fleet, NotDoneError, is_no_primary

Place = tuple[str, int]
"""Host and port of a server."""


def _is_since(version: str, first: tuple[int, int]) -> bool:
    major, minor = version.split(".")[:2]
    return (int(major), int(minor)) >= first


_CHECKS_HEALTH: Final = hasattr(redis.connection.AbstractConnection, "on_connect_check_health")
"""Of later versions of redis-py: what a new connection goes through."""

_SHORTEST_S: Final = 0.05
"""A wait that is not worth halving."""

_LATE_S: Final = 1.5
"""An answer of a primary that took longer: it stood still, and others may have chosen another one.
More than a replica is waited for (`replicas`)."""


def patience_s(most_s: float) -> float:
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


_TRIES: Final = 3
"""How often one call connects anew because the primary is another one by then."""


class _Making:
    """Whether a connection is being made: what it says meanwhile does not make it anew."""

    _is_made = False
    _fleet: Fleet
    _since: int

    @contextlib.contextmanager
    def _being_made(self) -> Iterator[None]:
        before, self._is_made = self._is_made, True
        try:
            yield
        finally:
            self._is_made = before

    @property
    def _is_left(self) -> bool:
        """Whether its server is no primary any more, as another connection found out."""
        return self._since != self._fleet.left


def _changed_too_often() -> NotDoneError:
    return NotDoneError(f"another primary was named {_TRIES} times while connecting")


def _judge(asked_at: float | None, fleet: Fleet) -> None:
    """Judge the first answer to what was asked then: one that came late may be an old primary's."""
    if asked_at is not None and time.monotonic() - asked_at > _LATE_S:
        fleet.doubt()


class _Patient(_Making, redis.connection.AbstractConnection):
    """A connection whose timeouts end with the deadline of the call that uses it.

    It closes itself when its server, or that of another one to the address, is no primary any more.
    """

    def __init__(
        self,
        fleet: Fleet,
        whereabouts: Callable[[], Place] | None = None,
        fence: Fence | Turn | None = None,
        **kwargs: Any,
    ) -> None:
        self._fleet = fleet
        self._fence = fence
        self._whereabouts = whereabouts
        self._since = fleet.left
        self._asked_at: float | None = None
        self._most_s = float(kwargs["socket_timeout"])
        super().__init__(**kwargs)

    def connect(self) -> None:
        with self._being_made():
            super().connect()  # type: ignore[no-untyped-call]

    def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        with self._being_made():
            super().connect_check_health(*args, **kwargs)

    def _connect(self) -> Any:
        if self._whereabouts is not None:
            self.host, self.port = place = self._whereabouts()
            self._fleet.lead_to(place)
        self._since = self._fleet.left
        self.socket_connect_timeout = self.socket_timeout = patience_s(self._most_s)
        return super()._connect()  # type: ignore[safe-super, no-untyped-call]

    def on_connect(self) -> None:
        super().on_connect()  # type: ignore[no-untyped-call]
        if not _CHECKS_HEALTH:  # else it calls the next one
            self._meet_fence()

    def on_connect_check_health(self, check_health: bool = True) -> None:
        super().on_connect_check_health(check_health)
        self._meet_fence()

    def _meet_fence(self) -> None:
        if self._fence is None:
            return
        try:
            # past those that count answers on: this one is read here
            packed = super().pack_command(*QUESTION)  # type: ignore[no-untyped-call]
            super().send_packed_command(packed, check_health=False)  # type: ignore[no-untyped-call]
            answer = super().read_response()
        except redis.ResponseError as error:
            answer = error
        self._fence.check(answer)

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            answer = super().read_response(*args, **kwargs)
        except redis.RedisError as error:
            if not is_no_primary(error):
                raise
            self.disconnect()  # type: ignore[no-untyped-call]
            raise self._fleet.leave(error) from None
        _judge(self._asked_at, self._fleet)
        self._asked_at = None  # those behind it wait for it
        return answer

    def timeout_s(self) -> float:
        """Return how long it waits for an answer by now."""
        return self._most_s if self._sock is None else float(self._sock.gettimeout())

    def rearm(self) -> None:
        """Wait from now on no longer than the call may."""
        seconds = patience_s(self._most_s)
        if self._sock is not None and self._sock.gettimeout() != seconds:
            self._sock.settimeout(seconds)

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        if not self._is_made:
            self._be_at_the_primary()
        self.rearm()
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]
        self._asked_at = time.monotonic() if self._whereabouts is not None else None

    def _be_at_the_primary(self) -> None:
        """Ask where it is when that is due, and connect anew when it is elsewhere.

        Raises:
            NotDoneError: it is another one again and again.
        """
        if self._whereabouts is not None and self._fleet.is_due():
            with self._fleet.looking():
                self._fleet.lead_to(self._whereabouts())
        for _ in range(_TRIES):
            if self._is_left:
                self.disconnect()  # type: ignore[no-untyped-call]
            elif self._sock is not None:
                return
            self.connect()
        if self._is_left:
            self.disconnect()  # type: ignore[no-untyped-call]
            raise _changed_too_often()


class _PatientConnection(_Patient, redis.Connection):
    """Over TCP."""


class _PatientSslConnection(_Patient, redis.SSLConnection):
    """Over TLS."""


class _PatientUnixConnection(_Patient, redis.UnixDomainSocketConnection):
    """Over a socket of this machine."""


CONNECTIONS: Final = {
    "redis": _PatientConnection,
    "rediss": _PatientSslConnection,
    "unix": _PatientUnixConnection,
}


class _Async(_Making, redis.asyncio.connection.AbstractConnection):
    """As `_Patient`, for an event loop; nothing there has a deadline."""

    def __init__(
        self,
        fleet: Fleet,
        whereabouts: Callable[[], Awaitable[Place]] | None = None,
        fence: Fence | Turn | None = None,
        **kwargs: Any,
    ) -> None:
        self._fleet = fleet
        self._fence = fence
        self._whereabouts = whereabouts
        self._since = fleet.left
        self._asked_at: float | None = None
        super().__init__(**kwargs)

    async def connect(self) -> None:
        with self._being_made():
            await super().connect()  # type: ignore[no-untyped-call]

    async def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        with self._being_made():
            await super().connect_check_health(*args, **kwargs)

    async def _connect(self) -> Any:
        if self._whereabouts is not None:
            self.host, self.port = place = await self._whereabouts()
            self._fleet.lead_to(place)
        self._since = self._fleet.left
        return await super()._connect()  # type: ignore[safe-super, no-untyped-call]

    async def on_connect(self) -> None:
        await super().on_connect()
        if not _CHECKS_HEALTH:
            await self._meet_fence()

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        await super().on_connect_check_health(check_health)
        await self._meet_fence()

    async def _meet_fence(self) -> None:
        if self._fence is None:
            return
        try:
            packed = super().pack_command(*QUESTION)
            await self._send(packed, check_health=False)
            answer = await super().read_response()
        except redis.ResponseError as error:
            answer = error
        self._fence.check(answer)

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            answer = await super().read_response(*args, **kwargs)
        except redis.RedisError as error:
            if not is_no_primary(error):
                raise
            await self.disconnect()
            raise self._fleet.leave(error) from None
        _judge(self._asked_at, self._fleet)
        self._asked_at = None  # those behind it wait for it
        return answer

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        if not self._is_made:
            await self._be_at_the_primary()
        await self._send(command, check_health=check_health)
        self._asked_at = time.monotonic() if self._whereabouts is not None else None

    async def _be_at_the_primary(self) -> None:
        if self._whereabouts is not None and self._fleet.is_due():
            with self._fleet.looking():
                self._fleet.lead_to(await self._whereabouts())
        for _ in range(_TRIES):
            if self._is_left:
                await self.disconnect()
            elif self.is_connected:
                return
            await self.connect()
        if self._is_left:
            await self.disconnect()
            raise _changed_too_often()

    async def _send(self, command: Any, *, check_health: bool) -> None:
        """Send as redis-py does; who is cancelled meanwhile hears of it.

        redis-py sends within `asyncio.wait_for`, and that of Python 3.11 forgets a cancellation
        that comes as it ends (https://github.com/python/cpython/issues/86296; mended in 3.12).

        Raises:
            asyncio.CancelledError: nobody knows what was sent; the connection is closed.
        """
        task = asyncio.current_task()
        asked = task.cancelling() if task else 0
        await super().send_packed_command(command, check_health)
        if task and task.cancelling() > asked:
            await self.disconnect(nowait=True)
            raise asyncio.CancelledError


class _AsyncConnection(_Async, redis.asyncio.Connection):
    """Over TCP."""


class _AsyncSslConnection(_Async, redis.asyncio.SSLConnection):
    """Over TLS."""


class _AsyncUnixConnection(_Async, redis.asyncio.UnixDomainSocketConnection):
    """Over a socket of this machine."""


ASYNC_CONNECTIONS: Final = {
    "redis": _AsyncConnection,
    "rediss": _AsyncSslConnection,
    "unix": _AsyncUnixConnection,
}


class PatientPool(redis.BlockingConnectionPool):
    """A pool in which a call waits for a connection no longer than its deadline."""

    @property
    def timeout(self) -> float:
        """Seconds to wait for a connection."""
        return patience_s(self._most_s)

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._most_s = seconds

    def disconnect(self, *args: Any, **kwargs: Any) -> None:
        """Close its connections, and those to the sentinels that name its server."""
        super().disconnect(*args, **kwargs)
        if whereabouts := self.connection_kwargs.get("whereabouts"):
            whereabouts.close()


class LoopPool(redis.asyncio.BlockingConnectionPool):
    """As redis-py's; it closes the connections to the sentinels with its own."""

    async def disconnect(self, *args: Any, **kwargs: Any) -> None:
        """Close them."""
        await super().disconnect(*args, **kwargs)
        if whereabouts := self.connection_kwargs.get("whereabouts"):
            await whereabouts.aclose()


_LENT_FOR: Final = () if _is_since(redis.__version__, (5, 3)) else ("EVALSHA",)
"""redis-py before 5.3 wants to know the command, later ones warn of it."""


def lend(pool: Any) -> Any:
    """Return a connection of a pool, which is to be released."""
    return pool.get_connection(*_LENT_FOR)
