"""Collecting: the permits that users gave, checked at the door and stored.

The same permit twice is one permit; a held, spent or void one does not come back. A subscription
has no identity of its own, so an item may carry ``id`` or ``at`` and is then counted once. If the
process dies in the middle, the batches that were answered are stored; sending the whole file
again stores the rest and doubles no form_id and no prepay_id.
"""

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal, NamedTuple

from producers import logs
from producers.logs.events import PermitsCollected
from producers.permits.demand import Demand, DemandTable
from producers.permits.refusals import Reason, Refusal
from producers.permits.uploads import PermitItem, parse_line, parse_upload
from producers.settings import AppSettings, Settings
from producers.store import Client, deadline, keys
from producers.store.ahead import Ahead
from producers.store.scripts import Bound, Script, Value, new_token
from producers.words import PermitKind

Source = Literal["phone", "events"]
"""Who reports a subscription: the phone, or WeChat's events."""

_USERS: Final = 200
_ITEMS: Final = 600
"""Users, and items, per script run: about 3 ms of Redis, so that nobody else waits long."""
_ITEMS_OF_USER: Final = 100
"""Items of one user per script run: under 1 ms, whatever that user sent before."""

_LISTED: Final = 100
"""Refused items that a report lists one by one; all are counted."""


_REFUSED: Final = {
    -1: Refusal(Reason.EXPIRED, "the permit had already expired"),
    -2: Refusal(Reason.VOID_SINCE, "the user withdrew the subscription after this accept"),
    -3: Refusal(
        Reason.NOT_COUNTED,
        "not counted: subscription_source counts another source",
    ),
    -4: Refusal(Reason.USER_REJECT, "the user rejected the subscription; earlier accepts are void"),
    -5: Refusal(
        Reason.UNKNOWN_TEMPLATE,
        "no setting, broadcast or message names the template_id; set subscribe_templates",
    ),
    -6: Refusal(
        Reason.TOO_MANY_TEMPLATES, "the user has unused accepts of 50 other templates already"
    ),
}


