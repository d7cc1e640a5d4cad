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
import functools
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar

from producers import settings as settings_module
from producers import store
from producers.audiences import Audiences
from producers.audiences.members import ImportReport, RemovalReport
from producers.broadcasts import Broadcasts, Created
from producers.broadcasts.messages import Messages, Posted
from producers.broadcasts.rates import Rates
from producers.broadcasts.spec import Spec
from producers.broadcasts.status import Status
from producers.errors import InvalidInputError, SettingsError
from producers.permits.collect import Collector, Report
from producers.planning.forecast import Forecaster
from producers.planning.plan import Planner
from producers.recipients import Recipients
from producers.recipients.pages import Recipient
from producers.settings import Settings
from producers.store import deadline
from producers.store.retry import repeat
from producers.store.threads import Threads
from producers.users import Users
from producers.words import ENDED, State

_EVERY: Final = timedelta(seconds=0.5)

_SERVICES: Final[tuple[type[Any], ...]] = (
    Audiences,
    Broadcasts,
    Collector,
    Forecaster,
    Messages,
    Planner,
    Rates,
    Recipients,
    Users,
)

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


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
        self._services = {one: one(self.client, settings) for one in _SERVICES}
        self._settings = settings
        self._is_checked = False

    def the(self, service: type[S]) -> S:
        """Return the one of this kind."""
        one: S = self._services[service]
        return one

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


def _of(
    service: type[S], call: Callable[Concatenate[S, P], R]
) -> "Callable[Concatenate[Producer, P], R]":
    """Return a service's method as a verb of `Producer`, with the same arguments and docstring."""

    @functools.wraps(call)
    def verb(self: "Producer", /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._call() as here:
            return call(here.the(service), *args, **kwargs)

    return verb


def _awaited(
    call: "Callable[Concatenate[Producer, P], R]", *, stream: bool = False
) -> "Callable[Concatenate[AsyncProducer, P], Coroutine[Any, Any, R]]":
    """Return a verb of `Producer` as one of `AsyncProducer`, with the same arguments and docstring.

    Args:
        call: the verb.
        stream: whether it lasts as long as the caller's iterable.
    """

    @functools.wraps(call)
    async def verb(self: "AsyncProducer", /, *args: P.args, **kwargs: P.kwargs) -> R:
        producer = self._producer
        asked = partial(call, producer, *args, **kwargs)
        return await self._threads.run(asked, producer.timeout_s, stream=stream)

    return verb


def _named(door: type[S]) -> type[S]:
    """Give each verb that was made of another one the name under which it stands here."""
    for name, verb in vars(door).items():
        if hasattr(verb, "__wrapped__"):
            verb.__module__, verb.__name__ = __name__, name
            verb.__qualname__ = f"{door.__name__}.{name}"
    return door


@_named
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
            return here.the(Collector).collect(app, uploads)

    def collect_lines(self, app: str, lines: Iterable[bytes]) -> Report:
        """Store what JSON lines hold; see `Collector.collect_lines`."""
        with self._call() as here:
            return here.the(Collector).collect_lines(app, lines)

    def import_audience(self, app: str, name: str, rows: Iterable[bytes | str]) -> ImportReport:
        """Add openids to an audience; see `Audiences.import_rows`."""
        with self._call() as here:
            return here.the(Audiences).import_rows(app, name, rows)

    def replace_audience(self, app: str, name: str, rows: Iterable[bytes | str]) -> ImportReport:
        """Make openids an audience's only members; see `Audiences.replace_rows`."""
        with self._call() as here:
            return here.the(Audiences).replace_rows(app, name, rows)

    count_audience = _of(Audiences, Audiences.count)

    def remove_from_audience(
        self, app: str, name: str, rows: Iterable[bytes | str]
    ) -> RemovalReport:
        """Take openids out of an audience; see `Audiences.remove_rows`."""
        with self._call() as here:
            return here.the(Audiences).remove_rows(app, name, rows)

    def delete_audience(self, app: str, name: str) -> int:
        """Delete an audience; see `Audiences.delete`."""
        with self._call() as here:
            return here.the(Audiences).delete(app, name)

    audiences = _of(Audiences, Audiences.page)
    user = _of(Users, Users.show)
    forget_user = _of(Users, Users.forget)
    forecast = _of(Forecaster, Forecaster.forecast)
    plan = _of(Planner, Planner.plan)

    def message(self, /, *, key: str | None = None, **message: Any) -> Posted:
        """Post one message to one user; see `Messages.post`."""
        with self._call() as here:
            return here.the(Messages).post(key=_key(key), **message)

    message_status = _of(Messages, Messages.show)

    def broadcast(self, /, *, key: str | None = None, **spec: Any) -> Created:
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
            return here.the(Broadcasts).create(checked, _key(key))

    status = _of(Broadcasts, Broadcasts.status)

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

    broadcasts = _of(Broadcasts, Broadcasts.page)
    recipients = _of(Recipients, Recipients.page)

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
            return here.the(Broadcasts).pause(broadcast)

    set_rate = _of(Broadcasts, Broadcasts.set_rate)
    set_app_rate = _of(Rates, Rates.set)
    resume = _of(Broadcasts, Broadcasts.resume)
    cancel = _of(Broadcasts, Broadcasts.cancel)

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


@_named
class AsyncProducer:
    """A `Producer` whose calls are awaited: each runs on a thread, so the event loop stays free.

    The threads are its own (see `producers.store.threads`), and a call's timeout begins when it is
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

    collect = _awaited(Producer.collect)
    collect_lines = _awaited(Producer.collect_lines, stream=True)
    import_audience = _awaited(Producer.import_audience, stream=True)
    replace_audience = _awaited(Producer.replace_audience, stream=True)
    count_audience = _awaited(Producer.count_audience)
    remove_from_audience = _awaited(Producer.remove_from_audience, stream=True)
    delete_audience = _awaited(Producer.delete_audience)
    audiences = _awaited(Producer.audiences)
    user = _awaited(Producer.user)
    forget_user = _awaited(Producer.forget_user)
    forecast = _awaited(Producer.forecast)
    plan = _awaited(Producer.plan)
    message = _awaited(Producer.message)
    message_status = _awaited(Producer.message_status)
    broadcast = _awaited(Producer.broadcast)
    status = _awaited(Producer.status)

    async def watch(self, broadcast: str, every: timedelta = _EVERY) -> AsyncIterator[Status]:
        """As `Producer.watch`."""
        while True:
            status = await self.status(broadcast)
            yield status
            if status.state in ENDED and status.complete:
                return
            await asyncio.sleep(every.total_seconds())

    broadcasts = _awaited(Producer.broadcasts)
    recipients = _awaited(Producer.recipients)

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

    pause = _awaited(Producer.pause)
    set_rate = _awaited(Producer.set_rate)
    set_app_rate = _awaited(Producer.set_app_rate)
    resume = _awaited(Producer.resume)
    cancel = _awaited(Producer.cancel)

    async def close(self) -> None:
        """As `Producer.close`."""
        self._producer.close()
        self._threads.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _seconds(timeout: timedelta | float) -> float:
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if not 0 < seconds < math.inf:
        raise InvalidInputError([f"timeout {timeout}: more than 0 seconds, and an end"])
    return seconds
