"""A day that cannot carry a broadcast: the rest waits for the next one if told, else one asks."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import redis
from send_path import APP, PumpBench, Stall, pumping

from producers.broadcasts.lifecycle import SPENT
from producers.broadcasts.messages import Messages
from producers.settings import Settings
from producers.store import keys
from producers.words import State
from workers.lanes.keeper import Keeper

USERS = 8
TODAY = 3


class House(Stall):
    """A shop whose day carries three sends, and its keeper."""

    def __init__(self, client: "redis.Redis", settings: Settings) -> None:
        super().__init__(client, settings)
        self.form_ids(USERS, each=3)  # a claim that goes back by hand leaves its permit held
        self.subscriptions(USERS)
        self.keeper = Keeper(client, settings, self.broadcasts, "w1")

    def open(self, broadcast: str) -> str:
        """Let its flood in, so that no canary is in the way."""
        self.client.hset(keys.lane_broadcast(0, broadcast), "open", 1)
        return broadcast

    async def take_all(self, bench: PumpBench) -> int:
        """Take as long as anything comes; what got no slot goes back to its queue."""
        granted = 0
        while claims := await bench.next_batch(0.05):
            granted += len(claims)
            for claim in bench.handed_back:  # as settle.lua does
                self.client.lrem(keys.ring(0, "shop"), 0, claim.broadcast)
                self.client.rpush(keys.ring(0, "shop"), claim.broadcast)
                self.client.rpush(keys.queue(0, claim.broadcast), claim.item)
                self.client.expire(keys.queue(0, claim.broadcast), 60)
                self.client.hdel(keys.flight(0, claim.broadcast), claim.item)
                self.client.zrem(keys.sending(0, "shop"), claim.openid)
            bench.handed_back.clear()
        return granted

    def state(self, broadcast: str) -> State:
        self.keeper.run_once()
        return self.broadcasts.status(broadcast).state


Made = tuple[House, Settings]


@pytest.fixture
def made(make_settings: Callable[..., Settings], client: "redis.Redis") -> Made:
    settings = make_settings(app={"rate_per_second": 0, "daily_limit": TODAY, **APP})
    return House(client, settings), settings


async def test_told_it_waits_for_the_next_day_and_says_so(made: Made) -> None:
    house, settings = made
    broadcast = house.open(house.broadcast(carry_over=True))
    assert "carries 3 of 8; the rest goes on at" in house.broadcasts.status(broadcast).note
    async with pumping(settings) as bench:
        assert await house.take_all(bench) == TODAY
        assert await house.take_all(bench) == 0
        assert house.client.lrange(keys.ring(0, "shop"), 0, -1) == []
        assert house.state(broadcast) is State.RUNNING
        status = house.broadcasts.status(broadcast)
        assert status.waiting.startswith("waiting for the next day, ")
        assert (status.day_left, status.carry_over) == (0, True)
        assert status.opens_at_ms > status.created_at_ms
        # the next day, as the limiter sees it: a count of another one
        house.client.hset(keys.limiter("shop"), "day", 1)
        bench.gate.spent.clear()
        house.client.zadd(keys.due(0), {broadcast: 1})
        house.keeper.run_once()
        assert await house.take_all(bench) == TODAY


async def test_untold_it_is_paused_and_goes_on_when_it_is_told(
    made: Made, lines: list[Any]
) -> None:
    house, settings = made
    broadcast = house.open(house.broadcast())
    assert "it is paused then" in house.broadcasts.status(broadcast).note
    async with pumping(settings) as bench:
        assert await house.take_all(bench) == TODAY
        assert await house.take_all(bench) == 0
        assert house.state(broadcast) is State.PAUSED
        status = house.broadcasts.status(broadcast)
        assert (status.reason, status.errcode) == (SPENT, 45009)
        assert [line["channel"] for line in lines if line["event"] == "quota_spent"] == ["template"]
        house.broadcasts.resume(broadcast)
        assert house.broadcasts.status(broadcast).carry_over
        assert await house.take_all(bench) == 0
        assert house.state(broadcast) is State.RUNNING, "told by that to wait"
        assert house.broadcasts.status(broadcast).waiting


async def test_one_that_the_day_carries_is_not_asked(made: Made) -> None:
    house, settings = made
    house.broadcasts._audiences.import_rows("shop", "few", [b"o0", b"o1"])
    whole = house.broadcast()
    spec = house.broadcasts.spec(whole)
    house.broadcasts.cancel(whole)
    async with pumping(settings) as bench:
        made_few = house.broadcasts.create(replace(spec, audience="few"))
        assert made_few.note == ""
        few = house.open(made_few.id)
        assert house.broadcasts.status(few).note == ""
        assert await house.take_all(bench) == 2
        assert house.state(few) is State.RUNNING


async def test_the_other_channel_and_single_messages_are_not_held_up(
    made: Made, make_settings: Callable[..., Settings]
) -> None:
    """A quota of WeChat's is one API's: what goes by the other one goes on (I8)."""
    house, _ = made
    settings = make_settings(app={"rate_per_second": 0, "daily_limit": 0, **APP})
    end_ms = 1000 * int(house.client.time()[0]) + 3_600_000
    house.client.hset(keys.limiter("shop"), "quota:template", f"{TODAY} {end_ms}")
    house.client.expire(keys.limiter("shop"), 60)
    held = house.open(house.broadcast(carry_over=True))
    async with pumping(settings) as bench:
        assert await house.take_all(bench) == TODAY
        other = house.open(house.broadcast("subscribe"))
        posted = Messages(house.client, settings).post(
            app="shop", channel="template", template_id="T", openid="o7", data={"keyword1": "a"}
        )
        granted = 0
        while claims := await bench.next_batch(0.05):
            granted += len(claims)
            assert {claim.channel for claim in claims} == {"subscribe"}
            for claim in claims:
                house.client.zrem(keys.sending(0, "shop"), claim.openid)
        assert granted >= USERS - TODAY, "those who are not being sent to just then"
        assert house.state(other) is house.state(held) is State.RUNNING
        carrier = posted.id.partition(".")[0]
        assert house.state(carrier) is State.RUNNING, "it waits, and is never paused for this"


async def test_of_an_earlier_version_it_goes_on_as_it_did(made: Made) -> None:
    house, settings = made
    broadcast = house.open(house.broadcast())
    home = keys.home(house.broadcasts.home_lane(broadcast), broadcast)
    spec = house.client.hget(home, "spec").replace('"carry_over":false,', "")
    house.client.hset(home, "spec", spec)
    house.client.hdel(keys.lane_broadcast(0, broadcast), "carry")
    async with pumping(settings) as bench:
        assert await house.take_all(bench) == TODAY
        assert await house.take_all(bench) == 0
        assert house.state(broadcast) is State.RUNNING
        house.broadcasts.set_rate(broadcast, 5)
        assert house.client.hget(keys.lane_broadcast(0, broadcast), "carry") == "1"
        assert house.broadcasts.status(broadcast).carry_over
