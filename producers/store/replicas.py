"""Replicas: what must not be forgotten at a failover waits until replicas have it.

A primary that dies takes along what its replicas have not got yet, though it was acknowledged. With
``WXB_REDIS_REPLICAS`` above 0 the answer of a script that is declared as `replicated` counts once
so many replicas have what it did: ``WAIT`` follows it on the same connection, in the same trip.
Where they do not say so within `WAIT_MS`, or shortly before the connection gives up, if that is
sooner, `UnacknowledgedError` stands in place of the answer, and holds it: the script ran, and a
primary that dies now may forget that.

The same call may be made again, with its token: it changes nothing but its reply's end of life, so
that the next WAIT covers what the first call did (WAIT looks at a connection's own writes alone).

What a replica has is in its memory. With ``appendonly yes`` it is on its disk a second later.
"""

from collections import deque
from collections.abc import Iterable
from functools import cache
from typing import Any, Final

import redis
import redis.asyncio

from producers.store.patience import patience_s

WAIT_MS: Final = 1000
"""How long replicas are waited for, each time, at the most."""
_MARGIN_MS: Final = 150
"""So much sooner than the connection gives up: a replica that is missing is no silence of its
primary. A server at rest looks at its clock each 100 ms."""

_RUN: Final = "EVALSHA"
_REPLICATED: Final[set[str]] = set()


class UnacknowledgedError(redis.ResponseError):
    """Too few replicas have what a script did.

    Attributes:
        reply: its answer.
        have: replicas that have it.
    """

    def __init__(self, reply: Any, have: int) -> None:
        super().__init__(f"{have} replicas have acknowledged it: WXB_REDIS_REPLICAS asks for more")
        self.reply = reply
        self.have = have


def note(sha: str) -> None:
    """Have the answers of a script wait for replicas, on connections that do."""
    _REPLICATED.add(sha)


@cache
def waiting(connection: type[Any], replicas: int) -> type[Any]:
    """Return a class of connections on which `replicated` scripts wait for so many replicas.

    Args:
        connection: redis-py's, for threads or for an event loop.
        replicas: how many; 0: none, and it is the class itself.
    """
    if not replicas:
        return connection
    is_async = issubclass(connection, redis.asyncio.connection.AbstractConnection)
    kind = _LoopWaiting if is_async else _Waiting
    return type(f"{connection.__name__}For{replicas}", (kind, connection), {"replicas": replicas})


class _Packed(list[Any]):
    """Commands, packed.

    Attributes:
        waits: of each answer that they will have, whether a WAIT's follows it.
    """

    waits: tuple[bool, ...] = ()


def _with_waits(
    commands: Iterable[Any], replicas: int, wait_ms: int
) -> tuple[list[tuple[Any, ...]], tuple[bool, ...]]:
    """Return commands with the WAITs that they need, and after which of them those come.

    In a transaction, which cannot wait, it comes after its end.
    """
    found: list[tuple[Any, ...]] = []
    waits: list[bool] = []
    inside = pending = False
    for command in commands:
        name = command[0]
        inside = inside or name == "MULTI"
        pending = pending or (name == _RUN and command[1] in _REPLICATED)
        inside = inside and name != "EXEC"
        found.append(tuple(command))
        waits.append(pending and not inside)
        if waits[-1]:
            found.append(("WAIT", replicas, wait_ms))
            pending = False
    return found, tuple(waits)


class _Expecting:
    """What a connection that waits knows of the answers to come; see `waiting`.

    It learns of commands when they are packed, and of answers when they are sent: a connection that
    is made in between asks questions of its own, and has read their answers by then.
    """

    replicas: int
    _expected: deque[bool]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._expected = deque()
        self._most_wait_s = float(kwargs["socket_timeout"])
        super().__init__(*args, **kwargs)

    def pack_commands(self, commands: Iterable[Any]) -> Any:
        """Pack commands, each WAIT after its script."""
        all_of_them, waits = _with_waits(commands, self.replicas, self._wait_ms())
        packed = _Packed(super().pack_commands(all_of_them))  # type: ignore[misc]
        packed.waits = waits
        return packed

    def _wait_ms(self) -> int:
        allowed_ms = int(patience_s(self._most_wait_s) * 1000) - _MARGIN_MS
        return max(1, min(WAIT_MS, allowed_ms))  # 0: for ever

    def _waits_next(self) -> bool:
        return self._expected.popleft() if self._expected else False

    def _judged(self, reply: Any, have: int) -> Any:
        if have < self.replicas:
            raise UnacknowledgedError(reply, have)
        return reply


class _Waiting(_Expecting):
    """For threads."""

    def send_command(self, *args: Any, **kwargs: Any) -> None:
        self.send_packed_command(self.pack_commands([args]), kwargs.get("check_health", True))

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        super().send_packed_command(command, check_health)  # type: ignore[misc]
        self._expected.extend(getattr(command, "waits", (False,)))

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        waits = self._waits_next()
        try:
            reply = super().read_response(*args, **kwargs)  # type: ignore[misc]
        except redis.ResponseError:  # it did nothing, and its WAIT says nothing
            if waits:
                self._read_acknowledged()
            raise
        return self._judged(reply, self._read_acknowledged()) if waits else reply

    def _read_acknowledged(self) -> int:
        try:
            return int(super().read_response())  # type: ignore[misc]
        except redis.ResponseError:  # it is a replica itself by now
            return 0

    def disconnect(self, *args: Any, **kwargs: Any) -> None:
        self._expected.clear()
        super().disconnect(*args, **kwargs)  # type: ignore[misc]


class _LoopWaiting(_Expecting):
    """For an event loop."""

    async def send_command(self, *args: Any, **kwargs: Any) -> None:
        await self.send_packed_command(self.pack_commands([args]), kwargs.get("check_health", True))

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        await super().send_packed_command(command, check_health)  # type: ignore[misc]
        self._expected.extend(getattr(command, "waits", (False,)))

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        waits = self._waits_next()
        try:
            reply = await super().read_response(*args, **kwargs)  # type: ignore[misc]
        except redis.ResponseError:
            if waits:
                await self._read_acknowledged()
            raise
        return self._judged(reply, await self._read_acknowledged()) if waits else reply

    async def _read_acknowledged(self) -> int:
        try:
            return int(await super().read_response())  # type: ignore[misc]
        except redis.ResponseError:
            return 0

    async def disconnect(self, *args: Any, **kwargs: Any) -> None:
        self._expected.clear()
        await super().disconnect(*args, **kwargs)  # type: ignore[misc]
