"""Finds what would stay in Redis for ever: keys without a TTL that `keys.LASTING` does not name."""

import inspect
import re
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any, Final

import redis

from producers.store import keys

_WITHOUT_TTL: Final = """
local found = {}
for _, name in ipairs(redis.call('KEYS', '*')) do
  if redis.call('PTTL', name) == -1 then found[#found + 1] = name end
end
return found
"""
_WORD: Final = "wordinkey"
_NAMED: Final = "[^:~][^:]*"


def _pattern(key: str | Callable[..., str]) -> str:
    """Return the expression that the names of a key match, whatever its app, lane or audience."""
    if isinstance(key, str):
        return re.escape(key)
    name = key(*(_WORD for _ in inspect.signature(key).parameters))
    return re.escape(name).replace(_WORD, _NAMED)


LASTING: Final = re.compile(
    "|".join([re.escape(keys.DRAMATIQ_NAMESPACE) + ".*", *map(_pattern, keys.LASTING)])
)
LIMITER: Final = re.compile(_pattern(keys.limiter))


def everlasting(client: Any) -> list[str]:
    """Return the keys of a database that should have a TTL and have none."""
    if not int(client.dbsize()):
        return []
    names = [
        name.decode("utf-8", "replace") if isinstance(name, bytes) else name
        for name in client.eval(_WITHOUT_TTL, 0)
    ]
    found = [name for name in names if not LASTING.fullmatch(name)]
    rateless = [
        name for name in names if LIMITER.fullmatch(name) and not client.hexists(name, "rate")
    ]
    return sorted(found + rateless)


def everlasting_at(url: str) -> list[str]:
    """As `everlasting`, of all databases of a server; of none if it does not answer."""
    found = []
    with (
        suppress(redis.ConnectionError, redis.TimeoutError),
        closing(redis.Redis.from_url(url, single_connection_client=True, socket_timeout=5)) as one,
    ):
        for name in one.info("keyspace"):
            one.select(int(name.removeprefix("db")))
            found += everlasting(one)
    return found
