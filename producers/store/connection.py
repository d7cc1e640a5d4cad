"""Redis: opening it, and what of a client depends on what is there.

One factory for all that speaks to Redis: one server, a primary that sentinels name, or a cluster,
as the URL says (`settings.redis_url`). Connections are patient (`patience`). Whoever must know
which of them it is asks here, and names no client's class.
"""

import contextlib
import os
import re
import socket
from typing import Any, Final, Literal

import redis
import redis.asyncio
import redis.cluster
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from producers.settings import Settings
from producers.settings.redis_url import RedisUrl, parsed
from producers.store import trouble
from producers.store.cluster import Cluster, LoopCluster, LoopPools, Pools
from producers.store.lanes.fence import Fence, Turn
from producers.store.patience import ASYNC_CONNECTIONS, CONNECTIONS, LoopPool, PatientPool
from producers.store.primary import fleet_to
from producers.store.replicas import waiting
from producers.store.sentinels import LoopSentinels, Sentinels

Client = Any
"""A redis-py client. Its stubs give every reply as bytes or text, whatever ``decode_responses``
says, and as awaitable or not; replies are narrowed where they are read."""

Role = Literal["producer", "worker", "web", "cli"]
"""What a connection is for, as ``CLIENT LIST`` shows it."""


_CONNECTIONS: Final = 64
"""To each node, at once."""


def client_name(role: Role) -> str:
    """Return the name under which Redis lists this process's connections, its place included.

    A name that stands in the URL (``?client_name=``) goes before it.
    """
    host = re.sub(r"[^!-~]", "-", socket.gethostname())[:64]
    return f"wxbroadcast-{role}-{host}-{os.getpid()}"


def connect(
    settings: Settings,
    connections: int = _CONNECTIONS,
    *,
    role: Role = "producer",
    decode_responses: bool = True,
    fenced: bool = True,
) -> Client:
    """Open a thread-safe client; it connects when first used.

    Args:
        settings: where Redis is, and how long a command may take.
        connections: how many may be open at once, to each node; further calls wait for one.
        role: what for.
        decode_responses: whether replies are text, and not bytes.
        fenced: kept out of lanes that were divided, see `fence`; else it is of who divides them.
    """
    where = parsed(settings.redis_url.get_secret_value())
    made_of = {
        **_made_of(settings, where, connections, role),
        "connection_class": waiting(CONNECTIONS[where.way], settings.redis_replicas),
        "retry": Retry(NoBackoff(), 0),  # scripts carry tokens; their callers repeat them
        "decode_responses": decode_responses,
        **where.options,
        "fence": Fence(settings) if fenced else Turn(),
    }
    url = settings.redis_url.get_secret_value()
    if where.kind == "cluster":
        return Cluster(Pools(url, made_of | _parser_of(redis.cluster)), where.hosts)
    if where.kind == "sentinel":
        made_of["whereabouts"] = Sentinels(where, made_of)
    pool = PatientPool(**made_of, fleet=fleet_to(url))  # type: ignore[no-untyped-call]
    return redis.Redis.from_pool(pool)


def connect_async(settings: Settings) -> Client:
    """Open a client for a worker's event loop; as `connect`."""
    where = parsed(settings.redis_url.get_secret_value())
    made_of = {
        **_made_of(settings, where, _CONNECTIONS, "worker"),
        "connection_class": waiting(ASYNC_CONNECTIONS[where.way], settings.redis_replicas),
        "retry": AsyncRetry(NoBackoff(), 0),
        "decode_responses": True,
        **where.options,
        "fence": Fence(settings),
    }
    url = settings.redis_url.get_secret_value()
    if where.kind == "cluster":
        parser = _parser_of(redis.asyncio.cluster)
        return LoopCluster(LoopPools(url, made_of | parser), where.hosts)
    if where.kind == "sentinel":
        made_of["whereabouts"] = LoopSentinels(where, made_of)
    pool = LoopPool(**made_of, fleet=fleet_to(url))
    return redis.asyncio.Redis.from_pool(pool)


