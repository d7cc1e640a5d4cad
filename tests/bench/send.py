"""The send path: CPU per delivered message and throughput, beside the floor and the stock way.

Measured in short rounds that alternate, so that a noisy machine strikes all alike: each on a core
of its own while Valkey, WeChat and this process share the other: user + system CPU of the worker's
processes from just before the broadcast is created until all its outcomes are written, over the
messages delivered; and messages per second as WeChat saw them arrive, in the middle 80 % (so
neither the canary nor the last answer counts).
Everything is on: take, reserve, settle, outcomes, counts, ledger, one log line per send through a
pipe to a file, Valkey's append-only file. The broadcast is split by the worker, within its CPU.

Left out: starting, collecting the permits, creating the audience.

The baselines are fair, for they run in the same minute on the same core against the same WeChat:
the floor (`floor`) posts the same bodies over the same session with as many in flight; the stock
way (`stock`) does the same work message by message, as fast as it could be tuned.

Further runs of this system alone: 300 ms latency with 1,000 in flight, and a heavy tail
(lognormal, sigma 0.8, 1 % at 1 s) with 200 in flight, so that answers and not the CPU are the
bound: what in-flight / mean latency allows is then compared with what came.

Two processes: there are two cores, and WeChat and Valkey need a share of them. So what a machine
with WeChat and Valkey elsewhere would do is computed: one worker runs on the measured core, then
two run over both cores, WeChat and Valkey among them, and the CPU seconds per message of the
workers alone are compared. A core that does nothing else sends 1 / that, so two cores send 2 / that
of two processes. What two processes cost each other (smaller batches, more calls, more beats) is in
it; what Valkey could not serve is not (its CPU per message, printed beside, says when).
"""

import signal
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from . import stock
from .figures import Figure, Report, must
from .ground import CORES, MEASURED, Ground, Told, Workers, form_id, openid, spec, told
from .profiled import profiled
from .scale import Scale

LATENCY_MS: Final = 50
IN_FLIGHT: Final = 1000
HEAVY: Final = {"median_ms": 50, "sigma": 0.8, "tail_percent": 1, "tail_ms": 1000}
HEAVY_IN_FLIGHT: Final = 200


@dataclass(frozen=True, slots=True)
class Size:
    """How much is sent.

    Attributes:
        messages: by this system and the floor, a round.
        stock: by the stock way, a round.
        rounds: of the comparison.
        slow: messages at 300 ms, and with the heavy tail.
        two, twice: messages a round, and restarts, in the comparison of one and two processes.
    """

    messages: int
    stock: int
    rounds: int
    slow: int
    two: int
    twice: int


SIZES: Final = {
    Scale.FULL: Size(messages=10_000, stock=2_000, rounds=5, slow=12_000, two=6_000, twice=1),
    Scale.QUICK: Size(messages=6_000, stock=1_000, rounds=3, slow=4_000, two=3_000, twice=1),
    Scale.TINY: Size(messages=300, stock=50, rounds=1, slow=300, two=300, twice=1),
}


@dataclass(frozen=True, slots=True)
class Run:
    """One round of one way.

    Attributes:
        us: CPU microseconds per message.
        rate: arrivals per second in the middle 80 %.
        wechat_us, redis_us: CPU of WeChat, and of Valkey, per message.
        peak: most sends unanswered at once.
        mean_ms: mean of the latencies that WeChat drew.
    """

    us: float
    rate: float
    wechat_us: float
    redis_us: float
    peak: int
    mean_ms: float


def run(ground: Ground, scale: Scale, profile: Path | None) -> Report:
    """Run it all; see the module."""
    size = SIZES[scale]
    report = Report("send")
    found = _compare(ground, size, report, profile)
    us = {name: [one.us for one in runs] for name, runs in found.items()}
    rate = {name: [one.rate for one in runs] for name, runs in found.items()}
    beside = statistics.median(one.wechat_us + one.redis_us for one in found["ours"])
    report.figures += [
        Figure(
            "worker CPU per delivered message, 50 ms, 1,000 in flight",
            "µs",
            us["ours"],
            "floor",
            us["floor"],
            "≤ 1.3 × floor",
        ).judge(lambda ratio: ratio <= 1.3),
        Figure("the same", "µs", us["ours"], "floor with Python's own GC", us["plain"]),
        Figure("the same", "µs", us["ours"], "stock", us["stock"]),
        Figure(
            "messages/s of one worker process, 50 ms",
            "/s",
            rate["ours"],
            "floor",
            rate["floor"],
            "≥ 0.8 × floor",
            note=f"WeChat and Valkey beside it: {beside:.0f} µs a message on the other core",
        ).judge(lambda ratio: ratio >= 0.8),
        Figure("the same", "/s", rate["ours"], "floor with Python's own GC", rate["plain"]),
        Figure("the same", "/s", rate["ours"], "stock", rate["stock"], "≥ 5 × stock").judge(
            lambda ratio: ratio >= 5
        ),
    ]
    _bounded(ground, size, report, statistics.median(us["ours"]))
    _two(ground, size, report)
    return report


