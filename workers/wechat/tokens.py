"""The token keeper: one access token per app, shared by all processes, renewed before it ends.

The token lies encrypted in Redis (its key is made of the app's secret). Each process keeps a copy
and looks for a newer one every second. Whoever notices that it nears its end, or that WeChat
refused it, takes a short lock, looks again, and only then fetches: one refresh per expiry across
all processes (I5). A token that WeChat refused is replaced only if it is still the shared one
(compare-and-swap), so a thousand 40001 cause one fetch.

Classic tokens stay good for 5 minutes after their successor came; ``stable_token`` hands out the
same token with its remaining life, and a new one in its last 5 minutes. Forcing a new one is
limited to 20 a day, 30 s apart, so it is the last resort: only when the refused token was
confirmed by ``stable_token`` three times over.

A worker that does not reach WeChat must not hold the lock again and again while others would get a
token. Without a connection it says so (`heard`: the worker closes its gate of the app) and does not
ask until one comes up. After a call that was not answered it stays away for twice the lock's life
and more, unless WeChat answers it something that costs nothing; and it waits longer each time.

Sources: WeChat docs, getAccessToken and getStableAccessToken.
"""

import asyncio
import base64
import contextlib
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import aiohttp
import orjson
from cryptography.fernet import Fernet, InvalidToken

from producers import logs
from producers.logs.events import TokenRefreshed, TokenRefreshFailed
from producers.logs.redaction import redacted
from producers.settings import AppSettings, Settings
from producers.store import Client, keys
from producers.store.keys import LACKING
from producers.store.scripts import Script
from producers.words import TokenSource
from workers.wechat.client import WeChat
from workers.wechat.reply import Fate

LOCK_MS: Final = 15_000
"""A fetch takes less; should its process have died, another may try then."""

_PATIENCE_S: Final = (4.0, 12.0)
"""How long a call is waited for, at first and at most, and no longer than a POST.

It doubles after each that was not answered: WeChat may be slow, and whoever holds the lock deaf.
"""

_AWAY_S: Final = (2 * LOCK_MS / 1000, 240.0)
"""How long who had no answer leaves the lock to others, at first and at most; doubling."""

RENEW_S: Final = 290
"""Renewed when less is left: stable_token gives a new one in the last 300 s of the old."""

CONFIRMED_S: Final = 5
"""A token fetched so recently is not fetched again because of a 40001."""

FORCE_AFTER: Final = 3
"""Confirmations of a token that is refused all the same, before a new one is forced."""

_FORCE_EVERY_S: Final = 31
_RETRY_S: Final = 2.0
_TRY_AGAIN_S: Final = 5.0


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


class TokenError(Exception):
    """The token service gave none; ``errcode`` is WeChat's, 0 when it did not answer.

    ``fate`` says whether the call was answered, not answered, or never sent.
    """

    def __init__(self, errcode: int, message: str, fate: Fate = Fate.ANSWERED) -> None:
        super().__init__(message)
        self.errcode = errcode
        self.fate = fate


class ReleaseKeys(NamedTuple):
    """KEYS of release.lua."""

    lease: str


class ReleaseArgs(NamedTuple):
    """ARGV of release.lua."""

    holder: str


RELEASE: Final = Script(__package__, "release", ReleaseKeys, ReleaseArgs)


