"""Wishes: which webhook events the apps want, told to Redis by whoever has their settings.

The scripts that change a broadcast look there, so that an event is kept whoever makes the change: a
backend that knows the app by name alone, too. Workers tell it at their start and each minute; what
happens before the first worker has told it leaves no event.
"""

from typing import Any

from producers.settings import AppSettings, Settings
from producers.store import Client, keys
from producers.store.lanes.following import following
from producers.store.lanes.plain import PLAIN, PlainArgs, PlainKeys
from producers.store.lanes.reach import are_empty
from producers.store.retry import repeat, repeat_all

LEAST = 10
"""Events that a lane keeps in any case."""


class Wishes:
    """Those of all apps in the settings; what other apps want is left alone."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._plain = PLAIN.on(client)

    def wanted(self, app: str) -> str:
        """Return what `keys.hooks` is to say of an app; '' for nothing."""
        return self._wanted(self._settings.app(app))

    def _wanted(self, of_app: AppSettings) -> str:
        settings = self._settings
        if of_app.webhook_url is None:
            return ""
        lanes = settings.layout.count
        most = max(LEAST, settings.webhook_kept // lanes)
        return " ".join([str(most), str(settings.webhook_bytes // lanes), *of_app.webhook_events])

    @following
    def tell(self) -> int:
        """Bring Redis to what the settings say.

        Returns:
            How many fields differed; 0 when it was all there.

        Raises:
            StoreUnavailableError: Redis did not answer; telling it again changes nothing more.
        """
        settings = self._settings.apps.now
        apps = list(settings)
        lanes = self._settings.layout.lanes

        def ask(pipeline: Any) -> None:
            for lane in lanes:
                pipeline.hmget(keys.hooks(lane), apps)

        wanted = {app: self._wanted(one) for app, one in settings.items()}
        if not any(wanted.values()):
            names = [keys.hooks(lane) for lane in lanes]
            if repeat("reading what webhooks want", lambda: are_empty(self._client, names)):
                return 0
        told = repeat_all("reading what webhooks want", self._client, ask)
        changes = [
            (lane, app)
            for lane, values in zip(lanes, told, strict=True)
            for app, value in zip(apps, values, strict=True)
            if (value or "") != wanted[app]
        ]

        def write(pipeline: Any) -> None:
            for lane, app in changes:
                hooks, said = PlainKeys(keys.hooks(lane)), wanted[app]
                if said:
                    self._plain(hooks, PlainArgs("HSET"), [app, said], into=pipeline)
                else:
                    self._plain(hooks, PlainArgs("HDEL"), [app], into=pipeline)

        if changes:
            repeat_all("telling what webhooks want", self._client, write)
        return len(changes)