def _compare(
    ground: Ground, size: Size, report: Report, profile: Path | None
) -> dict[str, list[Run]]:
    ground.use()
    ground.wechat.post("latency", {"median_ms": LATENCY_MS})
    ground.invite("everybody", size.messages)
    found: dict[str, list[Run]] = {"ours": [], "floor": [], "plain": [], "stock": []}
    env = {"BENCH_REDIS_URL": ground.redis_url, "BENCH_WECHAT_URL": ground.wechat_url}
    with (
        told("floor", ground.wechat_url) as floor,
        ground.workers() as workers,
        ground.units(stock.COMMAND, 1, MEASURED, env) as others,
    ):
        warm(ground, 100, 2 * IN_FLIGHT)
        _stock(ground, others, 500, 100)
        for number in range(1, size.rounds + 1):
            found["floor"].append(bare(ground, floor, size.messages, number))
            found["ours"].append(measure(ground, workers, "everybody", size.messages, number))
            found["plain"].append(bare(ground, floor, size.messages, number, relaxed=False))
            found["stock"].append(_stock(ground, others, size.stock, number))
        if profile:
            with profiled(workers.busy_pids[0], profile / "send-worker.raw"):
                for number in range(201, 206):
                    measure(ground, workers, "everybody", size.messages, number)
            with profiled(workers.busy_pids[0], profile / "send-worker-native.raw", native=True):
                for number in range(206, 209):
                    measure(ground, workers, "everybody", size.messages, number)
            with profiled(floor.process.pid, profile / "send-floor.raw"):
                for number in range(201, 206):
                    bare(ground, floor, size.messages, number)
    report.sums.append(
        f"{size.rounds} × {size.messages:,} delivered once each (WeChat's count per openid and "
        f"form_id, outcomes, ledger, log lines), and {size.rounds} × {size.stock:,} "
        "by the stock way"
    )
    return found


def warm(ground: Ground, given: int, users: int = 1000) -> None:
    """Send a little first: what is loaded on first use is start-up."""
    name = f"warm-{given}"
    ground.invite(name, users, group=f"W{given}")
    ground.give(users, given, group=f"W{given}")
    ground.wechat.post("reset", {})
    ground.check(ground.finish(ground.broadcasts.create(spec(name)).id), users)


def measure(ground: Ground, workers: Workers, audience: str, messages: int, given: int) -> Run:
    ground.give(messages, given)
    ground.wechat.post("reset", {})
    lines = _settled_lines(workers)
    before, redis_before = workers.cpu_s(), ground.redis_cpu_s()
    status = ground.finish(ground.broadcasts.create(spec(audience)).id)
    spent, redis_s = workers.cpu_s() - before, ground.redis_cpu_s() - redis_before
    seen = ground.check(status, messages)
    deadline = time.monotonic() + 10  # the log's writer and its pipe: nothing is measured any more
    while (found := _settled_lines(workers) - lines) < messages and time.monotonic() < deadline:
        time.sleep(0.1)
    must(found == messages, f"{found:,} log lines of {messages:,} sends")
    return _run(ground, seen, spent, redis_s, messages)


def _settled_lines(workers: Workers) -> int:
    return workers.read().count(b'"event":"message_settled"')


def bare(
    ground: Ground,
    floor: Told,
    messages: int,
    given: int,
    *,
    relaxed: bool = True,
    in_flight: int = IN_FLIGHT,
) -> Run:
    """Let the floor send, its connections opened before."""
    fixed = {"in_flight": in_flight, "relaxed": int(relaxed)}
    floor.ask(**fixed, messages=2 * in_flight, given=given + 1000)  # opens the connections
    ground.wechat.post("reset", {})
    found = floor.ask(**fixed, messages=messages, given=given)
    seen = ground.wechat.get("stats")
    must(seen["accepted"] == seen["openids"] == messages, f"the floor sent {seen}")
    return _run(ground, seen, found["cpu_s"], 0.0, messages)


