"""The door that blocks."""

import contextlib
import copy
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar

from producers.audiences import Audiences
from producers.audiences.reports import ImportReport, RemovalReport
from producers.broadcasts import Broadcasts, Created
from producers.broadcasts.messages import Messages, Posted
from producers.broadcasts.spec import Spec
from producers.broadcasts.status import Status
from producers.errors import InvalidInputError
from producers.exports import Exporter, Importer
from producers.exports.importing import ImportReport as AppReport
from producers.permits.collect import Collector
from producers.permits.report import Report
from producers.planning.forecast import Forecaster
from producers.planning.plan import Planner
from producers.producer.place import Parts, Place
from producers.quotas import Quotas
from producers.quotas.rates import Rates
from producers.recipients import Recipients
from producers.recipients.pages import Recipient
from producers.rehearsals import DryRuns, Trials, Tried
from producers.rehearsals.trials import EVERY_S
from producers.retries import Retried, Retries
from producers.series import Series
from producers.settings import Settings
from producers.store import deadline
from producers.suppressions import Reason, Suppressions
from producers.templates import Templates
from producers.users import Users
from producers.webhooks import DeadLetters
from producers.words import ENDED, State

EVERY: Final = timedelta(seconds=0.5)
_EXPORTED: Final = 500
"""Lines of an export that are made within the time of one call."""

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


