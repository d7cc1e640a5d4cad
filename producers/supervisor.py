"""The supervisor: keeps units running on one machine, for `demo`, `up` and tests.

A unit is one command of the Procfile in a process group of its own. When its first process ends,
whatever is left of the group is killed (a killed Dramatiq master leaves its child behind), and it
starts again after a pause that grows from 0.1 to 5 s while it keeps ending young. One that ends
because of what it was given (settings, options, a command that is not there) would end so again:
it is not started again, and `hopeless` says so. Units end with whoever started them, even by
kill -9 (see `orphans`). In production systemd or Kubernetes does this.
"""

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from producers import logs, orphans
from producers.events import UnitEnded

PATIENCE_S: Final = 12.0
"""SIGTERM to SIGKILL: a worker drains within 10 s."""

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0
_SETTLED_S: Final = 10.0
"""A unit that ran for so long starts anew with the first pause."""

_HOPELESS: Final = frozenset({2, 126, 127, os.EX_CONFIG})
"""Exit codes that the same command would end with again: wrong usage or settings, by our own
commands' and Dramatiq's convention; cannot be executed; not found; wrong configuration."""

_SIMPLE: Final = re.compile(r"(?!\w+=|exec\b)[^;&|<>()`\n]+")
"""Commands that a shell can `exec`, so that the unit's first process is the command itself."""


class Supervisor:
    """Starts units, starts them again when they end, and stops them all.

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
        self._env = dict(env)
        self._cwd = cwd
        self._output = output
        self._on_end = on_end
        self._units: dict[str, _Unit] = {}
        self._spawning = threading.Lock()
        self._stopping = threading.Event()
        self._hopeless: UnitEnded | None = None

    @property
    def hopeless(self) -> UnitEnded | None:
        """The first unit that ended for good, because of its settings or its command."""
        return self._hopeless

    @property
    def units(self) -> Sequence[str]:
        """The names of the units, in the order of their start."""
        return tuple(self._units)

    def start(self, name: str, command: str) -> None:
        """Start a unit and keep it running.

        Args:
            name: one that no other unit has, for instance ``worker.1``.
            command: a line of shell.

        Raises:
            ValueError: the name is taken, or the supervisor is stopped.
        """
        if name in self._units or self._stopping.is_set():
            raise ValueError(f"unit {name!r} is there already, or all are stopped")
        unit = self._units[name] = _Unit(name, command)
        self._spawn(unit)
        unit.keeping = threading.Thread(target=self._keep, args=(unit,), name=name, daemon=True)
        unit.keeping.start()

    def pids(self, name: str) -> list[int]:
        """Return the processes of a unit, its first one first; none while it is down."""
        process = self._units[name].process
        if process is None or process.returncode is not None:
            return []
        return sorted(group_of(process.pid), key=lambda pid: (pid != process.pid, pid))

    def restarts(self, name: str) -> int:
        """Return how often a unit was started again."""
        return self._units[name].restarts

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to every process of a unit; it starts again when it ends by it."""
        process = self._units[name].process
        if process is not None and process.returncode is None:
            _signal_group(process, number)

    def stop(self, patience_s: float = PATIENCE_S) -> None:
        """Stop all units: SIGTERM, then SIGKILL for those that are still there.

        Args:
            patience_s: how long they may take, together.
        """
        with self._spawning:
            self._stopping.set()
        for unit in self._units.values():
            if unit.process is not None:
                unit.process.terminate()  # the first process alone: a master tells its children
        deadline = time.monotonic() + patience_s
        for unit in self._units.values():
            if unit.keeping is None:
                continue
            unit.keeping.join(max(0.0, deadline - time.monotonic()))
            if unit.keeping.is_alive() and unit.process is not None:
                _signal_group(unit.process, signal.SIGKILL)
                unit.keeping.join()

    def _spawn(self, unit: "_Unit") -> bool:
        with self._spawning:
            if self._stopping.is_set():
                return False
            unit.process = spawn(_shell(unit.command), self._env, self._cwd, self._output)
            unit.started_at = time.monotonic()
            return True

    def _keep(self, unit: "_Unit") -> None:
        """Wait for the end of a unit, and start it again, until all are stopped."""
        pause_s = _FIRST_PAUSE_S
        while (process := unit.process) is not None:
            exit_code = process.wait()
            _signal_group(process, signal.SIGKILL)
            orphans.forget(process.pid)
            if self._stopping.is_set():
                return
            if exit_code in _HOPELESS:
                self._hopeless = self._hopeless or UnitEnded(
                    unit.name, process.pid, exit_code, unit.restarts
                )
                return
            unit.restarts += 1
            with contextlib.suppress(OSError):  # nobody reads any more: the unit is needed still
                self._on_end(UnitEnded(unit.name, process.pid, exit_code, unit.restarts))
            if time.monotonic() - unit.started_at > _SETTLED_S:
                pause_s = _FIRST_PAUSE_S
            if self._stopping.wait(pause_s) or not self._spawn(unit):
                return
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


@dataclass
class _Unit:
    name: str
    command: str
    restarts: int = 0
    started_at: float = 0.0
    process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)
    keeping: threading.Thread | None = field(default=None, repr=False)


def spawn(
    command: Sequence[str], env: Mapping[str, str], cwd: Path, output: IO[bytes] | None = None
) -> "subprocess.Popen[bytes]":
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


def end(process: "subprocess.Popen[bytes]", patience_s: float = PATIENCE_S) -> None:
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


def _signal_group(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left
        os.killpg(process.pid, number)
