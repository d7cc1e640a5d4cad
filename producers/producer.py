"""The Python door: what a backend imports to collect permits and to broadcast.

``Producer`` blocks, ``AsyncProducer`` does not. Both are safe to share between threads, and good on
both sides of a fork: one that is made when a server preloads serves each of its processes, which
opens connections of its own. An ``AsyncProducer`` belongs to no event loop. Neither asks Redis
anything before its first call, so a server starts while Redis is away.

A Redis that stalls costs each call its timeout, and nobody else anything: no call holds a lock that
another one waits for longer than its own timeout.
"""

import asyncio
import contextlib
import copy
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any, Final, ParamSpec, Self, TypeVar

from producers import deadline, store
from producers import settings as settings_module
from producers.audiences import ALL, AudiencePage, Audiences, ImportReport, RemovalReport
from producers.broadcasts import Broadcasts, Created
from producers.collect import Collector, Report
from producers.errors import InvalidInputError, SettingsError
from producers.forecast import Forecast, Forecaster
from producers.forget import Forgotten
from producers.messages import Messages, MessageStatus, Posted
from producers.plan import Plan, Planner
from producers.rates import Rates
from producers.recipients import Page, Recipient, Recipients
from producers.retry import repeat
from producers.settings import Settings
from producers.spec import Spec
from producers.status import Status, StatusPage
from producers.threads import Threads
from producers.users import UserCard, Users
from producers.words import ENDED, State

_EVERY: Final = timedelta(seconds=0.5)

P = ParamSpec("P")
R = TypeVar("R")


_confined_to: str | None = None


def confine(redis_url: str | None) -> None:
    """Let every `Producer` of this process lead to one Redis; None: wherever it wants."""
    global _confined_to  # noqa: PLW0603 - it concerns the process
    _confined_to = redis_url


def _admit(settings: Settings) -> None:
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


class _Parts:
    """What one process works with: its connections, and all that calls over them."""

    def __init__(self, settings: Settings) -> None:
        self.pid = os.getpid()
        self.client = store.connect(settings)
        self.collector = Collector(self.client, settings)
        self.audiences = Audiences(self.client, settings)
        self.broadcasts = Broadcasts(self.client, settings)
        self.messages = Messages(self.client, settings)
        self.rates = Rates(self.client, settings)
        self.recipients = Recipients(self.client, settings)
        self.users = Users(self.client, settings)
        self.forecaster = Forecaster(self.client, settings)
        self.planner = Planner(self.client, settings)
        self._settings = settings
        self._is_checked = False

    def check_layout(self) -> None:
        """Look at the deployment's layout before the first call; raises as `store.check_layout`."""
        if not self._is_checked:
            repeat("opening Redis", lambda: store.compare_layout(self.client, self._settings))
            self._is_checked = True

    def close(self) -> None:
        """Close the connections."""
        self.client.close()
        self.client.connection_pool.disconnect()


class _Place:
    """Gives each process its parts: after a fork new ones, for a socket serves one process.

    Nothing of the other process is touched. Its locks may be held by threads that are not here,
    and the token of a call is looked for under a name that only one caller may have. Two threads
    that come first at once may both make them; either works.
    """

    def __init__(self, settings: Settings | None) -> None:
        self._settings = settings
        self._parts: _Parts | None = None

    @property
    def settings(self) -> Settings:
        """The settings; where none were given, those that hold when they are first needed."""
        if self._settings is None:
            self._settings = settings_module.load()
        return self._settings

    @property
    def here(self) -> _Parts:
        _admit(self.settings)
        if self._parts is None or self._parts.pid != os.getpid():
            self._parts = _Parts(self.settings)
        return self._parts

    def close(self) -> None:
        """Close what this process has opened."""
        if self._parts is not None and self._parts.pid == os.getpid():
            self._parts.close()


