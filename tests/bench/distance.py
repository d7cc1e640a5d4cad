"""Distance: what is left of one unit when Redis is some milliseconds away, and how long one waits.

A proxy in a process of its own (`away`) lets each byte come half a round trip later, both ways;
WeChat is near. One and the same unit is measured at each distance in turn, over some rounds:
messages per second as WeChat saw them arrive, in the middle 80 %, beside the same unit at no
distance (through the same proxy, which then delays nothing). The round trips are those that a
client measures through it.

Idle, with the producer and the unit as far away: from the call of `create`, for one recipient,
until WeChat has the POST, in ms and in round trips; on one lane and on sixteen. The trips are those
of `create` alone, as the proxy counts them: a question after an answer.
"""

import contextlib
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from producers import store
from producers.broadcasts import Broadcasts
from tests.support.distance import Distance, away, through

from .figures import Figure, Report, must
from .ground import CORES, OTHERS, Ground, Told, openid, settings, spec, told
from .latency import arrival
from .scale import Scale
from .send import IN_FLIGHT, LATENCY_MS, measure, warm

RTTS_MS: Final = (1, 4, 20)
FAR_MS: Final = 20
LANES: Final = (1, 16)
RATE: Final = 300
MESSAGES: Final = {Scale.FULL: 10_000, Scale.QUICK: 8_000, Scale.TINY: 300}
ROUNDS: Final = {Scale.FULL: 5, Scale.QUICK: 3, Scale.TINY: 1}
_RNG: Final = random.Random(4)
SINGLES: Final = {Scale.FULL: 60, Scale.QUICK: 20, Scale.TINY: 2}


def run(ground: Ground, scale: Scale, profile: Path | None) -> Report:
    """Measure both; see the module."""
    report = Report("distance")
    _throughput(ground, report, MESSAGES[scale], ROUNDS[scale])
    for lanes in LANES:
        _idle(ground, report, lanes, SINGLES[scale])
    return report


@contextlib.contextmanager
def _away(ground: Ground) -> Iterator[tuple[Told, str]]:
    """Give a distance to the ground's Redis, and the URL through it."""
    with told("away", ground.redis_url, cores=OTHERS) as way:
        yield way, way.ask(rtt_ms=0)["url"]


def _rtt_ms(ground: Ground, url: str) -> float:
    """Measure the round trip of a client."""
    client = store.connect(settings(url, ground.wechat_url), connections=1)
    try:
        client.ping()
        taken = []
        for _ in range(20):
            began = time.perf_counter()
            client.ping()
            taken.append(1000 * (time.perf_counter() - began))
        return statistics.median(taken)
    finally:
        client.close()


def _throughput(ground: Ground, report: Report, messages: int, rounds: int) -> None:
    ground.use()
    ground.wechat.post("latency", {"median_ms": LATENCY_MS})
    ground.invite("everybody", messages)
    rates: dict[float, list[float]] = {rtt: [] for rtt in (0, *RTTS_MS)}
    measured: dict[float, float] = {}
    given = 0
    with _away(ground) as (way, url), ground.workers(WXB_REDIS_URL=url) as workers:
        warm(ground, 100, 2 * IN_FLIGHT)
        for _ in range(rounds):
            for rtt, found in rates.items():
                way.ask(rtt_ms=rtt)
                measured[rtt] = _rtt_ms(ground, url)
                given += 1
                found.append(measure(ground, workers, "everybody", messages, given).rate)
    for rtt in RTTS_MS:
        report.figures.append(
            Figure(
                f"messages/s of one unit, Redis {measured[rtt]:.1f} ms away",
                "/s",
                rates[rtt],
                f"{measured[0]:.1f} ms away",
                rates[0],
                "≥ 0.9 × that",
            ).judge(lambda ratio: ratio >= 0.9)
        )
    report.sums.append(
        f"{given} × {messages:,} delivered once each, by one unit at {len(rates)} distances"
    )


def _idle(ground: Ground, report: Report, lanes: int, singles: int) -> None:
    ground.use(app={"rate_per_second": RATE}, lanes=lanes)
    ground.wechat.post("latency", {"median_ms": LATENCY_MS})
    for user in range(1 + singles):
        ground.invite(f"single-{user}", 1, first=user)
    ground.give(1 + singles, 1)
    with (
        _away(ground) as (way, url),
        ground.workers(cores=CORES, WXB_REDIS_URL=url),
        away(ground.redis_url, FAR_MS) as mine,
    ):
        way.ask(rtt_ms=FAR_MS)
        far = settings(through(mine, ground.redis_url), ground.wechat_url, **ground.changes)
        client = store.connect(far)
        broadcasts = Broadcasts(client, far)
        _create(ground, broadcasts, mine, 0)  # connects, and loads what is loaded once
        found = [_create(ground, broadcasts, mine, user) for user in range(1, 1 + singles)]
        client.close()
        rtt_ms = _rtt_ms(ground, url)
    ground.check_arrived(1 + singles, 1 + singles)
    where = f"{lanes} lane{'s' if lanes > 1 else ''}, all {rtt_ms:.1f} ms away"
    most_ms = 5 * rtt_ms + 5
    report.figures += [
        Figure(
            f"idle: create → POST, p50, {where}",
            "ms",
            [statistics.median(ms for ms, _ in found)],
            "round trip",
            [rtt_ms],
            "≤ 5 round trips + 5 ms",
        ).judge_median(lambda ms: ms <= most_ms),
        Figure(f"trips of `create` itself, {where}", "", [trips for _, trips in found]),
    ]
    report.sums.append(f"{1 + singles} × one, on {lanes} lane(s), once each")


def _create(
    ground: Ground, broadcasts: Broadcasts, mine: Distance, user: int
) -> tuple[float, float]:
    """Create a broadcast for one; returns ms until its POST arrived, and the trips of `create`."""
    before, began = mine.trips, time.time()
    created = broadcasts.create(spec(f"single-{user}")).id
    trips = mine.trips - before
    took_ms = 1000 * (arrival(ground, openid(user)) - began)
    status = ground.finish(created)
    must(status.outcomes == {"delivered": 1}, f"not delivered: {status}")
    time.sleep(_RNG.uniform(0.02, 0.2))  # no rhythm of the worker's is to help
    return took_ms, trips
