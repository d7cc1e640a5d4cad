"""Units: processes of this machine that are kept running, each by a thread of its own.

One that ends starts again after a pause that grows from 0.1 to 5 s while it keeps ending young. All
are stopped together: asked first, and killed when their time is over. How a unit is started and
killed is its keeper's affair: see `web.processes`, and the supervisor of a whole deployment.
"""

import contextlib
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from producers import logs
from producers.logs.events import UnitEnded

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0
_SETTLED_S: Final = 10.0
"""A unit that ran for so long starts anew with the first pause."""

Process = subprocess.Popen[bytes]


@dataclass
class Unit:
    """One of them.

    Attributes:
        name: one that no other unit has, for instance ``worker.1``.
        command: what its keeper starts.
        restarts: how often it was started again.
        process: the one that runs, or ran last.
    """

    name: str
    command: str
    restarts: int = 0
    process: Process | None = field(default=None, repr=False)
    started_at: float = field(default=0.0, repr=False)
    keeping: threading.Thread | None = field(default=None, repr=False)


class Units(ABC):
    """Keeps units running.

    Args:
        on_end: told of each unit that ended and is started again.
        hopeless: exit codes that the same command would end with again: it is left alone then.
    """

    def __init__(
        self,
        on_end: Callable[[UnitEnded], None] = logs.emit,
        hopeless: frozenset[int] = frozenset(),
    ) -> None:
        self._on_end = on_end
        self._hopeless_codes = hopeless
        self._units: dict[str, Unit] = {}
        self._starting = threading.Lock()
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

    def restarts(self, name: str) -> int:
        """Return how often a unit was started again."""
        return self._units[name].restarts

    def start(self, name: str, command: str) -> None:
        """Start a unit and keep it running.

        Args:
            name: one that no other unit has, for instance ``worker.1``.
            command: what to start.

        Raises:
            ValueError: the name is taken, or all are stopped.
            OSError: it cannot be started.
        """
        if name in self._units or self._stopping.is_set():
            raise ValueError(f"unit {name!r} is there already, or all are stopped")
        unit = self._units[name] = Unit(name, command)
        self._begin(unit)
        unit.keeping = threading.Thread(target=self._keep, args=(unit,), name=name, daemon=True)
        unit.keeping.start()

    def stop(self, patience_s: float) -> int:
        """Stop all units: SIGTERM, then SIGKILL for those that are still there.

        Args:
            patience_s: how long they may take, together.

        Returns:
            How many had to be killed.
        """
        with self._starting:
            self._stopping.set()
        for unit in self._units.values():
            if unit.process is not None:
                unit.process.terminate()  # the first process alone: a master tells its children
        deadline = time.monotonic() + patience_s
        killed = 0
        for unit in self._units.values():
            if unit.keeping is None:
                continue
            unit.keeping.join(max(0.0, deadline - time.monotonic()))
            if unit.keeping.is_alive() and unit.process is not None:
                self._finish(unit.process)
                unit.keeping.join()
                killed += 1
        return killed

    @abstractmethod
    def _spawn(self, command: str) -> Process:
        """Start a process of a unit."""

    def _finish(self, process: Process) -> None:
        """Kill a process that was asked to end, and whatever one leaves that ended."""
        process.kill()

    def _begin(self, unit: Unit) -> bool:
        """Start a unit's process, unless all are stopped; say whether it was."""
        with self._starting:
            if self._stopping.is_set():
                return False
            unit.started_at = time.monotonic()
            unit.process = self._spawn(unit.command)
            return True

    def _keep(self, unit: Unit) -> None:
        """Wait for the end of a unit, and start it again, until all are stopped."""
        pause_s = _FIRST_PAUSE_S
        while (process := unit.process) is not None:
            exit_code = process.wait()
            self._finish(process)
            if self._stopping.is_set():
                return
            if exit_code in self._hopeless_codes:
                self._hopeless = self._hopeless or UnitEnded(
                    unit.name, process.pid, exit_code, unit.restarts
                )
                return
            unit.restarts += 1
            with contextlib.suppress(OSError):  # nobody reads any more: the unit is needed still
                self._on_end(UnitEnded(unit.name, process.pid, exit_code, unit.restarts))
            if time.monotonic() - unit.started_at > _SETTLED_S:
                pause_s = _FIRST_PAUSE_S
            if not self._begin_after(unit, pause_s):
                return
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _begin_after(self, unit: Unit, pause_s: float) -> bool:
        """Start a unit again after a pause; where the machine has no room for it, after more."""
        while not self._stopping.wait(pause_s):
            try:
                return self._begin(unit)
            except OSError:
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return False
