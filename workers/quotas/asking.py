"""Asking WeChat about its own numbers: seldom, by one worker at a time, and never in the way.

Who may ask is decided in Redis (quota_ask.lua). An answer that does not come leaves things as they
are, and the next try comes no sooner for it. A token is not fetched for it: one that is there is
used.

Sources: WeChat docs, openApi management (getApiQuota, getRidInfo).
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import aiohttp

from producers.logs.redaction import redacted
from producers.outward import named
from producers.store import Client, keys
from producers.store.scripts import Script
from workers.wechat.client import WeChat
from workers.wechat.tokens import TokenKeeper

_PATIENCE_S: Final = 5.0
TTL_MS: Final = 2 * 86_400_000
_TEXT: Final = 200


class AskKeys(NamedTuple):
    """KEYS of quota_ask.lua."""

    quotas: str
    limiter: str


class AskArgs(NamedTuple):
    """ARGV of quota_ask.lua."""

    what: str
    far_ms: int
    near_ms: int
    most: int


class JotKeys(NamedTuple):
    """KEYS of jot.lua."""

    hash: str


class JotArgs(NamedTuple):
    """ARGV of jot.lua."""

    field: str
    text: str
    ttl_ms: int


ASK: Final = Script(__package__, "quota_ask", AskKeys, AskArgs, clock=True)
JOT: Final = Script(__package__, "jot", JotKeys, JotArgs, clock=True)


class NoAnswerError(Exception):
    """WeChat did not answer, or answered with an errcode; the text holds no secret."""


class Asking:
    """One worker's; belongs to one event loop.

    Args:
        client: Redis.
        wechat: the client.
        tokens: app → its token keeper.
    """

    def __init__(self, client: Client, wechat: WeChat, tokens: Mapping[str, TokenKeeper]) -> None:
        self._wechat = wechat
        self._tokens = tokens
        self._ask = ASK.on(client)
        self._jot = JOT.on(client)

    def can(self, app: str) -> bool:
        """Say whether there is a token to ask with."""
        return self._tokens[app].ready is not None

    async def may(
        self, app: str, hash_key: str, what: str, far_ms: int, near_ms: int, most: int
    ) -> int | None:
        """Say whether this worker is to ask now: slots of the channel given so far, or None.

        Raises:
            redis.RedisError: Redis did not answer.
        """
        may, sent = await self._ask(
            AskKeys(hash_key, keys.limiter(app)), AskArgs(what, far_ms, near_ms, most)
        )
        return int(sent) if int(may) else None

    async def call(self, app: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask, and return WeChat's answer.

        Raises:
            NoAnswerError: there is none, or it is an errcode.
        """
        token = self._tokens[app].ready
        if token is None:
            raise NoAnswerError("no token")
        url = f"{self._wechat.base(app)}{path}?access_token={token.value}"
        try:
            async with asyncio.timeout(_PATIENCE_S):
                answer = await self._wechat.call("POST", url, json=body)
        # the error's text may hold the URL, and with it the token: only its name is said
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise NoAnswerError(named(error)) from None
        errcode = answer.get("errcode") or 0
        if errcode:
            said = str(answer.get("errmsg", "")).partition(" rid:")[0]
            raise NoAnswerError(redacted(f"{errcode} {said}")[:_TEXT])
        return answer

    async def jot(self, hash_key: str, field: str, text: str) -> None:
        """Keep a line about an app, two days from now on.

        Raises:
            redis.RedisError: Redis did not answer.
        """
        await self._jot(JotKeys(hash_key), JotArgs(field, text, TTL_MS))
