"""Place: where a Producer leads, and what each process works with there."""

import os
from typing import Any, Final, TypeVar

from producers import settings as settings_module
from producers import store
from producers.audiences import Audiences
from producers.broadcasts import Broadcasts
from producers.broadcasts.messages import Messages
from producers.errors import SettingsError
from producers.exports import Exporter, Importer
from producers.permits.collect import Collector
from producers.planning.forecast import Forecaster
from producers.planning.plan import Planner
from producers.quotas import Quotas
from producers.quotas.rates import Rates
from producers.recipients import Recipients
from producers.rehearsals import DryRuns, Trials
from producers.retries import Retries
from producers.series import Series
from producers.settings import AppsFile, Settings
from producers.store import keys
from producers.store.patience import lend
from producers.store.retry import LOST, repeat
from producers.suppressions import Suppressions
from producers.templates import Templates
from producers.users import Users
from producers.webhooks import DeadLetters

_SERVICES: Final[tuple[type[Any], ...]] = (
    Audiences,
    Broadcasts,
    Collector,
    DeadLetters,
    DryRuns,
    Exporter,
    Forecaster,
    Importer,
    Messages,
    Planner,
    Quotas,
    Rates,
    Recipients,
    Retries,
    Suppressions,
    Series,
    Templates,
    Trials,
    Users,
)

S = TypeVar("S")

_LOOK_EVERY_S: Final = 2.0
"""How often calls look whether the apps' file has changed."""

_confined_to: str | None = None


def confine(redis_url: str | None) -> None:
    """Let every `Producer` of this process lead to one Redis; None: wherever it wants."""
    global _confined_to  # noqa: PLW0603 - it concerns the process
    _confined_to = redis_url


def admit(settings: Settings) -> None:
    """Say whether a `Producer` may go where its settings lead.

    Raises:
        SettingsError: this process is confined to another Redis, as it is while a test has the
            fixture `wxbroadcast`.
    """
    if _confined_to not in {None, settings.redis_url.get_secret_value()}:
        raise SettingsError(
            "this Producer leads to another Redis than the test's: it was given settings, or was "
            "first called before the test; make it, or call it first, within the test"
        )


class Parts:
    """What one process works with: its connections, and all that calls over them."""

    def __init__(self, settings: Settings) -> None:
        self.pid = os.getpid()
        self.client = store.connect(settings)
        self._services = {one: one(self.client, settings) for one in _SERVICES}
        self.settings = settings
        self._is_checked = False

    def the(self, service: type[S]) -> S:
        """Return the one of this kind."""
        one: S = self._services[service]
        return one

    def check_layout(self) -> None:
        """Look at the deployment's layout before the first call; raises as `store.check_layout`.

        Before each later one, see that the connection which it will use is open: whoever divides
        lanes closes them all, and the next one learns which there are. Nothing is asked of one that
        is. Of a cluster it is the one to the node that has the deployment.
        """
        if self._is_checked and hasattr(self.client, "connection_pool"):
            repeat("opening Redis", self._meet)
        if not self._is_checked:
            repeat("opening Redis", lambda: store.compare_layout(self.client, self.settings))
            self._is_checked = True

    def _meet(self) -> None:
        if not store.is_cluster(self.client):
            pool = self.client.connection_pool
            pool.release(lend(pool))
            return
        place = self.client.place_of(keys.DEPLOYMENT)
        if self.client.is_silent(place):
            return  # the others are there, and a lane that was divided refuses what is written
        try:
            pool = store.pool_of(self.client, keys.DEPLOYMENT)
            pool.release(lend(pool))
        except LOST:
            self.client.doubt(place)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()
        self.client.connection_pool.disconnect()


class Place:
    """Gives each process its parts: after a fork new ones, for a socket serves one process.

    Nothing of the other process is touched. Its locks may be held by threads that are not here,
    and the token of a call is looked for under a name that only one caller may have. Two threads
    that come first at once may both make them; either works.
    """

    def __init__(self, settings: Settings | None) -> None:
        self._settings = settings
        self._parts: Parts | None = None
        self._file: AppsFile | None = None

    @property
    def settings(self) -> Settings:
        """The settings; where none were given, those that hold when they are first needed."""
        if self._settings is None:
            self._settings = settings_module.load()
        return self._settings

    @property
    def here(self) -> Parts:
        """What this process works with; made when it is first asked for."""
        admit(self.settings)
        parts, settings = self._parts, self.settings
        if parts is None or parts.pid != os.getpid():
            self._settings = settings
            parts = self._parts = Parts(settings)
            self._file = settings.follow_apps()
        if self._file is not None:
            self._file.look_now_and_then(_LOOK_EVERY_S)
        return parts

    def close(self) -> None:
        """Close what this process has opened."""
        if self._parts is not None and self._parts.pid == os.getpid():
            self._parts.close()
