"""Collecting: the permits that users gave, checked at the door and stored.

The same permit twice is one permit; a held, spent or void one does not come back. A subscription
has no identity of its own, so an item may carry ``id`` or ``at`` and is then counted once. If the
process dies in the middle, the batches that were answered are stored; sending the whole file
again stores the rest and doubles no form_id and no prepay_id.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from producers import logs
from producers.errors import LaneDividedError, StoreUnavailableError
from producers.logs.events import PermitsCollected
from producers.permits.batch import COLLECT, Batch, CollectArgs, CollectKeys, Named, Source
from producers.permits.demand import DemandTable
from producers.permits.refusals import Refusal
from producers.permits.report import Report
from producers.permits.uploads import PermitItem, parse_line, parse_upload
from producers.settings import AppSettings, Settings
from producers.store import Client, deadline, keys
from producers.store.ahead import Ahead
from producers.store.lanes.following import anew
from producers.store.scripts import Bound, new_token
from producers.templates import Templates


class Collector:
    """Stores permits. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._script = COLLECT.on(client)
        self._callers = threading.local()
        self._demand = DemandTable(client, settings)
        self._templates = Templates(client, settings)

    def collect(self, app: str, uploads: Iterable[object], source: Source = "phone") -> Report:
        """Store what mini-programs uploaded, given as parsed JSON.

        Args:
            app: alias of the app.
            uploads: each an object as described in `uploads`, or a JSON string of one.
            source: who says so; accepts count from the app's ``subscription_source`` alone.

        Returns:
            What was new, known and refused. One bad upload does not lose the others.

        Raises:
            UnknownAppError: no such app.
            StoreUnavailableError: Redis did not answer; see the module's docstring.
        """
        return self._collect(app, uploads, parse_upload, None, source)

    def collect_each(
        self, app: str, callers: Sequence[Sequence[object]]
    ) -> list[Report | StoreUnavailableError]:
        """Store what several callers uploaded at the same moment, as if it were one call.

        What one node of a cluster does not store, it does not store for its own callers alone.

        Args:
            app: alias of the app.
            callers: the uploads of each, as `collect` takes them.

        Returns:
            One report per caller, of its own items alone; but ``evicted``, which one of them
            counts for all. In place of a report: what `collect` would have raised to this caller.

        Raises:
            UnknownAppError, StoreUnavailableError: as `collect`, for all of them.
        """
        reports = [Report() for _ in callers]
        lost: dict[int, StoreUnavailableError] = {}

        def lose(batch: Batch, error: StoreUnavailableError) -> None:
            lost.update(dict.fromkeys(map(id, batch.reports), error))

        uploads = (
            (report, number, upload)
            for report, mine in zip(reports, callers, strict=True)
            for number, upload in enumerate(mine, start=1)
        )
        self._collect_into(app, uploads, parse_upload, None, "phone", lose)
        _tell(app, reports)
        return [lost.get(id(report), report) for report in reports]

    def collect_lines(
        self,
        app: str,
        lines: Iterable[bytes],
        on_progress: Callable[[Report], None] | None = None,
    ) -> Report:
        """Store what JSON lines hold, one upload a line, in constant memory.

        Args:
            app: alias of the app.
            lines: lines with or without their newline; blank ones are skipped.
            on_progress: called after each batch with the report so far.

        Returns:
            As `collect`; refusals carry the line's number, counted from 1.

        Raises:
            UnknownAppError: no such app.
            StoreUnavailableError: Redis did not answer; see the module's docstring.
        """
        return self._collect(app, lines, parse_line, on_progress)

    def _collect(
        self,
        app: str,
        uploads: Iterable[Any],
        parse: Callable[[Any], tuple[list[PermitItem], list[Refusal]]],
        on_progress: Callable[[Report], None] | None,
        source: Source = "phone",
    ) -> Report:
        report = Report()
        numbered = ((report, number, upload) for number, upload in enumerate(uploads, start=1))
        progress = partial(on_progress, report) if on_progress else None
        self._collect_into(app, numbered, parse, progress, source)
        _tell(app, [report])
        return report

    def _collect_into(
        self,
        app: str,
        uploads: Iterable[tuple[Report, int, Any]],
        parse: Callable[[Any], tuple[list[PermitItem], list[Refusal]]],
        on_progress: Callable[[], None] | None,
        source: Source,
        on_lost: Callable[[Batch, StoreUnavailableError], None] | None = None,
    ) -> None:
        """Store uploads, each counted in its report.

        While Redis stores one batch, the next one is read: one is under way at a time. Told of a
        batch that was not stored, `on_lost` has the others stored; else that is raised.
        """
        app_settings = self._settings.app(app)
        waiting: dict[int, Batch] = {}
        ahead = Ahead(self._client, self._script.registered, "storing permits")
        named = Named(
            app_settings,
            partial(self._demand.demand, app),
            partial(self._templates.need, app),
        )
        with contextlib.closing(
            _Storing(
                ahead,
                self._script,
                self._caller,
                app_settings,
                named,
                on_progress,
                on_lost,
                partial(anew, self._client, self._settings),
                self._settings,
            )
        ) as storing:
            for report, number, upload in uploads:
                if isinstance(upload, bytes) and not upload.strip():
                    continue
                report.lines += 1
                items, refusals = parse(upload)
                for refusal in refusals:
                    report.refuse(number, refusal)
                for item in items:
                    lane, bucket, _ = keys.place_of(item.openid, self._settings)
                    batch = waiting.get(lane)
                    if batch is None:
                        batch = waiting[lane] = Batch(lane, app, source)
                    batch.add(item, bucket, number, report)
                    if batch.is_full:
                        storing.store(waiting.pop(lane))
            for batch in waiting.values():
                storing.store(batch)
            storing.finish()

    @property
    def _caller(self) -> str:
        """This thread's name to the script."""
        caller: str | None = getattr(self._callers, "id", None)
        if caller is None:
            caller = self._callers.id = new_token()
        return caller


