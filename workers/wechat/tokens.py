"""The token keeper: one access token per app, shared by all processes, renewed before it ends.

The token lies in Redis (`vault`). Each process keeps a copy and looks for a newer one every second.
Whoever notices that it nears its end, or that WeChat refused it, takes a short lock, looks again,
and only then fetches (`token_service`): one refresh per expiry across all processes (I5). A token
that WeChat refused is replaced only if it is still the shared one (compare-and-swap), so a thousand
40001 cause one fetch. Who is not likely to be answered leaves the lock to others.

Classic tokens stay good for 5 minutes after their successor came; ``stable_token`` hands out the
same token with its remaining life, and a new one in its last 5 minutes. Forcing a new one is
limited to 20 a day, 30 s apart, so it is the last resort: only when the refused token was
confirmed by ``stable_token`` three times over.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from producers import logs
from producers.logs.events import TokenRefreshed, TokenRefreshFailed
from producers.settings import AppSettings, Settings
from producers.store import Client, keys
from producers.store.keys import LACKING
from producers.store.scripts import Script
from producers.words import TokenSource
from workers.wechat.client import WeChat
from workers.wechat.reply import Fate
from workers.wechat.token_service import LOCK_MS, TokenError, TokenService
from workers.wechat.vault import Token, Vault

RENEW_S: Final = 290
"""Renewed when less is left: stable_token gives a new one in the last 300 s of the old."""

CONFIRMED_S: Final = 5
"""A token fetched so recently is not fetched again because of a 40001."""

FORCE_AFTER: Final = 3
"""Confirmations of a token that is refused all the same, before a new one is forced."""

_OF_TOKENS: Final = ("secret", "token_source", "token_url", "token_key", "wechat_url")
"""What of an app's settings says how a token is got and kept."""

_FORCE_EVERY_S: Final = 31
_RETRY_S: Final = 2.0
_TRY_AGAIN_S: Final = 5.0


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
        self._now = now
        self._client = client
        self._alias = alias
        self._settings = settings
        self._worker = worker
        self._release = RELEASE.on(client)

        def ways(app: AppSettings) -> tuple[Vault, TokenService]:
            return (
                Vault(client, alias, app, now),
                TokenService(wechat, alias, app, connects, heard),
            )

        self._ways = ways
        self._app: AppSettings = settings.app(alias)
        self._vault, self._service = ways(self._app)
        self._renew = False
        self.retired = False
        """Whether its app left the settings: nothing is sent any more."""
        self._token: Token | None = None
        self._refused = ""
        self._refused_at = 0.0
        self._strikes = 0
        self._forced_at = 0.0
        self._lock = asyncio.Lock()
        self._not_before = 0.0
        self._failing: tuple[float, str] | None = None

    @property
    def ready(self) -> Token | None:
        """The token to send with, or None while there is none that may be good."""
        token = self._token
        if token is None or token.value == self._refused or token.expires_at <= self._now():
            return None
        return None if self.retired else token

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

    def follow(self) -> None:
        """The app's settings have changed, or it came back.

        With another secret or source a token is asked for at once, which shows whether they are
        good; the one in hand stays good until WeChat refuses it, or it ends.
        """
        before, self._app = self._app, self._settings.app(self._alias)
        self.retired = False
        if all(getattr(before, name) == getattr(self._app, name) for name in _OF_TOKENS):
            return
        self._vault, self._service = self._ways(self._app)
        self._renew, self._failing = True, None
        self._not_before, self._strikes = 0.0, 0

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
            if self.retired:
                return
            await self._read_shared()
            if not self._due() or time.monotonic() < self._not_before:
                return
            if self._app.token_source is TokenSource.REDIS:
                # somebody else's duty; good tokens are refused now and then, so try it again
                if self._now() - self._refused_at > _TRY_AGAIN_S:
                    self._refused = ""
                return
            if not await self._service.may_answer():
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

    def _failed(self, error: TokenError) -> None:
        """Say so, and try again soon, as far as the service lets."""
        now = time.monotonic()
        self._not_before = now + _RETRY_S
        said = f"{error.errcode} {error}" if error.errcode else str(error)
        self._failing = (self._failing[0] if self._failing else now, f"{LACKING}{said}")
        logs.emit(
            TokenRefreshFailed(self._alias, self._app.token_source, error.errcode, str(error))
        )

    def _due(self) -> bool:
        token = self._token
        if token is None or token.value == self._refused or self._renew:
            return True
        left = token.expires_at - self._now()
        return left < self._renew_s(token) and (
            left < 1 or self._now() - token.fetched_at > CONFIRMED_S
        )

    @staticmethod
    def _renew_s(token: Token) -> float:
        return min(RENEW_S, token.life_s / 4)

    async def _read_shared(self) -> None:
        shared = await self._vault.read()
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
        self._token, self._renew = shared, False
        if self.ready:
            self._failing = None

    def _confirmed_since_refusal(self, shared: Token) -> bool:
        return self._token is not None and shared.fetched_at > self._token.fetched_at

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
        value, life = await self._service.fetch(forced=forced)
        now = self._now()
        confirmed = token is not None and token.value == value == self._refused
        fresh = Token(value, now + life, now, life, confirmed)
        await self._vault.keep(fresh)
        changed = token is None or fresh.value != token.value
        if changed:
            self._strikes = 0
            logs.emit(TokenRefreshed(self._alias, self._app.token_source, forced, life))
        self._token, self._refused, self._failing = fresh, "", None
        self._renew = False
