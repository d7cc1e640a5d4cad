"""The meter: what one process did since it started.

The sending calls it for each answer, so it counts in plain dicts; whoever scrapes pays for the
rest. Any thread may scrape while others count: a figure may be one answer behind its neighbour.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from producers import logs
from producers.logs.events import MessageSettled

BUCKETS_S: Final = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 4.0, 6.0, 8.0,
)  # fmt: skip
"""Upper bounds of the latencies' buckets; a POST takes 8 s at the most."""
_BOUNDS_MS: Final = tuple(1000 * bound for bound in BUCKETS_S)
_CODES: Final = 200
"""Errcodes of an app that are told apart; the rest is ``other``."""


class Meter:
    """Counts for one process."""

    def __init__(self) -> None:
        self._answers: Counter[tuple[str, str, str]] = Counter()
        self._errcodes: Counter[tuple[str, str]] = Counter()
        self._codes: dict[str, set[int]] = {}
        self._buckets: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}

    def answered(
        self, app: str, action: str, outcome: str, errcode: int, latency_ms: float
    ) -> None:
        """Count one answer.

        Args:
            app: alias of the app.
            action: what was done with it, as ``message_settled`` says.
            outcome: of a settled one, else ''.
            errcode: WeChat's, or 0.
            latency_ms: of the POST.
        """
        self._answers[app, action, outcome] += 1
        buckets = self._buckets.get(app)
        if buckets is None:
            buckets = self._buckets[app] = [0] * (len(BUCKETS_S) + 1)
        buckets[bisect_left(_BOUNDS_MS, latency_ms)] += 1
        self._seconds[app] = self._seconds.get(app, 0.0) + latency_ms / 1000
        if errcode and action != "stale":  # another worker has its message, and counts it
            known = self._codes.setdefault(app, set())
            if len(known) < _CODES:
                known.add(errcode)
            self._errcodes[app, str(errcode) if errcode in known else "other"] += 1

    def collect(self) -> Iterable[Metric]:
        """Return the figures, as they are now."""
        answers = CounterMetricFamily(
            "wxbroadcast_answers",
            "Answers to sends, by what was done with them and the outcome they settled",
            labels=("app", "action", "outcome"),
        )
        for labels, count in list(self._answers.items()):
            answers.add_metric(labels, count)
        yield answers
        errcodes = CounterMetricFamily(
            "wxbroadcast_errcodes",
            "Answers that counted, by WeChat's errcode",
            labels=("app", "errcode"),
        )
        for named, count in list(self._errcodes.items()):
            errcodes.add_metric(named, count)
        yield errcodes
        latency = HistogramMetricFamily(
            "wxbroadcast_send_latency_seconds", "From a POST to its answer", labels=("app",)
        )
        for app, buckets in list(self._buckets.items()):
            latency.add_metric((app,), _running(buckets), self._seconds[app])
        yield latency
        events = CounterMetricFamily(
            "wxbroadcast_events",
            "Log events of this process, but for the lines of sends",
            labels=("event", "level"),
        )
        for event, level, count in logs.told():
            if event != MessageSettled.name():  # the answers above, however few are sampled
                events.add_metric((event, level), count)
        yield events
        yield CounterMetricFamily(
            "wxbroadcast_log_lines_dropped", "Log lines that a slow reader cost", logs.dropped()
        )


def _running(buckets: list[int]) -> list[tuple[str, float]]:
    """Return a histogram's buckets as Prometheus has them: each with all that lie below."""
    total, made = 0, []
    for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), list(buckets), strict=True):
        total += count
        made.append((bound, float(total)))
    return made
