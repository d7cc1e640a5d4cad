"""Passes as producers and workers run them: who goes first, and everybody once whatever happens."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from shop import Shop
from structlog.testing import capture_logs

from producers.broadcasts.split import Splitter
from producers.logs import lines as log_lines
from producers.ordering.passes import DONE, PASSES, REST, Passes
from producers.store import keys
from producers.users import Users
from producers.words import State

USERS = 300
both_layouts = pytest.mark.parametrize("lanes", [1, 4])


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    """Give the events that are logged."""
    log_lines._state.clear()
    with capture_logs() as captured:
        yield captured


def open_up(shop: Shop, users: int = USERS, *, last_s: float = 0.3) -> list[str]:
    """Give each user a form_id, one ending after the other; return them in that order.

    Args:
        shop: the shop.
        users: how many.
        last_s: how long after the one before each ends.
    """
    now_ms = shop.now_ms()
    # in no order of their buckets
    openids = [f"o{n * 7919 % 100_003}" for n in range(users)]
    rows = [
        {"openid": one, "formId": f"f{one}", "expire": now_ms + 15_000 + round(1000 * last_s * n)}
        for n, one in enumerate(openids)
    ]
    assert shop.collector.collect("shop", rows).new == users
    return openids


def look_of(shop: Shop, broadcast: str) -> set[str | None]:
    lanes = shop.settings.layout.lanes
    return {shop.client.hget(keys.lane_broadcast(lane, broadcast), "look") for lane in lanes}


def drain(shop: Shop, broadcast: str, lane: int, some: int = 20) -> list[str]:
    """Take from one lane's queue as workers do, until it is split; returns the openids in turn."""
    splitter, taken = Splitter(shop.client, shop.settings), list[str]()
    while True:
        items = shop.client.lpop(keys.queue(lane, broadcast), some) or []
        taken += [item.partition(":")[2] for item in items]
        splitter.fill(broadcast, lane)
        split = shop.client.hget(keys.lane_broadcast(lane, broadcast), "split")
        if split == "done" and not shop.client.llen(keys.queue(lane, broadcast)):
            return taken


@both_layouts
def test_a_long_broadcast_goes_by_what_ends_first(shop: Shop, lines: Any) -> None:
    openids = open_up(shop)
    broadcast = shop.broadcast(rate=3)
    for lane in shop.settings.layout.lanes:
        mine = [one for one in openids if shop.lane(one) == lane]
        taken = drain(shop, broadcast, lane)
        assert Counter(taken) == Counter(mine)
        # within a slot, a 256th of the length, in any order
        places = [mine.index(one) for one in taken]
        assert max(abs(place - n) for n, place in enumerate(places)) <= 2
    ordered = [line for line in lines if line["event"] == "split_ordered"]
    assert [line["pass_number"] for line in ordered] == [1] * shop.settings.lanes
    assert all(line["length_s"] == pytest.approx(100, abs=40) for line in ordered)
    assert shop.broadcasts.status(broadcast).total == USERS
    assert not [key for key in shop.client.scan_iter() if "hurried" in key or "soon" in key]


@pytest.mark.timeout(10)
def test_whoever_looked_before_others_went_on_to_the_rest_ends_too(shop: Shop) -> None:
    """A producer that creates it and a worker may fill the same lane."""
    open_up(shop)
    broadcast, passes = shop.broadcast(rate=3), Passes(shop.client, shop.settings)
    before = passes._read(broadcast, 0)
    assert (before.look, before.hurried > 0) == (DONE, True)
    drain(shop, broadcast, 0)
    moved, copy = passes.fill(broadcast, 0, before, USERS, lambda _: [])
    assert (moved, copy and copy.look) == (0, REST)


@both_layouts
def test_those_who_can_wait_come_after_those_who_cannot(shop: Shop) -> None:
    urgent = open_up(shop, 100)
    waiting = [f"oLater{n}" for n in range(200)]
    shop.collector.collect("shop", [{"openid": one, "formId": f"f{one}"} for one in waiting])
    broadcast = shop.broadcast(rate=3)
    for lane in shop.settings.layout.lanes:
        taken = drain(shop, broadcast, lane)
        mine = [one for one in urgent if shop.lane(one) == lane]
        assert set(taken[: len(mine)]) == set(mine)
        assert set(taken) == {one for one in [*urgent, *waiting] if shop.lane(one) == lane}
        assert len(taken) == len(set(taken))


