"""The vault: where the access token of an app lies for all processes, sealed with the app's secret.

Where ``token_source`` is redis somebody else keeps it, at a key of theirs, as plain text.
"""

import base64
import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import orjson
from cryptography.fernet import Fernet, InvalidToken

from producers.settings import AppSettings
from producers.store import Client, keys
from producers.words import TokenSource


@dataclass(frozen=True, slots=True)
class Token:
    """An access token; its repr does not show it.

    Attributes:
        value: the token.
        expires_at: epoch seconds, by the Redis server's clock.
        fetched_at: epoch seconds of the fetch that gave or confirmed it, by the same clock.
        life_s: its life when fetched.
        confirmed: it was asked for because WeChat refused it, and WeChat gave it again.
    """

    value: str
    expires_at: float
    fetched_at: float
    life_s: int
    confirmed: bool = False

    def __repr__(self) -> str:
        return f"Token(…, expires_at={self.expires_at:.0f})"


class Vault:
    """One app's; belongs to one event loop.

    Args:
        client: Redis.
        alias: the app.
        app: its settings.
        now: epoch seconds by the Redis server's clock.
    """

    def __init__(
        self, client: Client, alias: str, app: AppSettings, now: Callable[[], float]
    ) -> None:
        self._client = client
        self._key = keys.token(alias)
        self._outside = app.token_key or "" if app.token_source is TokenSource.REDIS else None
        self._now = now
        secret = app.secret.get_secret_value()
        digest = hashlib.sha256(f"wxbroadcast token\0{app.appid}\0{secret}".encode())
        self._cipher = Fernet(base64.urlsafe_b64encode(digest.digest()))
        self._unsealed: tuple[str, Token] | None = None

    async def read(self) -> Token | None:
        """Return the shared token, or None while there is none.

        Raises:
            redis.RedisError: Redis did not answer.
        """
        if self._outside is not None:
            return await self._read_outside(self._outside)
        sealed = await self._client.get(self._key)
        if not sealed:
            return None
        if self._unsealed is None or self._unsealed[0] != sealed:  # each look costs 50 µs else
            try:
                stored: dict[str, Any] = orjson.loads(self._cipher.decrypt(sealed.encode()))
            except InvalidToken:
                return None  # the secret was changed: fetch anew
            self._unsealed = (sealed, Token(**stored))
        return self._unsealed[1]

    async def _read_outside(self, key: str) -> Token | None:
        value = await self._client.get(key)
        if not value:
            return None
        now = self._now()
        ttl = await self._client.ttl(key)
        life = 7200 if ttl == -1 else max(0, ttl)  # -1: without an end
        return Token(value, now + life, 0.0, life)

    async def keep(self, token: Token) -> None:
        """Share a token, for as long as it lives.

        Raises:
            redis.RedisError: Redis did not answer; perhaps it is shared.
        """
        sealed = self._cipher.encrypt(orjson.dumps(asdict(token)))
        await self._client.set(self._key, sealed, px=max(1, token.life_s) * 1000)
