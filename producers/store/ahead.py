"""One script call under way while its caller prepares the next one, on one thread.

The command is written to a connection, and its reply read when it is asked for. A thread would do
the same, but beside one that reads JSON it waits for Python's lock after each reply.
"""

import contextlib
from collections.abc import Sequence
from typing import Any, Final

import redis

from producers.store import Client, as_sent, await_answer, lend, pool_of
from producers.store.lanes.fence import is_refusal
from producers.store.retry import LOST, raise_lasting, repeat
from producers.store.scripts import Value

_ELSEWHERE: Final = (
    redis.exceptions.NoScriptError,
    redis.exceptions.AskError,
    redis.exceptions.TryAgainError,
    redis.exceptions.ClusterDownError,
)
"""Nothing was done: the script or its slot is not there; the client itself knows the way."""


class Ahead:
    """Runs one script, one call at a time; used by one thread.

    Args:
        client: Redis.
        script: registered with it; every call carries a token, so that it can be repeated.
        during: what is being done, for the log.
    """

    def __init__(self, client: Client, script: Any, during: str) -> None:
        self._client = client
        self._script = script
        self._during = during
        self._call: tuple[Sequence[str], Sequence[Value]] | None = None
        self._pool: Any = None
        self._connection: Any = None
        self._is_lost = False

    def start(self, keys: Sequence[str], args: Sequence[Value]) -> None:
        """Send a call; the one before must have been finished."""
        self._call = (keys, args)
        self._is_lost = False
        with contextlib.suppress(*LOST):  # then `finish` repeats it
            self._pool = pool_of(self._client, keys[0])
            self._connection = lend(self._pool)
            call = ("EVALSHA", self._script.sha, len(keys), *keys, *args)
            self._is_lost = True
            self._connection.send_command(*as_sent(self._client, call))
            self._is_lost = False
            return
        self._let_go(broken=True)

    def finish(self) -> Any:
        """Return the reply of the call that was started; it is repeated while replies are lost.

        Raises:
            LaneDividedError: nothing was done; a lane of it is being divided, or was.
            StoreUnavailableError: Redis did not answer any attempt.
        """
        assert self._call is not None  # noqa: S101
        (keys, args), self._call = self._call, None
        if self._connection is not None:
            try:
                await_answer(self._client, self._connection)
                reply = self._connection.read_response()
            except _ELSEWHERE:
                self._let_go(broken=False)
            except LOST:
                self._is_lost = True
                self._let_go(broken=True)
            except redis.ResponseError as error:
                self._let_go(broken=False)
                if not is_refusal(error):  # the client finds out what it means
                    raise_lasting(self._during, error)
            else:
                self._let_go(broken=False)
                return reply
        return repeat(self._during, lambda: self._script(keys=keys, args=args), lost=self._is_lost)

    def close(self) -> None:
        """Give up what is under way; nobody knows whether it ran."""
        self._call = None
        self._let_go(broken=True)

    def _let_go(self, *, broken: bool) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if broken:
            connection.disconnect()
        self._pool.release(connection)
