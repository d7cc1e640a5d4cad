"""Calls of one event loop that share a trip: each is answered as if it had been made alone."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
import redis
from pydantic import SecretStr
from send_path import connected_async

from producers.settings import Settings
from producers.store.scripts import Call
from producers.store.trip import Shared

ADD = """
redis.call('INCRBY', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[1], 60000)
return tonumber(ARGV[1])
"""
NAMES = [f"{{wxb:{lane}}}:n" for lane in range(8)]


class Counting:
    """A client, and how many trips it was sent on."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.trips = 0

    def pipeline(self, **options: Any) -> Any:
        self.trips += 1
        return self.client.pipeline(**options)


@pytest_asyncio.fixture
async def counting(settings: Settings) -> AsyncIterator[Counting]:
    async with connected_async(settings) as client:
        await client.ping()
        yield Counting(client)


def add(counting: Counting, name: str, by: object) -> Call:
    return Call(counting.client.register_script(ADD), (name,), (str(by),))


async def test_what_is_asked_in_one_moment_is_one_trip(counting: Counting) -> None:
    shared = Shared(counting)
    asked = [shared.run(add(counting, name, place)) for place, name in enumerate(NAMES)]
    assert await asyncio.gather(*asked) == list(range(len(NAMES)))
    assert await asyncio.gather(*(shared.run(add(counting, name, 1)) for name in NAMES)) == [1] * 8
    assert counting.trips == 2


async def test_a_server_that_was_restarted_is_told_the_script_again(counting: Counting) -> None:
    shared = Shared(counting)
    await counting.client.script_flush()
    asked = [shared.run(add(counting, name, place)) for place, name in enumerate(NAMES)]
    assert await asyncio.gather(*asked) == list(range(len(NAMES)))
    assert [int(await counting.client.get(name)) for name in NAMES] == list(range(len(NAMES)))


async def test_what_one_is_refused_is_told_to_none_of_the_others(counting: Counting) -> None:
    shared = Shared(counting)
    by = [1, "nothing", 3]
    first, second, third = await asyncio.gather(
        *(shared.run(add(counting, name, n)) for name, n in zip(NAMES, by, strict=False)),
        return_exceptions=True,
    )
    assert (first, third) == (1, 3)
    assert isinstance(second, redis.ResponseError)


async def test_who_waits_no_more_takes_no_answer_from_the_others(counting: Counting) -> None:
    shared = Shared(counting)
    asked = [asyncio.ensure_future(shared.run(add(counting, name, 5))) for name in NAMES[:3]]
    await asyncio.sleep(0)
    asked[1].cancel()
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert (found[0], found[2]) == (5, 5)
    assert isinstance(found[1], asyncio.CancelledError)


async def test_a_lost_connection_is_told_to_each(settings: Settings) -> None:
    away = settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:1/0")})
    async with connected_async(away) as client:
        counting = Counting(client)
        shared = Shared(counting)
        found = await asyncio.gather(
            *(shared.run(add(counting, name, 1)) for name in NAMES), return_exceptions=True
        )
    assert len(found) == len(NAMES)
    assert all(isinstance(one, redis.ConnectionError) for one in found)


async def test_what_waits_for_replicas_is_made_alone(counting: Counting) -> None:
    """Each waits for itself: behind another it would wait for both."""
    shared = Shared(counting, replicas=1)
    assert await asyncio.gather(*(shared.run(add(counting, name, 1)) for name in NAMES)) == [1] * 8
    assert counting.trips == 0
