"""What TLS to WeChat costs: a worker and the floor by https and by http, in one run.

The rounds of `send`, four ways in turn: the floor and a worker, each by http and by https, on the
measured core. Each round comes just after one that opened the connections: handshakes are not in
it. What TLS itself costs any sender is the floor's difference;
what it costs this system more than that is the ratio of the two ratios.
"""

import statistics
from pathlib import Path
from typing import Final

from .figures import Figure, Report
from .ground import Ground, Told, told
from .profiled import profiled
from .scale import Scale
from .send import IN_FLIGHT, LATENCY_MS, Run, bare, measure, warm

SIZES: Final = {Scale.FULL: (4, 3, 10_000), Scale.QUICK: (2, 3, 6_000), Scale.TINY: (1, 1, 300)}
"""Times that each way is started anew, its rounds, messages of a round."""

_HTTP: Final = "http"
_HTTPS: Final = "https"


def run(ground: Ground, scale: Scale, profile: Path | None) -> Report:
    """Run it all; see the module."""
    times, rounds, messages = SIZES[scale]
    report = Report("tls")
    found: dict[tuple[str, str], list[Run]] = {}
    ground.use()
    ground.wechat.post("latency", {"median_ms": LATENCY_MS})
    ground.invite("everybody", messages)
    ways = {
        _HTTP: {"WXB_WECHAT_URL": ground.wechat_url},
        _HTTPS: {"WXB_WECHAT_URL": ground.tls_url, "WXB_EGRESS_CA_FILE": str(ground.ca_file)},
    }
    given = 0
    with (
        told("floor", ground.wechat_url) as plain,
        told("floor", ground.tls_url, str(ground.ca_file)) as secure,
    ):
        floors: dict[str, Told] = {_HTTP: plain, _HTTPS: secure}
        for number in range(times):
            for way in sorted(ways, reverse=bool(number % 2)):
                with ground.workers(**ways[way]) as workers:
                    for _ in range(rounds):
                        given += 1
                        warm(ground, given, 2 * IN_FLIGHT)
                        given += 1
                        one = measure(ground, workers, "everybody", messages, given)
                        other = bare(ground, floors[way], messages, given)
                        found.setdefault(("ours", way), []).append(one)
                        found.setdefault(("floor", way), []).append(other)
                    if profile and number == 0:
                        with profiled(
                            workers.busy_pids[0], profile / f"tls-{way}.raw", native=True
                        ):
                            for _ in range(3):
                                given += 1
                                measure(ground, workers, "everybody", messages, given)
    us = {who: [one.us for one in runs] for who, runs in found.items()}
    rate = {who: [one.rate for one in runs] for who, runs in found.items()}
    dearer = {
        who: statistics.median(us[who, _HTTPS]) / statistics.median(us[who, _HTTP])
        for who in ("ours", "floor")
    }
    report.figures += [
        Figure(
            f"worker CPU per delivered message by {way}",
            "µs",
            us["ours", way],
            f"floor by {way}",
            us["floor", way],
        )
        for way in ways
    ]
    report.figures += [
        Figure("worker CPU by https / by http", "×", [dearer["ours"]]),
        Figure(
            "the same over the floor's",
            "×",
            [dearer["ours"]],
            "floor by https / by http",
            [dearer["floor"]],
            "≤ 1.1 ×",
        ).judge(lambda ratio: ratio <= 1.1),
        Figure(
            "messages/s of one worker process by https",
            "/s",
            rate["ours", _HTTPS],
            "floor by https",
            rate["floor", _HTTPS],
        ),
    ]
    report.sums.append(f"{4 * times * rounds} × {messages:,} delivered once each")
    return report
