"""Report: how fast log lines are added up, and in how much memory.

The lines are those of sends, of many broadcasts and users, in one file. The command is a process of
its own on all cores, as its user runs it; the baseline only counts the lines of the same file
(``wc -l``). The memory is the process's largest, at two sizes: it must not grow with the file.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import orjson

from .figures import Figure, Report, must
from .ground import Ground
from .scale import Scale

LINES: Final = {Scale.FULL: 10_000_000, Scale.QUICK: 1_000_000, Scale.TINY: 2_000}
_BLOCK: Final = 20_000
_GOAL_S: Final = 60.0
_FEW: Final = 10


def run(ground: Ground, scale: Scale, profile: Path | None) -> Report:
    """Add up a file of so many lines; see the module."""
    report = Report("report")
    lines = LINES[scale]
    folder = ground.folder
    sizes = (lines // _FEW, lines)
    took, counted, megabytes = {}, {}, {}
    for number in sizes:
        log = folder / f"{number}.jsonl"
        _write(log, number)
        started = time.monotonic()
        subprocess.run(["wc", "-l", log], check=True, stdout=subprocess.DEVNULL)
        counted[number] = time.monotonic() - started
        took[number], megabytes[number], found = _report(log)
        outcomes = found["outcomes"]["shop"]
        must(sum(outcomes.values()) == found["lines"] == number, f"{outcomes} of {number:,} lines")
        log.unlink()
    report.figures += [
        Figure(
            f"report of {lines:,} lines",
            "s",
            [took[lines]],
            "wc -l",
            [counted[lines]],
            goal=f"≤ {_GOAL_S:.0f} s for 10,000,000",
            note=f"{lines / took[lines]:,.0f} lines/s",
        ).judge_median(lambda s: s <= _GOAL_S if scale is Scale.FULL else None),
        Figure(
            f"its memory at {lines:,} lines",
            "MB",
            [megabytes[lines]],
            f"at {sizes[0]:,}",
            [megabytes[sizes[0]]],
        ),
    ]
    return report


def _report(log: Path) -> tuple[float, float, dict[str, Any]]:
    """Run the command; returns seconds, megabytes at the most, and what it found."""
    started = time.monotonic()
    command = [sys.executable, "-m", "producers.cli", "report", str(log), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    must(process.returncode == 0, f"the report ended with {process.returncode}")
    return time.monotonic() - started, usage.ru_maxrss / 1024, orjson.loads(out.splitlines()[-1])


def _write(path: Path, number: int) -> None:
    """Write the lines of an evening: blocks of sends, each at a time of its own."""
    chance = random.Random(7)
    block = []
    for user in range(_BLOCK):
        refused = user % 20 == 0
        line = {
            "app": "shop",
            "broadcast": f"1a2129a9b1c0b1f2e3d4{user % 8}",
            "lane": 0,
            "openid": f"oABCDEFGHIJKLMNOPQRST{user:07d}",
            "attempt": 1,
            "action": "settled",
            "outcome": "refused" if refused else "delivered",
            "errcode": 43101 if refused else 0,
            "errmsg": "user refuse to accept the msg" if refused else "ok",
            "rid": "5f3c3a2e-1a2b3c4d-5e6f7a8b" if refused else "",
            "msgid": str(10**9 + user),
            "permit_kind": "form_id",
            "resumed": False,
            "latency_ms": round(chance.lognormvariate(3.9, 0.4), 3),
            "sample": 1.0,
            "event": "message_settled",
            "level": "info",
            "schema": 1,
            "process": f"worker-{user % 4}",
            "time": "2026-12-01T@@:@@:@@.000+00:00",
        }
        block.append(orjson.dumps(line) + b"\n")
    with path.open("wb") as file:
        for place in range(0, number, _BLOCK):
            second = place // _BLOCK
            at = b"%02d:%02d:%02d" % (second // 3600 % 24, second // 60 % 60, second % 60)
            some = block[: min(_BLOCK, number - place)]
            file.write(b"".join(some).replace(b"@@:@@:@@", at))
