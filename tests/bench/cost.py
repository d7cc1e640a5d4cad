"""What processes cost: CPU seconds and resident memory, read from the kernel."""

import time
from collections.abc import Iterable
from pathlib import Path


def cpu_s(pids: Iterable[int]) -> float:
    """Return user and system seconds that processes used so far, all their threads included.

    By the kernel's per-process clock, in nanoseconds: /proc/PID/stat counts ticks of 10 ms.
    """
    return sum(
        time.clock_gettime(~pid << 3 | 2) for pid in pids
    )  # CPUCLOCK_SCHED, clock_gettime(3)


def rss_mb(pids: Iterable[int]) -> float:
    """Return the resident memory of processes, pages that they share counted once each."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1])
    return total / 1024
