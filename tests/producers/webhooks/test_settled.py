"""message.settled: a single message's outcome is told as it is recorded, and goes with its user."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from shop import Shop
from webhook_end import of_app

from producers import store
from producers.settings import Settings
from producers.store import keys
from producers.users import Users
from producers.webhooks.outbox import Letter, Outbox
from producers.webhooks.wishes import Wishes

EVENTS = ["message.settled"]


@pytest.fixture(params=[1, 4])
def shop(request: Any, client: Any, make_settings: Callable[..., Settings]) -> Any:
    """Give a shop that wants to know what becomes of its messages."""
    client.flushall()
    app = of_app("https://hooks.example/", webhook_events=EVENTS)
    settings = make_settings(app=app, lanes=request.param)
    mine = store.connect(settings)
    store.check_layout(mine, settings)
    Wishes(mine, settings).tell()
    yield Shop(mine, settings)
    mine.close()
    mine.connection_pool.disconnect()


def taken(shop: Shop, *, dies: bool = False) -> list[Letter]:
    """Take all that is to be posted."""

    async def take() -> list[Letter]:
        client = store.connect_async(shop.settings)
        outbox = Outbox(client, shop.settings, {"shop": 1000}, 10_000)
        found = [
            one for lane in shop.settings.layout.lanes for one in await outbox.take(lane, 1000)
        ]
        for letter in found if dies else ():
            await outbox.died(letter, "HTTP 500")
        await client.aclose()
        await client.connection_pool.disconnect()
        return found

    return asyncio.run(take())


def give(shop: Shop, *openids: str) -> None:
    for openid in openids:
        shop.give(openid, subscriptions={"T" * 43: "accept"})


def test_an_outcome_is_told_with_what_it_is(shop: Shop) -> None:
    give(shop, "o1", "o-2_x")
    carrier, *_ = (shop.post(one) for one in ("o1", "o-2_x", "o3"))
    shop.open(carrier)
    for claim in shop.take():  # o3 has no permit: that is settled here
        if claim.openid == "o1":
            shop.settle(claim, streak="ok", msgid="7")
        else:
            shop.settle(claim, "settle", "void", "refused", errcode=43101, streak="refusal")
    told = {one.event.details["openid"]: one.event for one in taken(shop)}
    assert {openid: event.details["outcome"] for openid, event in told.items()} == {
        "o1": "delivered",
        "o-2_x": "refused",
        "o3": "no_permit",
    }
    event = told["o-2_x"]
    assert event.type == "message.settled"
    assert event.broadcast == carrier
    assert event.details["message"] == f"{carrier}.o-2_x"
    assert event.details["errcode"] == 43101
    assert "o-2_x" not in event.id
    assert taken(shop) == []


def test_what_is_in_doubt_is_told_too(shop: Shop) -> None:
    give(shop, "o1")
    carrier = shop.post("o1")
    assert len(shop.take()) == 1
    shop.recover(carrier)
    (letter,) = taken(shop)
    assert letter.event.details["outcome"] == "in_doubt"


def test_the_recipients_of_a_broadcast_are_not_told_one_by_one(shop: Shop) -> None:
    give(shop, "o1", "o2")
    shop.run_dry(shop.broadcast("subscribe"))
    assert taken(shop) == []


def test_who_does_not_want_it_keeps_nothing(shop: Shop) -> None:
    for lane in shop.settings.layout.lanes:
        shop.client.hset(keys.hooks(lane), "shop", "10 100000 broadcast.paused")
    give(shop, "o1")
    shop.open(shop.post("o1"))
    for claim in shop.take():
        shop.settle(claim)
    assert list(shop.client.scan_iter("*hooks:*")) == []


@pytest.mark.parametrize("dies", [False, True])
def test_a_forgotten_user_leaves_what_waits_and_the_dead_letters(shop: Shop, dies: bool) -> None:
    give(shop, "o1", "o2")
    for openid in ("o1", "o2"):
        shop.open(shop.post(openid))
    for claim in shop.take():
        shop.settle(claim)
    if dies:
        assert len(taken(shop, dies=True)) == 2
    assert [key for key in shop.mentions("o1") if "hooks" in key]
    Users(shop.client, shop.settings).forget("shop", "o1")
    assert not [key for key in shop.mentions("o1") if "hooks" in key]
    assert [key for key in shop.mentions("o2") if "hooks" in key]


def test_a_user_forgotten_while_a_message_is_in_hands_is_not_told(shop: Shop) -> None:
    give(shop, "o1")
    shop.open(shop.post("o1"))
    (claim,) = shop.take()
    Users(shop.client, shop.settings).forget("shop", "o1")
    shop.settle(claim)
    assert taken(shop) == []
