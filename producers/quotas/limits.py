"""The limits of apps, as they are now: the rate, what WeChat's errors left of it, the day.

All of it is read from the app's limiter, which the workers' scripts keep (`workers.limits`).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from producers.quotas.climb import FREE, climbed
from producers.settings import Settings
from producers.store import Client, keys
from producers.store.connection import ms_of
from producers.store.retry import repeat_all

DAY_MS: Final = 86_400_000

_LIMITER: Final = ("rate", "limit", "blocked_until_ms", "blocked_at_ms", "day", "day_count")


@dataclass(frozen=True, slots=True)
class AppLimits:
    """How much an app may send.

    Attributes:
        app: its alias.
        rate: sends per second, as the settings say or as it was set live; 0: unlimited.
        limit: sends per second in force below that, since WeChat answered with limit errors; it
            climbs back by itself. 0: the rate alone holds.
        held_until_ms: until when nothing is sent, after such an error; else 0. Server epoch ms.
        daily_limit: sends per day, by the settings; 0: unlimited.
        sent_today: sends of the app's day so far.
        resets_at_ms: when its next day begins, server epoch ms.
    """

    app: str
    rate: float
    limit: float
    held_until_ms: int
    daily_limit: int
    sent_today: int
    resets_at_ms: int

    def as_dict(self) -> dict[str, Any]:
        """Return the limits as JSON-ready fields."""
        return asdict(self)

    @property
    def in_force(self) -> float:
        """Sends per second that may start now; 0: unlimited."""
        return self.limit or self.rate


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
        return self.all([app])[app]

    def all(self, apps: Sequence[str]) -> dict[str, AppLimits]:
        """Return those of several apps, in one trip; apps that are not set are left out.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        known = [app for app in apps if app in self._settings.apps]

        def ask(pipeline: Any) -> None:
            pipeline.time()
            for app in known:
                pipeline.hmget(keys.limiter(app), _LIMITER)

        clock, *answers = repeat_all("reading limits", self._client, ask)
        now_ms = ms_of(clock)
        return {
            app: self._read(app, answer, now_ms) for app, answer in zip(known, answers, strict=True)
        }

    def _read(self, app: str, limiter: Sequence[str | None], now_ms: int) -> AppLimits:
        settings = self._settings.app(app)
        live, limit, until_ms, since_ms, day, count = limiter
        rate = settings.rate_per_second if live is None else int(live) / 1000
        below = climbed(limit, now_ms)
        if below is None or below >= (rate or FREE):
            below = 0.0
        held_until_ms = int(until_ms or 0)
        if held_until_ms <= now_ms or int(since_ms or 0) > now_ms:
            held_until_ms = 0
        today, passed_ms = divmod(now_ms + settings.day_offset_ms(), DAY_MS)
        return AppLimits(
            app=app,
            rate=rate,
            limit=below,
            held_until_ms=held_until_ms,
            daily_limit=settings.daily_limit,
            sent_today=int(count or 0) if day is not None and int(day) == today else 0,
            resets_at_ms=now_ms - passed_ms + DAY_MS,
        )
