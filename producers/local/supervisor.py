"""The supervisor: keeps units running on one machine, for `demo`, `up` and tests.

A unit is one command of the Procfile, a line of shell, in a process group of its own. When its
first process ends, whatever is left of the group is killed, and it starts again (see `units`). One
that ends because of what it was given (settings, options, a command that is not there) would end so
again: it is not started again, and `hopeless` says so. Units end with whoever started them, even by
kill -9 (see `orphans`). In production systemd or Kubernetes does this.

Own code, because honcho's manager, as those of other Procfiles, ends everything when one process
ends: here they are killed all the time, and come back.
"""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from producers import logs
from producers.local import orphans
from producers.logs.events import UnitEnded
from producers.units import Process, Units

PATIENCE_S: Final = 12.0
"""SIGTERM to SIGKILL: a worker drains within 10 s."""

_HOPELESS: Final = frozenset({2, 126, 127, os.EX_CONFIG})
"""Exit codes that the same command would end with again: wrong usage or settings, by our own
commands' and Dramatiq's convention; cannot be executed; not found; wrong configuration."""

_SIMPLE: Final = re.compile(r"(?!\w+=|exec\b)[^;&|<>()`\n]+")
"""Commands that a shell can `exec`, so that the unit's first process is the command itself."""


class Supervisor(Units):
    """Keeps the units of a deployment running, and stops them all.

    Args:
        env: their whole environment.
        cwd: their working directory.
        output: an open file for their stdout and stderr; None: this process's own.
        on_end: told of each unit that ended and is started again.
    """

    def __init__(
        self,
        env: Mapping[str, str],
        cwd: Path,
        output: IO[bytes] | None = None,
        on_end: Callable[[UnitEnded], None] = logs.emit,
    ) -> None:
        super().__init__(on_end, _HOPELESS)
        self._env = dict(env)
        self._cwd = cwd
        self._output = output

    def pids(self, name: str) -> list[int]:
        """Return the processes of a unit, its first one first; none while it is down."""
        process = self._units[name].process
        if process is None or process.returncode is not None:
            return []
        return sorted(group_of(process.pid), key=lambda pid: (pid != process.pid, pid))

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to every process of a unit; it starts again when it ends by it."""
        process = self._units[name].process
        if process is not None and process.returncode is None:
            _signal_group(process, number)

    def stop(self, patience_s: float = PATIENCE_S) -> int:
        """Stop all units; as `Units.stop`."""
        return super().stop(patience_s)

    def _spawn(self, command: str) -> Process:
        return spawn(_shell(command), self._env, self._cwd, self._output)

    def _finish(self, process: Process) -> None:
        """Kill its whole group: a killed Dramatiq master leaves its child behind."""
        _signal_group(process, signal.SIGKILL)
        orphans.forget(process.pid)


def spawn(
    command: Sequence[str], env: Mapping[str, str], cwd: Path, output: IO[bytes] | None = None
) -> Process:
    """Start a process in a session of its own, out of reach of the terminal's Ctrl-C.

    It is ended when this process is killed, before `end` was called.

    Args:
        command: program and arguments.
        env: its whole environment.
        cwd: its working directory.
        output: an open file for stdout and stderr; None: this process's own.
    """
    process = subprocess.Popen(  # noqa: S603 - the Procfile's commands, and our own
        command,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    orphans.watch(process.pid)
    return process


def end(process: Process, patience_s: float = PATIENCE_S) -> None:
    """End a spawned process: SIGTERM, then SIGKILL to what is left of its group."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience_s)
    _signal_group(process, signal.SIGKILL)
    process.wait()
    orphans.forget(process.pid)


def group_of(leader: int) -> list[int]:
    """Return the pids of a process group, without zombies."""
    return [pid for pid, group, state in _processes() if group == leader and state != "Z"]


def _processes() -> Iterator[tuple[int, int, str]]:
    """Yield (pid, process group, state) of every process."""
    if Path("/proc/self/stat").exists():  # slim images have no ps
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):  # it ended meanwhile
                    after_name = (entry / "stat").read_text().rpartition(")")[2]
                    state, _parent, group = after_name.split()[:3]
                    yield int(entry.name), int(group), state
        return
    listing = subprocess.run(
        ["ps", "-axo", "pid=,pgid=,stat="],  # noqa: S607 - where the system has it
        capture_output=True,
        text=True,
        check=True,
    )
    for row in listing.stdout.splitlines():
        pid, group_text, state = row.split()[:3]
        yield int(pid), int(group_text), state[0]


def _shell(command: str) -> list[str]:
    return ["/bin/sh", "-c", f"exec {command}" if _SIMPLE.fullmatch(command) else command]


def _signal_group(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left
        os.killpg(process.pid, number)
