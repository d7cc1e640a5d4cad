"""aside.lua: an operator's word on the messages that outlived their workers too often."""

import pytest
from lane_driver import TTL, Lane, form, row


def set_aside(lane: Lane, *openids: str, **copy: object) -> None:
    """Run b1 to these users, and let the first one's message kill its worker once too often."""
    lane.collect({openid: [form(openid)] for openid in openids})
    lane.start("b1", *openids, **copy)
    assert lane.take_one("w1").openid == openids[0]
    lane.recover("b1", "w1", attempts=1)
    assert lane.copy("b1")["aside"] == "1"


def test_a_replayed_message_is_at_the_front_resumed_with_its_permit_and_all_attempts(
    lane: Lane,
) -> None:
    set_aside(lane, "anna", "bert", open=1)
    lane.client.delete(lane.key("ring", "shop"), lane.key("busy"), lane.key("due"))
    assert lane.aside("b1", "replay") == 1
    assert lane.queue("b1") == ["anna", "bert"]
    worker, _, member, _, _, tries, resumed = lane.flight("b1")["anna"]
    assert (worker, member, tries, resumed) == ("-", "f:anna", 0, True)
    assert (lane.copy("b1")["aside"], lane.ring(), lane.due()) == ("0", ["b1"], {"b1": 0})
    assert lane.client.smembers(lane.key("busy")) == {"shop"}
    assert (lane.aside("b1", "replay"), lane.queue("b1")) == (0, ["anna", "bert"])
    assert lane.take_one("w2").resumed
    lane.check_ledger("b1")


def test_before_the_first_delivery_a_replayed_message_takes_its_canary_place_again(
    lane: Lane,
) -> None:
    """Else one more permit than K would be at risk (I7)."""
    set_aside(lane, "anna", "bert", "carl", canary=1)
    assert lane.canary_of("b1")[1] == 0  # its place was free meanwhile …
    lane.aside("b1", "replay")
    assert lane.canary_of("b1")[1] == 1
    again = lane.take("w2")
    assert again.openids == ["anna"]  # … and is its own now: nobody else's permit is claimed
    lane.settle(row(again.claims[0], "settle", "doubt", "in_doubt"), worker="w2")
    assert lane.canary_of("b1")[1] == 0
    assert lane.take("w2").openids == ["bert"]


def test_after_the_first_delivery_there_are_no_places(lane: Lane) -> None:
    set_aside(lane, "anna", open=1)
    lane.aside("b1", "replay")
    assert lane.canary_of("b1") == ("1", 0, 0, 0, 0)


def test_a_queue_that_was_empty_ends_with_its_broadcast(lane: Lane) -> None:
    set_aside(lane, "anna")
    lane.aside("b1", "replay")
    assert TTL - 60_000 < lane.client.pttl(lane.key("queue", "b1")) <= TTL


@pytest.mark.parametrize("state", ["paused", "scheduled"])
def test_what_does_not_run_is_replayed_outside_the_ring(lane: Lane, state: str) -> None:
    set_aside(lane, "anna")
    lane.adopt("b1", 2, state)
    assert lane.aside("b1", "replay") == 1
    assert (lane.queue("b1"), lane.ring()) == (["anna"], [])


def test_a_priority_broadcast_is_replayed_in_its_own_ring(lane: Lane) -> None:
    set_aside(lane, "anna", priority=1)
    lane.aside("b1", "replay")
    assert (lane.ring(first=True), lane.ring()) == (["b1"], [])


def test_what_is_given_up_is_in_doubt_and_its_permit_spent(lane: Lane) -> None:
    set_aside(lane, "anna")
    lane.client.delete(lane.key("due"))
    assert lane.aside("b1", "doubt") == 1
    assert lane.outcomes("b1") == {"anna": "in_doubt"}
    assert (lane.flight("b1"), lane.queue("b1"), lane.due()) == ({}, [], {"b1": 0})
    assert lane.counts("b1") == {"total": 1, "done": 1, "o:in_doubt": 1}
    assert lane.ledger() == {"collected:f": 1, "spent:f": 1}
    assert (lane.copy("b1")["aside"], lane.canary_of("b1")[1]) == ("0", 0)


@pytest.mark.parametrize("what", ["replay", "doubt"])
def test_what_was_not_set_aside_is_left_alone(lane: Lane, what: str) -> None:
    lane.give("anna", form("A"))
    lane.start("b1", "anna")
    lane.take_one()
    before = lane.flight("b1")
    assert lane.aside("b1", what) == 0
    assert (lane.flight("b1"), lane.queue("b1")) == (before, [])
    assert "aside" not in lane.copy("b1")


def test_a_cancel_ends_what_was_set_aside(lane: Lane) -> None:
    set_aside(lane, "anna")
    lane.adopt("b1", 2, "cancelled", "cancelled")
    assert lane.outcomes("b1") == {"anna": "in_doubt"}
    assert (lane.flight("b1"), lane.copy("b1")["aside"]) == ({}, "0")
