"""How often a token keeper ticks: at work each second, idle now and then, and at once for work."""

import asyncio
import time
from typing import Any

import pytest

from workers.duties.kept_tokens import KeptToken


class Keeper:
    """A token keeper without a token, until it is given one."""

    def __init__(self) -> None:
        self.ready: str | None = None
        self.due_in_s = 0.0
        self.ticks = 0
        self.comes = False
        self.error: Exception | None = None

    async def tick(self) -> None:
        self.ticks += 1
        if self.error:
            raise self.error
        if self.comes:
            self.ready = "token"


class Bench:
    def __init__(self) -> None:
        self.keeper: Any = Keeper()
        self.has_work = False
        self.woken = 0
        self.kept = KeptToken(
            self.keeper, asyncio.get_running_loop(), lambda: self.has_work, self._wake
        )

    def _wake(self) -> None:
        self.woken += 1

    async def tick(self) -> float:
        """Tick, and return in how many seconds it does so again."""
        await self.kept.run()
        return self.kept._next_at - time.monotonic()


async def test_the_first_tick_is_at_once() -> None:
    assert Bench().kept.due(time.monotonic())


@pytest.mark.parametrize(("comes", "about_s"), [(True, 1.0), (False, 0.25)])
async def test_at_work_it_ticks_each_second_and_sooner_without_a_token(
    comes: bool, about_s: float
) -> None:
    bench = Bench()
    bench.has_work, bench.keeper.comes = True, comes
    assert await bench.tick() == pytest.approx(about_s, abs=0.1)
    assert not bench.kept.due(time.monotonic())
    assert bench.kept.due(time.monotonic() + about_s)


async def test_an_idle_app_is_looked_at_ever_less_often_and_at_most_every_200_s() -> None:
    bench = Bench()
    pauses = [await bench.tick() for _ in range(30)]
    assert pauses[0] <= 0.5
    assert pauses[-1] > 100
    assert max(pauses) <= 200


async def test_an_idle_app_with_a_token_is_looked_at_when_it_is_to_be_renewed() -> None:
    bench = Bench()
    bench.keeper.comes, bench.keeper.due_in_s = True, 100.0
    assert 70 < await bench.tick() <= 100


async def test_work_that_begins_brings_the_next_tick() -> None:
    bench = Bench()
    for _ in range(30):
        await bench.tick()
    await asyncio.to_thread(bench.kept.begin_work)
    async with asyncio.timeout(5):
        await bench.kept.rest()
    assert bench.kept.due(time.monotonic())
    assert await bench.tick() < 1, "it is at work"
    await asyncio.to_thread(bench.kept.begin_work)
    await asyncio.sleep(0)
    assert not bench.kept.due(time.monotonic()), "it was at work a moment ago"


async def test_a_token_that_comes_wakes_the_pump_once() -> None:
    bench = Bench()
    await bench.tick()
    assert bench.woken == 0
    bench.keeper.comes = True
    await bench.tick()
    await bench.tick()
    assert bench.woken == 1


async def test_a_tick_that_fails_is_said_and_comes_again(lines: list[Any]) -> None:
    bench = Bench()
    bench.has_work, bench.keeper.error = True, ConnectionError()
    assert await bench.tick() < 1
    assert [line["event"] for line in lines] == ["store_unreachable"]
