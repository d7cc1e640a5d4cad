"""Splitting: recipients per second that one process moves from an audience into queues.

What is timed is `Splitter.fill`, the very call of the `split` actor and of the keeper, in a
deployment of one lane: it reads the broadcast and the bitmap of filled buckets, and moves whole
buckets and the cursor with them, one script after the other until the window is full. A process of
its own does it (`splitter`). Nobody sends meanwhile; between two windows the queue is emptied,
untimed, as the workers would have. Two sizes of window: the one of an app without a rate (10,000),
and all at once.

The baseline moves the same openids as the stock way does: one encoded message each, in pipelines
of 1,000 (`actor.send` itself, one round trip a message, is slower still).

Resident memory of the splitting process is taken after its first window and at its most: it must
not grow with the audience. Every recipient must be in the queue exactly once.
"""

import time
from datetime import timedelta
from pathlib import Path
from typing import Final

from producers.store import keys

from . import stock
from .figures import Figure, Report, must
from .ground import APP, Ground, Told, openid, spec, told
from .scale import Scale

AUDIENCE: Final = {Scale.FULL: 500_000, Scale.QUICK: 150_000, Scale.TINY: 12_000}
ROUNDS: Final = {Scale.FULL: 3, Scale.QUICK: 3, Scale.TINY: 1}
_BASELINE: Final = 20
"""The baseline moves one openid in so many: it is that much slower."""


def run(ground: Ground, scale: Scale, profile: Path | None) -> Report:
    """Split one audience again and again; see the module."""
    report = Report("split")
    size, rounds = AUDIENCE[scale], ROUNDS[scale]
    rates: dict[int, list[float]] = {1: [], 3600: []}
    bare: list[float] = []
    redis_us: list[float] = []
    memory: list[float] = []
    for window_s, found in rates.items():
        ground.use(lanes=1, window=timedelta(seconds=window_s))
        ground.invite("everybody", size)
        with told("splitter", ground.redis_url, ground.wechat_url, str(window_s)) as splitter:
            first = _split(ground, splitter, size)[1]  # what is loaded on first use
            for _ in range(rounds):
                redis_before = ground.redis_cpu_s()
                took_s, most_mb = _split(ground, splitter, size)
                found.append(size / took_s)
                if window_s == 1:
                    redis_us.append(1e6 * (ground.redis_cpu_s() - redis_before) / size)
                    memory.append(most_mb - first)
                    bare.append(_stock(ground, size // _BASELINE))
    report.figures += [
        Figure(
            f"recipients/s, windows of 10,000, {size:,} in all",
            "/s",
            rates[1],
            "stock messages in pipelines",
            bare,
            "≥ 300,000/s",
        ).judge_median(lambda rate: rate >= 300_000),
        Figure(
            "recipients/s, all in one window", "/s", rates[3600], goal="≥ 300,000/s"
        ).judge_median(lambda rate: rate >= 300_000),
        Figure("CPU of Valkey per recipient, emptying the queue included", "µs", redis_us),
        Figure(
            "growth of the splitter's memory", "MB", memory, goal="flat (< 1 MB a round)"
        ).judge_median(lambda megabytes: megabytes < 1),
    ]
    report.sums.append(
        f"{2 * rounds + 2} × {size:,} recipients, each queued once, as the cursor counted"
    )
    return report


def _split(ground: Ground, splitter: Told, size: int) -> tuple[float, float]:
    """Split the audience for a new broadcast.

    Returns:
        Seconds that splitting took, and resident megabytes of the splitter at the most.
    """
    client = ground.client
    created = ground.broadcasts.create(spec("everybody")).id  # a small one: fills its first window
    queue, lane = keys.queue(0, created), keys.lane_broadcast(0, created)
    found = set[str]()
    queued = _drain(ground, queue, found)
    first, took_s, most_mb = queued, 0.0, 0.0
    while queued < size:
        answer = splitter.ask(broadcast=created)
        took_s += answer["seconds"]
        most_mb = max(most_mb, answer["rss_mb"])
        must(answer["moved"], f"it moves nothing more after {queued:,} of {size:,}")
        queued += _drain(ground, queue, found)
    splitter.ask(broadcast=created)
    split, total = client.hmget(lane, ["split", "total"])
    must(
        queued == len(found) == size == int(total) and split == "done",
        f"queued {queued:,}, {len(found):,} different, counted {total}, of {size:,}",
    )
    client.delete(lane, keys.ring(0, APP))
    client.zrem(keys.active(APP), created)
    return took_s * size / (size - first), most_mb


def _drain(ground: Ground, queue: str, found: set[str]) -> int:
    """Take all of a queue, as workers would; return how many there were."""
    openids = ground.client.lrange(queue, 0, -1)
    ground.client.delete(queue)
    found.update(openids)
    return len(openids)


def _stock(ground: Ground, size: int) -> float:
    openids = [openid(user) for user in range(size)]
    began = time.perf_counter()
    stock.enqueue(ground.client, "baseline", openids)
    took_s = time.perf_counter() - began
    queued = ground.client.llen(f"stock:{stock.QUEUE}")
    must(queued == size, f"the stock way queued {queued:,} of {size:,}")
    ground.client.delete(f"stock:{stock.QUEUE}", f"stock:{stock.QUEUE}.msgs")
    return size / took_s
