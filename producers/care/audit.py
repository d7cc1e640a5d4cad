"""The audit: recount I1 and I2 from what lies in Redis, and name every difference.

I1, permits: the users of each bucket are recounted, each in one atomic look (`holdings`), and
compared with the stock by expiry hour and per template; what is held is recounted from the
messages in flight. I2, recipients: of each broadcast the outcomes are recounted, bucket by bucket,
and compared with its counts; every recipient is settled, queued, delayed or in somebody's hands.

Memory is bounded: one bucket at a time. While messages are being sent, a sum may differ by what
changed during the scan; the audit reads the totals before and after, allows for that difference,
and is exact at rest.

Lanes that cannot be asked are left out of every sum alike, so that what is compared is whole; so
are broadcasts that are at home there.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple

from producers.broadcasts.status import Register, Status
from producers.care.holdings import Holdings, Part
from producers.errors import NotFoundError
from producers.permits import ledger
from producers.permits.ledger import Ledger
from producers.settings import Settings
from producers.store import Client, keys
from producers.store.buckets import filled_buckets, recipient_buckets
from producers.store.lanes.following import Watch
from producers.store.paging import pages
from producers.store.retry import repeat, repeat_all
from producers.store.scripts import Script
from producers.words import ENDED, KIND_OF, Outcome, PermitKind

_BUCKETS: Final = 100
"""Buckets read in one trip to Redis."""

ROW: Final = "\x1e"
"""What a packed row begins with; see lanes/rows.lua."""

_COUNTED: Final = (Outcome.CANCELLED, Outcome.LATE)
"""Outcomes that are counted for dropped messages and not written per recipient."""


class LaneKeys(NamedTuple):
    """KEYS of audit_lane.lua."""

    lane: str
    queue: str
    delayed: str
    flight: str


class LaneArgs(NamedTuple):
    """ARGV of audit_lane.lua."""

    cursor: str


AUDIT_LANE: Final = Script(__package__, "audit_lane", LaneKeys, LaneArgs)


@dataclass
class Finding:
    """One difference.

    Attributes:
        where: the app, lane and broadcast it is about.
        what: one sentence.
        found: what was recounted.
        counted: what the counters say.
        allowed: how far they may differ, for what changed during the scan.
    """

    where: str
    what: str
    found: int
    counted: int
    allowed: int = 0

    @property
    def wrong(self) -> bool:
        """Whether this is more than the changes during the scan explain."""
        return abs(self.found - self.counted) > self.allowed

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as JSON-ready fields."""
        return {
            "where": self.where,
            "what": self.what,
            "found": self.found,
            "counted": self.counted,
            "allowed": self.allowed,
        }


@dataclass
class Audit:
    """What an audit saw.

    Attributes:
        ledgers: app → its ledger, read after the scan.
        users: app → users recounted.
        broadcasts: broadcasts recounted.
        left_out: broadcasts of which nothing is known, as they are at home in a lane that cannot be
            asked.
        written: of one broadcast alone, outcome → recipients recounted; else empty.
        findings: every comparison that is not equal to the unit.
    """

    ledgers: dict[str, Ledger] = field(default_factory=dict)
    users: dict[str, int] = field(default_factory=dict)
    broadcasts: int = 0
    left_out: int = 0
    written: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def wrong(self) -> list[Finding]:
        """The discrepancies."""
        return [finding for finding in self.findings if finding.wrong]

    def as_dict(self) -> dict[str, Any]:
        """Return the audit as JSON-ready fields."""
        return {
            "ok": not self.wrong,
            "permits": {app: found.as_dict() for app, found in self.ledgers.items()},
            "users": self.users,
            "broadcasts": self.broadcasts,
            "left_out": self.left_out,
            "written": self.written,
            "discrepancies": [finding.as_dict() for finding in self.wrong],
        }


