"""Repeating a script whose reply was lost: same token, bounded, with a growing pause.

Safe because every script that changes something either carries a token or changes nothing the
second time.

The pauses are redis-py's. Its `Retry` around them is not used: it counts tries, while a call of
ours ends when the next pause would pass its deadline; and it tells errors apart by class, while
MISCONF or BUSY, which pass, have none of their own.
"""

import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import redis
from redis.backoff import EqualJitterBackoff

from producers import logs
from producers.errors import LaneDividedError, StoreUnavailableError
from producers.logs.events import StoreUnreachable
from producers.store import Client, deadline, trouble
from producers.store.cluster.silence import SilentError
from producers.store.lanes.fence import is_refusal
from producers.store.primary import NobodyNamesError, NotPrimaryError, reply_of
from producers.store.replicas import UnacknowledgedError

Answer = TypeVar("Answer")

ATTEMPTS: Final = 6
"""Tries where no deadline bounds them: about 2.3 s of pauses beside the commands' own timeouts."""

LOST: Final = (redis.ConnectionError, redis.TimeoutError, redis.exceptions.BusyLoadingError)
"""Errors after which nobody knows whether the script ran; and `NotDoneError`: it did not."""

BACK_S: Final = 2.0
"""A node of a cluster that was started again, or replaced by its replica in good order, is back by
then; who has a deadline does not wait for one that is silent for longer."""

_TELLING: Final = (UnacknowledgedError, NotPrimaryError, NobodyNamesError)
"""What a server said, and would have said again."""

_BACKOFF: Final = EqualJitterBackoff(cap=2.0, base=0.05)

_REFUSALS: Final = ("OOM", "MISCONF", "BUSY")


def passes(error: redis.RedisError) -> bool:
    """Say whether the same call may succeed later: the answer was lost, or Redis refuses everybody.

    A full server, one whose replicas are missing, one that cannot write to its disk, one that runs
    a script for too long. Any other error reply is about the call itself, and would come again.
    """
    if isinstance(error, (*LOST, redis.OutOfMemoryError, UnacknowledgedError)):
        return True
    return reply_of(error).startswith(_REFUSALS)


def pause_s(attempt: int) -> float:
    """Return the pause after the n-th failed attempt (1, 2, …).

    0.1 s doubling, at most 2 s; and of that the half to the whole, by lot: what failed at the same
    moment in many processes does not come back at the same moment.
    """
    return _BACKOFF.compute(min(attempt, 10))


def repeat(during: str, call: Callable[[], Answer], *, lost: bool = False) -> Answer:
    """Run a call until Redis answers: until the deadline where there is one, else `ATTEMPTS` times.

    A node of a cluster that is known to be away is waited for no longer where there is a deadline.

    Args:
        during: what is being done, for the log.
        call: runs one script with a token that stays the same.
        lost: it was made before, and nobody knows whether it ran.

    Raises:
        LaneDividedError: a lane of it is being divided, or was; nothing was done.
        StoreUnavailableError: Redis did not answer any of them, or it cannot do anything of the
            kind (full, a replica, another certificate): then without trying again.
    """
    attempt = 0
    behind: redis.RedisError | None = None
    while True:
        attempt += 1
        try:
            return call()
        except redis.RedisError as error:
            if is_refusal(error):
                if attempt == 1 and not lost:
                    raise LaneDividedError from error
                raise gave_up(during, attempt, error) from error  # an earlier one may have run
            behind = error if isinstance(error, _TELLING) else behind
            if trouble.lasts(error):
                raise StoreUnavailableError(
                    f"{trouble.in_words(error)} (while {during})"
                ) from error
            if not passes(error):
                raise
            logs.emit(StoreUnreachable(during, type(error).__name__, attempt))
            pause, left_s = pause_s(attempt), deadline.left_s()
            over = attempt == ATTEMPTS if left_s is None else pause >= left_s or _is_known(error)
            if over:
                # too little time was left in the end for it to be told again
                told = behind if behind and isinstance(error, redis.TimeoutError) else error
                raise gave_up(during, attempt, told) from error
            time.sleep(pause)


def _is_known(error: redis.RedisError) -> bool:
    """Say whether a node of a cluster has been away for so long that no thread waits for it.

    There are few threads, and all nodes' calls need them.
    """
    return isinstance(error, SilentError) and error.seconds > BACK_S


def raise_lasting(during: str, error: redis.RedisError) -> None:
    """Raise what trying again does not mend; return when it may.

    Raises:
        StoreUnavailableError: Redis cannot: it is full, or its certificate or our password wrong.
        redis.RedisError: the error itself, which is about the call.
    """
    if trouble.lasts(error):
        raise StoreUnavailableError(f"{trouble.in_words(error)} (while {during})") from error
    if not passes(error):
        raise error


def gave_up(
    during: str, attempts: int = 0, error: BaseException | None = None
) -> StoreUnavailableError:
    """Return the error of who has waited long enough.

    Args:
        during: what was being done.
        attempts: how often; 0: it never came to that.
        error: the last one.
    """
    seconds = deadline.allowed_s()
    bounds = [f"{attempts} attempt{'s' if attempts > 1 else ''}"] if attempts else []
    bounds += [] if seconds is None else [f"{seconds:g} s allowed"]
    why = f"; {trouble.in_words(error)}" if error is not None else ""
    return StoreUnavailableError(
        f"Redis did not answer while {during} ({', '.join(bounds)}){why}; what was already "
        "answered is stored, the same call again loses nothing; a message or a broadcast without a "
        "key may then be sent twice, with the same key it is not"
    )


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
