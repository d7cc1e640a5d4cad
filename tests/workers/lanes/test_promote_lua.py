"""keep.lua promotes: delayed messages whose time has come go to the front of the queue."""

import pytest
from lane_driver import TTL, Lane, form, row


def delay(lane: Lane, **waits: int) -> None:
    due = {lane.item(openid): lane.now_ms + ms for openid, ms in waits.items()}
    lane.client.zadd(lane.key("delayed", "b1"), due)
    lane.ends("delayed", "b1")


def test_what_is_due_is_promoted_before_what_is_queued(lane: Lane) -> None:
    lane.start("b1", "queued")
    delay(lane, anna=0, bert=10, carl=11)
    steps = [(0, 1, ["anna", "queued"], 2), (9, 0, ["anna", "queued"], 2), (1, 1, None, 1)]
    for passed, promoted, queue, left in steps:
        lane.now_ms += passed
        assert lane.promote("b1") == promoted
        assert len(lane.delayed("b1")) == left
        if queue:
            assert lane.queue("b1") == queue
    assert lane.queue("b1") == ["bert", "anna", "queued"]
    assert 0 < lane.client.pttl(lane.key("queue", "b1")) <= TTL


def test_at_most_the_limit_is_promoted_the_longest_due_first(lane: Lane) -> None:
    lane.start("b1")
    delay(lane, anna=-3, bert=-2, carl=-1)
    assert lane.promote("b1", messages=2) == 2
    assert lane.queue("b1") == ["anna", "bert"]
    assert TTL - 60_000 < lane.client.pttl(lane.key("queue", "b1")) <= TTL  # it is a new one
    assert lane.promote("b1", messages=2) == 1


def test_what_is_put_back_comes_before_what_was_promoted_and_that_in_the_order_of_its_time(
    lane: Lane,
) -> None:
    lane.give("dora", form("D"))
    lane.start("b1", "dora", "queued", open=1)
    claim = lane.take_one()
    delay(lane, carl=-1, anna=-3, bert=-2)
    assert lane.promote("b1") == 3
    assert lane.queue("b1") == ["anna", "bert", "carl", "queued"]
    lane.settle(row(claim, "requeue", "back"))
    assert lane.queue("b1") == ["dora", "anna", "bert", "carl", "queued"]


def test_a_broadcast_joins_the_ring_once(lane: Lane) -> None:
    lane.start("b1")
    lane.client.delete(lane.key("ring", "shop"))
    delay(lane, anna=0)
    for _ in range(2):
        lane.promote("b1")
        assert lane.ring() == ["b1"]


def test_a_queue_outside_the_ring_is_brought_back(lane: Lane) -> None:
    lane.start("b1", "anna")
    lane.client.delete(lane.key("ring", "shop"))
    assert lane.promote("b1") == 0
    assert lane.ring() == ["b1"]


def test_a_priority_broadcast_joins_the_priority_ring(lane: Lane) -> None:
    lane.start("b1", priority=1)
    lane.client.delete(lane.key("priority_ring", "shop"))
    delay(lane, anna=0)
    lane.promote("b1")
    assert (lane.ring(first=True), lane.ring()) == (["b1"], [])


@pytest.mark.parametrize(
    "change", [{"state": "paused"}, {"verdict": "pause 43101"}, {"drop": "late"}]
)
def test_what_may_not_be_sent_waits_on(lane: Lane, change: dict[str, str]) -> None:
    lane.start("b1")
    lane.client.delete(lane.key("ring", "shop"))
    lane.client.hset(lane.key("lane_broadcast", "b1"), mapping=change)
    delay(lane, anna=0)
    assert lane.promote("b1") == 0
    assert (list(lane.delayed("b1")), lane.queue("b1"), lane.ring()) == (["anna"], [], [])
