"""The report: what a run's log lines add up to.

Everything here is counted from the lines alone. Where a broadcast's last word is among them
(``broadcast_counted``), its outcomes are Redis's own count; else they are those of its sends that
were logged, to which no_permit, late, suppressed, kept, capped and cancelled leave no line each.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import orjson

from producers.reports.lines import LATENCY_STEP, REQUESTS, SENDS, Choice, counted, files_of

if TYPE_CHECKING:
    import duckdb

_BINS: Final = 240
"""Points of a chart over time, at the most."""

_MOST: Final = 500
"""Rows of a table that people read; how many were left out stands beside it."""

_ENDS: Final = {"worker_broken": "broken", "worker_outlived": "the lanes changed"}
"""What ends a worker by itself; it stops as one does that was told to."""

_STEPS_S: Final = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)


@dataclass(frozen=True, slots=True)
class Latency:
    """How long something took, ms: of so many, half, 95, 99 of a hundred, and the longest."""

    count: int
    p50: float
    p95: float
    p99: float
    longest: float


@dataclass(slots=True)
class Broadcast:
    """What became of one broadcast, or of a day's single messages (``m…``).

    Attributes:
        id, app, channel, template_id, audience: what it is; '' where its creation is not among
            the lines.
        state: the last one that was logged, or ''.
        reason, errcode: why it was paused, aborted or cancelled.
        total: its recipients; None before its last word.
        outcomes: outcome → recipients.
        by_redis: whether the outcomes are Redis's own count.
        answers: sends that WeChat, or nobody, answered.
        errcodes: WeChat's errcode → answers, without 0.
        retried: answers that led to another attempt.
        created_at, started_at, last_at, ended_at: ISO 8601, UTC, or ''; started and last are the
            seconds of its first and its last answer.
        rate: answers a second between them; peak: in its fullest second.
        latency: of its sends.
        recovered: its messages that a dead worker left behind.
    """

    id: str
    app: str
    channel: str = ""
    template_id: str = ""
    audience: str = ""
    state: str = ""
    reason: str = ""
    errcode: int = 0
    total: int | None = None
    outcomes: dict[str, int] = field(default_factory=dict)
    by_redis: bool = False
    answers: int = 0
    errcodes: dict[str, int] = field(default_factory=dict)
    retried: int = 0
    created_at: str = ""
    started_at: str = ""
    last_at: str = ""
    ended_at: str = ""
    rate: float = 0.0
    peak: int = 0
    latency: Latency | None = None
    recovered: int = 0


@dataclass(frozen=True, slots=True)
class Moment:
    """Some seconds of the run: from when (ISO 8601), and answers by outcome, retries as ''."""

    at: str
    outcomes: dict[str, int]


@dataclass(frozen=True, slots=True)
class Life:
    """A worker's life: when it started, when it began to stop, how it ended; '' is not known."""

    worker: str
    started_at: str
    stopping_at: str
    ended_at: str
    end: str


@dataclass(frozen=True, slots=True)
class Route:
    """Requests to one route of the service with one status."""

    route: str
    status: int
    latency: Latency


@dataclass(frozen=True, slots=True)
class Told:
    """How often an event was logged, and at which level."""

    event: str
    level: str
    lines: int


