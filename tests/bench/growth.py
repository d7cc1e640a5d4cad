"""Growth: more lanes for a deployment that sends.

A unit sends a broadcast at a rate, to users with a form_id each; then 16 lanes are divided into 64.
What is sent meanwhile stands beside what was sent before, of the same broadcast and worker; how
long a lane stood still at the most is what the command says. Then the same of more users, at rest.
"""

import time
from pathlib import Path
from typing import Final

from producers import store
from producers.care.audit import Auditor
from producers.relaning import Relaned, Relaner
from producers.store.lanes.layout import follow

from .figures import Figure, Report, must
from .ground import Ground, spec
from .scale import Scale

USERS: Final = {Scale.FULL: 200_000, Scale.QUICK: 50_000, Scale.TINY: 600}
RATE: Final = {Scale.FULL: 2000, Scale.QUICK: 1500, Scale.TINY: 100}
BEFORE_S: Final = {Scale.FULL: 10.0, Scale.QUICK: 4.0, Scale.TINY: 1.0}
AT_REST: Final = {Scale.FULL: 1_000_000, Scale.QUICK: 100_000, Scale.TINY: 1000}
FEWER, MORE = 16, 64


def run(ground: Ground, scale: Scale, profile: Path | None) -> Report:
    """Measure it all; see the module."""
    report = Report("growth")
    users = USERS[scale]
    ground.use(lanes=FEWER, app={"rate_per_second": RATE[scale]})
    ground.wechat.post("latency", {"median_ms": 50})
    ground.give(users, 1)
    with ground.workers():
        broadcast = ground.broadcasts.create(spec()).id
        deadline = time.monotonic() + 30
        while not ground.wechat.get("stats")["accepted"]:
            must(time.monotonic() < deadline, "nobody was sent the first message")
            time.sleep(0.05)
        began = time.time()
        time.sleep(BEFORE_S[scale])
        changed = time.time()
        done = _divided(ground)
        ended = time.time()
        follow(ground.client, ground.settings)
        ground.check(ground.finish(broadcast), users)
    arrivals = ground.arrivals()
    before = sum(began <= at < changed for at in arrivals) / (changed - began)
    amid = sum(changed <= at < ended for at in arrivals) / (ended - changed)
    last = arrivals[-1]
    must(scale is Scale.TINY or last > ended, "all was sent before the lanes were divided")
    wrong = Auditor(ground.client, ground.settings).run().wrong
    must(not wrong, f"the audit says {wrong}")
    report.figures += [
        Figure(
            f"sends/s while {FEWER} lanes become {MORE}",
            "/s",
            [amid],
            "before",
            [before],
            "≥ 0.95 ×",
        ).judge(lambda ratio: ratio >= 0.95),
        Figure("a lane that stood still, the longest", "s", [done.standstill_s]),
        Figure("all lanes", "s", [done.took_s]),
    ]
    report.sums.append(f"{users:,} delivered once each, {done.keys:,} keys went to other lanes")
    users = AT_REST[scale]
    ground.use(lanes=FEWER)
    ground.give(users, 1)
    done = _divided(ground)
    report.figures += [
        Figure(f"{users:,} users at rest: a lane, the longest", "s", [done.standstill_s]),
        Figure(f"{users:,} users at rest: all lanes", "s", [done.took_s]),
    ]
    return report


def _divided(ground: Ground) -> Relaned:
    free = store.connect(ground.settings, fenced=False)
    try:
        return Relaner(free, ground.settings).run(MORE)
    finally:
        free.connection_pool.disconnect()
