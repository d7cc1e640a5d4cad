"""Replicas: what it costs that claims and outcomes wait until a replica has them.

One unit, WeChat in 50 ms, a primary with a replica on the same machine: with WXB_REDIS_REPLICAS=1
and without, in turn, each time with a unit of its own. The replica is there both times, so that
the waiting alone is compared.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from producers.local.nodes import await_true, follows, node
from producers.local.ports import HOST

from .figures import Figure, Report
from .ground import OTHERS, Ground, on
from .scale import Scale
from .send import IN_FLIGHT, LATENCY_MS, Run, measure, warm

MESSAGES: Final = {Scale.FULL: 10_000, Scale.QUICK: 6_000, Scale.TINY: 300}
ROUNDS: Final = {Scale.FULL: 5, Scale.QUICK: 3, Scale.TINY: 1}


def run(ground: Ground, scale: Scale, profile: Path | None) -> Report:
    """Measure both; see the module."""
    report, messages = Report("replicas"), MESSAGES[scale]
    found: dict[str, list[Run]] = {"0": [], "1": []}
    ground.use()
    ground.wechat.post("latency", {"median_ms": LATENCY_MS})
    ground.invite("everybody", messages)
    with _replica(ground):
        for number in range(1, 1 + ROUNDS[scale]):
            for wanted, runs in found.items():
                given = 10 * number + int(wanted)
                with ground.workers(WXB_REDIS_REPLICAS=wanted) as workers:
                    warm(ground, 100 + given, 2 * IN_FLIGHT)
                    runs.append(measure(ground, workers, "everybody", messages, given))
    ways = {
        "messages/s of one unit that waits for a replica, 50 ms": ("/s", lambda one: one.rate),
        "its CPU per delivered message": ("µs", lambda one: one.us),
        "Redis's CPU per delivered message": ("µs", lambda one: one.redis_us),
    }
    report.figures += [
        Figure(name, unit, [of(one) for one in found["1"]], "none", [of(one) for one in found["0"]])
        for name, (unit, of) in ways.items()
    ]
    report.sums.append(f"{2 * ROUNDS[scale]} × {messages:,} delivered once each")
    return report


@contextmanager
def _replica(ground: Ground) -> Iterator[None]:
    at = urlsplit(ground.redis_url)
    password = at.password or ""
    lines = (
        f"replicaof {HOST} {at.port}",
        f"primaryauth {password}",
        "repl-diskless-sync-delay 0",
        "shutdown-timeout 0",
    )
    with on(OTHERS), node(ground.folder / "replica", password, lines) as replica:
        await_true(lambda: follows(replica) == at.port, "the replica follows")
        yield