@pytest.mark.parametrize(
    ("channel", "rate"),
    [("template", 0), ("subscribe", 3)],
    ids=["through at once", "accepts have no end"],
)
def test_any_other_is_split_in_one_pass(shop: Shop, channel: str, rate: float) -> None:
    open_up(shop)
    broadcast = shop.broadcast(channel, rate=rate)
    assert look_of(shop, broadcast) == {None}
    assert shop.client.hget(keys.lane_broadcast(0, broadcast), "cursor").isdecimal()


def test_where_no_permit_ends_in_time_there_is_one_pass(shop: Shop) -> None:
    rows = [{"openid": f"o{n}", "formId": f"f{n}"} for n in range(USERS)]
    shop.collector.collect("shop", rows)
    assert look_of(shop, shop.broadcast(rate=3)) == {None}


@both_layouts
def test_paused_and_resumed_amid_its_passes_it_reaches_all_once(shop: Shop) -> None:
    openids = open_up(shop, 220 * shop.settings.lanes, last_s=0.1)
    broadcast = shop.broadcast(rate=10 if shop.settings.lanes > 1 else 3)
    assert look_of(shop, broadcast) == {"done"}
    shop.broadcasts.pause(broadcast)
    shop.keeper.run_once()
    shop.broadcasts.resume(broadcast)
    shop.run_dry(broadcast)
    shop.keeper.run_once()
    status = shop.broadcasts.status(broadcast)
    assert (status.state, status.total) == (State.FINISHED, len(openids))
    assert status.outcomes == {"delivered": len(openids)}
    assert shop.wrong() == []


@both_layouts
def test_cancelled_amid_its_passes_it_counts_everybody_once(shop: Shop) -> None:
    open_up(shop, 900, last_s=0.1)
    broadcast = shop.broadcast(rate=10)
    assert look_of(shop, broadcast) == {"done"}
    shop.open(broadcast)
    for claim in shop.take(20):
        shop.settle(claim)
    sent = shop.broadcasts.status(broadcast).settled
    shop.broadcasts.cancel(broadcast)
    for _ in range(3):
        shop.keeper.run_once()
    status = shop.broadcasts.status(broadcast)
    assert status.complete
    assert status.total == 900
    assert status.outcomes == {"delivered": sent, "cancelled": 900 - sent}
    assert shop.wrong() == []
    assert not [key for key in shop.client.scan_iter() if "hurried" in key or "soon" in key]


def test_whoever_is_forgotten_while_waiting_in_a_slot_is_not_sent_to(shop: Shop) -> None:
    *_, last = open_up(shop)
    broadcast = shop.broadcast(rate=3)
    assert f"{shop.bucket(last)}:{last}" not in shop.client.lrange(keys.queue(0, broadcast), 0, -1)
    users = Users(shop.client, shop.settings)
    assert [send.state for send in users.show("shop", last).sends] == ["to_be_split"]
    users.forget("shop", last)
    assert [key for key, text in shop.everything().items() if last in key + text] == []
    assert last not in drain(shop, broadcast, 0)
    copy = shop.client.hgetall(keys.lane_broadcast(0, broadcast))
    assert (copy["split"], copy["hurried"]) == ("done", "0")


def test_one_that_takes_longer_than_was_thought_has_another_pass(shop: Shop, lines: Any) -> None:
    openids = open_up(shop, 900)
    broadcast = shop.broadcast(rate=10)
    shop.broadcasts.set_rate(broadcast, 2)
    taken = drain(shop, broadcast, 0)
    assert Counter(taken) == Counter(openids)
    passes = [line["pass_number"] for line in lines if line["event"] == "split_ordered"]
    assert passes in ([1, 2], [1, 2, 3])
    assert len(passes) <= PASSES
    places = [openids.index(one) for one in taken[:600]]
    assert max(abs(place - n) for n, place in enumerate(places)) <= 5
