"""Lanes' copies of a broadcast: only a lane that has adopted it has one, whoever writes to it."""

from typing import Any

import pytest
import redis
from lane_driver import Claimed, Lane, form, row
from send_path import Stall

from producers.settings import Settings
from producers.store import keys
from producers.words import State
from workers.duties.epochs import Epochs
from workers.lanes.copies import Copies
from workers.lanes.keeper import Keeper


@pytest.fixture
def copies(client: "redis.Redis") -> Copies:
    return Copies(client)


@pytest.fixture
def copies_here(lane: Lane) -> Copies:
    return Copies(lane.client)


@pytest.mark.parametrize("lanes", [4])
@pytest.mark.parametrize("write", ["the flood", "a canary"])
def test_a_broadcast_whose_lanes_were_written_to_before_they_had_a_copy_ends(
    client: "redis.Redis", settings: Settings, copies: Copies, write: str
) -> None:
    """Its creator died between the home and the lanes; whatever comes next must not hide that."""
    stall = Stall(client, settings)
    stall.form_ids(20)
    broadcast = stall.broadcast()
    for lane in settings.layout.lanes:
        client.delete(keys.lane_broadcast(lane, broadcast), keys.queue(lane, broadcast))
        client.delete(keys.ring(lane, "shop"))
    for lane in settings.layout.lanes:
        if write == "the flood":
            assert not copies.open("shop", broadcast, [lane])
        else:
            assert not copies.give_canary("shop", broadcast, lane, 5)
        assert not client.exists(keys.lane_broadcast(lane, broadcast))
    Keeper(client, settings, stall.broadcasts, "w1").run_once()
    status = stall.broadcasts.status(broadcast)
    assert (status.state, status.total, status.queued) == (State.RUNNING, 20, 20)
    stall.broadcasts.cancel(broadcast)
    assert stall.broadcasts.status(broadcast).complete


@pytest.mark.parametrize("lanes", [4])
def test_a_lane_that_redis_forgot_gets_its_copy_and_its_mark(
    client: "redis.Redis", settings: Settings
) -> None:
    """Everything in it is sent again, so what WeChat calls used is this broadcast's own doing."""
    stall = Stall(client, settings)
    stall.form_ids(20)
    broadcast = stall.broadcast()
    epochs = Epochs(client, settings, stall.broadcasts)
    epochs.begin()
    client.delete(keys.lane_broadcast(2, broadcast), keys.queue(2, broadcast))
    client.set(keys.SERVER, "an earlier run")
    epochs.begin()
    for lane in settings.layout.lanes:
        copy = client.hgetall(keys.lane_broadcast(lane, broadcast))
        assert (copy["state"], copy["unsure"]) == ("running", "1")


def test_a_canary_comes_with_what_it_met_and_is_not_given_twice(
    lane: Lane, copies_here: Copies
) -> None:
    lane.collect({openid: [form(openid)] for openid in ("anna", "bert", "carl")})
    lane.start("b1", "anna", "bert", "carl", canary=0)
    assert copies_here.give_canary("shop", "b1", 0, 10, [3, 5, 1])
    assert copies_here.give_canary("shop", "b1", 0, 10, [0, 0, 0])
    assert lane.canary_of("b1") == ("0", 0, 3, 5, 1)
    first, second = lane.take().claims
    settled = lane.settle(refusal(first), refusal(second))
    assert "b1 verdict pause 43101" in settled.flags


def test_whoever_was_refused_is_believed_once_another_lane_delivered(
    lane: Lane, copies_here: Copies
) -> None:
    lane.collect({"anna": [form("A"), form("B")]})
    lane.start("b1", "anna")
    lane.settle(refusal(lane.take_one()))
    assert lane.ledger() == {"collected:f": 2, "void:f": 1}
    assert copies_here.open("shop", "b1", [0])
    assert lane.ledger() == {"collected:f": 2, "void:f": 2}
    assert not lane.client.exists(lane.key("suspects", "b1"))
    lane.check_ledger("b1")


