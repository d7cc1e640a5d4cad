"""The token service: WeChat's own calls for access tokens, or somebody's service in their place.

A worker that does not reach it must not ask again and again while others would get a token: not
while no connection comes up, and after a call that was not answered it stays away, longer each
time, unless WeChat answers it something that costs nothing.

Sources: WeChat docs, getAccessToken and getStableAccessToken.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp

from producers.logs.redaction import redacted
from producers.outward import NEVER_SENT, named
from producers.settings import AppSettings
from producers.words import TokenSource
from workers.wechat.client import WeChat
from workers.wechat.reply import Fate

LOCK_MS: Final = 15_000
"""How long who asks may keep others from asking: a call takes less."""

_PATIENCE_S: Final = (4.0, 12.0)
"""How long a call is waited for, at first and at most, and no longer than a POST.

It doubles after each that was not answered: WeChat may be slow, and whoever holds the lock deaf.
"""

_AWAY_S: Final = (2 * LOCK_MS / 1000, 240.0)
"""How long who had no answer leaves the lock to others, at first and at most; doubling."""

_LOOK_EVERY_S: Final = 2.0
"""How often who stays away looks whether WeChat answers."""


class TokenError(Exception):
    """The token service gave none; ``errcode`` is WeChat's, 0 when it did not answer.

    ``fate`` says whether the call was answered, not answered, or never sent.
    """

    def __init__(self, errcode: int, message: str, fate: Fate = Fate.ANSWERED) -> None:
        super().__init__(message)
        self.errcode = errcode
        self.fate = fate


class TokenService:
    """One app's, as one worker sees it; belongs to one event loop.

    Args:
        wechat: the client.
        alias: the app.
        app: its settings: the source, and how to ask it.
        connects: whether connections to WeChat come up; it is asked nothing while they do not.
        heard: called with the app, what became of a call to WeChat, and its error.
    """

    def __init__(
        self,
        wechat: WeChat,
        alias: str,
        app: AppSettings,
        connects: Callable[[], bool],
        heard: Callable[[str, Fate, str], None],
    ) -> None:
        self._wechat = wechat
        self._alias = alias
        self._app = app
        self._connects = connects
        self._heard = heard
        self._unanswered = 0
        self._away_until = 0.0
        self._look_at = 0.0

    @property
    def _is_wechat(self) -> bool:
        return self._app.token_source in {TokenSource.STABLE, TokenSource.CLASSIC}

    async def may_answer(self) -> bool:
        """Say whether a call is likely to be answered, before others are kept from making one."""
        if self._is_wechat and not self._connects():
            return False
        now = time.monotonic()
        if now >= self._away_until:
            return True
        if not self._is_wechat or now < self._look_at:
            return False
        self._look_at = now + _LOOK_EVERY_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S[0]):
                return await self._wechat.answers(self._alias)
        return False

    async def fetch(self, *, forced: bool) -> tuple[str, int]:
        """Ask for a token; returns it and its life in seconds.

        Args:
            forced: a new one, though the last may be good; of ``stable_token`` alone.

        Raises:
            TokenError: it gave no token.
        """
        most_s = min(_PATIENCE_S[0] * 2**self._unanswered, _PATIENCE_S[1])
        try:
            async with asyncio.timeout(most_s):
                answer = await self._ask(forced=forced)
        # the error's text may hold the URL, and with it the secret: only its name is said
        except NEVER_SENT as error:
            if self._is_wechat:
                self._heard(self._alias, Fate.UNSENT, named(error))
            raise self._missed(error, Fate.UNSENT) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._missed(error, Fate.UNANSWERED) from None
        except ValueError as error:
            raise TokenError(0, type(error).__name__) from None
        if self._is_wechat:
            self._heard(self._alias, Fate.ANSWERED, "")
        self._unanswered, self._away_until = 0, 0.0
        return _token_in(answer)

    def _missed(self, error: Exception, fate: Fate) -> TokenError:
        """Stay away so long that others can ask."""
        away_s = min(_AWAY_S[0] * 2**self._unanswered, _AWAY_S[1])
        self._away_until = time.monotonic() + away_s
        self._unanswered = min(self._unanswered + 1, 10)
        return TokenError(0, named(error), fate)

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
