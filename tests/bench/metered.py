"""What a worker's figures cost: CPU per delivered message with WXB_METRICS_PORT and without it.

The same rounds as `send`, in pairs: a worker without a port and one with it, each started anew, the
one that is first in turns; somebody asks the latter for its figures every second, fifteen times as
often as Prometheus would.
"""

import contextlib
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from producers.local.ports import free_port

from .figures import Figure, Report
from .ground import Ground
from .scale import Scale
from .send import IN_FLIGHT, LATENCY_MS, measure, warm

SIZES: Final = {Scale.FULL: (6, 3, 10_000), Scale.QUICK: (4, 3, 6_000), Scale.TINY: (1, 1, 300)}
"""Pairs, rounds of each of a pair, messages of a round."""
_EVERY_S: Final = 1.0


def run(ground: Ground, scale: Scale, profile: Path | None) -> Report:
    """Run it all; see the module."""
    pairs, rounds, messages = SIZES[scale]
    report = Report("metered")
    found: dict[bool, list[float]] = {False: [], True: []}
    ground.use()
    ground.wechat.post("latency", {"median_ms": LATENCY_MS})
    ground.invite("everybody", messages)
    given = 0
    for number in range(pairs):
        for metered in (False, True) if number % 2 else (True, False):
            port = free_port() if metered else 0
            with ground.workers(WXB_METRICS_PORT=str(port)) as workers, _asked(port):
                given += 1
                warm(ground, given, 2 * IN_FLIGHT)
                for _ in range(rounds):
                    given += 1
                    found[metered].append(measure(ground, workers, "everybody", messages, given).us)
    report.figures.append(
        Figure(
            "worker CPU per delivered message, its figures asked for every second",
            "µs",
            found[True],
            "without WXB_METRICS_PORT",
            found[False],
            "≤ 1.02 × that",
        ).judge(lambda ratio: ratio <= 1.02)
    )
    report.sums.append(f"{2 * pairs * rounds} × {messages:,} delivered once each")
    return report


@contextlib.contextmanager
def _asked(port: int) -> Iterator[None]:
    """Ask a worker for its figures again and again, if it has a port."""
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(_EVERY_S):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read()

    thread = threading.Thread(target=go_on, daemon=True)
    if port:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if port:
            thread.join()
