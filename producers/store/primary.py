"""The primary: what a server says that may not be written to, and how all leave it.

After a failover that leaves connections open, the old primary lives on as a replica: it answers,
refuses every write, and would do so for ever. So such a reply counts as a lost connection. It is
closed, and every other one to the same address before it is used again: the next ones lead to
whoever has the address by then. Nothing was written; the call is repeated as after a lost reply.

One that stood still, was replaced, and goes on says nothing of the kind until the sentinels come
back to it, seconds later. So where sentinels name the primary they are asked again once a second,
by whoever uses a connection then; all are left when they name another one, or when an answer took
so long that they may.
"""

import contextlib
import time
from collections.abc import Iterator
from functools import cache
from typing import Final

import redis

_SAYS: Final = ("READONLY", "LOADING", "MASTERDOWN", "NOREPLICAS", "UNBLOCKED")
"""A replica; a server that reads its data from disk; a replica without its primary; a primary that
was left alone (min-replicas-to-write); and what a blocked command is told when its server becomes a
replica. Source: Redis and Valkey, server.c and blocked.c."""

_KNOWN: Final = (
    redis.ReadOnlyError,
    redis.BusyLoadingError,
    redis.exceptions.MasterDownError,
)
"""Those of which redis-py takes the word away."""


_LOOK_S: Final = 1.0
"""How often is asked where the primary is; …"""
_LONGEST_S: Final = 10.0
"""… and at the least, where nobody says so: in vain is asked for a tenth of the time."""


class NotDoneError(redis.ConnectionError):
    """The call did nothing: the server refused it, or was not asked."""


class NotPrimaryError(NotDoneError):
    """The server may not be written to; the connection to it is closed."""


class NobodyNamesError(NotDoneError):
    """No sentinel names a primary that is up."""


class Fleet:
    """What this process's connections to one address have in common.

    Attributes:
        left: how often one of them met a server that is no primary, or may be none.
    """

    def __init__(self) -> None:
        self.left = 0
        self._named: tuple[str, int] | None = None
        self._look_at = 0.0

    def is_due(self) -> bool:
        """Say whether it is time to ask where the primary is."""
        return time.monotonic() >= self._look_at

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """Ask where it is, and `lead_to` it; whoever comes meanwhile does not.

        Where nobody says so (they choose just now, or are away) nothing is raised, and it is asked
        again: the sooner the sooner they said that.
        """
        began = time.monotonic()
        self._look_at = began + _LONGEST_S
        try:
            yield
        except redis.RedisError:
            now = time.monotonic()
            self._look_at = now + min(_LONGEST_S, max(_LOOK_S, 9 * (now - began)))

    def lead_to(self, place: tuple[str, int]) -> None:
        """Note where the primary is said to be; connections to elsewhere are left."""
        self._look_at = time.monotonic() + _LOOK_S
        if self._named is not None and self._named != place:
            self.left += 1
        self._named = place

    def doubt(self) -> None:
        """Have each connection ask anew where the primary is, before its next use."""
        self.left += 1

    def leave(self, error: redis.RedisError) -> NotPrimaryError:
        """Have every connection of the fleet closed before its next use; returns what to raise."""
        self.left += 1
        return NotPrimaryError(f"no primary: {error}")


@cache
def fleet_to(url: str) -> Fleet:  # noqa: ARG001  (the cache's key)
    """Return the fleet of an address."""
    return Fleet()


def is_no_primary(error: redis.RedisError) -> bool:
    """Say whether an error reply means that the server may not be written to."""
    return isinstance(error, _KNOWN) or reply_of(error).startswith(_SAYS)


def reply_of(error: BaseException) -> str:
    """Return what a server said, without what redis-py puts before it in a pipeline.

    That is the command, with its keys and values.
    """
    text = str(error)
    _, found, reply = text.partition(" of pipeline caused error: ")
    return reply if found and text.startswith("Command # ") else text
