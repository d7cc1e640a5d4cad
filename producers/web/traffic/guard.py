"""The guard: which key asks, and whether it may now.

A key is looked up once a second and its requests are leased in blocks, so that a busy key costs
Redis next to nothing per request. A key that was revoked works for a second more, at most two.
Whoever loses the process's block loses a twentieth of a second of the key's rate.

All keys lie on one node. While it does not answer, nobody can revoke one there either, and a key
that it vouched for within the last half minute is good still (`_VOUCHED_S`): a replica has taken
over by then. Such a key is counted by this process alone. What is remembered is what is stored of
it: a digest, and no key. Who was never seen, or was refused, waits for the node.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, TypeVar

from producers.access.api_keys import ApiKey, ApiKeys, id_of
from producers.access.sessions import Sessions, key_id_of
from producers.errors import StoreUnavailableError
from producers.web.http.problem import ProblemError, retry_after
from producers.web.traffic.threads import on_thread

R = TypeVar("R")

_FRESH_S: Final = 1.0
"""How long a looked-up key, or a leased block, is used."""
_BLOCKS_PER_S: Final = 20
"""A block is so much of a second of the key's rate; one request at least."""
_VOUCHED_S: Final = 30.0
"""How long a looked-up key is used while Redis does not answer. So long a revoked one may work on,
in a process that cannot reach Redis while whoever revokes it can."""
_HURRY_S: Final = 0.25
"""Who shows such a key waits for Redis no longer."""
_AGAIN_S: Final = 1.0
"""Then Redis is asked again."""
_WATCHED_S: Final = 5.0
"""How long a session of somebody who watches is taken for open without asking."""
_REMEMBERED: Final = 10_000
"""Ids, of real keys and of guesses, that are remembered."""
_PATIENCE_S: Final = 10.0
"""How long a request waits for its key's look-up, or its lease."""
_REALM: Final = 'Bearer realm="wxbroadcast"'


@dataclass(slots=True)
class _Known:
    """A looked-up key, or that there is none.

    Attributes:
        key: None: there is none.
        until: it is looked up anew.
        vouched_until: good so long where Redis does not answer.
    """

    key: ApiKey | None
    until: float
    vouched_until: float


@dataclass(slots=True)
class _Block:
    """Requests in hand of one key."""

    left: int = 0
    until: float = 0.0
    refused_until: float = 0.0
    fetching: "asyncio.Task[None] | None" = None


