"""Units: started again, also where the machine has no room at first; stopped together."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from producers.logs.events import UnitEnded
from producers.units import Process, Units

Eventually = Callable[..., Any]


class Sleepers(Units):
    """Units of one command; the first `fails` new starts find no room."""

    def __init__(self, told: list[UnitEnded], fails: int = 0) -> None:
        super().__init__(told.append)
        self.fails = fails
        self.spawned = 0

    def _spawn(self, command: str) -> Process:
        self.spawned += 1
        if 1 < self.spawned <= 1 + self.fails:
            raise BlockingIOError("no process is left")
        return subprocess.Popen(["/bin/sh", "-c", command])


@pytest.fixture
def told() -> list[UnitEnded]:
    return []


@pytest.fixture
def keep(told: list[UnitEnded]) -> Iterator[Callable[..., Sleepers]]:
    made: list[Sleepers] = []

    def begin(**options: int) -> Sleepers:
        made.append(Sleepers(told, **options))
        return made[-1]

    yield begin
    for units in made:
        units.stop(0)


def pid(units: Sleepers) -> int:
    process = units._units["a"].process
    assert process is not None
    return process.pid


def test_a_unit_for_which_there_is_no_room_starts_when_there_is(
    keep: Callable[..., Sleepers], told: list[UnitEnded], eventually: Eventually
) -> None:
    units = keep(fails=2)
    units.start("a", "exec sleep 1000")
    first = pid(units)
    units._units["a"].process.kill()
    eventually(lambda: pid(units) != first, "it runs again")
    assert units.spawned == 4
    assert told == [UnitEnded("a", first, -9, 1)]


def test_whoever_does_not_end_in_time_is_killed_and_counted(
    keep: Callable[..., Sleepers], told: list[UnitEnded], tmp_path: Path, eventually: Eventually
) -> None:
    units, deaf = keep(), tmp_path / "deaf"
    units.start("a", "exec sleep 1000")
    units.start("b", f"trap '' TERM; touch {deaf}; while :; do sleep 0.1; done")
    eventually(deaf.exists, "it hears no SIGTERM")
    assert units.stop(1) == 1
    assert told == []
    with pytest.raises(ValueError, match="c"):
        units.start("c", "exec sleep 1000")