class TokenKeeper:
    """Keeps one app's token; belongs to one event loop.

    Args:
        client: Redis.
        wechat: the client.
        alias: the app.
        settings: the token's source, and how to ask it.
        worker: this worker's id.
        now: epoch seconds by the Redis server's clock.
        connects: whether connections to WeChat come up; it is asked nothing while they do not.
        heard: called with the app, what became of a call to WeChat, and its error.
    """

    def __init__(
        self,
        client: Client,
        wechat: WeChat,
        alias: str,
        settings: Settings,
        worker: str,
        now: Callable[[], float],
        connects: Callable[[], bool],
        heard: Callable[[str, Fate, str], None],
    ) -> None:
        self._connects = connects
        self._heard = heard
        self._now = now
        self._client = client
        self._wechat = wechat
        self._alias = alias
        self._app: AppSettings = settings.app(alias)
        self._worker = worker
        self._release = RELEASE.on(client)
        secret = self._app.secret.get_secret_value()
        digest = hashlib.sha256(f"wxbroadcast token\0{self._app.appid}\0{secret}".encode())
        self._cipher = Fernet(base64.urlsafe_b64encode(digest.digest()))
        self._token: Token | None = None
        self._unsealed: tuple[str, Token] | None = None
        self._refused = ""
        self._refused_at = 0.0
        self._strikes = 0
        self._forced_at = 0.0
        self._lock = asyncio.Lock()
        self._not_before = 0.0
        self._away_until = 0.0
        self._unanswered = 0
        self._failing: tuple[float, str] | None = None

    @property
    def ready(self) -> Token | None:
        """The token to send with, or None while there is none that may be good."""
        token = self._token
        if token is None or token.value == self._refused or token.expires_at <= self._now():
            return None
        return token

    @property
    def due_in_s(self) -> float:
        """Seconds until the token is to be renewed; 0 while it is due, or there is none."""
        if self._token is None or self._due():
            return 0.0
        return max(0.0, self._token.expires_at - self._now() - self._renew_s(self._token))

    @property
    def trouble(self) -> tuple[float, str] | None:
        """Since when (monotonic seconds) and why there is no token; None while there is one."""
        return None if self._failing is None or self.ready else self._failing

    def refuse(self, value: str) -> None:
        """WeChat refused this token: unless a newer one is here, nothing is sent with it.

        Refusals that come just after it was confirmed belong to sends that started before.
        """
        token = self._token
        if token is None or token.value != value or value == self._refused:
            return
        if token.confirmed and self._now() - token.fetched_at < CONFIRMED_S:
            return
        self._refused, self._refused_at = value, self._now()

    def accept(self, value: str) -> None:
        """WeChat took this token: earlier refusals were passing ones."""
        if self._strikes and self._token is not None and self._token.value == value:
            self._strikes = 0

    async def tick(self) -> None:
        """Look for a newer shared token; fetch one when it is time. Called every second.

        Never raises for what WeChat or Redis do; failures are logged and tried again.
        """
        async with self._lock:
            await self._read_shared()
            if not self._due() or time.monotonic() < self._not_before:
                return
            if self._app.token_source is TokenSource.REDIS:
                # somebody else's duty; good tokens are refused now and then, so try it again
                if self._now() - self._refused_at > _TRY_AGAIN_S:
                    self._refused = ""
                return
            if not await self._may_ask():
                return
            lock = keys.token_lock(self._alias)
            if not await self._client.set(lock, self._worker, nx=True, px=LOCK_MS):
                return
            try:
                await self._read_shared()
                if self._due():
                    await self._refresh()
            except TokenError as error:
                self._failed(error)
            finally:
                await self._release(ReleaseKeys(lock), ReleaseArgs(self._worker))

    @property
    def _asks_wechat(self) -> bool:
        return self._app.token_source in {TokenSource.STABLE, TokenSource.CLASSIC}

    async def _may_ask(self) -> bool:
        """Say whether a call is likely to be answered, before the lock is taken for it."""
        if self._asks_wechat and not self._connects():
            return False
        now = time.monotonic()
        if now >= self._away_until:
            return True
        self._not_before = now + _RETRY_S
        if not self._asks_wechat:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S[0]):
                return await self._wechat.answers(self._alias)
        return False

    def _failed(self, error: TokenError) -> None:
        """Say so, and try again: soon if it was answered, else after others could."""
        now = time.monotonic()
        self._not_before = now + _RETRY_S
        if error.fate is not Fate.ANSWERED:
            self._away_until = now + min(_AWAY_S[0] * 2**self._unanswered, _AWAY_S[1])
            self._unanswered = min(self._unanswered + 1, 10)
        said = f"{error.errcode} {error}" if error.errcode else str(error)
        self._failing = (self._failing[0] if self._failing else now, f"{LACKING}{said}")
        logs.emit(
            TokenRefreshFailed(self._alias, self._app.token_source, error.errcode, str(error))
        )

    def _due(self) -> bool:
        token = self._token
        if token is None or token.value == self._refused:
            return True
        left = token.expires_at - self._now()
        return left < self._renew_s(token) and (
            left < 1 or self._now() - token.fetched_at > CONFIRMED_S
        )

    @staticmethod
    def _renew_s(token: Token) -> float:
        return min(RENEW_S, token.life_s / 4)

    async def _read_shared(self) -> None:
        shared = await self._shared()
        if shared is None:
            return
        if shared.value == self._refused and shared.fetched_at == getattr(
            self._token, "fetched_at", None
        ):
            return
        if shared.value == self._refused and self._confirmed_since_refusal(shared):
            self._refused = ""  # another process asked: the token is good
        if shared.value != self._refused:
            self._refused = ""
        self._token = shared
        if self.ready:
            self._failing = None

    def _confirmed_since_refusal(self, shared: Token) -> bool:
        return self._token is not None and shared.fetched_at > self._token.fetched_at

    async def _shared(self) -> Token | None:
        if self._app.token_source is TokenSource.REDIS:
            value = await self._client.get(self._app.token_key or "")
            if not value:
                return None
            now = self._now()
            ttl = await self._client.ttl(self._app.token_key or "")
            life = ttl if ttl > 0 else 7200
            return Token(value, now + life, 0.0, life)
        sealed = await self._client.get(keys.token(self._alias))
        if not sealed:
            return None
        if self._unsealed is None or self._unsealed[0] != sealed:  # each look costs 50 µs else
            try:
                stored: dict[str, Any] = orjson.loads(self._cipher.decrypt(sealed.encode()))
            except InvalidToken:
                return None  # the secret was changed: fetch anew
            self._unsealed = (sealed, Token(**stored))
        return self._unsealed[1]

    async def _refresh(self) -> None:
        token = self._token
        forced = False
        if token is not None and token.value == self._refused:
            self._strikes += 1
            forced = (
                self._app.token_source is TokenSource.STABLE
                and self._strikes > FORCE_AFTER
                and time.monotonic() - self._forced_at > _FORCE_EVERY_S
            )
        if forced:
            self._forced_at = time.monotonic()
        value, life = await self._fetch(forced=forced)
        now = self._now()
        confirmed = token is not None and token.value == value == self._refused
        fresh = Token(value, now + life, now, life, confirmed)
        sealed = self._cipher.encrypt(
            orjson.dumps(
                {
                    "value": fresh.value,
                    "expires_at": fresh.expires_at,
                    "fetched_at": fresh.fetched_at,
                    "life_s": fresh.life_s,
                    "confirmed": fresh.confirmed,
                }
            )
        )
        await self._client.set(keys.token(self._alias), sealed, px=max(1, life) * 1000)
        changed = token is None or fresh.value != token.value
        if changed:
            self._strikes = 0
            logs.emit(TokenRefreshed(self._alias, self._app.token_source, forced, life))
        self._token, self._refused, self._failing = fresh, "", None

    async def _fetch(self, *, forced: bool) -> tuple[str, int]:
        """Ask the token service; returns the token and its life in seconds.

        Raises:
            TokenError: it gave no token.
        """
        most_s = min(_PATIENCE_S[0] * 2**self._unanswered, _PATIENCE_S[1])
        try:
            async with asyncio.timeout(most_s):
                answer = await self._ask(forced=forced)
        # the error's text may hold the URL, and with it the secret: only its name is said
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            if self._asks_wechat:
                self._heard(self._alias, Fate.UNSENT, type(error).__name__)
            raise TokenError(0, type(error).__name__, Fate.UNSENT) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TokenError(0, type(error).__name__, Fate.UNANSWERED) from None
        except ValueError as error:
            raise TokenError(0, type(error).__name__) from None
        if self._asks_wechat:
            self._heard(self._alias, Fate.ANSWERED, "")
        self._unanswered, self._away_until = 0, 0.0
        return _token_in(answer)

    async def _ask(self, *, forced: bool) -> dict[str, Any]:
        app, base = self._app, self._wechat.base(self._alias)
        secret = app.secret.get_secret_value()
        who = {"grant_type": "client_credential", "appid": app.appid, "secret": secret}
        if app.token_source is TokenSource.STABLE:
            url = f"{base}/cgi-bin/stable_token"
            return await self._wechat.call("POST", url, json={**who, "force_refresh": forced})
        if app.token_source is TokenSource.CLASSIC:
            return await self._wechat.call("GET", f"{base}/cgi-bin/token?{urlencode(who)}")
        url = app.token_url.get_secret_value() if app.token_url else ""
        return await self._wechat.call("GET", url)


def _token_in(answer: dict[str, Any]) -> tuple[str, int]:
    """Return the token of an answer and its life; ``expires_in`` may be digits in a string.

    Raises:
        TokenError: there is none.
    """
    value = answer.get("access_token")
    code = answer.get("errcode")
    if not isinstance(value, str) or not value:
        known = code if isinstance(code, int) else 0
        raise TokenError(known, redacted(str(answer.get("errmsg", "no access_token")))[:200])
    life = answer.get("expires_in", 7200)
    if isinstance(life, bool) or not isinstance(life, int | str) or not str(life).isdigit():
        raise TokenError(0, "expires_in is not a number of seconds")
    return value, int(life)