class Producer:
    """Puts work in. A context manager; `close` it otherwise.

    Example::

        with Producer() as producer:
            producer.collect("shop", [{"openid": "o…", "formIds": [{"formId": "…"}]}])
            broadcast = producer.broadcast(
                app="shop", channel="template", template_id="…", data="a,b,c", audience="all"
            )

    **Timeout.** Each call ends within it, retries and pauses included, with `StoreUnavailableError`
    when Redis has not answered; nobody knows then whether the last step was made. The same call
    again loses nothing, and doubles nothing either where it has a key: give `message` and
    `broadcast` one. What works batch by batch (`collect` and `collect_lines` of many,
    `import_audience`, `replace_audience`, `remove_from_audience`, `delete_audience`,
    `forget_user`, `forecast`, `iterate_recipients`, each look of `watch`) has it for each batch,
    the reading of your iterable left out. A name server that is silent is not ours to bound.

    Args:
        settings: default: from the environment and ``.env``, read at the first call,
            so that one that is made where a module is loaded is good in tests, too.
        timeout: of each call, in seconds or as a timedelta; default: the setting
            ``producer_timeout``. `within` gives another one to single calls.

    Raises:
        InvalidInputError: the timeout is none.

    Every call may raise `StoreUnavailableError`; the first one `SettingsError`, for a setting that
    is missing or wrong, and `LayoutMismatchError`: the deployment was born with other lanes or
    buckets.
    """

    def __init__(
        self, settings: Settings | None = None, *, timeout: timedelta | float | None = None
    ) -> None:
        self._place = _Place(settings)
        self._timeout_s = None if timeout is None else _seconds(timeout)

    @property
    def settings(self) -> Settings:
        """The settings; without any given they are read at the first call, and kept."""
        return self._place.settings

    @property
    def timeout_s(self) -> float:
        """How long each call may take in all, in seconds."""
        if self._timeout_s is None:
            return _seconds(self.settings.producer_timeout)
        return self._timeout_s

    def within(self, timeout: timedelta | float) -> Self:
        """Return this producer with another timeout for each call; they share their connections.

        Example: ``producer.within(0.5).message(…)``.

        Args:
            timeout: in seconds, or as a timedelta.

        Raises:
            InvalidInputError: it is none.
        """
        other = copy.copy(self)
        other._timeout_s = _seconds(timeout)  # noqa: SLF001 - its own kind
        return other

    @contextlib.contextmanager
    def _call(self) -> Iterator[_Parts]:
        """Give the parts of this process to one call, within its deadline."""
        parts = self._place.here
        with deadline.within(self.timeout_s):
            parts.check_layout()
            yield parts

    def collect(self, app: str, uploads: Iterable[object]) -> Report:
        """Store what mini-programs uploaded; see `Collector.collect`."""
        with self._call() as here:
            return here.collector.collect(app, uploads)

    def collect_lines(self, app: str, lines: Iterable[bytes]) -> Report:
        """Store what JSON lines hold; see `Collector.collect_lines`."""
        with self._call() as here:
            return here.collector.collect_lines(app, lines)

    def import_audience(self, app: str, name: str, rows: Iterable[bytes | str]) -> ImportReport:
        """Add openids to an audience; see `Audiences.import_rows`."""
        with self._call() as here:
            return here.audiences.import_rows(app, name, rows)

    def replace_audience(self, app: str, name: str, rows: Iterable[bytes | str]) -> ImportReport:
        """Make openids an audience's only members; see `Audiences.replace_rows`."""
        with self._call() as here:
            return here.audiences.replace_rows(app, name, rows)

    def count_audience(self, app: str, name: str) -> int:
        """Return how many members an audience has; see `Audiences.count`."""
        with self._call() as here:
            return here.audiences.count(app, name)

    def remove_from_audience(
        self, app: str, name: str, rows: Iterable[bytes | str]
    ) -> RemovalReport:
        """Take openids out of an audience; see `Audiences.remove_rows`."""
        with self._call() as here:
            return here.audiences.remove_rows(app, name, rows)

    def delete_audience(self, app: str, name: str) -> int:
        """Delete an audience; see `Audiences.delete`."""
        with self._call() as here:
            return here.audiences.delete(app, name)

    def audiences(self, app: str, cursor: str = "", limit: int = 100) -> AudiencePage:
        """Return a page of the app's audiences with their sizes; see `Audiences.page`."""
        with self._call() as here:
            return here.audiences.page(app, cursor, limit)

    def user(self, app: str, openid: str) -> UserCard:
        """Return what a user gave and what became of it; see `Users.show`."""
        with self._call() as here:
            return here.users.show(app, openid)

    def forget_user(self, app: str, openid: str) -> Forgotten:
        """Forget a user everywhere; see `Users.forget`."""
        with self._call() as here:
            return here.users.forget(app, openid)

    def forecast(
        self,
        app: str,
        channel: str,
        template_id: str = "",
        audience: str = ALL,
        rate: float | None = None,
    ) -> Forecast:
        """Return whom a broadcast would reach; see `Forecaster.forecast`."""
        with self._call() as here:
            return here.forecaster.forecast(app, channel, template_id, audience, rate)

    def plan(self, app: str, openid: str, most: int = 3) -> Plan:
        """Return which templates to ask a user for now; see `Planner.plan`."""
        with self._call() as here:
            return here.planner.plan(app, openid, most)

    def message(self, *, key: str | None = None, **message: Any) -> Posted:
        """Post one message to one user; see `Messages.post`."""
        with self._call() as here:
            return here.messages.post(key=_key(key), **message)

    def message_status(self, message: str) -> MessageStatus:
        """Return what became of a message; see `Messages.show`."""
        with self._call() as here:
            return here.messages.show(message)

    def broadcast(self, *, key: str | None = None, **spec: Any) -> Created:
        """Send one message to one audience.

        Args:
            key: idempotency key: the same key with the same content is the same broadcast. Without
                one, each call is another broadcast.
            **spec: app, channel, template_id, audience, data and the optional fields of
                `Spec.checked`.

        Raises:
            InvalidInputError: with every fault found; nothing was stored.
            NotFoundError: no such audience.
            IdempotencyConflictError: the key was used with other content.
            StoreUnavailableError: Redis did not answer; the same call with the same key goes on.
        """
        checked = Spec.checked(**spec)
        with self._call() as here:
            return here.broadcasts.create(checked, _key(key))

    def status(self, broadcast: str) -> Status:
        """Return what a broadcast is doing; see `Broadcasts.status`."""
        with self._call() as here:
            return here.broadcasts.status(broadcast)

    def watch(self, broadcast: str, every: timedelta = _EVERY) -> Iterator[Status]:
        """Yield the status again and again until every recipient has an outcome.

        Args:
            broadcast: its id.
            every: the pause between two looks.

        Raises:
            NotFoundError: no such broadcast.
            StoreUnavailableError: Redis did not answer; watching anew loses nothing.
        """
        while True:
            status = self.status(broadcast)
            yield status
            if status.state in ENDED and status.complete:
                return
            time.sleep(every.total_seconds())

    def broadcasts(self, app: str, cursor: str = "", limit: int = 20) -> StatusPage:
        """Return a page of the app's broadcasts, the newest first; see `Broadcasts.page`."""
        with self._call() as here:
            return here.broadcasts.page(app, cursor, limit)

    def recipients(
        self, broadcast: str, outcome: str | None = None, cursor: str = "", limit: int = 1000
    ) -> Page:
        """Return a page of a broadcast's recipients; see `Recipients.page`."""
        with self._call() as here:
            return here.recipients.page(broadcast, outcome, cursor, limit)

    def iterate_recipients(self, broadcast: str, outcome: str | None = None) -> Iterator[Recipient]:
        """Yield a broadcast's recipients in constant memory; see `Recipients.iterate`."""
        cursor = ""
        while True:
            page = self.recipients(broadcast, outcome, cursor)
            yield from page.rows
            cursor = page.cursor
            if not cursor:
                return

    def pause(self, broadcast: str) -> State:
        """Stop sending; see `Broadcasts.pause`."""
        with self._call() as here:
            return here.broadcasts.pause(broadcast)

    def set_rate(self, broadcast: str, rate: float) -> State:
        """Change how fast a broadcast is sent; see `Broadcasts.set_rate`."""
        with self._call() as here:
            return here.broadcasts.set_rate(broadcast, rate)

    def set_app_rate(self, app: str, rate: float | None) -> float:
        """Change how fast an app sends; see `Rates.set`."""
        with self._call() as here:
            return here.rates.set(app, rate)

    def resume(self, broadcast: str, *, after_restore: bool = False) -> State:
        """Go on sending; see `Broadcasts.resume`."""
        with self._call() as here:
            return here.broadcasts.resume(broadcast, after_restore=after_restore)

    def cancel(self, broadcast: str) -> State:
        """End a broadcast; see `Broadcasts.cancel`."""
        with self._call() as here:
            return here.broadcasts.cancel(broadcast)

    def close(self) -> None:
        """Close the connections of this process; those of `within` are the same."""
        self._place.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _key(key: str | None) -> str:
    """Return the idempotency key of a call, '' when none was given.

    Raises:
        InvalidInputError: it is empty: an order without a number must not be sent for each time.
    """
    if key == "":
        raise InvalidInputError(["key: it is empty; give one, or leave it out"])
    return "" if key is None else key


