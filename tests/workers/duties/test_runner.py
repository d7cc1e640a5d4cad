"""Rounds of duties, and what happens when one of them raises or its thread ends."""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from send_path import soon

from producers.errors import StoreUnavailableError
from workers.duties.runner import Round, Runner
from workers.duties.vitals import Vitals


class Chore:
    """A duty that counts its runs, and raises when told to."""

    def __init__(self, name: str = "chore") -> None:
        self.name = name
        self.is_due = True
        self.runs = 0
        self.error: BaseException | None = None

    def due(self, now: float) -> bool:
        assert now <= time.monotonic()
        return self.is_due

    def run(self) -> None:
        self.runs += 1
        if self.error:
            raise self.error


def test_what_is_not_due_is_left_alone() -> None:
    due, other = Chore(), Chore()
    other.is_due = False
    assert Round("duties", [other, due], 1.0).run_once()
    assert (due.runs, other.runs) == (1, 0)


def test_a_duty_that_fails_is_named_and_the_others_go_on(lines: list[Any]) -> None:
    first, second = Chore("first"), Chore("second")
    first.error = ValueError("odd")
    assert not Round("duties", [first, second], 1.0).run_once()
    assert second.runs == 1
    [line] = lines
    assert (line["event"], line["duty"], line["error"]) == ("duty_failed", "first", "ValueError")


@pytest.mark.parametrize("error", [redis.TimeoutError(), StoreUnavailableError("away")])
def test_where_redis_is_away_the_rest_waits_for_the_next_time(
    lines: list[Any], error: Exception
) -> None:
    first, second = Chore("first"), Chore("second")
    first.error = error
    assert not Round("duties", [first, second], 1.0).run_once()
    assert second.runs == 0
    assert len(lines) == 1


async def test_an_alarm_is_kept_before_the_next_round(runner: Runner) -> None:
    chore = Chore()
    began = time.monotonic()
    alarm_at = began + 0.05
    runner.start(
        Round(
            "duties",
            [chore],
            60.0,
            at_once=False,
            alarm_at=lambda: math.inf if chore.runs else alarm_at,
        )
    )
    await soon(lambda: chore.runs == 1, "it is done")
    assert 0.05 <= time.monotonic() - began < 5


def started(runner: Runner, *rounds: Round) -> None:
    for one in rounds:
        runner.start(one)


@pytest.fixture
def runner() -> Iterator[Runner]:
    """Give a runner that notes who ended, in `told`."""
    told: list[tuple[str, str]] = []
    one = Runner(lambda part, why: told.append((part, why)))
    one.told = told  # type: ignore[attr-defined]
    yield one
    one.close()
    one.join(lambda: 5.0)


def test_a_round_goes_on_after_its_pause_and_sooner_when_it_is_hurried(
    runner: Runner, eventually: Callable[..., Any]
) -> None:
    quick, slow = Chore(), Chore()
    hurried = Round("slow", [slow], 600.0)
    started(runner, Round("quick", [quick], 0.01), hurried)
    eventually(lambda: quick.runs > 3, "it is done again and again")
    eventually(lambda: slow.runs == 1, "the first time is at once")
    hurried.hurry()
    eventually(lambda: slow.runs == 2, "it was hurried")


def test_a_round_may_begin_with_its_pause(runner: Runner, eventually: Callable[..., Any]) -> None:
    first, later = Chore(), Chore()
    started(
        runner,
        Round("later", [later], 600.0, at_once=False),
        Round("first", [first], 600.0),
    )
    eventually(lambda: first.runs == 1, "the other one has begun")
    assert later.runs == 0


def test_duties_that_wait_by_themselves_do_not_spin_when_they_fail(
    runner: Runner, eventually: Callable[..., Any], lines: list[Any]
) -> None:
    chore = Chore()
    chore.error = redis.ConnectionError()
    started(runner, Round("wake", [chore], 0.0))
    eventually(lambda: chore.runs == 1, "it has failed")
    time.sleep(0.2)  # in which it would have failed a thousand times
    assert chore.runs == 1
    assert len(lines) == 1


def test_a_duty_that_does_not_end_keeps_no_process(
    runner: Runner, eventually: Callable[..., Any]
) -> None:
    ends, chore = threading.Event(), Chore()
    chore.run = lambda: ends.wait(20) and None  # type: ignore[method-assign]
    started(runner, Round("stuck", [chore], 600.0))
    (thread,) = (one for one in threading.enumerate() if one.name == "stuck")
    runner.close()
    assert thread.is_alive()
    assert thread.daemon  # Python waits for no such thread
    ends.set()
    runner.join(lambda: 5.0)


def test_a_closed_round_ends_its_thread_and_nobody_is_told(runner: Runner) -> None:
    started(runner, Round("long", [Chore()], 600.0))
    runner.close()
    runner.join(lambda: 5.0)
    assert not any(thread.name == "long" for thread in threading.enumerate())
    assert runner.told == []  # type: ignore[attr-defined]


def test_whoever_made_it_is_told_of_a_thread_that_ends(
    runner: Runner, eventually: Callable[..., Any]
) -> None:
    chore = Chore()
    chore.error = SystemExit("odd")
    started(runner, Round("lost", [chore], 0.01))
    told = runner.told  # type: ignore[attr-defined]
    eventually(lambda: told == [("lost", "SystemExit: odd")], "it was told")


class LoopChore:
    """A duty of the loop, each 10 ms."""

    def __init__(self) -> None:
        self.runs = 0
        self.error: Exception | None = None
        self.swallows = 0

    def due(self, now: float) -> bool:
        return now > 0

    async def run(self) -> None:
        self.runs += 1
        if self.error:
            raise self.error

    async def rest(self) -> None:
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.swallows -= 1
            if self.swallows < 0:
                raise


async def test_a_duty_of_the_loop_is_done_again_until_its_tasks_end(runner: Runner) -> None:
    chore = LoopChore()
    chore.swallows = 2  # a reply that comes in with a cancellation hides it
    runner.spawn(chore)
    await soon(lambda: chore.runs > 3, "it is done again and again")
    runner.close()
    await runner.end_tasks()
    runs = chore.runs
    await asyncio.sleep(0.05)
    assert chore.runs == runs
    assert runner.told == []  # type: ignore[attr-defined]


async def test_whoever_made_it_is_told_of_a_task_that_ends(runner: Runner) -> None:
    chore = LoopChore()
    chore.error = ValueError("odd")
    runner.spawn(chore)
    told = runner.told  # type: ignore[attr-defined]
    await soon(lambda: told == [("loop", "ValueError: odd")], "it was told")
    await runner.end_tasks()


def test_vitals_tell_of_the_part_that_is_gone() -> None:
    gone = {"loop": "", "pump": ""}
    told: list[tuple[str, str]] = []
    vitals = Vitals(
        {part: lambda part=part: gone[part] for part in gone},  # type: ignore[misc]
        lambda part, why: told.append((part, why)),
    )
    assert not vitals.due(0.0)
    gone["pump"] = "its thread ended"
    assert vitals.due(0.0)
    vitals.run()
    assert told == [("pump", "its thread ended")]