class _Storing:
    """Stores batches, one under way while the next one is read, and counts the answers."""

    def __init__(
        self,
        ahead: Ahead,
        script: Bound[CollectKeys, CollectArgs],
        caller: str,
        app: AppSettings,
        named: Named,
        on_progress: Callable[[], None] | None,
        on_lost: Callable[[Batch, StoreUnavailableError], None] | None,
        again: Callable[[Callable[[], None]], None],
        settings: Settings,
    ) -> None:
        self._again = again
        self._settings = settings
        self._ahead = ahead
        self._script = script
        self._caller = caller
        self._app = app
        self._named = named
        self._on_progress = on_progress
        self._on_lost = on_lost
        self._under_way: Batch | None = None
        deadline.stand()

    def store(self, batch: Batch) -> None:
        """Begin to store a batch, once the one before is stored."""
        deadline.run()
        call = batch.call(self._script, self._caller, self._app, self._named)
        if self._under_way is not None:
            self.finish()
            deadline.renew()
        deadline.run()
        self._ahead.start(*call)
        deadline.stand()  # while the next one is read
        self._under_way = batch

    def finish(self) -> None:
        """Count the batch that is under way; raises what storing it raised, or tells of it."""
        deadline.run()
        batch, self._under_way = self._under_way, None
        if batch is None:
            return
        left = [batch]
        try:
            try:
                answer = self._ahead.finish()
            except LaneDividedError:
                self._again(partial(self._store_divided, left))
            else:
                batch.count(answer)
        except StoreUnavailableError as error:
            if self._on_lost is None:
                raise
            for one in left:
                self._on_lost(one, error)
            return
        if self._on_progress:
            self._on_progress()

    def _store_divided(self, left: list[Batch]) -> None:
        """Store batches of lanes that were divided where their users live now; none of them twice.

        Args:
            left: what is stored and counted is taken out.
        """
        left[:] = [part for one in left for part in one.divided(self._settings.layout)]
        while left:
            self._ahead.start(*left[0].call(self._script, self._caller, self._app, self._named))
            left[0].count(self._ahead.finish())
            del left[0]

    def close(self) -> None:
        """Leave what is still under way; there is some only when reading the uploads failed."""
        self._ahead.close()


def _tell(app: str, reports: Sequence[Report]) -> None:
    """Log what one call stored."""
    new, known, evicted = (
        sum(getattr(report, name) for report in reports) for name in ("new", "known", "evicted")
    )
    refused = sum(report.refused.total() for report in reports)
    logs.emit(PermitsCollected(app, new, known, refused, evicted))
