"""Lanes' copies of a broadcast: only a lane that has adopted it has one, whoever writes to it."""

from typing import Any

import pytest
import redis
from lane_driver import Lane
from send_path import Stall

from producers import keys
from producers.settings import Settings
from producers.words import State
from workers.copies import Copies
from workers.epoch import Epochs
from workers.keeper import Keeper


@pytest.fixture
def copies(client: "redis.Redis") -> Copies:
    return Copies(client)


@pytest.mark.parametrize("lanes", [4])
@pytest.mark.parametrize("write", ["a new epoch", "the flood", "a canary"])
def test_a_broadcast_whose_lanes_were_written_to_before_they_had_a_copy_ends(
    client: "redis.Redis", settings: Settings, copies: Copies, write: str
) -> None:
    """Its creator died between the home and the lanes; whatever comes next must not hide that."""
    stall = Stall(client, settings)
    stall.form_ids(20)
    broadcast = stall.broadcast()
    for lane in range(settings.lanes):
        client.delete(keys.lane_broadcast(lane, broadcast), keys.queue(lane, broadcast))
        client.delete(keys.ring(lane, "shop"))
    epochs = Epochs(client, settings, stall.broadcasts)
    epochs.begin()
    client.zadd(keys.WORKERS, {"w1": int(client.time()[0]) * 1000})
    if write == "a new epoch":
        client.set(keys.SERVER, "an earlier run")
        epochs.begin()
    for lane in range(settings.lanes):
        if write == "the flood":
            assert not copies.open(broadcast, lane)
        elif write == "a canary":
            assert not copies.give_canary(broadcast, lane, 5)
        assert not client.exists(keys.lane_broadcast(lane, broadcast))
    Keeper(client, settings, stall.broadcasts, "w1").run_once()
    status = stall.broadcasts.status(broadcast)
    assert (status.state, status.total, status.queued) == (State.RUNNING, 20, 20)
    stall.broadcasts.cancel(broadcast)
    assert stall.broadcasts.status(broadcast).complete


def test_a_hash_without_a_generation_becomes_a_copy_and_keeps_its_marks(lane: Lane) -> None:
    """As an earlier version left it."""
    lane.client.hset(lane.key("lane_broadcast", "b1"), mapping={"unsure": 1, "open": 1})
    assert lane.adopt("b1") == [1, 0]
    copy = lane.copy("b1")
    assert (copy["app"], copy["generation"], copy["window"]) == ("shop", "1", "100")
    assert (copy["unsure"], copy["open"]) == ("1", "1")


def test_a_mark_is_written_where_there_is_a_copy(lane: Lane, copies: Copies) -> None:
    lane.adopt("b1")
    assert copies.mark("b1", 0, "unsure", "1")
    assert lane.copy("b1")["unsure"] == "1"


@pytest.mark.parametrize(("priority", "first"), [(0, False), (1, True)])
def test_what_is_let_in_stands_in_the_ring(
    lane: Lane, copies: Copies, priority: int, first: bool
) -> None:
    lane.start("b1", "anna", canary=0, priority=priority)
    for let_in in (lambda: copies.open("b1", 0), lambda: copies.give_canary("b1", 0, 3)):
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
    lane: Lane, copies: Copies, change: dict[str, Any]
) -> None:
    lane.start("b1", "anna")
    lane.client.delete(lane.key("ring", "shop"))
    lane.client.hset(lane.key("lane_broadcast", "b1"), mapping=change)
    assert copies.open("b1", 0)
    assert (lane.copy("b1")["open"], lane.ring()) == ("1", [])


def test_an_app_is_busy_as_long_as_something_is_in_its_rings(lane: Lane) -> None:
    lane.start("b1", "anna", "bert")
    lane.start("b2", "anna", priority=1, state="paused")
    lane.take(most=1)
    assert lane.client.smembers(lane.key("busy")) == set()  # nobody has a permit: all are settled
    lane.adopt("b3", split="done")
    lane.client.rpush(lane.key("queue", "b3"), lane.item("anna"))
    lane.adopt("b3", 2)
    assert lane.client.smembers(lane.key("busy")) == {"shop"}
    lane.adopt("b3", 3, "paused")
    lane.take()
    assert lane.client.smembers(lane.key("busy")) == set()


def test_a_lease_is_kept_taken_when_it_ended_and_never_stolen(
    client: "redis.Redis", settings: Settings
) -> None:
    stall = Stall(client, settings)
    first, second = (Keeper(client, settings, stall.broadcasts, name) for name in ("w1", "w2"))
    assert first._hold(0)
    assert first._hold(0)
    assert not second._hold(0)
    assert client.get(keys.keeper(0)) == "w1"
    client.delete(keys.keeper(0))
    assert second._hold(0)
    assert not first._hold(0)
    assert 0 < client.pttl(keys.keeper(0)) <= 3000
