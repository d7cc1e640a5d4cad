"""``python -m tests.bench``: runs the benchmarks, prints one table, and can write JSON.

Exit code 0 when every sum is right, whatever the figures; 1 when one is wrong.
"""

import argparse
import importlib
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import orjson

from producers import logs

from .figures import Report, WrongSumError, show
from .ground import CORES, laid
from .scale import Scale

NAMES: Final = (
    "send",
    "split",
    "limiter",
    "latency",
    "distance",
    "replicas",
    "topologies",
    "lanes",
    "growth",
    "memory",
    "collect",
    "web",
    "idle",
    "report",
    "expiry",
    "metered",
    "tls",
)


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--quick",
        dest="scale",
        action="store_const",
        const=Scale.QUICK,
        default=Scale.FULL,
        help="about 4 minutes; full: about 20",
    )
    parser.add_argument(
        "--tiny",
        dest="scale",
        action="store_const",
        const=Scale.TINY,
        help="only to see that it runs: CI's smoke test",
    )
    parser.add_argument(
        "--only", action="append", choices=NAMES, help="this benchmark; may be given again"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument(
        "--profile", type=Path, metavar="DIR", help="py-spy profiles of the send path (py-spy)"
    )
    asked = parser.parse_args()
    if asked.profile:
        asked.profile.mkdir(parents=True, exist_ok=True)
    logs.silence()  # this process's own; the workers write theirs
    reports: list[Report] = []
    began = time.monotonic()
    wrong: list[str] = []
    for name in asked.only or NAMES:
        module = importlib.import_module(f".{name}", __package__)
        sys.stderr.write(f"{name} …\n")
        started = time.monotonic()
        try:
            with (
                tempfile.TemporaryDirectory(prefix="wxb-bench-") as folder,
                laid(Path(folder)) as ground,
            ):
                report: Report = module.run(ground, asked.scale, asked.profile)
        except WrongSumError as error:
            wrong.append(f"{name}: WRONG: {error}")
            continue
        report.seconds = time.monotonic() - started
        sys.stderr.write(f"{name}: {report.seconds:.0f} s\n")
        reports.append(report)
    title = "tests.bench: medians over rounds, baselines of the same run"
    if asked.scale is Scale.TINY:
        title = "tests.bench --tiny: too little to measure anything"
    show(reports, sys.stdout, title)
    if asked.json:
        document = {
            "scale": asked.scale,
            "seconds": round(time.monotonic() - began, 1),
            "cores": len(CORES),
            "load_1m": round(os.getloadavg()[0], 2),
            "python": platform.python_version(),
            "wrong": wrong,
            "benchmarks": [report.as_dict() for report in reports],
        }
        asked.json.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    for sentence in wrong:
        sys.stderr.write(sentence + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
