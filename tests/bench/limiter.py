"""The limiter: how exact it is over many processes, what it costs, and how its rules hold together.

Real workers, the Procfile's command, eight of them, send to WeChat at a target; when a send
arrived is WeChat's own note of it. So what is judged is not what the limiter granted but what
came: the spread of a busy machine's scheduling (both cores are shared by eight workers, WeChat,
Valkey) is in the figures. The first second is left out of averages (the canary opens in it), not
out of windows.

Calls of the limiter per send are counted by Redis: reserve.lua writes the app's limiter hash once a
call, and the key's notification of it is counted. No worker is asked, none could miscount.

There is no baseline: the target is one.
"""

import contextlib
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from producers.quotas.rates import Rates
from producers.store import keys

from .figures import Figure, Report, must
from .ground import APP, CORES, Ground, Workers, spec
from .scale import Scale

UNITS: Final = 8


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        units: worker processes.
        targets: (sends per second, goal of limiter calls per send, seconds).
        idle_s: how long CPU is counted at 1/s.
        live_s: how long each rate of the live change holds.
        sliding: whether a minute is waited for, to see its window slide.
    """

    units: int
    targets: Sequence[tuple[int, float, float]]
    idle_s: float
    live_s: float
    sliding: bool


SIZES: Final = {
    Scale.FULL: Size(UNITS, ((50, 0.5, 8), (347, 0.25, 8), (3000, 0.05, 6)), 6, 3, sliding=True),
    Scale.QUICK: Size(UNITS, ((50, 0.5, 4), (347, 0.25, 3), (3000, 0.05, 2)), 3, 3, sliding=False),
    Scale.TINY: Size(2, ((50, 0.5, 2),), 1, 2, sliding=False),
}


def run(ground: Ground, scale: Scale, profile: Path | None) -> Report:
    """Run it all; see the module."""
    size = SIZES[scale]
    report = Report("limiter")
    for target, goal, seconds in size.targets:
        _exact(ground, report, size, target, goal, seconds)
    _idle(ground, report, size)
    _live(ground, report, size)
    _nested(ground, report, size)
    _windows(ground, report, size)
    return report


@dataclass
class Calls:
    """How often the limiter was called."""

    count: int = 0
    ready: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def _counted(ground: Ground) -> Iterator[Calls]:
    """Count the calls of the limiter while the context lasts; see the module."""
    ground.client.config_set("notify-keyspace-events", "Kh")
    channel = f"__keyspace@0__:{keys.limiter(APP)}"
    calls = Calls()

    def listen() -> None:
        with ground.client.pubsub() as heard:
            heard.subscribe(channel)
            while not calls.done.is_set():
                message = heard.get_message(timeout=0.1)
                if message and message["type"] == "subscribe":
                    calls.ready.set()
                calls.count += bool(message and message["data"] == "hset")

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    must(calls.ready.wait(10), "Redis does not notify")
    try:
        yield calls
    finally:
        time.sleep(0.3)
        calls.done.set()
        listener.join(10)
        ground.client.config_set("notify-keyspace-events", "")


@contextlib.contextmanager
def _limited(ground: Ground, size: Size, users: int, **app: Any) -> Iterator[Workers]:
    """Workers over all cores, an app with limits, and an audience with one permit each."""
    ground.use(app=app)
    ground.wechat.post("latency", {"median_ms": 50})
    ground.invite("everybody", users)
    ground.give(users, 1)
    with ground.workers(size.units, cores=CORES) as workers:
        yield workers


def _exact(
    ground: Ground, report: Report, size: Size, target: int, goal: float, seconds: float
) -> None:
    users = round(target * seconds)
    with _limited(ground, size, users, rate_per_second=target), _counted(ground) as calls:
        status = ground.finish(ground.broadcasts.create(spec("everybody")).id)
        ground.check(status, users)
    times = ground.arrivals()
    average, most = average_of(times), most_in(times, 1.0)
    report.figures += [
        Figure(
            f"average at {target:,}/s, {size.units} processes",
            "/s",
            [average],
            "target",
            [target],
            "within 1 %",
        ).judge(lambda ratio: abs(ratio - 1) <= 0.01),
        Figure(
            "sends in the fullest second", "", [most], "target", [target], "≤ target + 1 % + 1"
        ).judge_median(lambda sends: sends <= 1.01 * target + 1),
        Figure("limiter calls per send", "", [calls.count / users], goal=f"≤ {goal}").judge_median(
            lambda ratio: ratio <= goal
        ),
    ]
    report.sums.append(f"{users:,} at {target:,}/s by {size.units} processes, once each")


def _idle(ground: Ground, report: Report, size: Size) -> None:
    """CPU of each process while an app sends one message a second."""
    users = round(size.idle_s) + 3
    with _limited(ground, size, users, rate_per_second=1) as workers:
        broadcast = ground.broadcasts.create(spec("everybody")).id
        time.sleep(2)
        before, began = workers.cpu_s(), time.monotonic()
        time.sleep(size.idle_s)
        spent, seconds = workers.cpu_s() - before, time.monotonic() - began
        ground.check(ground.finish(broadcast), users)
    report.figures.append(
        Figure(
            "CPU of each process at 1/s",
            "% of a core",
            [100 * spent / seconds / size.units],
            goal="< 2 %",
        ).judge_median(lambda percent: percent < 2)
    )


def _live(ground: Ground, report: Report, size: Size) -> None:
    """Change the app's rate while it sends, up and down again."""
    slow, fast = 100, 300
    users = round((2 * slow + fast) * size.live_s)
    changed: list[float] = []
    with _limited(ground, size, users, rate_per_second=slow):
        rates = Rates(ground.client, ground.settings)
        broadcast = ground.broadcasts.create(spec("everybody")).id
        for rate in (fast, slow):
            time.sleep(size.live_s)
            changed.append(time.time())
            rates.set(APP, rate)
        ground.check(ground.finish(broadcast), users)
    times = ground.arrivals()
    for at, rate in zip(changed, (fast, slow), strict=True):
        report.figures.append(
            Figure(
                f"sends in the second second after a live change to {rate}/s",
                "",
                [between(times, at + 1, at + 2)],
                "target",
                [rate],
                "acts within 1 s (± 2 %)",
            ).judge(lambda ratio: abs(ratio - 1) <= 0.02)
        )
    report.sums.append(f"{users:,} while the rate changed twice, once each")


