"""Repeating a script whose reply was lost: same token, bounded, with a growing pause.

Safe because every script that changes something either carries a token or changes nothing the
second time.
"""

import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import redis

from producers import logs
from producers.errors import StoreUnavailableError
from producers.events import StoreUnreachable
from producers.store import Client

Answer = TypeVar("Answer")

ATTEMPTS: Final = 6
"""Tries of a producer's call: together about 3 s of pauses beside the commands' own timeouts."""

LOST: Final = (redis.ConnectionError, redis.TimeoutError, redis.exceptions.BusyLoadingError)
"""Errors after which nobody knows whether the script ran."""


def pause_s(attempt: int) -> float:
    """Return the pause after the n-th failed attempt (1, 2, …): 0.1 s doubling, at most 2 s."""
    return float(min(0.1 * 2 ** (attempt - 1), 2.0))


def repeat(during: str, call: Callable[[], Answer]) -> Answer:
    """Run a call until Redis answers, at most `ATTEMPTS` times.

    Args:
        during: what is being done, for the log.
        call: runs one script with a token that stays the same.

    Raises:
        StoreUnavailableError: Redis did not answer any of them.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return call()
        except LOST as error:
            logs.emit(StoreUnreachable(during, type(error).__name__, attempt))
            if attempt == ATTEMPTS:
                raise StoreUnavailableError(
                    f"Redis did not answer while {during} ({attempt} attempts); what was "
                    "already answered is stored, the same call again loses and doubles nothing"
                ) from error
            time.sleep(pause_s(attempt))
    raise AssertionError  # pragma: no cover


def repeat_all(
    during: str, client: Client, fill: Callable[[Any], None], *, atomic: bool = False
) -> list[Any]:
    """Run several commands in one trip, until Redis answers; as `repeat`.

    A pipeline forgets its commands when it fails, so each attempt fills a new one.

    Args:
        during: what is being done, for the log.
        client: Redis.
        fill: puts the commands into the pipeline that it is given.
        atomic: as one transaction.

    Raises:
        StoreUnavailableError: Redis did not answer any attempt.
    """

    def call() -> list[Any]:
        pipeline = client.pipeline(transaction=atomic)
        fill(pipeline)
        answers: list[Any] = pipeline.execute()
        return answers

    return repeat(during, call)