def _of(
    service: type[S], call: Callable[Concatenate[S, P], R]
) -> "Callable[Concatenate[Producer, P], R]":
    """Return a service's method as a verb of `Producer`, with the same arguments and docstring."""

    @functools.wraps(call)
    def verb(self: "Producer", /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._call() as here:
            return call(here.the(service), *args, **kwargs)

    return verb


def named(door: type[S]) -> type[S]:
    """Give each verb that was made of another one the name under which it stands here."""
    for name, verb in vars(door).items():
        if hasattr(verb, "__wrapped__"):
            verb.__module__, verb.__name__ = door.__module__, name
            verb.__qualname__ = f"{door.__name__}.{name}"
    return door


@named
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
    `import_app`, `export_app`, `import_audience`, `replace_audience`, `remove_from_audience`,
    `delete_audience`, `forget_user`, `forecast`, `retry`, `broadcast` with rows,
    `iterate_recipients`, each look of `watch`) has it for each batch, the reading of your iterable
    left out. A name server that is silent is not ours to bound.

    Args:
        settings: default: from the environment and ``.env``, read at the first call,
            so that one that is made where a module is loaded is good in tests, too.
        timeout: of each call, in seconds or as a timedelta; default: the setting
            ``producer_timeout``. `within` gives another one to single calls.

    Raises:
        InvalidInputError: the timeout is none.

    Every call may raise `StoreUnavailableError`; the first one `SettingsError`, for a setting that
    is missing or wrong, and `LayoutMismatchError`: the deployment has other lanes or
    buckets.
    """

    def __init__(
        self, settings: Settings | None = None, *, timeout: timedelta | float | None = None
    ) -> None:
        self._place = Place(settings)
        self._timeout_s = None if timeout is None else seconds_of(timeout)

    @property
    def settings(self) -> Settings:
        """The settings; without any given they are read at the first call, and kept."""
        return self._place.settings

    @property
    def timeout_s(self) -> float:
        """How long each call may take in all, in seconds."""
        if self._timeout_s is None:
            return seconds_of(self.settings.producer_timeout)
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
        other._timeout_s = seconds_of(timeout)  # noqa: SLF001 - its own kind
        return other

    @contextlib.contextmanager
    def _call(self) -> Iterator[Parts]:
        """Give the parts of this process to one call, within its deadline."""
        parts = self._place.here
        with deadline.within(self.timeout_s):
            parts.check_layout()
            yield parts

    def collect(self, app: str, uploads: Iterable[object]) -> Report:
        """Store what mini-programs uploaded; see `Collector.collect`."""
        with self._call() as here:
            return here.the(Collector).collect(app, uploads)

    def export_app(self, app: str) -> Iterator[bytes]:
        """Yield one app as lines, for another deployment; see `Exporter.export`.

        Raises:
            StoreUnavailableError: Redis did not answer; export it again.
        """
        lines = self._begin_export(app)
        while some := self._export_some(lines):
            yield from some

    def _begin_export(self, app: str) -> Iterator[bytes]:
        with self._call() as here:
            return here.the(Exporter).export(app)

    def _export_some(self, lines: Iterator[bytes]) -> list[bytes]:
        """Return the next lines, within the time of one call."""
        with self._call():
            return list(itertools.islice(lines, _EXPORTED))

    def export_suppressed(self, app: str) -> Iterator[bytes]:
        """Yield who is sent nothing as lines of CSV; see `Suppressions.csv_lines`."""
        lines = self._begin_suppressed(app)
        while some := self._export_some(lines):
            yield from some

    def _begin_suppressed(self, app: str) -> Iterator[bytes]:
        with self._call() as here:
            return here.the(Suppressions).csv_lines(app)

    def import_app(self, app: str, lines: Iterable[bytes], *, again: bool = False) -> AppReport:
        """Store what an export of an app holds; see `Importer.load`."""
        with self._call() as here:
            return here.the(Importer).load(app, lines, again=again)

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
    measure_audience = _of(Audiences, Audiences.measure)

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

    def suppress(
        self, app: str, rows: Iterable[bytes | str], reason: str = Reason.IMPORTED
    ) -> ImportReport:
        """Send openids nothing more; see `Suppressions.import_rows`."""
        with self._call() as here:
            return here.the(Suppressions).import_rows(app, reason, rows)

    def replace_suppressed(
        self, app: str, rows: Iterable[bytes | str], *, allow_empty: bool = False
    ) -> ImportReport:
        """Make openids the only imported ones; see `Suppressions.replace_rows`."""
        with self._call() as here:
            return here.the(Suppressions).replace_rows(
                app, Reason.IMPORTED, rows, allow_empty=allow_empty
            )

    def unsuppress(self, app: str, rows: Iterable[bytes | str]) -> RemovalReport:
        """Take openids off the suppression list; see `Suppressions.remove_rows`."""
        with self._call() as here:
            return here.the(Suppressions).remove_rows(app, rows)

    suppressed = _of(Suppressions, Suppressions.counts)
    opt_out = _of(Suppressions, Suppressions.opt_out)
    opt_in = _of(Suppressions, Suppressions.opt_in)
    audiences = _of(Audiences, Audiences.page)
    user = _of(Users, Users.show)
    forget_user = _of(Users, Users.forget)
    forecast = _of(Forecaster, Forecaster.forecast)
    plan = _of(Planner, Planner.plan)
    templates = _of(Templates, Templates.show)

    def message(self, /, *, key: str | None = None, **message: Any) -> Posted:
        """Post one message to one user; see `Messages.post`."""
        with self._call() as here:
            return here.the(Messages).post(key=_key(key), **message)

    message_status = _of(Messages, Messages.show)

    def broadcast(
        self,
        /,
        *,
        key: str | None = None,
        rows: Iterable[object] | str | Path | None = None,
        skip_bad: bool = False,
        **spec: Any,
    ) -> Created:
        """Send one message to one audience, or to each of some rows what the row says.

        Args:
            key: idempotency key: the same key with the same content is the same broadcast. Without
                one, each call is another broadcast.
            rows: in place of an audience: the path of a CSV or JSON lines file, its lines, or
                mappings, each with an ``openid`` and what data and page have holes for
                (``{name}``); see `Broadcasts.create_with_rows`.
            skip_bad: send the good rows, though others are bad; without it nothing is created.
            **spec: app, channel, template_id, audience, data and the optional fields of
                `Spec.checked`.

        Raises:
            InvalidInputError: with every fault found; nothing was stored.
            BadRowsError: some rows are bad; nothing was created.
            NotFoundError: no such audience.
            IdempotencyConflictError: the key was used with other content.
            StoreUnavailableError: Redis did not answer; the same call with the same key goes on.
        """
        checked = Spec.checked(**spec, rows=rows is not None)
        with self._call() as here:
            broadcasts = here.the(Broadcasts)
            if rows is None:
                return broadcasts.create(checked, _key(key))
            return broadcasts.create_with_rows(checked, rows, _key(key), skip_bad=skip_bad)

    dry_run = _of(DryRuns, DryRuns.look)

    def test_send(
        self, openids: Sequence[str], /, *, wait: timedelta | float = 30, **spec: Any
    ) -> Tried:
        """Send a broadcast's message to a few users first, and say what WeChat answered.

        Nothing else is created. See `Trials.begin` for the spec.

        Args:
            openids: 1 to 20 users.
            wait: how long for the answers, in seconds or as a timedelta; each look has the
                producer's timeout. Who has none by then is told with what it waits for.
            **spec: as for `broadcast`, rows too; the audience may be left out.

        Raises:
            InvalidInputError: with every fault; nothing was sent.
            NobodySendsError: no worker would send it now; nothing was sent.
            TooManyMessagesError: a user was sent 64 tests of this template today.
            StoreUnavailableError: Redis did not answer; some may have been sent.
        """
        until = time.monotonic() + seconds_of(wait)
        tried = self._begin_test(openids, **spec)
        while not tried.ended and time.monotonic() < until:
            time.sleep(EVERY_S)
            tried = self._look_at_test(tried)
        return tried

    _begin_test = _of(Trials, Trials.begin)
    _look_at_test = _of(Trials, Trials.look)

    def retry(
        self,
        /,
        broadcast: str,
        outcomes: Sequence[str] | str,
        errcodes: Sequence[int] = (),
        *,
        even_in_doubt: bool = False,
        key: str | None = None,
        **changes: Any,
    ) -> Retried:
        """Send a broadcast once more, to those who had one of these outcomes; see `Retries`."""
        with self._call() as here:
            return here.the(Retries).retry(
                broadcast,
                outcomes,
                errcodes,
                even_in_doubt=even_in_doubt,
                key=_key(key),
                **changes,
            )

    status = _of(Broadcasts, Broadcasts.status)

    def watch(self, broadcast: str, every: timedelta = EVERY) -> Iterator[Status]:
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
    set_weight = _of(Broadcasts, Broadcasts.set_weight)
    set_app_rate = _of(Rates, Rates.set)
    limits = _of(Quotas, Quotas.limits)
    resume = _of(Broadcasts, Broadcasts.resume)
    cancel = _of(Broadcasts, Broadcasts.cancel)
    webhooks = _of(DeadLetters, DeadLetters.page)
    replay_webhooks = _of(DeadLetters, DeadLetters.replay)
    reschedule = _of(Broadcasts, Broadcasts.reschedule)
    create_series = _of(Series, Series.create)
    series = _of(Series, Series.list)
    show_series = _of(Series, Series.show)
    pause_series = _of(Series, Series.pause)
    resume_series = _of(Series, Series.resume)
    delete_series = _of(Series, Series.delete)

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


def seconds_of(timeout: timedelta | float) -> float:
    """Return a timeout in seconds; raises `InvalidInputError`: it is none."""
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if not 0 < seconds < math.inf:
        raise InvalidInputError([f"timeout {timeout}: more than 0 seconds, and an end"])
    return seconds
