"""Where a process spends its time: py-spy's samples, summed by library (``--profile DIR``).

Only the thread that holds the GIL is sampled: the others wait, and a worker's CPU is bound by the
GIL. What runs without it (system calls, mostly `send`, `recv` and `epoll_wait` of the loop) is in
the second table, user and system seconds of each thread by the kernel's count. py-spy stops the
process at each sample, so a profiled round gives no figure.
"""

import contextlib
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_HZ: Final = 250
_FRAME: Final = re.compile(r"^(?P<what>.*) \((?P<file>[^()]*?)(?::(?P<line>\d+))?\)$")
_AREAS: Final = (
    ("garbage collector", ("gc_collect_main", "gc_collect_with_callback")),
    ("logs: head, JSON, hand-over", ("producers/logs/", "producers/logs/writer.py", "structlog ")),
    ("aiohttp's request", ("aiohttp ",)),
    ("redis-py", ("redis ", "hiredis ")),
    ("settle: batch, rows, hands", ("workers/sending/settle.py",)),
    ("the POST around aiohttp", ("workers/wechat/client.py",)),
    ("begin, judge, tell", ("workers/sending/sender.py", "workers/sending/verdict.py")),
    (
        "pump: take, reserve, gate",
        ("workers/sending/pumping/", "sending/take.py", "workers/limits/", "workers/broker.py"),
    ),
    (
        "keeper, split, duties",
        ("workers/duties/", "workers/lanes/", "broadcasts/split.py", "workers/runtime.py"),
    ),
)
"""Area → frames: a sample counts for the first area that it passes through."""

_OWN: Final = ("/workers/", "/producers/", "/tests/bench/")


@contextlib.contextmanager
def profiled(pid: int, file: Path, *, native: bool = False) -> Iterator[None]:
    """Sample a process while the context lasts.

    Args:
        pid: the process.
        file: for the raw samples; the text lies beside it.
        native: C frames too, so that the garbage collector and the event loop are seen.
    """
    before = _threads(pid)
    recorder = subprocess.Popen(
        ["py-spy", "record", "-f", "raw", "--full-filenames", "-t", "--gil", "-d", "600"]
        + (["--native"] if native else [])
        + ["-r", str(_HZ), "-p", str(pid), "-o", str(file)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        after = _threads(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(recorder.pid, signal.SIGINT)
        recorder.wait(30)
    rows = sorted(
        (
            (after[key][0] - then[0], after[key][1] - then[1], key)
            for key, then in ((key, before.get(key, (0.0, 0.0))) for key in after)
        ),
        reverse=True,
    )
    spent = "".join(
        f"{user:8.2f} s user {system:8.2f} s system  {key}\n" for user, system, key in rows
    )
    file.with_suffix(".txt").write_text(f"{describe(file)}\n-- CPU by thread\n{spent}")


def _threads(pid: int) -> dict[str, tuple[float, float]]:
    """Return "tid name" → (user, system) seconds of every thread, in ticks of 10 ms."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        name, _, rest = (task / "stat").read_text().rpartition(")")
        times = rest.split()
        found[f"{task.name} {name.partition('(')[2]}"] = (
            int(times[11]) / 100,
            int(times[12]) / 100,
        )
    return found


def library(file: str) -> str:
    """Name what a source file belongs to."""
    for own in _OWN:
        if own in file:
            return own.strip("/") + "/" + Path(file).name
    found = re.search(r"site-packages/([A-Za-z0-9_]+)", file)
    return found[1] if found else f"python:{Path(file).name}"


def describe(file: Path, top: int = 30) -> str:
    """Return a text: shares by thread, by library (self time), by function (self, with below)."""
    threads: Counter[str] = Counter()
    own: Counter[str] = Counter()
    selves: Counter[str] = Counter()
    areas: Counter[str] = Counter()
    below: Counter[str] = Counter()
    total = 0
    for line in file.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        samples = int(count)
        total += samples
        threads[re.sub(r"\(0x[0-9A-F]+\)|\d+", "", frames[0]).strip()] += samples
        found = [match for frame in frames if (match := _FRAME.match(frame))]
        if not found:
            continue
        own[library(found[-1]["file"])] += samples
        selves[_name(found[-1])] += samples
        names = {_name(match) for match in found}
        for name in names:
            below[name] += samples
        areas[_area(names)] += samples
    parts = []
    for title, counts, most in (
        ("threads", threads, 12),
        ("share of each area", areas, 12),
        ("self time by file or library", own, 40),
        ("self time by function", selves, top),
        ("time in a function and below", below, 2 * top),
    ):
        rows = [f"{100 * n / total:6.1f} %  {name}" for name, n in counts.most_common(most)]
        parts.append("\n".join([f"-- {title} ({total} samples)", *rows]))
    return "\n\n".join(parts) + "\n"


def _area(names: set[str]) -> str:
    """Return the first area that one of a stack's frames belongs to."""
    for area, parts in _AREAS:
        if any(part in name for name in names for part in parts):
            return area
    return "event loop and the rest"


def _name(match: "re.Match[str]") -> str:
    return f"{library(match['file'])} {match['what']}"
