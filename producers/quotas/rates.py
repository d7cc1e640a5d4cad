"""Rates: how fast an app sends, changed while workers send.

The settings' rate holds until somebody sets another one here; that one stays, over restarts, until
it is taken back. Workers see it in every reserve (reserve.lua), and look each second.
"""

from typing import Any

from producers import logs
from producers.errors import InvalidInputError
from producers.logs.events import AppRateChanged
from producers.settings import Settings, rate_faults
from producers.store import Client, keys
from producers.store.retry import repeat_all

_UNUSED_MS = 2 * 86_400_000
"""As reserve.lua: a limiter that holds no rate of its own goes so long after its last use."""


class Rates:
    """The apps' rates. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings

    def get(self, app: str) -> float:
        """Return the sends per second in force; 0 = unlimited.

        Raises:
            UnknownAppError: no such app.
            StoreUnavailableError: Redis did not answer.
        """
        return self.all([app])[app]

    def all(self, apps: list[str]) -> dict[str, float]:
        """Return the sends per second in force of each app; raises as `get`."""
        set_by_settings = {app: self._settings.app(app).rate_per_second for app in apps}

        def ask(pipeline: Any) -> None:
            for app in apps:
                pipeline.hget(keys.limiter(app), "rate")

        answers = repeat_all("reading rates", self._client, ask)
        return {
            app: set_by_settings[app] if milli is None else int(milli) / 1000
            for app, milli in zip(apps, answers, strict=True)
        }

    def set(self, app: str, rate: float | None) -> float:
        """Change an app's rate; all workers follow within a second.

        Args:
            app: alias of the app.
            rate: sends per second by all workers together, in steps of 0.001; 0 = unlimited; None:
                as the settings say.

        Returns:
            The rate now in force.

        Raises:
            UnknownAppError: no such app.
            InvalidInputError: it is no rate.
            StoreUnavailableError: Redis did not answer; setting it again changes nothing more.
        """
        before = self.get(app)
        faults = rate_faults(rate) if rate is not None else []
        if faults:
            raise InvalidInputError(faults)
        limiter = keys.limiter(app)

        def write(pipeline: Any) -> None:
            if rate is None:
                pipeline.hdel(limiter, "rate")
                pipeline.pexpire(limiter, _UNUSED_MS)
            else:
                pipeline.hset(limiter, "rate", round(rate * 1000))
                pipeline.persist(limiter)
            pipeline.publish(keys.WAKE, f"rate {app}")

        repeat_all("setting the rate", self._client, write)
        after = self.get(app)
        logs.emit(AppRateChanged(app, before, after))
        return after
