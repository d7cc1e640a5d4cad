"""Orphans: the processes that this one started, when it is killed and cannot end them any more.

A guard beside us, of the standard library alone, hears of each process that starts and ends, by a
pipe. When the pipe closes, for we are dead, it ends what is left, as we would have: SIGTERM to the
units, so that they drain, SIGKILL to what is then left of their groups, and the embedded Valkey
last, which they need until then. It runs while there is anybody to watch, and not longer.

The kernel's own way (PR_SET_PDEATHSIG) is Linux's alone, counts the death of a thread as ours, and
knows no order.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from typing import Final

_PATIENCE_S: Final = 12.0
"""SIGTERM to SIGKILL, as the supervisor's."""

_EVERY_S: Final = 0.05
_GOING_S: Final = 5.0
"""Longest end of a guard that has nothing to do; it may be just starting."""


class _Guards:
    """The guard of this process, if it has one; a fork has none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: dict[int, str] = {}
        self._guard: subprocess.Popen[bytes] | None = None
        self._forks_are_told = False

    def watch(self, pid: int, rank: str) -> None:
        with self._lock:
            self._watched[pid] = rank
            if self._guard is None or not self._tell(f"{rank} {pid}\n"):
                self._start()

    def forget(self, pid: int) -> None:
        with self._lock:
            if self._watched.pop(pid, None) is None:
                return
            if self._watched:
                self._tell(f"gone {pid}\n")
            else:
                self._close(f"gone {pid}\n")

    def _tell(self, line: str) -> bool:
        """Write to the guard; say whether it was there."""
        with contextlib.suppress(OSError):
            if self._guard is not None and self._guard.stdin is not None:
                os.write(self._guard.stdin.fileno(), line.encode())
                return True
        return False

    def _start(self) -> None:
        if not self._forks_are_told:
            os.register_at_fork(after_in_child=self._drop)
            self._forks_are_told = True
        self._guard = subprocess.Popen(  # noqa: S603 - this very file
            [sys.executable, "-I", "-S", __file__],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what ends our group leaves it
            bufsize=0,
        )
        for pid, rank in self._watched.items():
            self._tell(f"{rank} {pid}\n")

    def _close(self, line: str) -> None:
        """Let the guard go: nobody is left."""
        self._tell(line)
        guard, self._guard = self._guard, None
        if guard is None or guard.stdin is None:
            return
        guard.stdin.close()
        try:
            guard.wait(_GOING_S)
        except subprocess.TimeoutExpired:
            guard.kill()
            guard.wait()

    def _drop(self) -> None:
        """In a fork: what was started is not its own, and the pipe must not outlive its parent."""
        self._lock = threading.Lock()
        self._watched.clear()
        guard, self._guard = self._guard, None
        if guard is not None and guard.stdin is not None:
            guard.stdin.close()
            guard.returncode = 0  # not ours to wait for


_guards: Final = _Guards()


def watch(pid: int, *, last: bool = False) -> None:
    """Have a process ended when this one is killed.

    Args:
        pid: the leader of a process group.
        last: whether it is ended after all that are not so.
    """
    _guards.watch(pid, "last" if last else "unit")


def forget(pid: int) -> None:
    """Say that a process ended. Harmless for one that was not watched."""
    _guards.forget(pid)


def _guard() -> None:
    """Run the guard: hear, until whoever tells is gone, and end what it left."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it goes after whom it guards
    watched: dict[int, str] = {}
    for line in sys.stdin:
        rank, pid = line.split()
        if rank == "gone":
            watched.pop(int(pid), None)
        else:
            watched[int(pid)] = rank
    for now in ("unit", "last"):
        _end([pid for pid, rank in watched.items() if rank == now])


def _end(leaders: Iterable[int]) -> None:
    left = [pid for pid in leaders if _leads(pid)]
    groups = tuple(left)
    for pid in left:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGTERM)  # the first process alone: a master tells its children
            os.kill(pid, signal.SIGCONT)  # one that stands still would not hear of it
    deadline = time.monotonic() + _PATIENCE_S
    while (left := [pid for pid in left if _leads(pid)]) and time.monotonic() < deadline:
        time.sleep(_EVERY_S)
    for group in groups:
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)


def _leads(pid: int) -> bool:
    """Say whether the leader of a group is there: no other process that has its number now."""
    with contextlib.suppress(OSError):
        return os.getpgid(pid) == pid
    return False


if __name__ == "__main__":
    _guard()
