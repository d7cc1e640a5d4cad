"""The limits of apps, as they are now: the rate, what WeChat's errors left of it, the day.

All of it is read from what the workers keep: the app's limiter (`workers.limits`), and what WeChat
said of its quotas (`workers.quotas`).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, NamedTuple

from producers.quotas.climb import FREE, climbed
from producers.settings import Settings
from producers.store import Client, keys
from producers.store.clock import ms_of
from producers.store.retry import repeat, repeat_all
from producers.times.moments import in_words, local
from producers.times.zones import zone_of
from producers.words import Channel

DAY_MS: Final = 86_400_000

_NEARLY: Final = 0.1
"""Share of a quota that is little."""

_SHOWN: Final = 10
"""Diagnoses of an app."""

_LIMITER: Final = (
    "rate",
    "limit",
    "blocked_until_ms",
    "blocked_at_ms",
    "day",
    "day_count",
    *(f"{what}:{channel}" for channel in Channel for what in ("sent", "quota")),
)
_QUOTAS: Final = tuple(name for channel in Channel for name in (channel.value, f"error:{channel}"))


@dataclass(frozen=True, slots=True)
class Quota:
    """What WeChat says of the day's quota of one channel's API.

    Attributes:
        limit: calls a day; 0: it was not asked, or does not say.
        used, remain: calls, when it was asked.
        left: what is left now, by our own count since; None: unknown, or not asked for any more
            (``read_quota``).
        per, per_s: calls that it takes in so many seconds; 0 and 0: unknown.
        read_at_ms: when it was asked, server epoch ms; 0: never.
        error: why the last question was not answered, or ''.
    """

    limit: int = 0
    used: int = 0
    remain: int = 0
    left: int | None = None
    per: int = 0
    per_s: int = 0
    read_at_ms: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What WeChat said of one refusal with an errcode that nobody here knows.

    Attributes:
        errcode, rid: of the refusal.
        at_ms: when it was asked about, server epoch ms.
        text: names and numbers of the call, no values.
    """

    errcode: int
    rid: str
    at_ms: int
    text: str


class Left(NamedTuple):
    """What a day leaves to sends of one channel.

    Attributes:
        sends: how many; None: no limit is known.
        of: whose limit that is, in words.
    """

    sends: int | None
    of: str


@dataclass(frozen=True, slots=True)
class AppLimits:
    """How much an app may send.

    Attributes:
        app: its alias.
        at_ms: when this was so, server epoch ms.
        rate: sends per second, as the settings say or as it was set live; 0: unlimited.
        limit: sends per second in force below that, since WeChat answered with limit errors; it
            climbs back by itself. 0: the rate alone holds.
        held_until_ms: until when nothing is sent, after such an error; else 0. Server epoch ms.
        daily_limit: sends per day, by the settings; 0: unlimited.
        sent_today: sends of the app's day so far.
        resets_at_ms: when its next day begins, server epoch ms.
        resets: the same in words, ``00:00 Asia/Shanghai``.
        quotas: channel → what WeChat says of its quota.
        diagnoses: what WeChat said of refusals that nobody knows, of the last days.
    """

    app: str
    at_ms: int
    rate: float
    limit: float
    held_until_ms: int
    daily_limit: int
    sent_today: int
    resets_at_ms: int
    resets: str
    quotas: dict[str, Quota] = field(default_factory=dict)
    diagnoses: list[Diagnosis] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the limits as JSON-ready fields."""
        return asdict(self)

    @property
    def in_force(self) -> float:
        """Sends per second that may start now; 0: unlimited."""
        return self.limit or self.rate

    def of_day(self, channel: str) -> Left:
        """Return what today leaves to a channel: by WeChat's word or ours, whichever is less."""
        ours = max(0, self.daily_limit - self.sent_today) if self.daily_limit else None
        theirs = self.quotas[channel].left if channel in self.quotas else None
        if theirs is not None and (ours is None or theirs <= ours):
            return Left(theirs, "WeChat's quota of today")
        return Left(ours, "today's daily_limit")

    def left(self, channel: str) -> int | None:
        """Return how many sends today leaves to a channel; None: no limit is known."""
        return self.of_day(channel).sends

    def carried(self, channel: str, recipients: int, *, carry_over: bool) -> str:
        """Return what is to be said of a broadcast that today cannot carry; '' where it can.

        Args:
            channel: its channel.
            recipients: how many it has left, at the most; others' sends are not reckoned with.
            carry_over: whether its rest waits for the next day by itself.
        """
        left, of = self.of_day(channel)
        if left is None or recipients <= left:
            return ""
        then = (
            f"the rest goes on at {self.resets}"
            if carry_over
            else "it is paused then (carry_over lets the rest go on when the next day begins)"
        )
        return f"{of} carries {left:,} of {recipients:,}; {then}"

    def nearly_spent(self, channel: str) -> bool:
        """Say whether a tenth or less of what the day allows a channel is left."""
        left = self.left(channel)
        quota = self.quotas.get(channel, Quota())
        limits = [limit for limit in (self.daily_limit, quota.limit) if limit]
        return left is not None and bool(limits) and left <= min(limits) * _NEARLY


