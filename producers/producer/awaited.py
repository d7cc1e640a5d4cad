"""The door that is awaited, made of the one that blocks."""

import asyncio
import copy
import functools
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from producers.broadcasts.status import Status
from producers.producer.blocking import EVERY, Producer, named, seconds_of
from producers.recipients.pages import Recipient
from producers.rehearsals import Tried
from producers.rehearsals.trials import EVERY_S
from producers.settings import Settings
from producers.store.threads import Threads
from producers.words import ENDED

P = ParamSpec("P")
R = TypeVar("R")


def _awaited(
    call: Callable[Concatenate[Producer, P], R], *, stream: bool = False
) -> "Callable[Concatenate[AsyncProducer, P], Coroutine[Any, Any, R]]":
    """Return a verb of `Producer` as one of `AsyncProducer`, with the same arguments and docstring.

    Args:
        call: the verb.
        stream: whether it lasts as long as the caller's iterable, as it does with ``rows``.
    """

    @functools.wraps(call)
    async def verb(self: "AsyncProducer", /, *args: P.args, **kwargs: P.kwargs) -> R:
        producer = self._producer
        asked = partial(call, producer, *args, **kwargs)
        lasts = stream or kwargs.get("rows") is not None
        return await self._threads.run(asked, producer.timeout_s, stream=lasts)

    return verb


@named
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
    measure_audience = _awaited(Producer.measure_audience)
    remove_from_audience = _awaited(Producer.remove_from_audience, stream=True)
    delete_audience = _awaited(Producer.delete_audience)
    suppress = _awaited(Producer.suppress, stream=True)
    replace_suppressed = _awaited(Producer.replace_suppressed, stream=True)
    unsuppress = _awaited(Producer.unsuppress, stream=True)
    suppressed = _awaited(Producer.suppressed)
    opt_out = _awaited(Producer.opt_out)
    opt_in = _awaited(Producer.opt_in)
    audiences = _awaited(Producer.audiences)
    user = _awaited(Producer.user)
    forget_user = _awaited(Producer.forget_user)
    forecast = _awaited(Producer.forecast)
    plan = _awaited(Producer.plan)
    templates = _awaited(Producer.templates)
    message = _awaited(Producer.message)
    message_status = _awaited(Producer.message_status)
    dry_run = _awaited(Producer.dry_run)

    async def test_send(
        self, openids: Sequence[str], /, *, wait: timedelta | float = 30, **spec: Any
    ) -> Tried:
        """As `Producer.test_send`."""
        until = time.monotonic() + seconds_of(wait)
        tried = await self._begin_test(openids, **spec)
        while not tried.ended and time.monotonic() < until:
            await asyncio.sleep(EVERY_S)
            tried = await self._look_at_test(tried)
        return tried

    _begin_test = _awaited(Producer._begin_test)  # noqa: SLF001 - its own kind
    _look_at_test = _awaited(Producer._look_at_test)  # noqa: SLF001
    broadcast = _awaited(Producer.broadcast)
    retry = _awaited(Producer.retry)
    status = _awaited(Producer.status)

    async def watch(self, broadcast: str, every: timedelta = EVERY) -> AsyncIterator[Status]:
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

    _begin_export = _awaited(Producer._begin_export)  # noqa: SLF001 - its own kind
    _begin_suppressed = _awaited(Producer._begin_suppressed)  # noqa: SLF001
    _export_some = _awaited(Producer._export_some)  # noqa: SLF001
    import_app = _awaited(Producer.import_app, stream=True)

    async def export_app(self, app: str) -> AsyncIterator[bytes]:
        """As `Producer.export_app`; some lines at a time are read on a thread."""
        lines = await self._begin_export(app)
        while some := await self._export_some(lines):
            for line in some:
                yield line

    async def export_suppressed(self, app: str) -> AsyncIterator[bytes]:
        """As `Producer.export_suppressed`; some lines at a time are read on a thread."""
        lines = await self._begin_suppressed(app)
        while some := await self._export_some(lines):
            for line in some:
                yield line

    pause = _awaited(Producer.pause)
    set_rate = _awaited(Producer.set_rate)
    set_weight = _awaited(Producer.set_weight)
    set_app_rate = _awaited(Producer.set_app_rate)
    limits = _awaited(Producer.limits)
    resume = _awaited(Producer.resume)
    cancel = _awaited(Producer.cancel)
    webhooks = _awaited(Producer.webhooks)
    replay_webhooks = _awaited(Producer.replay_webhooks)
    reschedule = _awaited(Producer.reschedule)
    create_series = _awaited(Producer.create_series)
    series = _awaited(Producer.series)
    show_series = _awaited(Producer.show_series)
    pause_series = _awaited(Producer.pause_series)
    resume_series = _awaited(Producer.resume_series)
    delete_series = _awaited(Producer.delete_series)

    async def close(self) -> None:
        """As `Producer.close`."""
        self._producer.close()
        self._threads.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
