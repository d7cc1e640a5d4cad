"""API keys: who may call the HTTP service, for which apps, to do what, and how often.

A key reads ``wxb_ID_SECRET``. The id is in clear, for lookups and for the logs; the secret is 256
random bits, and only the SHA-256 of the whole key is stored. A fast hash is right here, and salt
and stretching would buy nothing: those slow down guessing of words that people choose, and nobody
guesses 2^256. What leaks from Redis opens nothing.

In Redis: one hash of all keys, and per key one small limit (see `limits`). Requests are
leased in blocks, so that a busy key costs a fraction of a script run per request. If the process
dies with a block in hand, the key gets that many requests less, once.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, Final

import orjson

from producers import logs
from producers.access.limits import Admission, Limit, Limits
from producers.errors import InvalidInputError, NotFoundError, UnknownAppError
from producers.logs.events import ApiKeyCreated, ApiKeyRevoked
from producers.settings import Settings
from producers.store import Client, keys
from producers.store.clock import now_ms
from producers.store.retry import repeat

ANY_APP: Final = "*"
"""As an app of a key: every app, also those that are set later."""

RATE: Final = 1000
"""Requests per second of a key that does not say another number."""

_KEY: Final = re.compile(r"wxb_(?P<id>[0-9a-f]{12})_(?P<secret>[A-Za-z0-9_-]{43})")
_FASTEST: Final = 1_000_000
_SECOND_MS: Final = 1000


class Scope(StrEnum):
    """What a key may do. None includes another."""

    COLLECT = "collect"
    """File permits."""
    SEND = "send"
    """Audiences, broadcasts and single messages: making, changing, stopping."""
    READ = "read"
    """Look at everything."""
    ADMIN = "admin"
    """Forget a user; whatever cannot be undone."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is stored.

    Attributes:
        id: in clear; what logs say.
        name: for people.
        apps: aliases, or `ANY_APP`.
        scopes: what it may do.
        rate: requests per second.
        created_at_ms: server epoch ms.
        digest: SHA-256 of the key, hex.
    """

    id: str
    name: str
    apps: frozenset[str]
    scopes: frozenset[Scope]
    rate: int
    created_at_ms: int
    digest: str = field(repr=False)

    def is_for(self, app: str) -> bool:
        """Say whether the key is for an app."""
        return app in self.apps or ANY_APP in self.apps

    def is_of(self, token: str) -> bool:
        """Say whether this is the key that somebody shows; takes the same time for any."""
        return hmac.compare_digest(_digest(token), self.digest)

    def as_dict(self) -> dict[str, Any]:
        """Return what may be shown, as JSON-ready fields."""
        return {
            "id": self.id,
            "name": self.name,
            "apps": sorted(self.apps),
            "scopes": [scope.value for scope in Scope if scope in self.scopes],
            "rate": self.rate,
            "created_at_ms": self.created_at_ms,
        }


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made; its repr does not show the token, and nobody can show it again."""

    token: str = field(repr=False)
    key: ApiKey


def id_of(token: str) -> str:
    """Return the id of what looks like a key, '' of what does not."""
    found = _KEY.fullmatch(token)
    return found["id"] if found else ""


class ApiKeys:
    """Makes, lists, finds and revokes keys, and counts their requests.

    Safe to share between threads.
    """

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._limits = Limits(client, when_full=True)

    def create(
        self, name: str, apps: Iterable[str], scopes: Iterable[str], rate: int = RATE
    ) -> NewKey:
        """Make a key.

        Args:
            name: for people, 1-64 printable characters.
            apps: aliases of the settings, or `ANY_APP`.
            scopes: of `Scope`.
            rate: requests per second, as many at once.

        Raises:
            InvalidInputError: with one sentence for every fault.
            UnknownAppError: no such app.
            StoreUnavailableError: Redis did not answer; the key may be there, unknown to anybody.
        """
        apps, scopes = frozenset(apps), frozenset(scopes)
        faults = _faults(name, apps, scopes, rate)
        if faults:
            raise InvalidInputError(faults)
        for app in sorted(apps - {ANY_APP}):
            if app not in self._settings.apps:
                raise UnknownAppError(app, list(self._settings.apps))
        created_at_ms = repeat("asking the time", partial(now_ms, self._client))
        key_id = secrets.token_hex(6)
        token = f"wxb_{key_id}_{secrets.token_urlsafe(32)}"
        key = ApiKey(
            key_id,
            name,
            apps,
            frozenset(Scope(scope) for scope in scopes),
            rate,
            created_at_ms,
            _digest(token),
        )
        stored = orjson.dumps({**key.as_dict(), "digest": key.digest}).decode()
        repeat("storing a key", lambda: self._client.hset(keys.API_KEYS, key_id, stored))
        shown = key.as_dict()
        logs.emit(
            ApiKeyCreated(key_id, name, ",".join(shown["apps"]), ",".join(shown["scopes"]), rate)
        )
        return NewKey(token, key)

    def list(self) -> Sequence[ApiKey]:
        """Return all keys, the oldest first.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        rows = repeat("listing keys", lambda: self._client.hvals(keys.API_KEYS))
        return sorted(map(_read, rows), key=lambda key: (key.created_at_ms, key.id))

    def find(self, key_id: str) -> ApiKey | None:
        """Return a key by its id, if there is one.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        row = repeat("looking up a key", lambda: self._client.hget(keys.API_KEYS, key_id))
        return _read(row) if row else None

    def revoke(self, key_id: str) -> ApiKey:
        """Take a key back; running services refuse it within two seconds.

        Returns:
            The key that was.

        Raises:
            NotFoundError: no such key.
            StoreUnavailableError: Redis did not answer; revoke it again.
        """
        key = self.find(key_id)
        if key is None:
            raise NotFoundError(f"no key {key_id!r}; `wxbroadcast keys list` shows them")
        repeat("revoking a key", lambda: self._client.hdel(keys.API_KEYS, key_id))
        logs.emit(ApiKeyRevoked(key_id, key.name))
        return key

    def lease(self, key: ApiKey, most: int) -> Admission:
        """Take requests out of a key's limit, also where Redis is full.

        Args:
            key: whose.
            most: how many at most, from 1.

        Raises:
            StoreUnavailableError: Redis did not answer; they may be taken.
        """
        limit = Limit(keys.key_limit(key.id), key.rate, within_ms=_SECOND_MS)
        return self._limits.admit("", [limit], most)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _read(row: str) -> ApiKey:
    stored = orjson.loads(row)
    return ApiKey(
        stored["id"],
        stored["name"],
        frozenset(stored["apps"]),
        frozenset(Scope(scope) for scope in stored["scopes"]),
        stored["rate"],
        stored["created_at_ms"],
        stored["digest"],
    )


def _faults(name: str, apps: frozenset[str], scopes: frozenset[str], rate: int) -> list[str]:
    faults = []
    if not (1 <= len(name) <= 64 and name.isprintable()):
        faults.append("name: 1-64 printable characters")
    if not apps:
        faults.append("app: at least one alias, or * for all")
    known = ", ".join(Scope)
    faults += [
        f"scope {scope!r}: take of {known}" for scope in sorted(scopes) if scope not in set(Scope)
    ]
    if not scopes:
        faults.append(f"scope: at least one of {known}")
    if not 1 <= rate <= _FASTEST:
        faults.append(f"rate {rate}: 1-{_FASTEST:,} requests per second")
    return faults
