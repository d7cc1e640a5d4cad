"""Collecting: the permits that users gave, checked at the door and stored.

The same permit twice is one permit; a held, spent or void one does not come back. A subscription
has no identity of its own, so an item may carry ``id`` or ``at`` and is then counted once. If the
process dies in the middle, the batches that were answered are stored; sending the whole file
again stores the rest and doubles no form_id and no prepay_id.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from producers import keys, logs, scripts
from producers.events import PermitsCollected
from producers.retry import repeat
from producers.settings import AppSettings, Settings
from producers.store import Client
from producers.uploads import PermitItem, Reason, Refusal, parse_line, parse_upload
from producers.words import PermitKind

_USERS: Final = 200
"""Users per script run: about 2 ms of Redis, so that nobody else waits long."""

_LISTED: Final = 100
"""Refused items that a report lists one by one; all are counted."""

_KIND: Final = {PermitKind.FORM_ID: "f", PermitKind.PREPAY_ID: "p", PermitKind.SUBSCRIPTION: "s"}

_REFUSED: Final = {
    -1: Refusal(Reason.EXPIRED, "the permit had already expired"),
    -2: Refusal(Reason.VOID_SINCE, "the user withdrew the subscription after this accept"),
    -3: Refusal(
        Reason.NOT_COUNTED,
        "not counted: subscription_source counts another source, or 500 ids are remembered",
    ),
    -4: Refusal(Reason.USER_REJECT, "the user rejected the subscription; earlier accepts are void"),
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


class Collector:
    """Stores permits. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._script = client.register_script(scripts.source("producers", "collect"))
        self._callers = threading.local()

    def collect(self, app: str, uploads: Iterable[object]) -> Report:
        """Store what mini-programs uploaded, given as parsed JSON.

        Args:
            app: alias of the app.
            uploads: each an object as described in `uploads`, or a JSON string of one.

        Returns:
            What was new, known and refused. One bad upload does not lose the others.

        Raises:
            UnknownAppError: no such app.
            StoreUnavailableError: Redis did not answer; see the module's docstring.
        """
        return self._collect(app, uploads, parse_upload, None)

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
    ) -> Report:
        app_settings = self._settings.app(app)
        report = Report()
        waiting: dict[int, _Batch] = {}
        for number, upload in enumerate(uploads, start=1):
            if isinstance(upload, bytes) and not upload.strip():
                continue
            report.lines += 1
            items, refusals = parse(upload)
            for refusal in refusals:
                report.refuse(number, refusal)
            for item in items:
                bucket = keys.bucket_of(item.openid, self._settings.buckets)
                lane = bucket % self._settings.lanes
                batch = waiting.get(lane)
                if batch is None:
                    batch = waiting[lane] = _Batch(lane, app)
                batch.add(item, bucket, number)
                if len(batch.users) >= _USERS or batch.items >= 10 * _USERS:
                    del waiting[lane]
                    self._store(batch, app_settings, report)
                    if on_progress:
                        on_progress(report)
        for batch in waiting.values():
            self._store(batch, app_settings, report)
        if on_progress:
            on_progress(report)
        refused = report.refused.total()
        logs.emit(PermitsCollected(app, report.new, report.known, refused, report.evicted))
        return report

    def _store(self, batch: "_Batch", app: AppSettings, report: Report) -> None:
        caller = getattr(self._callers, "id", None)
        if caller is None:
            caller = self._callers.id = scripts.new_token()
        script_keys, args, order = batch.call(caller, app)
        results = repeat("storing permits", lambda: self._script(keys=script_keys, args=args))
        report.evicted += results.pop()
        for (_, line), result in zip(order, results, strict=True):
            if result == 1:
                report.new += 1
            elif result == 0:
                report.known += 1
            else:
                report.refuse(line, _REFUSED[result])


class _Batch:
    """Items of one lane, grouped by user."""

    def __init__(self, lane: int, app: str) -> None:
        self.lane = lane
        self.app = app
        self.items = 0
        self.users: dict[str, tuple[int, list[tuple[PermitItem, int]]]] = {}

    def add(self, item: PermitItem, bucket: int, line: int) -> None:
        user = self.users.get(item.openid)
        if user is None:
            user = self.users[item.openid] = (bucket, [])
        user[1].append((item, line))
        self.items += 1

    def call(
        self, caller: str, app: AppSettings
    ) -> tuple[list[str], list[str | int], list[tuple[PermitItem, int]]]:
        """Return KEYS, ARGV and the items in the order of the answer."""
        lane, alias = self.lane, self.app
        prefix = keys.lane_prefix(lane)
        script_keys = [
            keys.reply(lane, "collect", caller),
            keys.stock(lane, alias),
            keys.ledger(lane, alias),
            keys.audience_size(lane, alias, "all"),
            keys.audience_buckets(lane, alias, "all"),
        ]
        args: list[str | int] = [scripts.new_token(), "", app.permits_per_user, len(self.users)]
        order: list[tuple[PermitItem, int]] = []
        for openid, (bucket, items) in self.users.items():
            script_keys += (
                f"{prefix}permits:{alias}:{openid}",
                f"{prefix}subs:{alias}:{openid}",
                f"{prefix}audience:{alias}:all:{bucket}",
            )
            args += (openid, bucket, len(items))
            for item, line in items:
                args += (
                    _KIND[item.kind],
                    item.id,
                    "" if item.expires_at_ms is None else item.expires_at_ms,
                    _verdict(item, app),
                    item.source_id,
                    "" if item.at_ms is None else item.at_ms,
                )
                order.append((item, line))
        return script_keys, args, order


def _verdict(item: PermitItem, app: AppSettings) -> str:
    """Return what the script is to do with a subscription result."""
    if item.kind is not PermitKind.SUBSCRIPTION:
        return ""
    if not item.accepted:
        return "reject"
    if app.subscription_source == "events":
        return "correct"
    return "forever" if item.id in app.long_term_templates else "accept"
