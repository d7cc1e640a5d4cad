"""Memory: what each thing costs Redis and the processes, and how it grows with the audience.

For each size, on an empty Redis: permits are collected (so everybody is in `all` too), the same
users are imported as an audience of their own, and a broadcast reaches them all, by two workers
without a limit. What a thing costs is what Redis's own MEMORY USAGE says of its keys, name and
entry included, over the users; so neither doubling tables nor buffers are in it::

    audience member   all buckets of the audience
    stored permit     the keys of 2,000 users, of one form_id each
    outcome           all buckets of the outcomes
    queued message    the queue over its length, at its longest
    row               what is kept of one, over the bytes of its openid and its columns
    peak              the most that Redis used in all while sending, tables and buffers included

Resident memory: of the workers and of the splitting (it is the workers' own), after the first
tenth of the recipients and at the end; the same code in one process, so the growth is what counts.

WeChat answers at once (5 ms), with no msgid, as the subscribe API; with one, an outcome costs as
much again for a day.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from producers.broadcasts.spec import Spec
from producers.rows import Rows
from producers.store import keys
from producers.words import ENDED

from .cost import rss_mb
from .figures import Figure, Report, must
from .ground import APP, CORES, Ground, Workers, openid, spec
from .scale import Scale

USERS: Final = {
    Scale.FULL: (10_000, 100_000, 1_000_000),
    Scale.QUICK: (10_000, 40_000),
    Scale.TINY: (1_000,),
}
_GOAL_AT: Final = 1_000_000
"""The goals are meant for an audience that fills its buckets: about 64 members each."""
_ROWS_AT: Final = 200_000
"""The goal of rows is meant for so many or more."""
_SOME: Final = 2_000
_STANDSTILL_S: Final = 60.0


@dataclass
class Peaks:
    """What was seen while a broadcast ran.

    Attributes:
        total: bytes of Redis in all, at the most.
        queued: messages in the queue at the most.
        queue_bytes: bytes of the queue, when it was the longest.
        rss: (settled, megabytes of all workers), as time went by.
    """

    total: int = 0
    queued: int = 0
    queue_bytes: int = 0
    rss: list[tuple[int, float]] = field(default_factory=list)


def run(ground: Ground, scale: Scale, profile: Path | None) -> Report:
    """Measure each size; see the module."""
    report = Report("memory")
    for users in USERS[scale]:
        _measure(ground, report, users)
    return report


def _measure(ground: Ground, report: Report, users: int) -> None:
    ground.use()
    ground.wechat.post("latency", {"median_ms": 5})
    client, buckets = ground.client, range(ground.settings.buckets)
    ground.give(users, 1)
    ground.invite("everybody", users)
    some = min(users, _SOME)
    permit = _bytes(client, (keys.permits(0, APP, openid(user)) for user in range(some))) / some
    members = (keys.audience(0, APP, "everybody", bucket) for bucket in buckets)
    member = _bytes(client, members) / users
    row = _row(ground, users)
    with ground.workers(2, cores=CORES) as workers:
        before = _total(client)
        created = ground.broadcasts.create(spec("everybody")).id
        peaks = _watch(ground, workers, created, users)
        ground.check(ground.finish(created), users)
        pids = len(workers.pids)
    outcome = _bytes(client, (keys.outcomes(0, created, bucket) for bucket in buckets)) / users
    start = next(rss for settled, rss in peaks.rss if settled >= users // 10)
    end = peaks.rss[-1][1]

    def flat(megabytes: float) -> bool:
        return megabytes < 0.1 * start

    def slim(each: float) -> bool | None:
        return each <= 48 if users >= _GOAL_AT else None

    of = f"{users:,} users"
    slim_goal = "≤ 48 B" if users >= _GOAL_AT else ""
    large = users >= _ROWS_AT
    report.figures += [
        _goal(
            f"{of}: bytes of a row, of its openid and columns",
            "x",
            row,
            "≤ 1.25" if large else "",
            lambda times: times <= 1.25 if large else None,
        ),
        _goal(f"{of}: bytes per audience member", "B", member, slim_goal, slim),
        Figure(f"{of}: bytes per stored permit", "B", [permit]),
        _goal(f"{of}: bytes per outcome", "B", outcome, slim_goal, slim),
        Figure(
            f"{of}: bytes per queued message",
            "B",
            [peaks.queue_bytes / max(1, peaks.queued)],
            note=f"at most {peaks.queued:,} queued",
        ),
        Figure(f"{of}: Redis in all at its peak", "MB", [peaks.total / 2**20]),
        Figure(f"{of}: of that, over before the sending", "MB", [(peaks.total - before) / 2**20]),
        _goal(
            f"{of}: growth of two workers' memory from a tenth to the end",
            "MB",
            end - start,
            "flat (< 10 %)",
            flat,
            note=f"{end:.0f} MB of {pids} processes in all",
        ),
    ]
    report.sums.append(f"{users:,} delivered once each")


def _row(ground: Ground, users: int) -> float:
    """Return what a draft takes of Redis, over the bytes of its openids and columns."""
    said = Spec.checked(
        app=APP,
        channel="subscribe",
        template_id="T",
        data={"thing1": "{name}，连续签到 {days} 天"},
        rows=True,
    )
    names = ("张三", "欧阳娜娜", "李小四")
    rows = ((openid(user), names[user % 3], str(user % 400)) for user in range(users))
    raw = 0

    def read() -> Iterable[dict[str, str]]:
        nonlocal raw
        for one, name, days in rows:
            raw += len(one) + len(name.encode()) + len(days)
            yield {"openid": one, "name": name, "days": days}

    store = Rows(ground.client, ground.settings)
    draft = store.load(APP, said, read())
    lanes = ground.settings.layout.lanes
    taken = _bytes(ground.client, (keys.rows(lane, APP, draft.name) for lane in lanes))
    store.discard(APP, draft.name)
    return taken / raw


def _goal(
    what: str,
    unit: str,
    value: float,
    goal: str,
    good: Callable[[float], bool | None],
    note: str = "",
) -> Figure:
    return Figure(what, unit, [value], goal=goal, note=note).judge_median(good)


def _watch(ground: Ground, workers: Workers, broadcast: str, users: int) -> Peaks:
    """Look on until the broadcast has ended."""
    client, queue = ground.client, keys.queue(0, broadcast)
    peaks = Peaks()
    settled, deadline = -1, 0.0
    while True:
        status = ground.broadcasts.status(broadcast)
        peaks.total = max(peaks.total, _total(client))
        peaks.rss.append((status.settled, rss_mb(workers.pids)))
        queued = client.llen(queue)
        if queued > peaks.queued:
            peaks.queue_bytes = client.memory_usage(queue, samples=0) or 0
            peaks.queued = queued
        if status.state in ENDED and status.complete:
            return peaks
        if status.settled > settled:
            settled, deadline = status.settled, time.monotonic() + _STANDSTILL_S
        must(time.monotonic() < deadline, f"it stands still at {settled:,} of {users:,}")
        time.sleep(0.1 if users < 100_000 else 0.5)


def _bytes(client: Any, names: Iterable[str]) -> int:
    """Sum what Redis says that keys take, every element of each looked at."""
    pipeline = client.pipeline(transaction=False)
    for name in names:
        pipeline.memory_usage(name, samples=0)
    return sum(taken or 0 for taken in pipeline.execute())


def _total(client: Any) -> int:
    """Return all bytes that Redis uses."""
    return int(client.info("memory")["used_memory"])
