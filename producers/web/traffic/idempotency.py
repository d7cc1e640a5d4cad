"""Idempotency keys: the same request again gets the first one's answer.

A key counts for one API key (or user of the mini-program's door) and one route. While the first
request is at work it holds a lease, renewed as long as its process lives: one that is killed blocks
its key for half a minute, not longer. Then the answer is kept for a day. Only what succeeded is
kept: whoever got an error corrects the request and sends the same key again.

If the process dies after the work and before the answer was kept, the same request does the work
again: a broadcast is the same one then, for it was made under a key made of this one (`inner_key`).
"""

import asyncio
import contextlib
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from datetime import timedelta
from typing import Final, NamedTuple

from producers.errors import StoreUnavailableError
from producers.settings import ms
from producers.store import Client, keys
from producers.store.retry import repeat
from producers.store.scripts import Script, new_token
from producers.web.http.answer import Answer
from producers.web.http.problem import ProblemError, invalid, retry_after
from producers.web.traffic.threads import on_thread

HEADER: Final = "Idempotency-Key"
PATTERN: Final = r"[\x21-\x7e]{1,128}"

_KEPT: Final = timedelta(hours=24)
_LEASE: Final = timedelta(seconds=30)
_KEY: Final = re.compile(PATTERN)
_AT_WORK: Final = "at-work "


def key_of(headers: Mapping[str, str]) -> str:
    """Return the request's Idempotency-Key, '' without one.

    Raises:
        ProblemError: it is none.
    """
    given = headers.get(HEADER)
    if given is None:
        return ""
    if not _KEY.fullmatch(given):
        raise invalid(HEADER, "Idempotency-Key: 1-128 visible ASCII characters without blanks")
    return given


def inner_key(headers: Mapping[str, str], scope: Sequence[str]) -> str:
    """Return the key under which the library may make what this request makes; '' without one.

    Args:
        headers: of the request.
        scope: as in `Idempotency.answer`.

    Raises:
        ProblemError: the request's key is none.
    """
    given = key_of(headers)
    return f"http-{_digest(scope, given)[:48]}" if given else ""


class AnswerKeys(NamedTuple):
    """KEYS of idempotency.lua."""

    answer: str


class AnswerArgs(NamedTuple):
    """ARGV of idempotency.lua."""

    claim: str
    kept: str
    ttl_ms: int


REPLACE: Final = Script(__package__, "idempotency", AnswerKeys, AnswerArgs)


class Idempotency:
    """Answers repeated requests. Belongs to one event loop."""

    def __init__(self, client: Client, pool: Executor) -> None:
        self._client = client
        self._pool = pool
        self._lease_ms = ms(_LEASE)
        self._replace = REPLACE.on(client)

    async def answer(
        self,
        headers: Mapping[str, str],
        app: str,
        scope: Sequence[str],
        digest: Callable[[], Awaitable[str]],
        work: Callable[[], Awaitable[Answer]],
    ) -> Answer:
        """Do the work, or return the answer that it had before.

        Args:
            headers: of the request; without an Idempotency-Key the work is just done.
            app: whose request it is.
            scope: what its key counts for: method, route, parts of the path, and who asks.
            digest: what tells its content from another: asked before the work when another
                request had the key, else after it (a streamed body has been read by then).
            work: answers the request.

        Raises:
            ProblemError: in-progress, key-reused, or the header is wrong.
            StoreUnavailableError: Redis did not answer, and nothing was done.
        """
        given = key_of(headers)
        if not given:
            return await work()
        name = keys.web_answer(app, _digest(scope, given))
        mine = _AT_WORK + new_token()
        held = await on_thread(self._pool, self._claim, name, mine)
        if held not in (None, mine):
            return await _repeated(held, digest)
        renewing = asyncio.ensure_future(self._renew(name, mine))
        try:
            answer = await work()
        except asyncio.CancelledError:
            raise  # it may still be at work on its thread: the lease ends by itself
        except TimeoutError:
            raise
        except BaseException:
            await self._end(name, mine, "", 0)
            raise
        finally:
            renewing.cancel()
        if answer.status >= 300 or answer.parts is not None:
            await self._end(name, mine, "", 0)
        else:
            kept = f"{await digest()} {answer.to_json().decode()}"
            await self._end(name, mine, kept, ms(_KEPT))
        return answer

    def _claim(self, name: str, mine: str) -> str | None:
        """Take the key if it is free; return what was there."""
        held: str | None = repeat(
            "claiming an Idempotency-Key",
            lambda: self._client.set(name, mine, nx=True, get=True, px=self._lease_ms),
        )
        return held

    async def _end(self, name: str, mine: str, kept: str, ttl_ms: int) -> None:
        with contextlib.suppress(StoreUnavailableError):  # the lease ends by itself
            await on_thread(self._pool, self._run_replace, name, mine, kept, ttl_ms)

    def _run_replace(self, name: str, mine: str, kept: str, ttl_ms: int) -> int:
        done: int = self._replace.repeated(
            "keeping an answer", AnswerKeys(name), AnswerArgs(mine, kept, ttl_ms)
        )
        return done

    async def _renew(self, name: str, mine: str) -> None:
        while True:
            await asyncio.sleep(self._lease_ms / 3000)
            await self._end(name, mine, mine, self._lease_ms)


async def _repeated(held: str, digest: Callable[[], Awaitable[str]]) -> Answer:
    if held.startswith(_AT_WORK):
        raise ProblemError(
            "in-progress", "wait, and send the same request again", headers=retry_after(1000)
        )
    first, _, kept = held.partition(" ")
    if await digest() != first:
        raise ProblemError("key-reused", "this Idempotency-Key was used with another request")
    answer = Answer.from_json(kept)
    answer.headers["Idempotent-Replay"] = "true"
    return answer


def _digest(scope: Sequence[str], given: str) -> str:
    """Return what a key counts for, and the key."""
    return hashlib.sha256("\0".join((*scope, given)).encode()).hexdigest()
