"""Latency: how long from the call of `create` until WeChat has the POST.

Idle: one worker, an app at 300/s, and one broadcast of a single recipient after the other, each
after the last one has finished and a pause of random length, so that no rhythm of the worker's
helps. The same with single messages (`Messages.post`). Both ends are read from one machine's clock:
when the call began, and when the whole request had arrived at WeChat.

Beside a broadcast to a great many at 300/s, of the same app: a broadcast of 100 is created, and
its first and its last arrival are noted. Only the great one's first recipients have permits; it is
cancelled in the end.
"""

import random
import time
from pathlib import Path
from statistics import quantiles
from typing import Final

from producers.broadcasts.messages import Messages
from producers.store import keys

from .figures import Figure, Report, must
from .ground import APP, CORES, TEMPLATE, Ground, form_id, openid, spec
from .scale import Scale

SINGLES: Final = {Scale.FULL: 120, Scale.QUICK: 25, Scale.TINY: 3}
GREAT: Final = {Scale.FULL: 1_000_000, Scale.QUICK: 50_000, Scale.TINY: 12_000}
ROUNDS: Final = {Scale.FULL: 3, Scale.QUICK: 1, Scale.TINY: 1}
SMALL: Final = 100
RATE: Final = 300
_UNTIL_S: Final = 30.0


def run(ground: Ground, scale: Scale, profile: Path | None) -> Report:
    """Measure both; see the module."""
    report = Report("latency")
    _idle(ground, report, SINGLES[scale])
    _beside(ground, report, GREAT[scale], ROUNDS[scale])
    return report


def _idle(ground: Ground, report: Report, singles: int) -> None:
    ground.use(app={"rate_per_second": RATE})
    ground.wechat.post("latency", {"median_ms": 50})
    for user in range(singles):
        ground.invite(f"single-{user}", 1, first=user)
    ground.give(singles, 1)
    ground.give(singles, 2, group="MSG")
    rng = random.Random(4)
    messages = Messages(ground.client, ground.settings)
    by_broadcast, by_message = list[float](), list[float]()
    with ground.workers(cores=CORES):
        for user in range(singles):
            began = time.time()
            created = ground.broadcasts.create(spec(f"single-{user}")).id
            by_broadcast.append(1000 * (arrival(ground, openid(user)) - began))
            status = ground.finish(created)
            must(status.outcomes == {"delivered": 1}, f"not delivered: {status}")
            time.sleep(rng.uniform(0.02, 0.2))
            began = time.time()
            one = openid(user, "MSG")
            posted = messages.post(
                app=APP,
                channel="template",
                template_id=TEMPLATE,
                openid=one,
                data=spec().data,
                page=spec().page,
            ).id
            by_message.append(1000 * (arrival(ground, one) - began))
            _ended(messages, posted)
            time.sleep(rng.uniform(0.02, 0.2))
    ground.check_arrived(2 * singles, 2 * singles)
    for name, taken in (("one broadcast of one", by_broadcast), ("single message", by_message)):
        cuts = quantiles(taken, n=100)
        report.figures += [
            Figure(
                f"{name}, idle: create → POST, p50", "ms", [cuts[49]], goal="≤ 20 ms"
            ).judge_median(lambda ms: ms <= 20),
            Figure(
                f"{name}, idle: create → POST, p99", "ms", [cuts[98]], goal="≤ 100 ms"
            ).judge_median(lambda ms: ms <= 100),
        ]
    report.sums.append(f"{singles:,} broadcasts of one, and as many single messages, once each")


def arrival(ground: Ground, one: str) -> float:
    """Wait until WeChat has a send to an openid; returns when it came, epoch seconds."""
    deadline = time.monotonic() + _UNTIL_S
    while not (found := ground.arrivals(one)):
        must(time.monotonic() < deadline, f"{one} was never sent to")
        time.sleep(0.005)
    return found[0]


def _ended(messages: Messages, posted: str) -> None:
    deadline = time.monotonic() + _UNTIL_S
    while (status := messages.show(posted)).state != "ended":
        must(time.monotonic() < deadline, f"it never ended: {status}")
        time.sleep(0.005)
    must(status.outcome == "delivered", f"not delivered: {status}")


def _beside(ground: Ground, report: Report, great: int, rounds: int) -> None:
    ground.use(app={"rate_per_second": RATE})
    ground.wechat.post("latency", {"median_ms": 50})
    ground.invite("great", great)
    _give_first(ground, great, 40 * RATE * rounds)
    first, last = [], []
    with ground.workers(2, cores=CORES):
        running = ground.broadcasts.create(spec("great")).id
        time.sleep(2)
        for number in range(rounds):
            group = f"SMALL{number}"
            ground.invite(group, SMALL, group=group)
            ground.give(SMALL, 10 + number, group=group)
            began = time.time()
            created = ground.broadcasts.create(spec(group)).id
            status = ground.finish(created)
            must(status.outcomes == {"delivered": SMALL}, f"not delivered: {status}")
            times = ground.arrivals(f"o{group}")
            must(len(times) == SMALL, f"{len(times)} of {SMALL} arrived")
            first.append(times[0] - began)
            last.append(times[-1] - began)
        ground.broadcasts.cancel(running)
        ended = ground.finish(running)
    delivered = ended.outcomes.get("delivered", 0)
    must(set(ended.outcomes) <= {"delivered", "cancelled"}, f"outcomes: {ended.outcomes}")
    must(sum(ended.outcomes.values()) == great, f"{ended.outcomes} of {great:,}")
    ground.check_arrived(delivered + rounds * SMALL, delivered + rounds * SMALL)
    name = f"broadcast of {SMALL} beside one of {great:,} at {RATE}/s"
    report.figures += [
        Figure(f"{name}: first POST", "s", first, goal="≤ 2 s").judge_all(lambda s: s <= 2),
        Figure("its last POST", "s", last, goal="≤ 10 s").judge_all(lambda s: s <= 10),
    ]
    report.sums.append(
        f"{rounds} × {SMALL} delivered beside {delivered:,}; of {great:,} the rest cancelled"
    )


def _give_first(ground: Ground, users: int, sends: int) -> None:
    """Give permits to whoever is split first, enough for so many sends."""
    buckets = ground.settings.buckets
    until = min(buckets, -(-sends * buckets // users))
    some = [user for user in range(users) if keys.bucket_of(openid(user), buckets) < until]
    lines = (
        b'{"openid":"%b","formId":"%b"}' % (openid(user).encode(), form_id(user, 1).encode())
        for user in some
    )
    report = ground.collector.collect_lines(APP, lines)
    must(report.new == len(some), f"collected {report.new:,} of {len(some):,}")
