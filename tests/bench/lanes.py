"""Lanes: what 16 of them cost on one server, beside 1.

A worker sends the same to the same users with 1 lane and with 16, in turn: at a full unit's pace,
then with few in flight and WeChat's heavy tail, where what is settled at once is spread over the
lanes. Then each has nothing to send: once with an empty Redis, once with one broadcast that waits
for its own slow rate in every lane. Calls are those that clients sent, as in `idle`.
"""

import time
from pathlib import Path
from typing import Final

from .figures import Figure, Report, must
from .ground import Ground, spec
from .idle import SLOW, cost
from .scale import Scale
from .send import HEAVY, HEAVY_IN_FLIGHT, IN_FLIGHT, LATENCY_MS, Run, measure, warm

MANY: Final = 16
MESSAGES: Final = {Scale.FULL: 20_000, Scale.QUICK: 20_000, Scale.TINY: 300}
FEW: Final = {Scale.FULL: 10_000, Scale.QUICK: 6_000, Scale.TINY: 300}
"""Messages with few in flight."""
TURNS: Final = {Scale.FULL: 4, Scale.QUICK: 2, Scale.TINY: 1}
EACH: Final = {Scale.FULL: 3, Scale.QUICK: 2, Scale.TINY: 1}
"""Rounds of one turn: one start of the worker."""
WAITERS: Final = {Scale.FULL: 1000, Scale.QUICK: 1000, Scale.TINY: 50}
"""Recipients of the broadcast that waits: some in every lane."""


def run(ground: Ground, scale: Scale, profile: Path | None) -> Report:
    """Measure it all; see the module."""
    report = Report("lanes")
    _sends(report, ground, scale, "", MESSAGES[scale], IN_FLIGHT, {"median_ms": LATENCY_MS})
    few = f", heavy tail, {HEAVY_IN_FLIGHT} in flight"
    _sends(report, ground, scale, few, FEW[scale], HEAVY_IN_FLIGHT, HEAVY)
    for waits in (False, True):
        _idle(ground, report, scale, waits=waits)
    return report


def _sends(
    report: Report,
    ground: Ground,
    scale: Scale,
    how: str,
    messages: int,
    in_flight: int,
    latency: dict[str, float],
) -> None:
    found: dict[int, list[Run]] = {1: [], MANY: []}
    for _ in range(TURNS[scale]):
        for lanes, runs in found.items():
            ground.use(lanes=lanes, in_flight=in_flight)
            ground.wechat.post("latency", latency)
            ground.invite("everybody", messages)
            with ground.workers() as workers:
                warm(ground, 100, 2 * in_flight)
                runs += [
                    measure(ground, workers, "everybody", messages, number)
                    for number in range(1, EACH[scale] + 1)
                ]
    one, many = found[1], found[MANY]
    whole = [[run.us + run.redis_us for run in runs] for runs in (many, one)]
    name = f"CPU per delivered message, {MANY} lanes{how}"
    report.figures += [
        Figure(f"worker {name}", "µs", [r.us for r in many], "1 lane", [r.us for r in one]),
        Figure(
            f"Redis {name}", "µs", [r.redis_us for r in many], "1 lane", [r.redis_us for r in one]
        ),
        Figure(f"both, {name}", "µs", whole[0], "1 lane", whole[1], "≤ 1.05 ×").judge(
            lambda ratio: ratio <= 1.05
        ),
    ]
    report.sums.append(f"{len(one) + len(many)} × {messages:,} delivered once each{how}")


def _idle(ground: Ground, report: Report, scale: Scale, *, waits: bool) -> None:
    found: dict[int, tuple[float, float]] = {}
    for lanes in (1, MANY):
        ground.use(lanes=lanes)
        if waits:
            ground.give(WAITERS[scale], 1)
            ground.broadcasts.create(spec(rate=SLOW))
        with ground.workers() as workers:
            if waits:
                deadline = time.monotonic() + 30
                while not ground.wechat.get("stats")["accepted"]:
                    must(time.monotonic() < deadline, "nobody was sent the first message")
                    time.sleep(0.1)
            found[lanes] = cost(ground, workers, scale)
    name = f"idle worker, {'a broadcast that waits' if waits else 'nothing'}, {MANY} lanes"
    (share, calls), (share_of_one, calls_of_one) = found[MANY], found[1]
    report.figures += [
        Figure(f"{name}: core", "%", [100 * share], "1 lane", [100 * share_of_one]),
        Figure(f"{name}: Redis", "calls/s", [calls], "1 lane", [calls_of_one], "≤ 1 ×").judge(
            lambda ratio: ratio <= 1.0
        ),
    ]
