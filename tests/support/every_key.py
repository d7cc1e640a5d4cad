"""All that a Redis holds, byte by byte: to see that something changes nothing."""

from typing import Any

import redis

ASKED = ("{wxb:templates}:",)
"""What somebody wants of WeChat: a question, which says nothing of what else is stored."""


def every_key(url: str, *, but: tuple[str, ...] = ()) -> dict[bytes, tuple[bytes, int]]:
    """Return key → its value as Redis dumps it, and when it ends (epoch ms, -1: never).

    Args:
        url: the Redis.
        but: beginnings of keys that are left out.
    """
    client: Any = redis.Redis.from_url(url)
    with client:
        found: dict[bytes, tuple[bytes, int]] = {}
        for key in sorted(client.scan_iter(count=1000)):
            if not key.decode().startswith(but):
                found[key] = (client.dump(key), client.pexpiretime(key))
        return found