class Guard:
    """Knows keys, and counts their requests. Belongs to one event loop."""

    def __init__(
        self,
        keys: ApiKeys,
        sessions: Sessions,
        pool: Executor,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        self._sessions = sessions
        self._open_at: dict[str, float] = {}
        self._pool = pool
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._looking: dict[str, asyncio.Task[ApiKey | None]] = {}
        self._blocks: dict[str, _Block] = {}

    async def identify(self, token: str) -> ApiKey:
        """Return the key that a bearer token is.

        Raises:
            ProblemError: unauthorized: there is none, or it is not a key.
            StoreUnavailableError: Redis did not answer.
        """
        if not token:
            raise ProblemError(
                "unauthorized",
                "send a key: Authorization: Bearer wxb_…",
                headers={"WWW-Authenticate": _REALM},
            )
        key_id = id_of(token)
        key = await self._look_up(key_id) if key_id else None
        if key is None or not key.is_of(token):
            raise ProblemError(
                "unauthorized",
                "this is no key here, or it was revoked",
                headers={"WWW-Authenticate": f'{_REALM}, error="invalid_token"'},
            )
        return key

    async def identify_session(self, session: str) -> ApiKey:
        """Return the key that opened a session.

        Raises:
            ProblemError: unauthorized: it has ended, or its key was revoked.
            StoreUnavailableError: Redis did not answer.
        """
        key_id = key_id_of(session)
        key = await self._look_up(key_id) if key_id else None
        if key is None or not await self._is_open(session):
            raise ProblemError(
                "unauthorized",
                "sign in: there is no session, or it has ended",
                headers={"WWW-Authenticate": _REALM},
            )
        return key

    async def has_ended(self, key: ApiKey, session: str) -> bool:
        """Say whether somebody who was let in, and stays, may not stay any more.

        Args:
            key: which let them in; revoked, it has ended.
            session: in whose name it did, '' in none.

        Nobody is sent away because Redis does not answer.
        """
        with contextlib.suppress(StoreUnavailableError, TimeoutError):
            if await self._look_up(key.id) is None:
                return True
            return bool(session) and not await self._is_open(session, _WATCHED_S)
        return False

    async def _is_open(self, session: str, fresh_s: float = _FRESH_S) -> bool:
        asked = self._clock()
        if asked < self._open_at.get(session, float("-inf")) + fresh_s:
            return True
        if not await on_thread(self._pool, self._sessions.is_open, session):
            self.forget(session)
            return False
        if len(self._open_at) >= _REMEMBERED:
            self._open_at.clear()
        self._open_at[session] = asked
        return True

    def forget(self, session: str) -> None:
        """A session was ended here: it is not known any more."""
        self._open_at.pop(session, None)

    async def admit(self, key: ApiKey) -> None:
        """Count one request of a key.

        Raises:
            ProblemError: one too many now.
            StoreUnavailableError: Redis did not answer.
        """
        block = self._blocks.get(key.id)
        if block is None:
            if len(self._blocks) >= _REMEMBERED:
                self._blocks.clear()
            block = self._blocks[key.id] = _Block()
        while True:
            now = self._clock()
            if block.left > 0 and now < block.until:
                block.left -= 1
                return
            if now < block.refused_until:
                wait_ms = round((block.refused_until - now) * 1000)
                raise ProblemError(
                    "too-many-requests",
                    f"this key may send {key.rate:,} requests per second",
                    headers=retry_after(wait_ms),
                )
            if block.fetching is None:
                block.fetching = asyncio.ensure_future(self._fetch(key, block))
            await _shared(block.fetching)

    async def _fetch(self, key: ApiKey, block: _Block) -> None:
        try:
            most = max(1, key.rate // _BLOCKS_PER_S)
            try:
                async with asyncio.timeout(_HURRY_S):
                    lease = await on_thread(self._pool, self._keys.lease, key, most)
            except (StoreUnavailableError, TimeoutError):  # by ourselves: a second's, and no more
                until = self._clock() + _AGAIN_S
                block.left, block.until, block.refused_until = key.rate, until, until
                return
            now = self._clock()
            block.left, block.until = lease.granted, now + _FRESH_S
            if not lease.granted:
                block.refused_until = now + min(lease.wait_ms / 1000, _FRESH_S)
        finally:
            block.fetching = None

    async def _look_up(self, key_id: str) -> ApiKey | None:
        known = self._known.get(key_id)
        if known is not None and self._clock() < known.until:
            return known.key
        looking = self._looking.get(key_id)
        if looking is None:
            looking = asyncio.ensure_future(self._find(key_id))
            self._looking[key_id] = looking
        if known is None or known.key is None or self._clock() >= known.vouched_until:
            return await _shared(looking)
        try:
            return await _shared(looking, _HURRY_S)
        except (StoreUnavailableError, TimeoutError):
            known.until = min(self._clock() + _AGAIN_S, known.vouched_until)
            return known.key

    async def _find(self, key_id: str) -> ApiKey | None:
        try:
            asked = self._clock()
            key = await on_thread(self._pool, self._keys.find, key_id)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key_id] = _Known(key, asked + _FRESH_S, asked + _VOUCHED_S)
            return key
        finally:
            del self._looking[key_id]


async def _shared(task: "asyncio.Task[R]", seconds: float = _PATIENCE_S) -> R:
    """Wait for what others wait for too; one who gives up does not end it for them."""
    async with asyncio.timeout(seconds):
        return await asyncio.shield(task)