class AsyncProducer:
    """A `Producer` whose calls are awaited: each runs on a thread, so the event loop stays free.

    The threads are its own (see `producers.threads`), and a call's timeout begins when it is
    awaited, so that however many wait for a stalled Redis, each ends in time. A call whose task is
    cancelled was not made when no thread had begun it; else it goes on, on its thread, until its
    timeout: it may have been made.

    Example::

        async with AsyncProducer() as producer:
            await producer.collect("shop", [{"openid": "o…", "formIds": [{"formId": "…"}]}])

    Args, Raises: as `Producer`.
    """

    def __init__(
        self, settings: Settings | None = None, *, timeout: timedelta | float | None = None
    ) -> None:
        self._producer = Producer(settings, timeout=timeout)
        self._threads = Threads()

    @property
    def settings(self) -> Settings:
        """As `Producer.settings`."""
        return self._producer.settings

    def within(self, timeout: timedelta | float) -> Self:
        """As `Producer.within`."""
        other = copy.copy(self)
        other._producer = self._producer.within(timeout)  # noqa: SLF001 - its own kind
        return other

    async def collect(self, app: str, uploads: Iterable[object]) -> Report:
        """As `Producer.collect`."""
        return await self._run(self._producer.collect, app, uploads)

    async def collect_lines(self, app: str, lines: Iterable[bytes]) -> Report:
        """As `Producer.collect_lines`."""
        return await self._stream(self._producer.collect_lines, app, lines)

    async def import_audience(
        self, app: str, name: str, rows: Iterable[bytes | str]
    ) -> ImportReport:
        """As `Producer.import_audience`."""
        return await self._stream(self._producer.import_audience, app, name, rows)

    async def replace_audience(
        self, app: str, name: str, rows: Iterable[bytes | str]
    ) -> ImportReport:
        """As `Producer.replace_audience`."""
        return await self._stream(self._producer.replace_audience, app, name, rows)

    async def count_audience(self, app: str, name: str) -> int:
        """As `Producer.count_audience`."""
        return await self._run(self._producer.count_audience, app, name)

    async def remove_from_audience(
        self, app: str, name: str, rows: Iterable[bytes | str]
    ) -> RemovalReport:
        """As `Producer.remove_from_audience`."""
        return await self._stream(self._producer.remove_from_audience, app, name, rows)

    async def delete_audience(self, app: str, name: str) -> int:
        """As `Producer.delete_audience`."""
        return await self._run(self._producer.delete_audience, app, name)

    async def audiences(self, app: str, cursor: str = "", limit: int = 100) -> AudiencePage:
        """As `Producer.audiences`."""
        return await self._run(self._producer.audiences, app, cursor, limit)

    async def user(self, app: str, openid: str) -> UserCard:
        """As `Producer.user`."""
        return await self._run(self._producer.user, app, openid)

    async def forget_user(self, app: str, openid: str) -> Forgotten:
        """As `Producer.forget_user`."""
        return await self._run(self._producer.forget_user, app, openid)

    async def forecast(
        self,
        app: str,
        channel: str,
        template_id: str = "",
        audience: str = ALL,
        rate: float | None = None,
    ) -> Forecast:
        """As `Producer.forecast`."""
        return await self._run(self._producer.forecast, app, channel, template_id, audience, rate)

    async def plan(self, app: str, openid: str, most: int = 3) -> Plan:
        """As `Producer.plan`."""
        return await self._run(self._producer.plan, app, openid, most)

    async def message(self, *, key: str | None = None, **message: Any) -> Posted:
        """As `Producer.message`."""
        return await self._run(self._producer.message, key=key, **message)

    async def message_status(self, message: str) -> MessageStatus:
        """As `Producer.message_status`."""
        return await self._run(self._producer.message_status, message)

    async def broadcast(self, *, key: str | None = None, **spec: Any) -> Created:
        """As `Producer.broadcast`."""
        return await self._run(self._producer.broadcast, key=key, **spec)

    async def status(self, broadcast: str) -> Status:
        """As `Producer.status`."""
        return await self._run(self._producer.status, broadcast)

    async def watch(self, broadcast: str, every: timedelta = _EVERY) -> AsyncIterator[Status]:
        """As `Producer.watch`."""
        while True:
            status = await self.status(broadcast)
            yield status
            if status.state in ENDED and status.complete:
                return
            await asyncio.sleep(every.total_seconds())

    async def broadcasts(self, app: str, cursor: str = "", limit: int = 20) -> StatusPage:
        """As `Producer.broadcasts`."""
        return await self._run(self._producer.broadcasts, app, cursor, limit)

    async def recipients(
        self, broadcast: str, outcome: str | None = None, cursor: str = "", limit: int = 1000
    ) -> Page:
        """As `Producer.recipients`."""
        return await self._run(self._producer.recipients, broadcast, outcome, cursor, limit)

    async def iterate_recipients(
        self, broadcast: str, outcome: str | None = None
    ) -> AsyncIterator[Recipient]:
        """As `Producer.iterate_recipients`; a page at a time is read on a thread."""
        cursor = ""
        while True:
            page = await self.recipients(broadcast, outcome, cursor)
            for row in page.rows:
                yield row
            cursor = page.cursor
            if not cursor:
                return

    async def pause(self, broadcast: str) -> State:
        """As `Producer.pause`."""
        return await self._run(self._producer.pause, broadcast)

    async def set_rate(self, broadcast: str, rate: float) -> State:
        """As `Producer.set_rate`."""
        return await self._run(self._producer.set_rate, broadcast, rate)

    async def set_app_rate(self, app: str, rate: float | None) -> float:
        """As `Producer.set_app_rate`."""
        return await self._run(self._producer.set_app_rate, app, rate)

    async def resume(self, broadcast: str, *, after_restore: bool = False) -> State:
        """As `Producer.resume`."""
        return await self._run(self._producer.resume, broadcast, after_restore=after_restore)

    async def cancel(self, broadcast: str) -> State:
        """As `Producer.cancel`."""
        return await self._run(self._producer.cancel, broadcast)

    async def close(self) -> None:
        """As `Producer.close`."""
        self._producer.close()
        self._threads.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        seconds = self._producer.timeout_s
        return await self._threads.run(partial(call, *args, **kwargs), seconds)

    async def _stream(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a call that lasts as long as the caller's iterable."""
        seconds = self._producer.timeout_s
        return await self._threads.run(partial(call, *args, **kwargs), seconds, stream=True)


def _seconds(timeout: timedelta | float) -> float:
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if not 0 < seconds < math.inf:
        raise InvalidInputError([f"timeout {timeout}: more than 0 seconds, and an end"])
    return seconds
