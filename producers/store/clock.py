"""The clock: Redis's own decides every expiry, delay, lease and rate; no host's does.

Scripts read it as clock.lua says; here it is asked for. Of a cluster each node has its own.
"""

from typing import Final

from producers.store.connection import Client, is_cluster


def ms_of(clock: tuple[int, int]) -> int:
    """Return epoch ms from an answer to ``TIME``: (seconds, microseconds)."""
    seconds, micros = clock
    return int(seconds) * 1000 + int(micros) // 1000


CLOCKS_APART_MS: Final = 2000
"""How far the clocks of two nodes of a cluster may be apart; `doctor` names more.

A script reads the clock of its own slot's server, so what it dates is read there by the same clock.
Few moments are read elsewhere, and these bear it. Slots of an app's limiter, and what is left of a
claim's life, are told as distances from the answer (`limits.limiter`, of each app its own clock).
What lies in a worker's name and not in its hands, or in a dead one's, is so much older before it is
taken back (`duties.flights`). A lane is unsure by its own clock (`duties.epochs`). Send windows,
starts, ticks of a series, expiries of single messages and the end of a session may come so much
early or late: `WXB_PERMIT_MARGIN` (10 s) is more.
"""


def clocks_apart_ms(client: Client) -> int:
    """Return how far two servers' clocks may be apart; 0 where there is one."""
    return CLOCKS_APART_MS if is_cluster(client) else 0


def now_ms(client: Client, key: str | None = None) -> int:
    """Return the server's clock, in epoch ms.

    Args:
        client: Redis.
        key: of a cluster, the clock of the server that serves this key; default: any server's.

    Raises:
        redis.RedisError: whatever asking raises; nothing is repeated.
    """
    if key is not None and is_cluster(client):
        return ms_of(client.time_at(key))
    return ms_of(client.time())
