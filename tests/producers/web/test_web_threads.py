"""Calls that take long leave room for others, where there are spare threads."""

import asyncio
import threading
import time

import pytest

from producers.store import deadline
from producers.web.traffic.threads import Threads, on_thread


async def _beside(pool: Threads, stuck: int) -> tuple[float, int]:
    """Return how long a call took beside some that are stuck, and how many of these had begun."""
    end = threading.Event()
    begun = []

    def wait() -> None:
        begun.append(1)
        end.wait(20)

    waiting = [asyncio.ensure_future(on_thread(pool, wait)) for _ in range(stuck)]
    await asyncio.sleep(0)
    began = time.monotonic()
    try:
        async with asyncio.timeout(4):
            assert await on_thread(pool, lambda: "done") == "done"
    finally:
        took, here = time.monotonic() - began, len(begun)
        end.set()
        await asyncio.gather(*waiting)
    return took, here


def test_beside_calls_that_are_stuck_others_begin() -> None:
    with Threads(2, "calls", 30, spare=10) as pool:
        took, begun = asyncio.run(_beside(pool, 9))
    assert took < 3
    assert begun == 9


def test_no_more_threads_than_there_are_spare_ones() -> None:
    with Threads(2, "calls", 30, spare=3) as pool, pytest.raises(TimeoutError):
        asyncio.run(_beside(pool, 9))
    with Threads(2, "calls", 30) as pool, pytest.raises(TimeoutError):
        asyncio.run(_beside(pool, 2))


def test_calls_that_are_quick_have_the_usual_threads_alone() -> None:
    seen: set[str] = set()

    async def many(pool: Threads) -> None:
        def call() -> None:
            seen.add(threading.current_thread().name)

        await asyncio.gather(*(on_thread(pool, call) for _ in range(500)))

    with Threads(2, "calls", 30, spare=200) as pool:
        asyncio.run(many(pool))
    assert len(seen) < 20, "a busy machine may hold one up for a moment"


@pytest.mark.parametrize("spare", [0, 5])
def test_a_call_has_its_time_and_its_error(spare: int) -> None:
    async def fail(pool: Threads) -> None:
        left_s = await on_thread(pool, deadline.left_s)
        assert left_s is not None
        assert 0 < left_s <= 7
        with pytest.raises(ZeroDivisionError):
            await on_thread(pool, lambda: 1 // 0)

    with Threads(1, "calls", 7, spare) as pool:
        asyncio.run(fail(pool))


def test_what_waits_at_the_end_never_begins() -> None:
    async def end() -> None:
        pool = Threads(1, "calls", 30, spare=1)
        held = threading.Event()
        first = asyncio.ensure_future(on_thread(pool, held.wait, 20))
        second = asyncio.ensure_future(on_thread(pool, held.wait, 20))
        third = asyncio.ensure_future(on_thread(pool, pytest.fail, "it began"))
        await asyncio.sleep(0)
        pool.shutdown(wait=False)
        held.set()
        assert await first
        results = await asyncio.gather(second, third, return_exceptions=True)
        assert isinstance(results[1], asyncio.CancelledError)

    asyncio.run(end())
