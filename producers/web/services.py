"""The services: what handlers work with, opened once per process."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from producers import store
from producers.access.api_keys import ApiKeys
from producers.access.door import Door
from producers.access.sessions import Sessions
from producers.audiences import Audiences
from producers.board import Boards
from producers.broadcasts import Broadcasts
from producers.broadcasts.messages import Messages
from producers.callbacks import Callbacks
from producers.exports import Exporter, Importer
from producers.metrics import Deployment, Meter
from producers.permits.collect import Collector
from producers.planning.forecast import Forecaster
from producers.planning.plan import Planner
from producers.quotas import Quotas
from producers.recipients import Recipients
from producers.recipients.doubts import Doubts
from producers.rehearsals import DryRuns, Trials
from producers.retries import Retries
from producers.series import Series
from producers.settings import Settings
from producers.settings.redis_url import parsed
from producers.store import keys
from producers.store.connection import place_told
from producers.suppressions import Suppressions
from producers.templates import Templates
from producers.users import Users
from producers.web.traffic.batcher import Batcher
from producers.web.traffic.following import Following
from producers.web.traffic.guard import Guard
from producers.web.traffic.idempotency import Idempotency
from producers.web.traffic.places import MOST_APPS, Places
from producers.web.traffic.readiness import Readiness
from producers.web.traffic.threads import Threads, on_thread
from producers.web.traffic.watch import Watch
from producers.webhooks import DeadLetters

_THREADS: Final = 16
"""Library calls at once; they wait for Redis most of the time."""
_QUICK: Final = 4
"""Threads for what every request waits for: permits, keys, limits. Nothing slow gets there."""
_SPARE: Final = 256
"""Threads more where a node of a cluster holds calls up, so that the others' go on. None is started
before, nor any of the connections that they need."""


class Documents(NamedTuple):
    """The documents of the API: the same for machines, and for people.

    Attributes:
        openapi: the OpenAPI document, JSON.
        page: HTML.
    """

    openapi: bytes
    page: bytes


class Services:
    """Everything a handler may use.

    Attributes:
        settings: as loaded.
        threads: for library calls.
        stream_threads: for streamed imports and exports; ``streams`` are their places.
        waiting: app → test sends whose answers are waited for.
        stopping: set when no new work is taken.
        documents: as made of the routes.
    """

    def __init__(self, settings: Settings, documents: Documents) -> None:
        self.settings = settings
        self.documents = documents
        self._file = settings.follow_apps()
        self.streams = Places(MOST_APPS if self._file else len(settings.apps))
        kind = parsed(settings.redis_url.get_secret_value()).kind
        spare = min(_SPARE, settings.web_requests) if kind == "cluster" else 0
        calls = _THREADS + _QUICK + self.streams.most + spare
        self.client = store.connect(settings, 2 * calls, role="web")
        seconds = settings.producer_timeout.total_seconds()
        self.threads = Threads(_THREADS, "web", seconds, spare)
        self.quick = Threads(_QUICK, "web-quick", seconds, spare)
        self.stream_threads = Threads(self.streams.most, "web-stream", seconds)
        self.stopping = False
        self.keys = ApiKeys(self.client, settings)
        self.sessions = Sessions(self.client)
        self.guard = Guard(self.keys, self.sessions, self.quick)
        self.collector = Collector(self.client, settings)
        self.readiness = Readiness(self.client, settings, self.quick)
        self.batcher = Batcher(self.collector, self.quick, self._node_of)
        self.audiences = Audiences(self.client, settings)
        self.suppressions = Suppressions(self.client, settings)
        self.broadcasts = Broadcasts(self.client, settings)
        self.retries = Retries(self.client, settings)
        self.series = Series(self.client, settings)
        self.messages = Messages(self.client, settings)
        self.recipients = Recipients(self.client, settings)
        self.doubts = Doubts(self.client, settings)
        self.templates = Templates(self.client, settings)
        self.users = Users(self.client, settings)
        self.exporter = Exporter(self.client, settings)
        self.importer = Importer(self.client, settings)
        self.forecaster = Forecaster(self.client, settings)
        self.planner = Planner(self.client, settings)
        self.quotas = Quotas(self.client, settings)
        self.dry_runs = DryRuns(self.client, settings)
        self.trials = Trials(self.client, settings)
        self.waiting: Counter[str] = Counter()
        boards = Boards(self.client, settings)
        self.deployment = Deployment(boards)
        self.watch = Watch(lambda: on_thread(self.threads, boards.look), lambda: self.stopping)
        self.meter = Meter()
        self.dead_letters = DeadLetters(self.client, settings)
        self.idempotency = Idempotency(self.client, self.quick)
        self.door = Door(self.client, settings)
        self.callbacks = Callbacks(self.client, settings)
        self._ended = threading.Event()
        self._acting: threading.Thread | None = None

    def _node_of(self, openid: str) -> tuple[str, int] | None:
        """Return the node of a cluster that a user lies on, as far as it is known."""
        lane, _, _ = keys.place_of(openid, self.settings)
        return place_told(self.client, keys.lane_prefix(lane))

    async def open(self) -> None:
        """Open what belongs to this event loop, and begin to act on WeChat's pushes."""
        await self.door.open()
        if self._file is not None:
            following = Following(self._file, self.client, self.settings.apps)
            threading.Thread(
                target=following.run, args=(self._ended,), name="apps", daemon=True
            ).start()
        elif not any(app.callback_token for app in self.settings.apps.values()):
            return  # and there never will be
        self._acting = threading.Thread(
            target=self.callbacks.run, args=(self._ended,), name="callbacks", daemon=True
        )
        self._acting.start()

    async def close(self) -> None:
        """Wait for what runs, and close everything."""
        self._ended.set()
        await self.batcher.close()
        await self.door.close()
        for pool in (self.threads, self.quick, self.stream_threads):
            await asyncio.to_thread(pool.shutdown, wait=False, cancel_futures=True)
        if self._acting is not None:
            await asyncio.to_thread(self._acting.join, 1.0)
        close: Callable[[], None] = self.client.connection_pool.disconnect
        await asyncio.to_thread(close)
