"""The Python door: what a backend imports to collect permits and to broadcast.

``Producer`` blocks, ``AsyncProducer`` does not; both are safe to share between threads, and a
``Producer`` made before a fork works on both sides of it (redis-py opens new connections).
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, Self, TypeVar

from producers import settings as settings_module
from producers import store
from producers.audiences import Audiences, ImportReport
from producers.broadcasts import Broadcasts, Created
from producers.collect import Collector, Report
from producers.settings import Settings
from producers.spec import Spec
from producers.status import Status
from producers.words import State

P = ParamSpec("P")
R = TypeVar("R")


class Producer:
    """Puts work in. A context manager; `close` it otherwise.

    Example::

        with Producer() as producer:
            producer.collect("shop", [{"openid": "o…", "formIds": [{"formId": "…"}]}])
            broadcast = producer.broadcast(
                app="shop", channel="template", template_id="…", data="a,b,c", audience="all"
            )

    Args:
        settings: default: from the environment and ``.env``.

    Raises:
        SettingsError: a setting is missing or wrong.
        LayoutMismatchError: the deployment was born with other lanes or buckets.
        StoreUnavailableError: Redis does not answer.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or settings_module.load()
        self._client = store.connect(self.settings)
        store.check_layout(self._client, self.settings)
        self._collector = Collector(self._client, self.settings)
        self._audiences = Audiences(self._client, self.settings)
        self._broadcasts = Broadcasts(self._client, self.settings)

    def collect(self, app: str, uploads: Iterable[object]) -> Report:
        """Store what mini-programs uploaded; see `Collector.collect`."""
        return self._collector.collect(app, uploads)

    def collect_lines(self, app: str, lines: Iterable[bytes]) -> Report:
        """Store what JSON lines hold; see `Collector.collect_lines`."""
        return self._collector.collect_lines(app, lines)

    def import_audience(self, app: str, name: str, rows: Iterable[bytes]) -> ImportReport:
        """Add openids to an audience; see `Audiences.import_rows`."""
        return self._audiences.import_rows(app, name, rows)

    def count_audience(self, app: str, name: str) -> int:
        """Return how many members an audience has; see `Audiences.count`."""
        return self._audiences.count(app, name)

    def broadcast(self, *, key: str = "", **spec: Any) -> Created:
        """Send one message to one audience.

        Args:
            key: idempotency key: the same key with the same content is the same broadcast.
            **spec: app, channel, template_id, audience, data and the optional fields of
                `Spec.checked`.

        Raises:
            InvalidInputError: with every fault found; nothing was stored.
            NotFoundError: no such audience.
            IdempotencyConflictError: the key was used with other content.
            StoreUnavailableError: Redis did not answer; the same call with the same key goes on.
        """
        return self._broadcasts.create(Spec.checked(**spec), key)

    def status(self, broadcast: str) -> Status:
        """Return what a broadcast is doing; see `Broadcasts.status`."""
        return self._broadcasts.status(broadcast)

    def pause(self, broadcast: str) -> State:
        """Stop sending; see `Broadcasts.pause`."""
        return self._broadcasts.pause(broadcast)

    def resume(self, broadcast: str, *, after_restore: bool = False) -> State:
        """Go on sending; see `Broadcasts.resume`."""
        return self._broadcasts.resume(broadcast, after_restore=after_restore)

    def cancel(self, broadcast: str) -> State:
        """End a broadcast; see `Broadcasts.cancel`."""
        return self._broadcasts.cancel(broadcast)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self._client.connection_pool.disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncProducer:
    """A `Producer` whose calls are awaited: each runs on a thread, so the event loop stays free.

    Make it with ``await AsyncProducer.open()`` or ``async with await AsyncProducer.open()``.
    """

    def __init__(self, producer: Producer) -> None:
        self._producer = producer

    @classmethod
    async def open(cls, settings: Settings | None = None) -> Self:
        """Open a producer; raises as `Producer`."""
        return cls(await asyncio.to_thread(Producer, settings))

    async def collect(self, app: str, uploads: Iterable[object]) -> Report:
        """As `Producer.collect`."""
        return await self._run(self._producer.collect, app, uploads)

    async def collect_lines(self, app: str, lines: Iterable[bytes]) -> Report:
        """As `Producer.collect_lines`."""
        return await self._run(self._producer.collect_lines, app, lines)

    async def import_audience(self, app: str, name: str, rows: Iterable[bytes]) -> ImportReport:
        """As `Producer.import_audience`."""
        return await self._run(self._producer.import_audience, app, name, rows)

    async def count_audience(self, app: str, name: str) -> int:
        """As `Producer.count_audience`."""
        return await self._run(self._producer.count_audience, app, name)

    async def broadcast(self, *, key: str = "", **spec: Any) -> Created:
        """As `Producer.broadcast`."""
        return await asyncio.to_thread(self._producer.broadcast, key=key, **spec)

    async def status(self, broadcast: str) -> Status:
        """As `Producer.status`."""
        return await self._run(self._producer.status, broadcast)

    async def pause(self, broadcast: str) -> State:
        """As `Producer.pause`."""
        return await self._run(self._producer.pause, broadcast)

    async def resume(self, broadcast: str, *, after_restore: bool = False) -> State:
        """As `Producer.resume`."""
        return await self._run(self._producer.resume, broadcast, after_restore=after_restore)

    async def cancel(self, broadcast: str) -> State:
        """As `Producer.cancel`."""
        return await self._run(self._producer.cancel, broadcast)

    async def close(self) -> None:
        """As `Producer.close`."""
        await asyncio.to_thread(self._producer.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @staticmethod
    async def _run(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.to_thread(call, *args, **kwargs)
