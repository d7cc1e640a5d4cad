"""Access tokens: who holds which, and until when.

The tokens of ``/cgi-bin/token`` and of ``/cgi-bin/stable_token`` are two separate spaces. A token
that is replaced stays good for the overlap (5 minutes); one replaced by a forced refresh stops at
once.

Sources: https://developers.weixin.qq.com/miniprogram/dev/server/API/mp-access-token/
api_getaccesstoken.html and
https://developers.weixin.qq.com/miniprogram/dev/OpenApiDoc/mp-access-token/getStableAccessToken.html
"""

import base64
import random
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from producers.sandbox.memory.quota import day_of
from producers.sandbox.replies import RefusalError

_FORCED_APART_S: Final = 30
_FORCED_A_DAY: Final = 20
_REMEMBERED: Final = 1000  # replaced tokens still known as such, per space: 42001 and not 40001


class TokenKind(StrEnum):
    """Which call made a token."""

    CLASSIC = "classic"
    STABLE = "stable"


@dataclass(frozen=True, slots=True)
class Span:
    """How long tokens live.

    Attributes:
        lifetime_s: seconds of a new token.
        overlap_s: seconds that a replaced one stays good; a stable one is renewed as long
            before its end.
    """

    lifetime_s: float
    overlap_s: float


@dataclass(slots=True)
class Token:
    """One token.

    Attributes:
        value: what callers carry.
        appid: whose it is.
        expires_at_s: epoch seconds at which its own lifetime ends.
        good_until_s: when it stops: its end, or earlier once it has been replaced.
    """

    value: str
    appid: str
    expires_at_s: float
    good_until_s: float


@dataclass(slots=True)
class _Space:
    """The tokens of one app of one kind, the current one last."""

    tokens: list[Token] = field(default_factory=list)
    forced_at_s: float = float("-inf")
    forced_day: int = 0
    forced_today: int = 0


class Tokens:
    """All tokens ever issued, but for the oldest replaced ones.

    Attributes:
        issued: how many tokens were made, by kind.
        forced: how many of the stable ones by forced refreshes.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._by_value: dict[str, Token] = {}
        self._spaces: dict[tuple[str, TokenKind], _Space] = {}
        self.issued = dict.fromkeys(TokenKind, 0)
        self.forced = 0

    def issue(self, appid: str, now_s: float, span: Span) -> tuple[str, int]:
        """Make a classic token; the one before stays good for the overlap.

        Returns:
            The token and its seconds.
        """
        token = self._replace(appid, TokenKind.CLASSIC, now_s, span)
        return token.value, int(span.lifetime_s)

    def stable(self, appid: str, now_s: float, span: Span, *, force: bool) -> tuple[str, int]:
        """Return the stable token, or a new one near its end or when forced.

        A lifetime shorter than two overlaps is renewed at its half, so that tests with short-lived
        tokens still meet the same token twice.

        Args:
            appid: whose token.
            now_s: epoch seconds.
            span: how long a new one lives.
            force: refresh now; too early (30 s), the current one is returned unchanged.

        Returns:
            The token and the seconds it has left.

        Raises:
            RefusalError: 45009, the 21st forced refresh of a day.
        """
        space = self._space(appid, TokenKind.STABLE)
        current = space.tokens[-1] if space.tokens else None
        if force and now_s - space.forced_at_s >= _FORCED_APART_S:
            self._count_forced(space, now_s)
            at_once = replace(span, overlap_s=0)
            current = self._replace(appid, TokenKind.STABLE, now_s, at_once)
        elif current is None or current.expires_at_s - now_s <= min(
            span.overlap_s, span.lifetime_s / 2
        ):
            current = self._replace(appid, TokenKind.STABLE, now_s, span)
        return current.value, int(current.expires_at_s - now_s)

    def authorise(self, value: str, now_s: float) -> str:
        """Find whose token this is.

        Raises:
            RefusalError: 41001 none, 40001 unknown or replaced, 42001 expired.
        """
        if not value:
            raise RefusalError(41001)
        token = self._by_value.get(value)
        if token is None:
            raise RefusalError(40001)
        if now_s >= token.good_until_s:
            raise RefusalError(42001 if now_s >= token.expires_at_s else 40001)
        return token.appid

    def revoke(self, now_s: float) -> int:
        """Stop every token at once, as when an AppSecret is reset.

        Returns:
            How many were good.
        """
        good = [token for token in self._by_value.values() if token.good_until_s > now_s]
        for token in good:
            token.good_until_s = now_s
        for space in self._spaces.values():
            space.tokens.clear()
        return len(good)

    def count_good(self, now_s: float) -> int:
        """Count the tokens that work now."""
        return sum(token.good_until_s > now_s for token in self._by_value.values())

    def _count_forced(self, space: _Space, now_s: float) -> None:
        day = day_of(now_s)
        if space.forced_day != day:
            space.forced_day, space.forced_today = day, 0
        if space.forced_today >= _FORCED_A_DAY:
            raise RefusalError(45009)
        space.forced_today += 1
        space.forced_at_s = now_s
        self.forced += 1

    def _space(self, appid: str, kind: TokenKind) -> _Space:
        return self._spaces.setdefault((appid, kind), _Space())

    def _replace(self, appid: str, kind: TokenKind, now_s: float, span: Span) -> Token:
        space = self._space(appid, kind)
        for old in space.tokens:
            old.good_until_s = min(old.good_until_s, now_s + span.overlap_s)
        for old in space.tokens[:-_REMEMBERED]:
            self._by_value.pop(old.value, None)
        del space.tokens[:-_REMEMBERED]
        value = f"{self._rng.randint(10, 99)}_{_random_text(self._rng, 100)}"
        token = Token(value, appid, now_s + span.lifetime_s, now_s + span.lifetime_s)
        space.tokens.append(token)
        self._by_value[value] = token
        self.issued[kind] += 1
        return token


def _random_text(rng: random.Random, size: int) -> str:
    return base64.urlsafe_b64encode(rng.randbytes(size)).decode().rstrip("=")
