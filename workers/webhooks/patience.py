"""Patience: when a webhook that was not taken is posted again, and when it is given up.

After 5 s, doubling up to an hour, each time the half to the whole by lot, for a day. One that
waited for others longer than that, or for a worker, is still posted some times.
"""

from typing import Final

from redis.backoff import EqualJitterBackoff

DAY_MS: Final = 86_400_000
LEAST: Final = 6
"""Posts before an event is given up, however old it is: over some minutes."""

_BACKOFF: Final = EqualJitterBackoff(cap=3600, base=5)
_DOUBLINGS: Final = 10


def delay_ms(attempts: int, retry_after_s: int = 0) -> int:
    """Return the pause before the next post.

    Args:
        attempts: posts so far, 1 or more.
        retry_after_s: the least that the other side asked for.
    """
    drawn = _BACKOFF.compute(min(attempts, _DOUBLINGS))
    return round(1000 * max(drawn, retry_after_s))


def is_over(attempts: int, age_ms: int) -> bool:
    """Say whether an event is given up.

    Args:
        attempts: posts so far.
        age_ms: since it happened.
    """
    return attempts >= LEAST and age_ms >= DAY_MS
