"""Collecting: permits per second from JSON lines, on one process.

What is timed is `Collector.collect_lines`, from lines in memory to the answer of Redis for the
last of them: parsed, checked, stored, added to the audience `all`, counted in stock and ledger,
and the report made. The collecting process has the measured core, Valkey the other; both are
needed, so the CPU of each per permit is in the table.

The baseline does only what cannot be left out: it parses each line and stores the permit by a bare
ZADD in a pipeline. Rounds alternate. Each round brings new permits of the same users; a last round
sends the same lines again, and all must be known.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import orjson

from producers.permits.collect import Collector
from producers.permits.ledger import totals

from . import stock
from .cost import cpu_s
from .figures import Figure, Report, must
from .ground import APP, MEASURED, TEMPLATE, Ground, form_id, on, openid
from .scale import Scale

USERS: Final = {Scale.FULL: 60_000, Scale.QUICK: 25_000, Scale.TINY: 500}
ROUNDS: Final = {Scale.FULL: 5, Scale.QUICK: 3, Scale.TINY: 1}


def run(ground: Ground, scale: Scale, profile: Path | None) -> Report:
    """Collect form_ids and subscriptions; see the module."""
    report = Report("collect")
    users, rounds = USERS[scale], ROUNDS[scale]
    ground.use()
    collector = ground.collector
    ours, bare, ours_us, redis_us = [], [], [], []
    lines: Sequence[bytes] = []
    for given in range(rounds):
        lines = _form_ids(users, given)
        bare.append(users / _timed(lambda lines=lines: _bare(ground, lines)))
        began, redis_began = cpu_s([os.getpid()]), ground.redis_cpu_s()
        ours.append(users / _timed(lambda lines=lines: _collect(collector, lines, users)))
        ours_us.append(1e6 * (cpu_s([os.getpid()]) - began) / users)
        redis_us.append(1e6 * (ground.redis_cpu_s() - redis_began) / users)
    again = collector.collect_lines(APP, lines)
    must(again.known == users and not again.new, f"the same lines again: {again}")
    phones = [_subscriptions(users, number) for number in range(rounds)]
    subscribed = [
        users / _timed(lambda lines=lines: _collect(collector, lines, users)) for lines in phones
    ]
    uses = totals(ground.client, ground.settings, APP).total
    must(
        uses.collected == uses.available == 2 * rounds * users,
        f"the ledger counts {uses} of {2 * rounds * users:,}",
    )
    report.figures += [
        Figure(
            "permits/s from JSON lines, form_ids",
            "/s",
            ours,
            "parse and ZADD",
            bare,
            "≥ 50,000/s",
        ).judge_median(lambda rate: rate >= 50_000),
        Figure("CPU of the collecting process per permit", "µs", ours_us),
        Figure("CPU of Valkey per permit", "µs", redis_us),
        Figure("permits/s from JSON lines, subscriptions", "/s", subscribed),
    ]
    report.sums.append(
        f"{rounds} × {users:,} form_ids and as many subscriptions new once each, the last form_ids "
        "known when they came again; the ledger agrees"
    )
    return report


def _timed(work: Callable[[], object]) -> float:
    """Do it on the measured core; return the seconds."""
    with on(MEASURED):
        began = time.perf_counter()
        work()
        return time.perf_counter() - began


def _collect(collector: Collector, lines: Sequence[bytes], users: int) -> None:
    report = collector.collect_lines(APP, lines)
    must(report.new == users, f"collected {report.new:,} of {users:,}")


def _bare(ground: Ground, lines: Sequence[bytes]) -> None:
    parsed = map(orjson.loads, lines)
    stock.give(ground.client, ((line["openid"], line["formIds"][0]["formId"]) for line in parsed))


def _form_ids(users: int, given: int) -> list[bytes]:
    expires_at_ms = (int(time.time()) + 6 * 86_400) * 1000
    return [
        b'{"openid":"%b","formIds":[{"formId":"%b","expire":%d}]}'
        % (openid(user).encode(), form_id(user, given).encode(), expires_at_ms)
        for user in range(users)
    ]


def _subscriptions(users: int, number: int) -> list[bytes]:
    return [
        b'{"openid":"%b","subscriptions":{"%b":"accept"},"id":"%d"}'
        % (openid(user).encode(), TEMPLATE.encode(), number)
        for user in range(users)
    ]