class Quotas:
    """The limits of every app, to be looked at. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings

    def limits(self, app: str) -> AppLimits:
        """Return how much an app may send now.

        Raises:
            UnknownAppError: no such app.
            StoreUnavailableError: Redis did not answer.
        """
        self._settings.app(app)
        said = repeat("reading diagnoses", lambda: self._client.hgetall(keys.diagnoses(app)))
        return replace(self.all([app])[app], diagnoses=_diagnoses(said))

    def all(self, apps: Sequence[str]) -> dict[str, AppLimits]:
        """Return those of several apps, in one trip, without diagnoses; unset apps are left out.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        known = [app for app in apps if app in self._settings.apps]

        def ask(pipeline: Any) -> None:
            pipeline.time()
            for app in known:
                self.ask(pipeline, app)

        clock, *answers = repeat_all("reading limits", self._client, ask)
        now_ms = ms_of(clock)
        return {
            app: self.read(app, answers[2 * n], answers[2 * n + 1], now_ms)
            for n, app in enumerate(known)
        }

    @staticmethod
    def ask(pipeline: Any, app: str) -> None:
        """Put the two questions into a pipeline whose answers `read` reads."""
        pipeline.hmget(keys.limiter(app), _LIMITER)
        pipeline.hmget(keys.quotas(app), _QUOTAS)

    def read(
        self,
        app: str,
        limiter: Sequence[str | None],
        said: Sequence[str | None],
        now_ms: int,
    ) -> AppLimits:
        """Return an app's limits, without diagnoses.

        Args:
            app: its alias.
            limiter: the first answer to what `ask` asks.
            said: the second one.
            now_ms: the server's clock.
        """
        settings = self._settings.app(app)
        live, limit, until_ms, since_ms, day, count, *of_channels = limiter
        rate = settings.rate_per_second if live is None else int(live) / 1000
        below = climbed(limit, now_ms)
        if below is None or below >= (rate or FREE):
            below = 0.0
        held_until_ms = int(until_ms or 0)
        if held_until_ms <= now_ms or int(since_ms or 0) > now_ms:
            held_until_ms = 0
        today, passed_ms = divmod(now_ms + settings.day_offset_ms(), DAY_MS)
        resets_at_ms = now_ms - passed_ms + DAY_MS
        zone = zone_of(settings.day_zone)
        return AppLimits(
            app=app,
            at_ms=now_ms,
            rate=rate,
            limit=below,
            held_until_ms=held_until_ms,
            daily_limit=settings.daily_limit,
            sent_today=int(count or 0) if day is not None and int(day) == today else 0,
            resets_at_ms=resets_at_ms,
            resets=f"{in_words(local(resets_at_ms, zone))} {zone.key}",
            quotas={
                channel.value: _quota(
                    said[2 * n],
                    said[2 * n + 1],
                    of_channels[2 * n],
                    of_channels[2 * n + 1] if settings.read_quota else None,
                    now_ms,
                )
                for n, channel in enumerate(Channel)
            },
        )


def _diagnoses(said: dict[str, str]) -> list[Diagnosis]:
    """Return what is kept of refusals, the newest first."""
    found = [
        Diagnosis(int(errcode), rid, int(at_ms), text)
        for errcode, (at_ms, rid, text) in (
            (name, kept.split(" ", 2))
            for name, kept in said.items()
            if name.lstrip("-").isdigit() and kept.count(" ") > 1
        )
    ]
    return sorted(found, key=lambda one: -one.at_ms)[:_SHOWN]


def _quota(
    text: str | None, error: str | None, sent: str | None, bound: str | None, now_ms: int
) -> Quota:
    """Return a quota as it is stored (see `keys.quotas`) and counted (reserve.lua)."""
    why = (error or "").partition(" ")[2]
    if not text:
        return Quota(error=why)
    limit, used, remain, per, per_s, read_at_ms = map(int, text.split(" "))
    left = None
    if bound:
        most, until_ms = map(int, bound.split(" "))
        if now_ms < until_ms <= now_ms + DAY_MS:  # else it is of another day
            left = max(0, most - int(sent or 0))
    return Quota(limit, used, remain, left, per, per_s, read_at_ms, why)
