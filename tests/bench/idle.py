"""Idle: what a worker costs that has nothing to send, and what many idle apps cost a busy one.

Three scenes, one worker each, after it has settled down: broadcasts that run and wait for their own
slow rate; hundreds of apps on 16 lanes, each with an idle carrier of single messages or nothing at
all; and one busy app, alone and beside idle ones. Redis's calls are those that clients sent in the
window, as MONITOR shows them: what a script runs within itself is not a trip.
"""

import time
from pathlib import Path
from typing import Any, Final

from producers.broadcasts.messages import Messages

from .cost import cpu_s
from .figures import Figure, Report, must
from .ground import APP, TEMPLATE, Ground, openid, spec
from .scale import Scale

WAITING: Final = {Scale.FULL: 2000, Scale.QUICK: 2000, Scale.TINY: 20}
APPS: Final = {Scale.FULL: 500, Scale.QUICK: 500, Scale.TINY: 5}
BESIDE: Final = {Scale.FULL: 200, Scale.QUICK: 200, Scale.TINY: 5}
BUSY: Final = {Scale.FULL: 100_000, Scale.QUICK: 30_000, Scale.TINY: 500}
WINDOW_S: Final = {Scale.FULL: 20.0, Scale.QUICK: 10.0, Scale.TINY: 1.0}
SETTLE_S: Final = {Scale.FULL: 60.0, Scale.QUICK: 45.0, Scale.TINY: 1.0}
BEGUN: Final = {Scale.FULL: 0.9, Scale.QUICK: 0.9, Scale.TINY: 0.5}
"""How many of these have sent their first message before. On a busy machine some miss their slot,
and wait a quarter of an hour with two."""
LANES: Final = 16
SLOW: Final = 0.001
"""Sends a second of a broadcast that waits: one in a quarter of an hour."""


def run(ground: Ground, scale: Scale, profile: Path | None) -> Report:
    """Measure all three; see the module."""
    report = Report("idle")
    _waiting(ground, report, scale)
    _lanes(ground, report, scale)
    _beside(ground, report, scale)
    return report


def _waiting(ground: Ground, report: Report, scale: Scale) -> None:
    """Broadcasts that run, and of which the next message may be sent in minutes."""
    count = WAITING[scale]
    ground.use(app={"rate_per_second": 200})  # so that their first messages have a slot each
    ground.give(2 * count, 1)
    for number in range(count):
        ground.invite(f"a{number}", 2, first=2 * number)
        ground.broadcasts.create(spec(f"a{number}", rate=SLOW))
    with ground.workers() as workers:
        deadline = time.monotonic() + 60
        while (sent := ground.wechat.get("stats")["accepted"]) < BEGUN[scale] * count:
            must(time.monotonic() < deadline, f"only {sent:,} of them sent their first message")
            time.sleep(0.2)
        _judge(report, f"{count:,} broadcasts that wait", *cost(ground, workers, scale))
    report.sums.append(f"{sent:,} of {count:,} broadcasts sent one message; the others wait")


def _lanes(ground: Ground, report: Report, scale: Scale) -> None:
    """Apps with nothing to send, on many lanes."""
    ground.use(lanes=LANES)
    apps = _apps(ground, APPS[scale])
    ground.use(lanes=LANES, apps=apps)
    with ground.workers() as workers:
        name = f"{len(apps):,} idle apps on {LANES} lanes"
        _judge(report, name, *cost(ground, workers, scale))


def _beside(ground: Ground, report: Report, scale: Scale) -> None:
    """One busy app alone, and beside idle ones that each sent a single message today."""
    users = BUSY[scale]
    rates: dict[bool, float] = {}
    for beside in (False, True):
        ground.use()
        apps = _apps(ground, BESIDE[scale] if beside else 0)
        ground.use(apps=apps)
        ground.wechat.post("latency", {"median_ms": 50})
        ground.give(users, 1)
        messages = Messages(ground.client, ground.settings)
        with ground.workers():
            for alias in apps:
                if alias != APP:
                    messages.post(
                        app=alias,
                        channel="template",
                        template_id=TEMPLATE,
                        openid=openid(0),
                        data=spec().data,
                    )
            time.sleep(10)  # until every app has its token, and its message is through
            began = time.monotonic()
            status = ground.finish(ground.broadcasts.create(spec()).id)
            rates[beside] = users / (time.monotonic() - began)
        must(status.outcomes == {"delivered": users}, f"not all delivered: {status.outcomes}")
    figure = Figure(
        f"busy app beside {BESIDE[scale]} idle ones",
        "msg/s",
        [rates[True]],
        "alone",
        [rates[False]],
        goal="≥ 0.95 ×",
    )
    report.figures.append(figure.judge(lambda ratio: ratio >= 0.95))
    report.sums.append(f"2 × {users:,} delivered once each")


def _apps(ground: Ground, idle: int) -> dict[str, Any]:
    """Return settings of the busy app and of idle ones, all of the one WeChat."""
    secret, rate = ground.settings.app(APP).secret.get_secret_value(), 0
    busy = {"appid": ground.settings.app(APP).appid, "secret": secret, "rate_per_second": rate}
    others = {f"idle{n}": {**busy, "appid": f"wx{n:016x}"} for n in range(idle)}
    return {APP: busy} | others


def cost(ground: Ground, workers: Any, scale: Scale) -> tuple[float, float]:
    """Return the share of a core and the calls a second of an idle worker."""
    time.sleep(SETTLE_S[scale])  # until its first looks at everything are over
    calls = 0
    with ground.client.monitor() as monitor:
        before, began = cpu_s(workers.busy_pids), time.monotonic()
        while (passed := time.monotonic() - began) < WINDOW_S[scale]:
            ground.client.echo("tick")
            while (command := monitor.next_command())["command"] != "ECHO tick":
                calls += command["client_type"] != "lua"
            time.sleep(0.05)
        used = cpu_s(workers.busy_pids) - before
    return used / passed, calls / passed


def _judge(report: Report, name: str, share: float, calls: float) -> None:
    report.figures += [
        Figure(f"{name}: core", "%", [100 * share], goal="< 10 %").judge_median(lambda s: s < 10),
        Figure(f"{name}: Redis", "calls/s", [calls], goal="< 50 /s").judge_median(lambda n: n < 50),
    ]