def _nested(ground: Ground, report: Report, size: Size) -> None:
    """A broadcast with a rate of its own beside one without, under one app's rate."""
    rate, cap, seconds = 200, 20, 6 if size.sliding else 4
    with _limited(ground, size, rate * seconds, rate_per_second=rate):
        ground.invite("capped", cap * seconds, group="CAP")
        ground.give(cap * seconds, 2, group="CAP")
        ids = [
            ground.broadcasts.create(spec("capped", rate=cap)).id,
            ground.broadcasts.create(spec("everybody")).id,
        ]
        total = sum(ground.finish(one).outcomes.get("delivered", 0) for one in ids)
    ground.check_arrived((rate + cap) * seconds, total)
    capped = ground.arrivals("oCAP")
    report.figures += [
        Figure(
            f"a broadcast's own {cap}/s under the app's {rate}/s: average",
            "/s",
            [average_of(capped, skip_s=1)],
            "target",
            [cap],
            "within 5 %",
        ).judge(lambda ratio: abs(ratio - 1) <= 0.05),
        Figure(
            "its fullest second", "", [most_in(capped, 1.0)], goal="≤ target + 1 % + 1"
        ).judge_median(lambda sends: sends <= 1.01 * cap + 1),
        Figure(
            "the app's fullest second",
            "",
            [most_in(ground.arrivals(), 1.0)],
            "target",
            [rate],
            "≤ target + 1 % + 1",
        ).judge_median(lambda sends: sends <= 1.01 * rate + 1),
    ]
    report.sums.append(f"{total:,} by two broadcasts, one with a rate of its own, once each")


def _windows(ground: Ground, report: Report, size: Size) -> None:
    """The second, the minute and the day hold together: what the day allows and no more comes."""
    rate = 100
    per_minute, per_day, seconds = (300, 450, 66.0) if size.sliding else (120, 100, 3.0)
    # the day begins twelve hours from now, so that no midnight falls into the run
    hour = (datetime.now(ZoneInfo("Asia/Shanghai")).hour + 12) % 24
    limits = {
        "rate_per_second": rate,
        "rate_per_minute": per_minute,
        "daily_limit": per_day,
        "day_starts_at_hour": hour,
    }
    with _limited(ground, size, per_day + 50, **limits):
        broadcast = ground.broadcasts.create(spec("everybody")).id
        time.sleep(seconds)
        times = ground.arrivals()
        ground.broadcasts.cancel(broadcast)
        status = ground.finish(broadcast)
    must(len(times) <= per_day, f"{len(times)} of {per_day} a day")
    ground.check_arrived(len(times), status.outcomes.get("delivered", 0))
    report.figures += [
        Figure(
            f"sends of a day of {per_day} ({per_minute} a minute, {rate}/s)",
            "",
            [len(times)],
            "target",
            [per_day],
            "all of them, none more",
        ).judge(lambda ratio: ratio == 1),
        Figure(
            "its fullest minute",
            "",
            [most_in(times, 60.0)],
            "target",
            [per_minute],
            "≤ target + 1 % + 1",
        ).judge_median(lambda sends: sends <= 1.01 * per_minute + 1),
        Figure(
            "its fullest second",
            "",
            [most_in(times, 1.0)],
            "target",
            [rate],
            "≤ target + 1 % + 1",
        ).judge_median(lambda sends: sends <= 1.01 * rate + 1),
    ]
    report.sums.append(f"{len(times):,} of a day's {per_day:,}, once each, the rest cancelled")


def average_of(times: Sequence[float], skip_s: float = 1.0) -> float:
    """Return arrivals per second from so long after the first until the last."""
    first = bisect_left(times, times[0] + skip_s)
    return (len(times) - 1 - first) / (times[-1] - times[first])


def most_in(times: Sequence[float], seconds: float) -> int:
    """Return the arrivals in the fullest window of so many seconds, its end excluded."""
    most = first = 0
    for place, at in enumerate(times, start=1):
        while times[first] <= at - seconds:
            first += 1
        most = max(most, place - first)
    return most


def between(times: Sequence[float], start: float, end: float) -> int:
    """Return the arrivals from a moment on and before another."""
    return bisect_left(times, end) - bisect_left(times, start)
