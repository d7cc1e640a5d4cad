"""Redis: opening it, and checking that the deployment was born with the same lanes and buckets."""

from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from producers import keys
from producers.errors import LayoutMismatchError, StoreUnavailableError
from producers.settings import Settings

Client = Any
"""A redis-py client. Its stubs give every reply as bytes or text, whatever ``decode_responses``
says, and as awaitable or not; replies are narrowed where they are read."""

LAYOUT = 1
"""Version of the key layout; a deployment of another one is refused."""


def connect(settings: Settings, connections: int = 64) -> Client:
    """Open a thread-safe client; it connects when first used.

    Args:
        settings: where Redis is, and how long a command may take.
        connections: how many may be open at once; further calls wait for one.
    """
    seconds = settings.redis_timeout.total_seconds()
    pool = redis.BlockingConnectionPool.from_url(
        settings.redis_url.get_secret_value(),
        max_connections=connections,
        timeout=seconds,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        health_check_interval=30,
        decode_responses=True,
        retry=Retry(NoBackoff(), 0),  # scripts carry tokens; their callers repeat them
    )
    return redis.Redis.from_pool(pool)


def connect_async(settings: Settings, connections: int = 64) -> Client:
    """Open a client for one event loop; as `connect`."""
    seconds = settings.redis_timeout.total_seconds()
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        settings.redis_url.get_secret_value(),
        max_connections=connections,
        timeout=seconds,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        health_check_interval=30,
        decode_responses=True,
        retry=AsyncRetry(NoBackoff(), 0),
    )
    return redis.asyncio.Redis.from_pool(pool)


def check_layout(client: Client, settings: Settings) -> None:
    """Give birth to the deployment, or check that it was born with these lanes and buckets.

    Raises:
        LayoutMismatchError: it was born with others; the message says what to set.
        StoreUnavailableError: Redis did not answer.
    """
    mine = {"lanes": settings.lanes, "buckets": settings.buckets, "layout": LAYOUT}
    try:
        for field, value in mine.items():
            client.hsetnx(keys.DEPLOYMENT, field, str(value))
        born = client.hgetall(keys.DEPLOYMENT)
    except redis.ResponseError as error:
        raise StoreUnavailableError(f"Redis refuses WXB_REDIS_URL: {error}") from error
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise StoreUnavailableError(
            f"Redis does not answer at WXB_REDIS_URL ({type(error).__name__}): start it, "
            "or set WXB_REDIS_URL"
        ) from error
    faults = [
        f"WXB_{field.upper()} is {value}, this deployment was born with {born[field]}"
        for field, value in mine.items()
        if int(born[field]) != value
    ]
    if faults:
        raise LayoutMismatchError("; ".join(faults) + ": set the value it was born with")
