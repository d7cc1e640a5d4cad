"""Figures: what this worker did and has in hand, told to Prometheus at a port of its own.

Several units on one host share the setting: each takes the next free port, and logs which.
"""

from collections.abc import Callable, Iterable
from threading import Thread
from typing import Final
from wsgiref.simple_server import WSGIServer

from prometheus_client import start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from producers import logs
from producers.logs.events import MetricsServed
from producers.metrics import registry_of
from producers.settings import Settings
from workers.sending.memory import Memory

_PORTS: Final = 32


class Figures:
    """A worker's; a collector.

    Args:
        memory: what is in hand, and what was answered.
        peers: how many workers are alive, as this one sees it.
    """

    def __init__(self, memory: Memory, peers: Callable[[], int]) -> None:
        self._memory = memory
        self._peers = peers
        self._worker = ""
        self._serving: tuple[WSGIServer, Thread] | None = None

    def begin(self, settings: Settings, worker: str) -> None:
        """Listen, where the settings say so; a port that cannot be had costs nobody a message."""
        if self._memory.meter is None:
            return
        self._worker = worker
        registry = registry_of(self, self._memory.meter)
        error = ""
        for port in range(settings.metrics_port, settings.metrics_port + _PORTS):
            try:
                self._serving = start_http_server(port, settings.metrics_host, registry)
            except OSError as failure:
                error = str(failure)
                continue
            logs.emit(MetricsServed(worker, settings.metrics_host, port, ""))
            return
        logs.emit(MetricsServed(worker, settings.metrics_host, 0, error))

    def close(self) -> None:
        """Listen no more."""
        if self._serving is not None:
            server, thread = self._serving
            server.shutdown()
            server.server_close()
            thread.join(1.0)

    def collect(self) -> Iterable[Metric]:
        """Return the figures, as they are now."""
        yield InfoMetricFamily(
            "wxbroadcast_worker",
            "Whose figures these are, as its log lines name it",
            {"worker": self._worker},
        )
        yield GaugeMetricFamily(
            "wxbroadcast_in_hand", "Claims that are not settled yet", self._memory.hands.held
        )
        yield GaugeMetricFamily(
            "wxbroadcast_peers", "Workers that are alive, as this one sees it", self._peers()
        )
        slots = CounterMetricFamily(
            "wxbroadcast_slots",
            "Slots of the shared limit that this worker was given, and that passed unused",
            labels=("app", "use"),
        )
        waits = CounterMetricFamily(
            "wxbroadcast_limiter_wait_seconds",
            "For how long the shared limit told this worker to wait",
            labels=("app",),
        )
        level = GaugeMetricFamily(
            "wxbroadcast_limit_level", "WeChat's limit errors in force", labels=("app",)
        )
        closed = GaugeMetricFamily(
            "wxbroadcast_gate_closed",
            "1 while this worker's POSTs do not get through",
            labels=("app",),
        )
        for app, gate in list(self._memory.gates.items()):
            slots.add_metric((app, "given"), gate.given)
            slots.add_metric((app, "unused"), gate.wasted)
            waits.add_metric((app,), gate.waited_s)
            level.add_metric((app,), gate.level)
            closed.add_metric((app,), int(bool(gate.breaker.trouble)))
        yield from (slots, waits, level, closed)
