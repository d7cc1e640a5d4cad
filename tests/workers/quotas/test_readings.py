"""What WeChat says of its quotas: asked seldom, by one worker, and held to."""

import asyncio
from typing import Any

import pytest
from quota_desk import Opener
from send_path import OUTSIDE_TOKEN

from producers.quotas import Quotas
from producers.store import keys
from workers.quotas.readings import MOST, PATH
from workers.wechat.envelope import SUBSCRIBE_SEND


def daily(limit: int, **more: int) -> dict[str, Any]:
    return {"quotas": {SUBSCRIBE_SEND: {"daily": limit, **more}}}


async def test_no_more_is_given_than_wechat_says_is_left(desk: Opener) -> None:
    it = await desk(**daily(10))
    it.wechat._call(lambda: None)
    assert len(it.reserve(3).slots[0]) == 3  # which never arrive there
    await it.read()
    assert it.left == 10
    grant = it.reserve(30)
    assert (len(grant.slots[0]), grant.wait_s) == (10, 0)
    assert 0 < grant.spent_s <= 86_400
    assert (it.reserve(1).slots, it.left) == ([[]], 0)


async def test_slots_that_pass_unused_return_to_it(desk: Opener) -> None:
    it = await desk(**daily(5))
    await it.read()
    it.reserve(9)
    assert len(it.reserve(9, unused=2).slots[0]) == 2


async def test_one_channel_leaves_the_other_its_own(desk: Opener) -> None:
    it = await desk(**daily(1))
    await it.read()
    it.reserve(1)
    assert it.reserve(1).slots == [[]]
    assert len(it.reserve(5, "template").slots[0]) == 5


async def test_the_apps_own_day_holds_where_it_is_less(desk: Opener) -> None:
    it = await desk({"daily_limit": 4}, **daily(10))
    await it.read()
    assert it.left == 4
    assert len(it.reserve(9).slots[0]) == 4


async def test_a_reading_of_another_day_bounds_nothing(desk: Opener) -> None:
    it = await desk(**daily(10))
    await it.read()
    bound = it.client.hget(keys.limiter("shop"), "quota:subscribe").split(" ")[0]
    for until_ms in (1, 2**52):
        it.client.hset(keys.limiter("shop"), "quota:subscribe", f"{bound} {until_ms}")
        assert it.left is None
        assert len(it.reserve(11).slots[0]) == 11


async def test_it_is_asked_seldom_by_all_workers_together(desk: Opener) -> None:
    it = await desk(**daily(100))
    for _ in range(3):
        await it.read()
    assert it.calls() == 1
    it.reserve(95)  # a tenth is left: asked again after a minute
    key, now = keys.quotas("shop"), int(it.client.time()[0]) * 1000
    it.client.hset(key, "asked:subscribe", now - 61_000)
    await it.read()
    assert it.calls() == 2
    await it.read(urgent=True)
    assert it.calls() == 2, "WeChat says that it is used up: not before half a minute"
    it.client.hset(key, "asked:subscribe", now - 31_000)
    await it.read(urgent=True)
    assert it.calls() == 3


async def test_a_day_has_a_bound_of_questions(desk: Opener) -> None:
    it = await desk(**daily(100))
    day = int(it.client.time()[0]) // 86_400
    await it.read()
    it.client.hset(keys.quotas("shop"), "asks", f"{day} {MOST}")
    it.forget_asking()
    await it.read()
    assert it.calls() == 1
    it.client.hset(keys.quotas("shop"), "asks", f"{day - 1} {MOST}")
    await it.read()
    assert it.calls() == 2


@pytest.mark.parametrize(
    "fault",
    [
        {"action": "status", "status": 404},
        {"action": "errcode", "errcode": 76021},
        {"action": "errcode", "errcode": 76021, "errmsg": "no" * 500},
        {"action": "garbage"},
        {"action": "cut_before"},
    ],
)
async def test_a_wechat_that_does_not_say_leaves_it_unknown(
    desk: Opener, lines: list[Any], fault: dict[str, Any]
) -> None:
    it = await desk(**daily(3), faults=({"api": PATH, **fault},))
    for _ in range(2):
        it.forget_asking()
        await it.read()
    assert it.left is None
    assert len(it.reserve(9).slots[0]) == 9
    told = [line for line in lines if line["event"] == "quota_unknown"]
    assert len(told) == 1, "the same reason is told once"
    assert 0 < len(Quotas(it.client, it.settings).limits("shop").quotas["subscribe"].error) <= 200
    assert "access_token" not in str(it.client.hgetall(keys.quotas("shop")))


async def test_without_a_token_or_told_not_to_nothing_is_asked(desk: Opener) -> None:
    it = await desk({"read_quota": False}, **daily(3))
    await it.read()
    other = await desk({"token_source": "redis", "token_key": OUTSIDE_TOKEN}, **daily(3))
    await other.read()
    assert (it.calls(), other.calls()) == (0, 0)


async def test_what_was_read_holds_no_more_once_it_is_told_not_to_read(desk: Opener) -> None:
    it = await desk(**daily(3))
    await it.read()
    assert it.reserve(9).spent_s > 0
    shop = it.settings.app("shop").model_copy(update={"read_quota": False})
    it.settings.apps.put({**it.settings.apps, "shop": shop})
    assert (len(it.reserve(9).slots[0]), it.reserve(9).spent_s) == (9, 0)
    assert Quotas(it.client, it.settings).limits("shop").quotas["subscribe"].left is None


async def test_what_it_takes_in_a_second_is_read_too(desk: Opener) -> None:
    it = await desk(**daily(3, per_minute=60))
    await it.read()
    quota = Quotas(it.client, it.settings).limits("shop").quotas["subscribe"]
    assert (quota.per, quota.per_s, quota.limit) == (60, 60, 3)


async def test_workers_that_look_at_once_ask_once(desk: Opener) -> None:
    it = await desk(**daily(3))
    await asyncio.gather(*(it.read() for _ in range(5)))
    assert it.calls() == 1


async def test_until_its_turn_comes_redis_is_not_asked_whether_it_may_ask(desk: Opener) -> None:
    """Each second it looks, of all apps at once; most of these looks are its own business."""
    it = await desk(**daily(10))
    await it.read()
    assert it.calls() == 1
    it.client.config_resetstat()
    await it.readings.run()
    assert "cmdstat_evalsha" not in it.client.info("commandstats")
    it.gate.urgent.add("subscribe")
    await it.readings.run()
    assert "cmdstat_evalsha" in it.client.info("commandstats")


async def test_of_an_app_that_sends_nothing_the_retired_channel_is_never_read(desk: Opener) -> None:
    """What is left of the other channel is worth knowing before the first broadcast."""
    it = await desk(**daily(10))
    for channel in ("subscribe", "template"):
        it.readings._next_at["shop", channel] = 0
    await it.readings.run()
    said = it.client.hgetall(keys.quotas("shop"))
    assert ("asked:subscribe" in said, "asked:template" in said) == (True, False)