def _stock(ground: Ground, workers: Workers, messages: int, number: int) -> Run:
    client, broadcast = ground.client, f"s{number}"
    stock.give(client, ((openid(user, "S"), form_id(user, number)) for user in range(messages)))
    workers.signal(signal.SIGCONT)
    ground.wechat.post("reset", {})
    before, redis_before = workers.cpu_s(), ground.redis_cpu_s()
    stock.enqueue(client, broadcast, [openid(user, "S") for user in range(messages)])
    _until(ground, f"stock:n:{broadcast}", messages)
    spent, redis_s = workers.cpu_s() - before, ground.redis_cpu_s() - redis_before
    workers.signal(signal.SIGSTOP)  # its idle threads would wake up beside the others' rounds
    seen = ground.wechat.get("stats")
    must(seen["accepted"] == seen["openids"] == messages, f"the stock way sent {seen}")
    return _run(ground, seen, spent, redis_s, messages)


def _until(ground: Ground, counts: str, messages: int) -> None:
    deadline = time.monotonic() + 120
    while int(ground.client.hget(counts, "delivered") or 0) < messages:
        must(time.monotonic() < deadline, f"stock: {ground.client.hgetall(counts)}")
        time.sleep(0.1)


def _run(ground: Ground, seen: dict[str, Any], spent: float, redis_s: float, messages: int) -> Run:
    times = ground.wechat.get("times")
    first, last = len(times) // 10, len(times) * 9 // 10
    rate = (last - first) / (times[last] - times[first])
    wechat_us = 1e6 * seen["cpu_s"] / messages
    redis_us = 1e6 * redis_s / messages
    return Run(1e6 * spent / messages, rate, wechat_us, redis_us, seen["peak"], seen["mean_ms"])


def _bounded(ground: Ground, size: Size, report: Report, usual: float) -> None:
    """Runs whose bound is WeChat's answers: no send may wait for another's."""
    for name, in_flight, latency in (
        ("300 ms", IN_FLIGHT, {"median_ms": 300}),
        ("lognormal σ 0.8, 1 % at 1 s", HEAVY_IN_FLIGHT, HEAVY),
    ):
        ground.use(in_flight=in_flight)
        ground.wechat.post("latency", latency)
        ground.invite("everybody", size.slow)
        with told("floor", ground.wechat_url) as floor, ground.workers() as workers:
            warm(ground, 300)
            one = measure(ground, workers, "everybody", size.slow, 301)
            floored = bare(ground, floor, size.slow, 301, in_flight=in_flight)
        bound = 1000 * in_flight / one.mean_ms
        must(one.peak <= in_flight, f"{one.peak:,} in flight")
        report.figures += [
            Figure(
                f"messages/s, {name}, {in_flight:,} in flight",
                "/s",
                [one.rate],
                "in flight / mean latency",
                [bound],
                "≥ 0.85 × that",
                note=f"mean {one.mean_ms:.0f} ms; the floor came to {floored.rate:,.0f}",
            ).judge(lambda ratio: ratio >= 0.85),
            Figure(
                f"worker CPU per message, {name}",
                "µs",
                [one.us],
                "at 50 ms",
                [usual],
                "the same (+ 15 %)",
                note=f"the floor's {floored.us:.0f} µs",
            ).judge(lambda ratio: ratio <= 1.15),
        ]
    report.sums.append(f"2 × {size.slow:,} at 300 ms and with the heavy tail, once each")


def _two(ground: Ground, size: Size, report: Report) -> None:
    """CPU per message of one process on its core, and of two over all cores."""
    found: dict[int, list[Run]] = {1: [], 2: []}
    ground.use()
    ground.wechat.post("latency", {"median_ms": LATENCY_MS})
    ground.invite("everybody", size.two)
    given = 400
    for _ in range(size.twice):
        for units in (1, 2):
            with ground.workers(units, cores=MEASURED if units == 1 else CORES) as workers:
                given += 1
                warm(ground, given, 2 * IN_FLIGHT)
                for _ in range(2):
                    given += 1
                    found[units].append(measure(ground, workers, "everybody", size.two, given))
    one, two = ([run.us for run in found[units]] for units in (1, 2))
    scale = [2 * a / b for a, b in zip(one, two, strict=True)]
    report.figures += [
        Figure(
            "two processes on two cores over one, WeChat and Valkey elsewhere",
            "×",
            scale,
            goal="≥ 1.7",
            reached=statistics.median(scale) >= 1.7,
        ),
        Figure("worker CPU per message of two processes", "µs", two, "one process", one),
    ]
    report.sums.append(f"{4 * size.twice} × {size.two:,} by one and two processes, once each")
