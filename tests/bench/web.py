"""Collecting over HTTP: requests/s of single permits, permits/s in bulk, latency at half load.

One process of the service, started by the Procfile's command, has the measured core; Valkey (with
its append-only file) and the load share the other. Everything is on: the key and its rate, the
checks, the trip to Redis, one log line per request through a pipe to a file. Every permit is a new
one, and in the end all that were answered as new must be in the ledger, no more and no fewer.

The baseline is aiohttp alone (`web_floor`): it reads, parses, and answers. Rounds alternate.

The load shares its core with Valkey, which bounds what can be shown: the CPU of the service per
request, printed beside, says what a core of its own would serve.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import orjson

from producers.access.api_keys import ApiKeys
from producers.local import procfile
from producers.local.isolation import environment
from producers.permits.ledger import totals

from . import web_load
from .figures import Figure, Report, must
from .ground import APP, MEASURED, Ground, Workers, fields, form_id, openid, told
from .profiled import profiled
from .scale import Scale

PATH: Final = f"/v1/apps/{APP}/permits"
REQUESTS: Final = {Scale.FULL: 20_000, Scale.QUICK: 8_000, Scale.TINY: 200}
BULK: Final = {Scale.FULL: 200_000, Scale.QUICK: 50_000, Scale.TINY: 2_000}
ROUNDS: Final = {Scale.FULL: 3, Scale.QUICK: 2, Scale.TINY: 1}
CONNECTIONS: Final = 64
PER_REQUEST: Final = 1_000
"""Permits of one bulk request: about 100 KB."""
_START_S: Final = 30.0


class _Permits:
    """Permits that nobody gave before."""

    def __init__(self) -> None:
        self.given = 0
        self._expires_at_ms = (int(time.time()) + 6 * 86_400) * 1000

    def take(self, count: int) -> Iterator[bytes]:
        """Yield uploads of one permit each."""
        for number in range(self.given, self.given + count):
            user, form = openid(number % 100_000).encode(), form_id(number, 1).encode()
            yield b'{"openid":"%b","formIds":[{"formId":"%b","expire":%d}]}' % (
                user,
                form,
                self._expires_at_ms,
            )
        self.given += count

    def arrays(self, count: int) -> Iterator[bytes]:
        """Yield uploads, so many in one JSON array."""
        for _ in range(count // PER_REQUEST):
            yield b"[" + b",".join(self.take(PER_REQUEST)) + b"]"


def run(ground: Ground, scale: Scale, profile: Path | None) -> Report:
    """Send it all; see the module."""
    report = Report("web")
    ground.use(buckets=1024)
    key = ApiKeys(ground.client, ground.settings).create("bench", [APP], ["collect"], 1_000_000)
    env = environment(fields(ground.redis_url, ground.wechat_url, **ground.changes))
    command = procfile.read()["web"]
    permits = _Permits()
    with (
        told("web_floor") as floor,
        ground.units(command, 1, MEASURED, env | {"WXB_WEB_PORT": "0"}) as service,
    ):
        port = _port(service)
        if profile:
            with profiled(service.busy_pids[0], profile / "web.raw"):
                _single(port, key.token, permits, REQUESTS[scale])
        rate = _singles(report, scale, service, port, floor.ask()["port"], key.token, permits)
        _bulk(report, scale, ground, service, port, key.token, permits)
        _half(report, scale, port, key.token, permits, rate / 2)
    uses = totals(ground.client, ground.settings, APP).total
    must(
        uses.collected == permits.given,
        f"answered as new {permits.given:,}, in the ledger {uses}",
    )
    report.sums.append(
        f"{permits.given:,} permits over HTTP, each answered as new once and in the ledger once"
    )
    return report


def _singles(
    report: Report,
    scale: Scale,
    service: Workers,
    port: int,
    floor_port: int,
    token: str,
    permits: _Permits,
) -> float:
    """Compare with the floor; return the requests per second."""
    count = REQUESTS[scale]
    ours, bare, us = [], [], []
    for _ in range(ROUNDS[scale]):
        bodies = [web_load.request("/", body) for body in _Permits().take(count)]
        bare.append(count / web_load.full(floor_port, bodies, CONNECTIONS).seconds)
        began = service.cpu_s()
        ours.append(count / _single(port, token, permits, count))
        us.append(1e6 * (service.cpu_s() - began) / count)
    singles = Figure(
        f"requests/s of one permit, {CONNECTIONS} connections, one process",
        "/s",
        ours,
        "aiohttp alone",
        bare,
        "≥ 3,000/s",
    ).judge_median(lambda rate: rate >= 3000)
    report.figures += [singles, Figure("CPU of the service per request", "µs", us)]
    return singles.median


def _single(port: int, token: str, permits: _Permits, count: int) -> float:
    requests = [web_load.request(PATH, body, token) for body in permits.take(count)]
    load = web_load.full(port, requests, CONNECTIONS)
    must(load.new == count, f"{load.new:,} of {count:,} single permits were new")
    return load.seconds


def _bulk(
    report: Report,
    scale: Scale,
    ground: Ground,
    service: Workers,
    port: int,
    token: str,
    permits: _Permits,
) -> None:
    count = BULK[scale]
    arrays, streams, us, redis_us = [], [], [], []
    for _ in range(ROUNDS[scale]):
        began, redis_began = service.cpu_s(), ground.redis_cpu_s()
        requests = [web_load.request(PATH, body, token) for body in permits.arrays(count)]
        load = web_load.full(port, requests, 4)
        must(load.new == count, f"{load.new:,} of {count:,} permits in bulk were new")
        arrays.append(count / load.seconds)
        lines = [b"\n".join(permits.take(count // 2)) for _ in range(2)]
        requests = [web_load.request(PATH, body, token, "application/x-ndjson") for body in lines]
        load = web_load.full(port, requests, 2)
        must(load.new == count, f"{load.new:,} of {count:,} streamed permits were new")
        streams.append(count / load.seconds)
        us.append(1e6 * (service.cpu_s() - began) / (2 * count))
        redis_us.append(1e6 * (ground.redis_cpu_s() - redis_began) / (2 * count))
    report.figures += [
        Figure(
            f"permits/s in JSON arrays of {PER_REQUEST:,}", "/s", arrays, goal="≥ 30,000/s"
        ).judge_median(lambda rate: rate >= 30_000),
        Figure("permits/s in two NDJSON streams", "/s", streams, goal="≥ 30,000/s").judge_median(
            lambda rate: rate >= 30_000
        ),
        Figure("CPU of the service per permit in bulk", "µs", us),
        Figure("CPU of Valkey per permit in bulk", "µs", redis_us),
    ]


def _half(
    report: Report, scale: Scale, port: int, token: str, permits: _Permits, rate: float
) -> None:
    count = REQUESTS[scale]
    middle, high = [], []
    for _ in range(ROUNDS[scale]):
        requests = [web_load.request(PATH, body, token) for body in permits.take(count)]
        load = web_load.even(port, requests, 4 * CONNECTIONS, rate)
        must(load.new == count, f"{load.new:,} of {count:,} permits at half load were new")
        middle.append(load.percentile(0.5))
        high.append(load.percentile(0.99))
    report.figures += [
        Figure(f"latency at half load ({rate:,.0f}/s), p50", "ms", middle),
        Figure(
            f"latency at half load ({rate:,.0f}/s), p99", "ms", high, goal="< 50 ms"
        ).judge_median(lambda value: value < 50),
    ]


def _port(service: Workers) -> int:
    """Wait until the service listens, and return where."""
    deadline = time.monotonic() + _START_S
    while True:
        must(time.monotonic() < deadline, f"the service did not start: {service.tail()}")
        for line in service.read().splitlines():
            if line.startswith(b"{") and line.endswith(b"}"):
                event = orjson.loads(line)
                if event["event"] == "web_started":
                    return int(event["port"])
        time.sleep(0.05)
