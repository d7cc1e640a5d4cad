"""How often an app may call an API, and how often it did.

Per day, per minute and per second; the day turns at midnight in Shanghai, the minute and the second
with the clock (none of it is documented). A call that is refused for its quota is not counted.

Sources: https://developers.weixin.qq.com/miniprogram/dev/framework/open-ability/subscribe-message.html
(10,000,000 a day, 30,000,000 with WeChat Pay), the 2018 page of templateMessage.send (1,000,000 a
day), getStableAccessToken (10,000 a minute, 500,000 a day).
"""

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from producers.sandbox.replies import RefusalError

_SHANGHAI_S: Final = 8 * 3600


class Quota(BaseModel):
    """What one app may call of one API; None is no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    daily: int | None = Field(default=None, ge=0)
    per_minute: int | None = Field(default=None, ge=0)
    per_second: int | None = Field(default=None, ge=0)


DEFAULT_QUOTAS: Final[Mapping[str, Quota]] = {
    "/cgi-bin/message/subscribe/send": Quota(daily=30_000_000),
    "/cgi-bin/message/wxopen/template/send": Quota(daily=1_000_000),
    "/cgi-bin/stable_token": Quota(daily=500_000, per_minute=10_000),
}


def day_of(at_s: float) -> int:
    """Number the day, in Shanghai, of a moment."""
    return int((at_s + _SHANGHAI_S) // 86_400)


def month_of(at_s: float) -> int:
    """Number the 30-day month of a moment: near enough for what is granted ten times a month."""
    return day_of(at_s) // 30


class _Usage:
    __slots__ = ("day", "minute", "second", "this_minute", "this_second", "today")

    def __init__(self) -> None:
        self.day = 0
        self.today = 0
        self.minute = 0
        self.this_minute = 0
        self.second = 0
        self.this_second = 0


class Usages:
    """What every app called of every API."""

    def __init__(self) -> None:
        self._usages: dict[tuple[str, str], _Usage] = {}
        self._grants: dict[tuple[str, str], tuple[int, int]] = {}

    def spend(self, appid: str, path: str, quota: Quota | None, now_s: float) -> None:
        """Count one call.

        Raises:
            RefusalError: 45009 the day's quota is used up, 45011 the minute's, 44990 the second's.
        """
        usage = self._usages.get((appid, path))
        if usage is None:
            usage = self._usages[appid, path] = _Usage()
        day = int((now_s + _SHANGHAI_S) // 86_400)
        if usage.day != day:
            usage.day, usage.today = day, 0
        minute = int(now_s // 60)
        if usage.minute != minute:
            usage.minute, usage.this_minute = minute, 0
        if quota is not None:
            if quota.daily is not None and usage.today >= quota.daily:
                raise RefusalError(45009)
            if quota.per_minute is not None and usage.this_minute >= quota.per_minute:
                raise RefusalError(45011)
            if quota.per_second is not None:
                if usage.second != int(now_s):
                    usage.second, usage.this_second = int(now_s), 0
                if usage.this_second >= quota.per_second:
                    raise RefusalError(44990)
                usage.this_second += 1
        usage.today += 1
        usage.this_minute += 1

    def used_today(self, appid: str, path: str, now_s: float) -> int:
        """How many calls were counted today."""
        usage = self._usages.get((appid, path))
        return usage.today if usage is not None and usage.day == day_of(now_s) else 0

    def clear(self, appid: str, now_s: float, *, path: str | None, a_month: int) -> None:
        """Set the day's counts back to nothing, a limited number of times a month.

        Args:
            appid: whose counts.
            now_s: epoch seconds.
            path: of one API; None is all of them.
            a_month: how often this is granted.

        Raises:
            RefusalError: 48006, granted that often already.
        """
        grant = (appid, "all" if path is None else "one")
        month, granted = self._grants.get(grant, (0, 0))
        if month != month_of(now_s):
            granted = 0
        if granted >= a_month:
            raise RefusalError(48006)
        self._grants[grant] = (month_of(now_s), granted + 1)
        for (owner, called), usage in self._usages.items():
            if owner == appid and path in (None, called):
                usage.today = 0