def _parser_of(module: Any) -> dict[str, Any]:
    """Return what knows a cluster's replies; since redis-py 6 every parser does."""
    parser = getattr(module, "ClusterParser", None)
    return {} if parser is None else {"parser_class": parser}


def _made_of(settings: Settings, where: RedisUrl, connections: int, role: Role) -> dict[str, Any]:
    """Return what a pool is made of, where the URL does not say otherwise."""
    seconds = settings.redis_timeout.total_seconds()
    files = {
        "ssl_ca_certs": settings.redis_ca_file,
        "ssl_certfile": settings.redis_cert_file,
        "ssl_keyfile": settings.redis_key_file,
    }
    return {
        "max_connections": connections,
        "timeout": seconds,
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "health_check_interval": 30,
        "client_name": client_name(role),
        **_of_tls(where),
        **{
            name: str(file)
            for name, file in files.items()
            if file is not None and where.way == "rediss"
        },
    }


def _of_tls(where: RedisUrl) -> dict[str, Any]:
    """Return that a certificate must be of the name that was asked for.

    redis-py does so by itself since version 6, but for certificates that nobody checks.
    """
    checks = where.way == "rediss" and where.options.get("ssl_cert_reqs") != "none"
    return {"ssl_check_hostname": True} if checks else {}


def is_cluster(client: Client) -> bool:
    """Say whether a client is of a cluster."""
    return isinstance(client, (Cluster, LoopCluster))


def is_fenced(client: Client) -> bool:
    """Say whether a script of a client is to ask its lanes whether they were divided (`fence`).

    A cluster's client adds to each script itself what refuses it.
    """
    return not is_cluster(client) and not isinstance(fence_of(client), Turn)


def fence_of(client: Client) -> Any:
    """Return what a client's new connections meet (`lanes.fence`); None: nothing."""
    pool = getattr(client, "connection_pool", None)
    return None if pool is None else pool.connection_kwargs.get("fence")


def nodes_of(client: Client) -> dict[str, Client]:
    """Return the client of each server that serves keys, by its address; of one alone, by ''."""
    if isinstance(client, Cluster):
        return {f"{host}:{port}": node for (host, port), node in client.nodes().items()}
    return {"": client}


def sentinels_of(client: Client) -> Sentinels | None:
    """Return the sentinels that name a client's primary; None of any other client."""
    found = client.connection_pool.connection_kwargs.get("whereabouts")
    return found if isinstance(found, Sentinels) else None


def pool_of(client: Client, key: str) -> Any:
    """Return the pool of connections to whoever serves a key just now.

    Raises:
        redis.RedisError: nobody could say who does.
    """
    return client.pool_of(key) if isinstance(client, Cluster) else client.connection_pool


def place_told(client: Client, key: str) -> tuple[str, int] | None:
    """Return which node of a cluster serves a key, as far as it is known; nobody is asked."""
    return client.told_place_of(key) if isinstance(client, Cluster) else None


def away(client: Client) -> tuple[list[str], bool]:
    """Return the nodes of a cluster that are away, in words, and whether any other one answers."""
    if not isinstance(client, Cluster):
        return [], False
    for place, node in client.nodes().items():
        with contextlib.suppress(redis.RedisError):
            if not client.is_silent(place) and node.ping():
                return list(map(trouble.in_words, client.silent())), True
    return list(map(trouble.in_words, client.silent())), False


def silent(client: Client) -> list[tuple[str, int]]:
    """Ask all nodes of a cluster for a sign of life; return who gives none, about a second later.

    From then on they are asked nothing until they do.

    Raises:
        redis.RedisError: none of them says which nodes there are.
    """
    return client.find_silent() if isinstance(client, Cluster) else []


def await_answer(client: Client, connection: Any) -> None:
    """Wait for an answer on a connection of `pool_of`, as the client itself does.

    Raises:
        redis.RedisError: it does not come.
    """
    if isinstance(client, Cluster):
        client.await_answer(connection)


def as_sent(client: Client, call: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a command as this client sends it, for who sends it past the client."""
    return client.guarded(call) if isinstance(client, Cluster) else call