def refusal(claim: Claimed) -> str:
    return row(claim, "settle", "void_all", "refused", errcode=43101, streak="refusal")


def test_a_hash_without_a_generation_becomes_a_copy_and_keeps_its_marks(lane: Lane) -> None:
    """As an earlier version left it."""
    lane.client.hset(lane.key("lane_broadcast", "b1"), mapping={"unsure": 1, "open": 1})
    assert lane.adopt("b1") == [1, 0]
    copy = lane.copy("b1")
    assert (copy["app"], copy["generation"], copy["window"]) == ("shop", "1", "100")
    assert (copy["unsure"], copy["open"]) == ("1", "1")


def test_a_mark_is_written_where_there_is_a_copy(lane: Lane, copies_here: Copies) -> None:
    lane.adopt("b1")
    assert copies_here.mark("b1", 0, "unsure", "1")
    assert lane.copy("b1")["unsure"] == "1"


@pytest.mark.parametrize(("priority", "first"), [(0, False), (1, True)])
def test_what_is_let_in_stands_in_the_ring(
    lane: Lane, copies_here: Copies, priority: int, first: bool
) -> None:
    lane.start("b1", "anna", canary=0, priority=priority)
    for let_in in (
        lambda: copies_here.open("shop", "b1", [0]),
        lambda: copies_here.give_canary("shop", "b1", 0, 3),
    ):
        lane.client.delete(lane.key("ring", "shop"), lane.key("priority_ring", "shop"))
        lane.client.delete(lane.key("busy"))
        assert let_in()
        assert lane.ring(first=first) == ["b1"]
        assert lane.client.smembers(lane.key("busy")) == {"shop"}
    assert (lane.copy("b1")["open"], lane.copy("b1")["canary"]) == ("1", "3")


@pytest.mark.parametrize(
    "change", [{"state": "paused"}, {"verdict": "pause 43101"}, {"drop": "late"}]
)
def test_what_may_not_be_sent_is_let_in_and_stays_out_of_the_ring(
    lane: Lane, copies_here: Copies, change: dict[str, Any]
) -> None:
    lane.start("b1", "anna")
    lane.client.delete(lane.key("ring", "shop"))
    lane.client.hset(lane.key("lane_broadcast", "b1"), mapping=change)
    assert copies_here.open("shop", "b1", [0])
    assert (lane.copy("b1")["open"], lane.ring()) == ("1", [])


def test_a_lane_with_nothing_queued_is_let_in_and_stays_out_of_the_ring(
    lane: Lane, copies_here: Copies
) -> None:
    lane.start("b1")
    assert copies_here.open("shop", "b1", [0])
    assert (lane.copy("b1")["open"], lane.ring()) == ("1", [])


def test_an_app_is_busy_as_long_as_something_is_in_its_rings(lane: Lane) -> None:
    lane.start("b1", "anna", "bert")
    lane.start("b2", "anna", priority=1, state="paused")
    lane.take(most=1)
    assert lane.client.smembers(lane.key("busy")) == set()  # nobody has a permit: all are settled
    lane.adopt("b3", split="done")
    lane.client.rpush(lane.key("queue", "b3"), lane.item("anna"))
    lane.ends("queue", "b3")
    lane.adopt("b3", 2)
    assert lane.client.smembers(lane.key("busy")) == {"shop"}
    lane.adopt("b3", 3, "paused")
    lane.take()
    assert lane.client.smembers(lane.key("busy")) == set()


def test_a_lease_is_kept_taken_when_it_ended_and_never_stolen(lane: Lane) -> None:
    assert lane.keep("w1") == []
    assert lane.keep("w1") == []
    assert lane.keep("w2") is None
    assert lane.client.get(lane.key("keeper")) == "w1"
    lane.client.delete(lane.key("keeper"))
    assert lane.keep("w2") == []
    assert lane.keep("w1") is None
    assert 0 < lane.client.pttl(lane.key("keeper")) <= 3000
