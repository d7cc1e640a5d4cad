"""Sentinels: where the primary is just now, asked whenever a connection is made, and each second.

redis-py's `Sentinel` asks one after the other, and takes the first that knows a primary which is
up. While they choose a new one nobody is named: that is as a Redis that does not answer, and
callers repeat. A connection that lives on to a server which is no primary any more is left
(`primary`).
"""

from typing import Any, Final

import redis
import redis.asyncio
from redis.asyncio.sentinel import Sentinel as LoopSentinel
from redis.sentinel import Sentinel

from producers.settings.redis_url import RedisUrl
from producers.store.patience import PatientPool, Place
from producers.store.primary import Fleet

_ASK_S: Final = 1.0
"""How long one sentinel is waited for."""

_CONNECTIONS: Final = 2

_OF_THE_PRIMARY: Final = (
    *("username", "password", "db", "connection_class", "max_connections"),
    "fence",
)


def _made_of(where: RedisUrl, made_of: dict[str, Any]) -> dict[str, Any]:
    """Return what the pool to a sentinel is made of: as that to the primary, with its own user."""
    shared = {name: value for name, value in made_of.items() if name not in _OF_THE_PRIMARY}
    seconds = min(_ASK_S, float(made_of["socket_timeout"]))
    return {
        **shared,
        **where.sentinel,
        "max_connections": _CONNECTIONS,
        "decode_responses": True,
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
    }


class Sentinels:
    """Says where the primary is; for any thread.

    Args:
        where: the URL.
        made_of: of the pool to the primary.
    """

    def __init__(self, where: RedisUrl, made_of: dict[str, Any]) -> None:
        self.service = where.service
        own = {**_made_of(where, made_of), "connection_class": made_of["connection_class"]}
        self._clients = [
            redis.Redis.from_pool(
                PatientPool(**own, fleet=Fleet(), host=host, port=port)  # type: ignore[no-untyped-call]
            )
            for host, port in where.hosts
        ]

    def __call__(self) -> Place:
        """Return where the primary is.

        Raises:
            redis.ConnectionError: no sentinel knows one that is up.
        """
        asked = Sentinel([])  # type: ignore[no-untyped-call]  # it changes the order of its list
        asked.sentinels = list(self._clients)
        host, port = asked.discover_master(self.service)  # type: ignore[no-untyped-call]
        self._clients = asked.sentinels
        return str(host), int(port)

    def each(self) -> dict[str, Any]:
        """Return a client to each sentinel, by its address."""
        made_of = ((one, one.connection_pool.connection_kwargs) for one in self._clients)
        return {f"{made['host']}:{made['port']}": one for one, made in made_of}


class LoopSentinels:
    """As `Sentinels`, for an event loop."""

    def __init__(self, where: RedisUrl, made_of: dict[str, Any]) -> None:
        self.service = where.service
        own = {**_made_of(where, made_of), "connection_class": made_of["connection_class"]}
        self._clients = [
            redis.asyncio.Redis.from_pool(
                redis.asyncio.BlockingConnectionPool(**own, fleet=Fleet(), host=host, port=port)
            )
            for host, port in where.hosts
        ]

    async def __call__(self) -> Place:
        """Return where the primary is; as `Sentinels`."""
        asked = LoopSentinel([])  # type: ignore[no-untyped-call]
        asked.sentinels = list(self._clients)
        host, port = await asked.discover_master(self.service)
        self._clients = asked.sentinels
        return str(host), int(port)