@dataclass(slots=True)
class Report:
    """What log lines add up to.

    Attributes:
        files: how many were read.
        lines: that were read; unread: that are no line of ours.
        dropped: lines that processes say they had to drop: counts are too low by some of them.
        sampled: some sends are not logged: counts of sends are estimates.
        from_at, to_at: of the first and the last line, ISO 8601, UTC.
        broadcasts: by creation, the newest first; left_out: how many are not listed.
        outcomes: app → outcome → recipients, of all broadcasts.
        errcodes: app → errcode → answers.
        moments: the run over time, in steps of step_s seconds.
        latency: app → of its sends.
        spread: latency of all sends: (from ms, sends), four steps to the double.
        actions: app → what was done with an answer → answers.
        limits: app → limit errors of WeChat.
        tokens: app → {refreshed, failed}.
        expired: app → uses of permits that nobody spent in time.
        recovered: messages that dead workers left, and of those, in doubt.
        workers: their lives, by start.
        routes: requests to the service.
        told: events by name.
    """

    files: int = 0
    lines: int = 0
    unread: int = 0
    dropped: int = 0
    sampled: bool = False
    from_at: str = ""
    to_at: str = ""
    step_s: int = 1
    broadcasts: list[Broadcast] = field(default_factory=list)
    left_out: int = 0
    outcomes: dict[str, dict[str, int]] = field(default_factory=dict)
    errcodes: dict[str, dict[str, int]] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)
    latency: dict[str, Latency] = field(default_factory=dict)
    spread: list[tuple[float, int]] = field(default_factory=list)
    actions: dict[str, dict[str, int]] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, dict[str, int]] = field(default_factory=dict)
    expired: dict[str, int] = field(default_factory=dict)
    recovered: dict[str, int] = field(default_factory=dict)
    workers: list[Life] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready fields."""
        return asdict(self)


def read_report(logs: Sequence[str], choice: Choice | None = None) -> Report:
    """Read log files and add them up.

    Args:
        logs: paths, patterns (``logs/*.jsonl.gz``), or ``-`` for the standard input.
        choice: which lines; default: all.

    Raises:
        InvalidInputError: no such file, one that cannot be read, or a time that is none; or the
            extra ``report`` is not installed.
    """
    files = files_of(logs)
    with counted(files, choice or Choice()) as database:
        return _Reader(database, len(files)).report()


class _Reader:
    """Asks the table ``counted`` (see `lines`) for each part of a report."""

    def __init__(self, database: "duckdb.DuckDBPyConnection", files: int) -> None:
        self._database = database
        self._report = Report(files=files)

    def report(self) -> Report:
        """Return all of it."""
        self._whole()
        by_id = {one.id: one for one in self._sends()}
        self._lives(by_id)
        self._sums(by_id)
        self._time()
        self._latencies()
        self._routes()
        return self._report

    def _rows(self, query: str, **given: Any) -> list[Any]:
        return self._database.execute(query, given).fetchall()

    def _whole(self) -> None:
        report = self._report
        ((lines, unread, dropped, sampled, first, last),) = self._rows(
            "SELECT coalesce(sum(lines), 0)::BIGINT,"
            " coalesce(sum(lines) FILTER (event IS NULL), 0)::BIGINT,"
            " coalesce(sum(dropped), 0)::BIGINT,"
            " coalesce(bool_or(abs(n - lines) > 0.001 * lines) FILTER (event = $sends), false),"
            " min(first_at), max(last_at) FROM counted",
            sends=SENDS,
        )
        ((rejected,),) = self._rows("SELECT count(*) FROM reject_errors")
        report.lines, report.unread = lines - unread, unread + rejected
        report.dropped, report.sampled = dropped, sampled
        report.from_at, report.to_at = _iso(first), _iso(last)
        report.told = [
            Told(*row)
            for row in self._rows(
                "SELECT event, coalesce(any_value(level), ''), sum(lines)::BIGINT FROM counted"
                " WHERE event IS NOT NULL GROUP BY event ORDER BY event"
            )
        ]

    def _sends(self) -> list[Broadcast]:
        """Return what the sends say of each broadcast."""
        latencies = self._percentiles("broadcast", SENDS)
        found = {}
        for row in self._rows(
            "WITH seconds AS (SELECT app, broadcast, second, sum(n) AS n,"
            " coalesce(sum(n) FILTER (action <> 'settled'), 0) AS retried"
            " FROM counted WHERE event = $sends AND broadcast IS NOT NULL GROUP BY ALL)"
            " SELECT app, broadcast, sum(n), sum(retried), max(n), min(second), max(second)"
            " FROM seconds GROUP BY ALL",
            sends=SENDS,
        ):
            app, broadcast, answers, retried, peak, first, last = row
            seconds = (last - first).total_seconds() + 1 if first else 1
            found[broadcast] = Broadcast(
                id=broadcast,
                app=app or "",
                answers=round(answers),
                retried=round(retried),
                peak=round(peak),
                started_at=_iso(first),
                last_at=_iso(last),
                rate=round(answers / seconds, 1),
                latency=latencies.get(broadcast),
            )
        for broadcast, outcome, errcode, n in self._rows(
            "SELECT broadcast, coalesce(outcome, ''), coalesce(errcode, 0), sum(n) FROM counted"
            " WHERE event = $sends AND broadcast IS NOT NULL AND action IS DISTINCT FROM 'stale'"
            " GROUP BY ALL ORDER BY 1, 2, 3",
            sends=SENDS,
        ):
            one = found[broadcast]
            if outcome:
                one.outcomes[outcome] = one.outcomes.get(outcome, 0) + round(n)
            if errcode:
                one.errcodes[str(errcode)] = one.errcodes.get(str(errcode), 0) + round(n)
        return list(found.values())

    def _lives(self, by_id: dict[str, Broadcast]) -> None:
        """Take in what is logged whole, in the order of time."""
        lives: dict[str, dict[str, str]] = {}
        for (text,) in self._rows(
            "SELECT line FROM counted WHERE line IS NOT NULL ORDER BY last_at, line"
        ):
            # its names are ours, what they hold may be anybody's
            try:
                self._of_line(by_id, lives, orjson.loads(text))
            except (ValueError, TypeError, AttributeError, OverflowError):
                self._report.lines -= 1
                self._report.unread += 1
        self._report.workers = sorted(
            (
                Life(
                    worker,
                    life.get("started", ""),
                    life.get("stopping", ""),
                    life.get("ended", ""),
                    life.get("end", ""),
                )
                for worker, life in lives.items()
            ),
            key=lambda life: (life.started_at, life.worker),
        )

    def _of_line(
        self, by_id: dict[str, Broadcast], lives: dict[str, dict[str, str]], line: dict[str, Any]
    ) -> None:
        event, at = str(line.get("event")), str(line.get("time", ""))
        if event.startswith("broadcast_") or event == "messages_recovered":
            self._of_broadcast(by_id, event, at, line)
        elif event.startswith("worker_"):
            _of_worker(lives, event, at, line)
        else:
            self._of_app(event, line)

    def _of_broadcast(
        self, by_id: dict[str, Broadcast], event: str, at: str, line: dict[str, Any]
    ) -> None:
        broadcast = str(line.get("broadcast", ""))
        one = by_id.setdefault(broadcast, Broadcast(broadcast, str(line.get("app", ""))))
        if event == "messages_recovered":
            resumed, in_doubt = int(line.get("resumed", 0)), int(line.get("in_doubt", 0))
            sums = self._report.recovered
            one.recovered += resumed + in_doubt
            sums["messages"] = sums.get("messages", 0) + resumed + in_doubt
            sums["in_doubt"] = sums.get("in_doubt", 0) + in_doubt
        elif event == "broadcast_created":
            one.created_at = at
            one.channel = str(line.get("channel", ""))
            one.template_id = str(line.get("template_id", ""))
            one.audience = str(line.get("audience", ""))
            one.state = one.state or "running"
        elif event == "broadcast_moved":
            one.state = str(line.get("state", ""))
            if line.get("move") in {"pause", "abort", "cancel", "resume"}:
                one.reason = str(line.get("reason", ""))
                one.errcode = int(line.get("errcode", 0))
            if one.state in {"finished", "aborted", "cancelled"}:
                one.ended_at = one.ended_at or at
        elif event == "broadcast_counted":
            one.state, one.by_redis = str(line.get("state", "")), True
            one.total = int(line.get("total", 0))
            one.outcomes = {str(k): int(n) for k, n in line.get("outcomes", {}).items()}
            one.errcodes = {str(k): int(n) for k, n in line.get("errcodes", {}).items()}

    def _of_app(self, event: str, line: dict[str, Any]) -> None:
        report, app = self._report, str(line.get("app", ""))
        if event == "limit_hit":
            report.limits[app] = report.limits.get(app, 0) + 1
        elif event in {"token_refreshed", "token_refresh_failed"}:
            counts = report.tokens.setdefault(app, {"refreshed": 0, "failed": 0})
            counts["refreshed" if event == "token_refreshed" else "failed"] += 1
        elif event == "permits_expired":
            report.expired[app] = report.expired.get(app, 0) + int(line.get("uses", 0))

    def _sums(self, by_id: dict[str, Broadcast]) -> None:
        report = self._report
        for one in by_id.values():
            for sums, own in ((report.outcomes, one.outcomes), (report.errcodes, one.errcodes)):
                of_app = sums.setdefault(one.app, {})
                for name, n in own.items():
                    of_app[name] = of_app.get(name, 0) + n
        ordered = sorted(by_id.values(), key=lambda one: one.id, reverse=True)
        report.broadcasts, report.left_out = ordered[:_MOST], max(0, len(ordered) - _MOST)
        for app, action, n in self._rows(
            "SELECT coalesce(app, ''), coalesce(action, ''), sum(n) FROM counted"
            " WHERE event = $sends GROUP BY ALL ORDER BY 1, 2",
            sends=SENDS,
        ):
            report.actions.setdefault(app, {})[action] = round(n)

    def _time(self) -> None:
        ((first, last),) = self._rows(
            "SELECT min(second), max(second) FROM counted WHERE event = $sends", sends=SENDS
        )
        if first is None:
            return
        whole_s = int((last - first).total_seconds()) + 1
        days = 86400 * math.ceil(whole_s / 86400 / _BINS)  # of clocks that went astray: years
        step = next((s for s in _STEPS_S if whole_s / s <= _BINS), days)
        self._report.step_s = step
        times = [first + timedelta(seconds=at) for at in range(0, whole_s, step)]
        moments: dict[Any, dict[str, int]] = {at: {} for at in times}
        for at, outcome, n in self._rows(
            "SELECT time_bucket(to_seconds($step), second, $first::TIMESTAMP),"
            " coalesce(outcome, ''), sum(n) FROM counted WHERE event = $sends"
            " AND second IS NOT NULL GROUP BY ALL ORDER BY 1, 2",
            step=step,
            first=first,
            sends=SENDS,
        ):
            moments[at][outcome] = round(n)
        self._report.moments = [Moment(_iso(at), counts) for at, counts in moments.items()]

    def _latencies(self) -> None:
        self._report.latency = self._percentiles("app", SENDS)
        quarters = {
            int(quarter): round(n)
            for quarter, n in self._rows(
                "SELECT floor(step * ln($size) / ln(2) * 4), sum(n) FROM counted"
                " WHERE event = $sends AND step IS NOT NULL GROUP BY 1",
                size=LATENCY_STEP,
                sends=SENDS,
            )
        }
        self._report.spread = [
            (float(f"{2 ** (quarter / 4):.3g}"), quarters.get(quarter, 0))
            for quarter in range(min(quarters, default=0), max(quarters, default=-1) + 1)
        ]

    def _percentiles(self, by: str, event: str) -> dict[str, Latency]:
        """Return latencies by a column."""
        rows = self._rows(
            f"WITH steps AS (SELECT {by} AS what, step, sum(n) AS n FROM counted"  # noqa: S608
            " WHERE event = $event AND step IS NOT NULL AND what IS NOT NULL GROUP BY ALL),"
            " running AS (SELECT *, sum(n) OVER (PARTITION BY what ORDER BY step) AS below,"
            " sum(n) OVER (PARTITION BY what) AS whole FROM steps)"
            " SELECT what, any_value(whole), min(step) FILTER (below >= 0.5 * whole),"
            " min(step) FILTER (below >= 0.95 * whole), min(step) FILTER (below >= 0.99 * whole),"
            " max(step) FROM running GROUP BY what ORDER BY what",
            event=event,
        )
        return {str(what): Latency(round(n), *map(_ms, steps)) for what, n, *steps in rows}

    def _routes(self) -> None:
        by_status = self._percentiles("route || ' ' || status", REQUESTS)
        for way, latency in by_status.items():
            route, _, status = way.rpartition(" ")
            self._report.routes.append(Route(route, int(status), latency))


def _of_worker(lives: dict[str, dict[str, str]], event: str, at: str, line: dict[str, Any]) -> None:
    if event == "worker_buried":
        life = lives.setdefault(str(line.get("dead_worker", "")), {})
        life.setdefault("ended", at)
        life["end"] = "killed, or cut off"
        return
    life = lives.setdefault(str(line.get("worker", "")), {})
    if event == "worker_started":
        life["started"] = at
    elif event == "worker_stopping":
        life["stopping"] = at
    elif event == "worker_stopped":
        life["ended"] = at
        if life.get("end") not in _ENDS.values():
            life["end"] = "stopped"
    elif event in _ENDS:
        life["end"] = _ENDS[event]


def _ms(step: int) -> float:
    return float(f"{LATENCY_STEP**step:.3g}")


def _iso(at: Any) -> str:
    return at.isoformat(timespec="seconds") + "Z" if at is not None else ""