@dataclass
class Report:
    """What became of the items of one collect call.

    Attributes:
        lines: lines or uploads read.
        new: items stored. A prepay_id counts once, though it gives three uses.
        known: items that were stored before, in whatever state they are now.
        refused: reason → items.
        listed: the first 100 refusals: (line number or 0, reason, one sentence).
        evicted: older uses that gave way to the cap per user.
    """

    lines: int = 0
    new: int = 0
    known: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    listed: list[tuple[int, str, str]] = field(default_factory=list)
    evicted: int = 0

    def refuse(self, line: int, refusal: Refusal) -> None:
        """Count one refusal, and list it while there is room."""
        self.refused[refusal.reason] += 1
        if len(self.listed) < _LISTED:
            self.listed.append((line, refusal.reason, refusal.detail))

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready fields."""
        return {
            "lines": self.lines,
            "new": self.new,
            "known": self.known,
            "refused": dict(self.refused),
            "evicted": self.evicted,
            "listed": [
                {"line": line, "reason": reason, "detail": detail}
                for line, reason, detail in self.listed
            ],
        }


class CollectKeys(NamedTuple):
    """KEYS of collect.lua; four per user follow."""

    reply: str
    stock: str
    ledger: str
    size: str
    buckets: str

    @classmethod
    def of(cls, lane: int, app: str, caller: str) -> "CollectKeys":
        """Return those of an app in a lane."""
        return cls(
            keys.reply(lane, "collect", caller),
            keys.stock(lane, app),
            keys.ledger(lane, app),
            keys.audience_size(lane, app, "all"),
            keys.audience_buckets(lane, app, "all"),
        )


class CollectArgs(NamedTuple):
    """ARGV of collect.lua; each user with the items follows."""

    cap: int
    users: int


COLLECT: Final = Script(__package__, "collect", CollectKeys, CollectArgs, token=True, clock=True)


class Collector:
    """Stores permits. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._script = COLLECT.on(client)
        self._callers = threading.local()
        self._demand = DemandTable(client, settings)

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

    def collect_each(self, app: str, callers: Sequence[Sequence[object]]) -> list[Report]:
        """Store what several callers uploaded at the same moment, as if it were one call.

        Args:
            app: alias of the app.
            callers: the uploads of each, as `collect` takes them.

        Returns:
            One report per caller, of its own items alone; but ``evicted``, which one of them
            counts for all.

        Raises:
            UnknownAppError, StoreUnavailableError: as `collect`, for all of them.
        """
        reports = [Report() for _ in callers]
        uploads = (
            (report, number, upload)
            for report, mine in zip(reports, callers, strict=True)
            for number, upload in enumerate(mine, start=1)
        )
        self._collect_into(app, uploads, parse_upload, None, "phone")
        _tell(app, reports)
        return reports

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
    ) -> None:
        """Store uploads, each counted in its report.

        While Redis stores one batch, the next one is read: one is under way at a time.
        """
        app_settings = self._settings.app(app)
        waiting: dict[int, _Batch] = {}
        ahead = Ahead(self._client, self._script.registered, "storing permits")
        named = _Named(app_settings, partial(self._demand.demand, app))
        with contextlib.closing(
            _Storing(ahead, self._script, self._caller, app_settings, named, on_progress)
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
                        batch = waiting[lane] = _Batch(lane, app, source)
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


class _Named:
    """The templates that an app's settings, or its broadcasts and messages of late, name."""

    def __init__(self, app: AppSettings, demand: Callable[[], Demand]) -> None:
        self._own = frozenset((*app.subscribe_templates, *app.long_term_templates))
        self._demand = demand
        self._sent: frozenset[str] | None = None

    def __contains__(self, template_id: str) -> bool:
        if template_id in self._own:
            return True
        if self._sent is None:
            demand = self._demand()
            running = (one.template_id for one in demand.running)
            habit = (one for one, _ in demand.habit)
            self._sent = frozenset((*running, *habit, *demand.messages))
        return template_id in self._sent


class _Storing:
    """Stores batches, one under way while the next one is read, and counts the answers."""

    def __init__(
        self,
        ahead: Ahead,
        script: Bound[CollectKeys, CollectArgs],
        caller: str,
        app: AppSettings,
        named: "_Named",
        on_progress: Callable[[], None] | None,
    ) -> None:
        self._ahead = ahead
        self._script = script
        self._caller = caller
        self._app = app
        self._named = named
        self._on_progress = on_progress
        self._under_way: _Batch | None = None
        deadline.stand()

    def store(self, batch: "_Batch") -> None:
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
        """Count the batch that is under way; raises what storing it raised."""
        deadline.run()
        batch, self._under_way = self._under_way, None
        if batch is not None:
            batch.count(self._ahead.finish())
            if self._on_progress:
                self._on_progress()

    def close(self) -> None:
        """Leave what is still under way; there is some only when reading the uploads failed."""
        self._ahead.close()


_Place = tuple[PermitItem, int, Report]
"""An item, its line, and the report that counts it."""


class _Batch:
    """Items of one lane, grouped by user."""

    def __init__(self, lane: int, app: str, source: Source) -> None:
        self.lane = lane
        self.app = app
        self.source = source
        self.items = 0
        self.is_full = False
        self.users: dict[str, tuple[int, list[_Place]]] = {}

    def add(self, item: PermitItem, bucket: int, line: int, report: Report) -> None:
        user = self.users.get(item.openid)
        if user is None:
            user = self.users[item.openid] = (bucket, [])
        user[1].append((item, line, report))
        self.items += 1
        self.is_full = (
            self.items >= _ITEMS or len(self.users) >= _USERS or len(user[1]) >= _ITEMS_OF_USER
        )

    def call(
        self,
        script: Bound[CollectKeys, CollectArgs],
        caller: str,
        app: AppSettings,
        named: "_Named",
    ) -> tuple[Sequence[str], Sequence[Value]]:
        """Return KEYS and ARGV."""
        lane, alias = self.lane, self.app
        prefix = keys.lane_prefix(lane)
        script_keys: list[str] = []
        args: list[str | int] = []
        for openid, (bucket, items) in self.users.items():
            script_keys += (
                f"{prefix}permits:{alias}:{openid}",
                f"{prefix}subs:{alias}:{openid}",
                f"{prefix}marks:{alias}:{openid}",
                f"{prefix}audience:{alias}:all:{bucket}",
            )
            args += (openid, bucket, len(items))
            for place in items:
                item = place[0]
                args += (
                    item.kind.letter,
                    item.id,
                    "" if item.expires_at_ms is None else item.expires_at_ms,
                    _verdict(item, app, named, self.source),
                    item.source_id,
                    "" if item.at_ms is None else item.at_ms,
                )
        return (
            (*CollectKeys.of(lane, alias, caller), *script_keys),
            script.argv(CollectArgs(app.permits_per_user, len(self.users)), args),
        )

    def count(self, results: list[int]) -> None:
        """Count the answer to the call in the reports of the items."""
        places = [place for _, items in self.users.values() for place in items]
        places[0][2].evicted += results.pop()
        for (_, line, report), result in zip(places, results, strict=True):
            if result == 1:
                report.new += 1
            elif result == 0:
                report.known += 1
            else:
                report.refuse(line, _REFUSED[result])


def _tell(app: str, reports: Sequence[Report]) -> None:
    """Log what one call stored."""
    new, known, evicted = (
        sum(getattr(report, name) for report in reports) for name in ("new", "known", "evicted")
    )
    refused = sum(report.refused.total() for report in reports)
    logs.emit(PermitsCollected(app, new, known, refused, evicted))


def _verdict(item: PermitItem, app: AppSettings, named: _Named, source: Source) -> str:
    """Return what the script is to do with a subscription result."""
    if item.kind is not PermitKind.SUBSCRIPTION:
        return ""
    if not item.accepted:
        return "reject"
    if app.subscription_source != source:
        return "correct"
    if item.id in app.long_term_templates:
        return "forever"
    return "accept" if item.id in named else "stray"
