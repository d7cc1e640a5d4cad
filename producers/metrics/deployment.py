"""The deployment's figures: the board, as Prometheus reads it.

However many scrape, and however often, the board is looked at once in `EVERY_S`; between two looks
all of them get the same figures. A Redis that does not answer is a figure too.
"""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from producers.board import AppLine, Board, Boards
from producers.errors import WxbroadcastError

EVERY_S: Final = 5.0
"""Seconds between two looks."""

_FATES: Final = ("collected", "spent", "void", "expired")
"""Where uses of permits go and stay; they only grow, but for what is handed back."""


class Deployment:
    """Looks at the board for whoever scrapes. Safe to share between threads.

    Args:
        boards: where it is looked.
        clock: monotonic seconds.
    """

    def __init__(self, boards: Boards, clock: Callable[[], float] = time.monotonic) -> None:
        self._boards = boards
        self._clock = clock
        self._looking = threading.Lock()
        self._board: Board | None = None
        self._took_s = 0.0
        self._looked_at = float("-inf")

    def of(self, may_see: Callable[[str], bool]) -> "Seen":
        """Return the figures of those apps that somebody may see."""
        return Seen(self, may_see)

    def look(self) -> tuple[Board | None, float]:
        """Return the board, None when Redis did not answer, and how long the look took (s)."""
        with self._looking:
            if self._clock() - self._looked_at >= EVERY_S:
                started = self._clock()
                try:
                    self._board = self._boards.look()
                except WxbroadcastError:
                    self._board = None
                self._looked_at = self._clock()
                self._took_s = self._looked_at - started
            return self._board, self._took_s


class Seen:
    """The figures of some apps; a collector."""

    def __init__(self, deployment: Deployment, may_see: Callable[[str], bool]) -> None:
        self._deployment = deployment
        self._may_see = may_see

    def collect(self) -> Iterable[Metric]:
        """Return the figures, as they are now."""
        board, took_s = self._deployment.look()
        yield GaugeMetricFamily(
            "wxbroadcast_redis_up", "Whether Redis answered the last look", int(board is not None)
        )
        yield GaugeMetricFamily(
            "wxbroadcast_look_seconds", "How long the last look at Redis took", took_s
        )
        if board is None:
            return
        yield GaugeMetricFamily(
            "wxbroadcast_workers", "Workers that are alive", board.workers.workers
        )
        calls, spent_s = board.scripts
        yield CounterMetricFamily("wxbroadcast_redis_scripts", "Scripts that Redis ran", calls)
        yield CounterMetricFamily(
            "wxbroadcast_redis_script_seconds", "For how long Redis ran scripts", spent_s
        )
        lines = [line for line in board.apps if self._may_see(line.app)]
        yield from _broadcasts(board, lines)
        yield from _permits(lines)
        closed = _gauge("closed_gates", "Workers that sent nothing of the app, by their own choice")
        for line in lines:
            here = sum(one.app == line.app for one in board.workers.closed)
            closed.add_metric((line.app,), here)
        yield closed


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"wxbroadcast_{name}", text, labels=("app", *labels))


def _broadcasts(board: Board, lines: list[AppLine]) -> Iterable[Metric]:
    """Return what the apps' broadcasts are doing."""
    states = _gauge("broadcasts", "Broadcasts on the board, by state", "state")
    sending = _gauge("sending_rate", "Answered sends per second, lately")
    limit = _gauge("rate_limit", "Sends per second that the app may start; 0: unlimited")
    token = _gauge("token_seconds_left", "Until the access token ends; 0: there is none")
    hindered = _gauge("hindered", "1 when broadcasts run and no worker can send for the app")
    messages = _gauge("messages", "Messages of the board's broadcasts, by where they are", "where")
    for line in lines:
        for state in ("running", "paused", "scheduled"):
            states.add_metric((line.app, state), getattr(line, state))
        sending.add_metric((line.app,), line.sending)
        limit.add_metric((line.app,), line.rate)
        token.add_metric((line.app,), line.token_s)
        hindered.add_metric((line.app,), int(bool(line.hindered and line.running)))
        own = [one for one in board.broadcasts if one.app == line.app]
        for where in ("queued", "delayed", "in_flight", "aside"):
            messages.add_metric((line.app, where), sum(getattr(one, where) for one in own))
        unsent = sum(max(one.expected, one.total) - one.settled for one in own if not one.complete)
        messages.add_metric((line.app, "unsettled"), unsent)
    yield from (states, sending, limit, token, hindered, messages)
    yield GaugeMetricFamily(
        "wxbroadcast_broadcasts_left_out",
        "Broadcasts that run or wait and have no place on the board",
        board.left_out,
    )


def _permits(lines: list[AppLine]) -> Iterable[Metric]:
    """Return where the uses of the apps' permits are."""
    fates = CounterMetricFamily(
        "wxbroadcast_permit_uses", "Uses of permits by their fate", labels=("app", "fate")
    )
    stock = _gauge("permit_stock", "Uses of permits that are available or held", "where")
    ending = _gauge("permit_stock_ending", "Available uses by the time to their end", "within")
    for line in lines:
        uses = line.uses.as_dict()
        for fate in _FATES:
            fates.add_metric((line.app, fate), uses[fate])
        for where in ("available", "held"):
            stock.add_metric((line.app, where), uses[where])
        for within, count in line.ending.items():
            ending.add_metric((line.app, within), count)
    yield from (fates, stock, ending)
