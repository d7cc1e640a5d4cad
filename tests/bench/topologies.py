"""Topologies: one server, a primary that sentinels name, and a cluster of three.

The same worker sends the same with each, 16 lanes, WeChat in 50 ms, round by round in turn. All
servers and WeChat share the cores that are not the worker's: what three nodes could serve on
machines of their own is not seen, what they cost is. Scripts are those that were run, of any kind.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from producers import store
from producers.local import cluster, sentinels

from .figures import Figure, Report
from .ground import OTHERS, Ground, on
from .scale import Scale
from .send import IN_FLIGHT, LATENCY_MS, Run, measure, warm

LANES: Final = 16
MESSAGES: Final = {Scale.FULL: 20_000, Scale.QUICK: 10_000, Scale.TINY: 300}
ROUNDS: Final = {Scale.FULL: 5, Scale.QUICK: 3, Scale.TINY: 1}
SERVER, SENTINELS, CLUSTER = "1 server", "sentinels, 1 replica", "cluster of 3"


@dataclass(frozen=True, slots=True)
class Round:
    """One round of one topology.

    Attributes:
        run: what the worker did.
        node_us: CPU of the busiest node, per message.
        scripts: run on all nodes, per message.
    """

    run: Run
    node_us: float
    scripts: float


def run(ground: Ground, scale: Scale, profile: Path | None) -> Report:
    """Measure all three; see the module."""
    report, messages = Report("topologies"), MESSAGES[scale]
    found: dict[str, list[Round]] = {}
    with ExitStack() as stack:
        with on(OTHERS):
            watched = stack.enter_context(sentinels.sentinels(ground.folder / "watched"))
            shared = stack.enter_context(cluster.cluster(ground.folder / "shared", replicas=0))
        urls = {SERVER: ground.redis_url, SENTINELS: watched.url, CLUSTER: shared.url}
        for number in range(1, 1 + ROUNDS[scale]):
            for name, url in urls.items():
                found.setdefault(name, []).append(_round(ground, url, messages, number))
    of: tuple[tuple[str, str, Callable[[Round], float]], ...] = (
        ("messages/s", "/s", lambda one: one.run.rate),
        ("worker CPU per message", "µs", lambda one: one.run.us),
        ("CPU of all that serve, per message", "µs", lambda one: one.run.redis_us),
        ("CPU of the busiest node, per message", "µs", lambda one: one.node_us),
        ("scripts per message", "", lambda one: one.scripts),
    )
    report.figures += [
        Figure(
            f"{name}: {what}",
            unit,
            [read(one) for one in found[name]],
            SERVER,
            [read(one) for one in found[SERVER]],
        )
        for name in (SENTINELS, CLUSTER)
        for what, unit, read in of
    ]
    report.sums.append(f"{len(urls) * ROUNDS[scale]} × {messages:,} delivered once each")
    return report


def _round(ground: Ground, url: str, messages: int, number: int) -> Round:
    """Send once on a topology that is empty."""
    ground.redis_url = url
    ground.use(lanes=LANES)
    ground.wechat.post("latency", {"median_ms": LATENCY_MS})
    ground.invite("everybody", messages)
    with ground.workers() as workers:
        warm(ground, 100 + number, 2 * IN_FLIGHT)
        before = _counts(ground)
        found = measure(ground, workers, "everybody", messages, number)
        after = _counts(ground)
    cpu_s = [after[name][0] - before[name][0] for name in after]
    scripts = sum(after[name][1] - before[name][1] for name in after)
    return Round(found, max(cpu_s) / messages * 1e6, scripts / messages)


def _counts(ground: Ground) -> dict[str, tuple[float, int]]:
    """Return of each node: CPU so far (s), scripts that it ran."""
    found: dict[str, tuple[float, int]] = {}
    for name, node in store.nodes_of(ground.client).items():
        stats: dict[str, Any] = node.info("commandstats")
        scripts = sum(stats.get(f"cmdstat_{of}", {}).get("calls", 0) for of in ("evalsha", "eval"))
        found[name] = (ground.cpu_s_of(node), scripts)
    return found