class Auditor:
    """Recounts. It changes nothing.

    Args:
        client: Redis.
        settings: as loaded.
        without: lanes that cannot be asked.
    """

    def __init__(
        self, client: Client, settings: Settings, without: frozenset[int] = frozenset()
    ) -> None:
        self._client = client
        self._settings = settings
        self._without = without
        self._lanes: list[int] = []
        self._register = Register(client, settings)
        self._holdings = Holdings(client)
        self._lane = AUDIT_LANE.on(client)

    def run(self, broadcast: str = "", on_progress: Callable[[int], None] | None = None) -> Audit:
        """Recount everything, or one broadcast alone.

        Args:
            broadcast: an id; '' for all permits of all apps and all their broadcasts.
            on_progress: called with how many buckets were recounted so far.

        Raises:
            NotFoundError: no such broadcast.
            LaneDividedError: lanes were added meanwhile: nothing is known, audit again.
            StoreUnavailableError: Redis did not answer.
        """
        watch = Watch(self._client, self._settings)
        self._lanes = [lane for lane in watch.lanes if lane not in self._without]
        audit = self._recount(broadcast, on_progress)
        watch.check("audit again")
        return audit

    def _recount(self, broadcast: str, on_progress: Callable[[int], None] | None) -> Audit:
        audit = Audit()
        if broadcast:
            written = self._audit_broadcast(broadcast, audit)
            audit.written = {outcome.value: count for outcome, count in sorted(written.items())}
            return audit
        for app in self._settings.apps:
            self._audit_permits(app, audit, on_progress)
            for known in self._known(app):
                if self._register.home_lane(known) in self._without:
                    audit.left_out += 1
                    continue
                try:
                    self._audit_broadcast(known, audit)
                except NotFoundError:
                    continue  # its retention is over
        return audit

    def _known(self, app: str) -> list[str]:
        """Return the ids of an app's broadcasts."""
        read = partial(self._client.zrange, keys.history(app), 0, -1)
        return list(repeat("listing broadcasts", read))

    # -- I1 ---------------------------------------------------------------------------------

    def _audit_permits(
        self, app: str, audit: Audit, on_progress: Callable[[int], None] | None
    ) -> None:
        before = ledger.totals(self._client, self._settings, app, self._without)
        scanned = 0
        users = 0
        for lane in self._lanes:
            stock_before = self._stock(lane, app)
            found: Counter[str] = Counter()
            buckets = filled_buckets(self._client, lane, app, "all")
            for start in range(0, len(buckets), _BUCKETS):
                some = buckets[start : start + _BUCKETS]
                [mine] = self._holdings.recount([Part(lane, app, stock_before["trimmed"], some)])
                found.update(mine)
                scanned += len(some)
                if on_progress:
                    on_progress(scanned)
            stock_after = self._stock(lane, app)
            users += found.pop("users", 0)
            moved = self._moved(stock_before, stock_after)
            for what in sorted({*found, *stock_after} - {"trimmed"}):
                self._compare(
                    audit,
                    f"{app}, lane {lane}",
                    _stock_name(what),
                    found[what],
                    stock_after[what],
                    moved,
                )
        after = ledger.totals(self._client, self._settings, app, self._without)
        held = self._held(app)
        changed = sum(
            abs(after.kinds[kind].collected - before.kinds[kind].collected)
            + abs(after.kinds[kind].held - before.kinds[kind].held)
            + abs(after.kinds[kind].spent - before.kinds[kind].spent)
            for kind in PermitKind
        )
        for kind in PermitKind:
            self._compare(
                audit,
                app,
                f"{kind} uses held: in flight, and collected minus all others",
                held[kind],
                after.kinds[kind].held,
                changed,
            )
        audit.ledgers[app] = after
        audit.users[app] = users

    def _stock(self, lane: int, app: str) -> Counter[str]:
        rows = repeat("reading the stock", lambda: self._client.hgetall(keys.stock(lane, app)))
        return Counter({what: int(uses) for what, uses in rows.items() if uses != "0"})

    @staticmethod
    def _moved(before: Counter[str], after: Counter[str]) -> int:
        """Return how many uses came or went while the scan ran; 0 at rest."""
        return sum(abs(after[what] - before[what]) for what in {*before, *after} - {"trimmed"})

    def _held(self, app: str) -> Counter[PermitKind]:
        held: Counter[PermitKind] = Counter()
        for broadcast in self._known(app):
            for _, row in self._lane_rows(broadcast):
                for letter, uses in zip("fps", row[6:9], strict=True):
                    held[KIND_OF[letter]] += uses
        return held

    # -- I2 ---------------------------------------------------------------------------------

    def _audit_broadcast(self, broadcast: str, audit: Audit) -> Counter[Outcome]:
        """Compare a broadcast's counts with what is written; return the latter."""
        before = self._register.status(broadcast, self._without)
        written = self._written(broadcast)
        after = self._register.status(broadcast, self._without)
        moved = after.settled - before.settled
        for outcome in Outcome:
            if outcome not in _COUNTED:
                self._compare(
                    audit,
                    f"broadcast {broadcast}",
                    f"recipients {outcome}: written, and counted",
                    written[outcome],
                    after.outcomes.get(outcome, 0),
                    moved,
                )
        self._compare(
            audit,
            f"broadcast {broadcast}",
            "settled recipients: sum of the outcomes, and counted",
            sum(after.outcomes.values()),
            after.settled,
        )
        for lane, (total, done, queued, delayed, hands, *_) in self._lane_rows(broadcast):
            self._compare(
                audit,
                f"broadcast {broadcast}, lane {lane}",
                "recipients: settled, queued, delayed or in hand, and split",
                done + queued + delayed + hands,
                total,
            )
        if keys.is_rows(after.audience):
            self._audit_rows(after, audit)
        audit.broadcasts += 1
        return written

    def _audit_rows(self, status: Status, audit: Audit) -> None:
        """Compare the rows that are kept with their count, and with who still waits for one."""
        counted = found = 0
        app, name = status.app, status.audience
        for lane in self._lanes:
            size = keys.audience_size(lane, app, name)
            counted += int(repeat("counting rows", partial(self._client.get, size)) or 0)
            buckets = filled_buckets(self._client, lane, app, name)
            for start in range(0, len(buckets), _BUCKETS):
                some = list(map(str, buckets[start : start + _BUCKETS]))
                read = partial(self._client.hmget, keys.rows(lane, app, name), some)
                found += sum(text.count(ROW) for text in repeat("recounting rows", read) if text)
        where = f"broadcast {status.id}"
        moved = (
            self._register.status(status.id, self._without).settled - status.settled
        )  # while it was counted
        self._compare(audit, where, "rows: recounted, and counted", found, counted, moved)
        waiting = status.queued + status.delayed + status.in_flight
        if status.state not in ENDED and found + moved < waiting:
            audit.findings.append(
                Finding(where, "rows kept, and recipients who wait for theirs", found, waiting)
            )

    def _lane_rows(self, broadcast: str) -> Iterator[tuple[int, list[int]]]:
        for lane in self._lanes:
            yield lane, self._lane_row(lane, broadcast)

    def _lane_row(self, lane: int, broadcast: str) -> list[int]:
        """Return what a lane counts, and what lies in its flight, recounted page by page."""
        script_keys = LaneKeys(
            keys.lane_broadcast(lane, broadcast),
            keys.queue(lane, broadcast),
            keys.delayed(lane, broadcast),
            keys.flight(lane, broadcast),
        )
        rows = pages(
            lambda cursor: self._lane.repeated("recounting messages", script_keys, LaneArgs(cursor))
        )
        entries = [0] * 5
        for row in rows:
            entries = [sum(pair) for pair in zip(entries, map(int, row[4:]), strict=True)]
        return [*map(int, row[:4]), *entries]

    def _written(self, broadcast: str) -> Counter[Outcome]:
        """Return the outcomes that are written, recounted a few buckets at a time."""
        written: Counter[Outcome] = Counter()
        for lane in self._lanes:
            buckets = recipient_buckets(self._client, lane, broadcast)
            for start in range(0, len(buckets), _BUCKETS):
                some = [
                    keys.outcomes(lane, broadcast, bucket)
                    for bucket in buckets[start : start + _BUCKETS]
                ]
                for values in repeat_all("recounting outcomes", self._client, partial(_read, some)):
                    written.update(Outcome(value.partition(" ")[0]) for value in values)
        return written

    @staticmethod
    def _compare(
        audit: Audit, where: str, what: str, found: int, counted: int, allowed: int = 0
    ) -> None:
        if found != counted:
            audit.findings.append(Finding(where, what, found, counted, allowed))


def _read(outcomes: list[str], pipeline: Any) -> None:
    """Ask for the outcomes under these keys."""
    for key in outcomes:
        pipeline.hvals(key)


def _stock_name(what: str) -> str:
    """Return a field of the stock in words."""
    letter, _, rest = what.partition(":")
    if letter == "u":
        return f"users whose last use ends in hour {rest}: recounted, and in the stock"
    until = f"of template {rest}" if letter == "s" else f"that end in hour {rest}"
    return f"{KIND_OF[letter]} uses {until}: recounted, and in the stock"
