"""adopt.lua: a lane takes a newer generation only, and drops what is to be dropped."""

import pytest
from lane_driver import MARGIN, TTL, Lane, form, row


def test_the_first_generation_makes_the_copy(lane: Lane) -> None:
    assert lane.adopt("b1") == [1, 0]
    copy = lane.copy("b1")
    assert copy == {
        "app": "shop",
        "channel": "template",
        "template": "T",
        "audience": "all",
        "priority": "0",
        "rate": "0",
        "window": "100",
        "cursor": "0",
        "split": "",
        "total": "0",
        "done": "0",
        "open": "0",
        "canary": "10",
        "generation": "1",
        "state": "running",
        "drop": "",
        "verdict": "",
        "errcode": "0",
        "reason": "",
        "move": "1 ",
        "carry": "1",
        "template_errors": "0",
        "refusals": "0",
        "unknowns": "0",
        "recent": "0",
        "recent_errors": "0",
    }
    assert 0 < lane.client.pttl(lane.key("lane_broadcast", "b1")) <= TTL


def test_an_older_or_equal_generation_changes_nothing_and_the_lane_says_what_it_knows(
    lane: Lane,
) -> None:
    lane.adopt("b1", 2, "paused", errcode=43101, reason="refusals", move="t")
    before = lane.copy("b1")
    known = [-1, 0, 2, "paused", 43101, "refusals", "t"]
    assert lane.adopt("b1", 2, "paused", move="t") == [0, 0]
    assert lane.adopt("b1", 2, "paused", move="u") == known  # another rate, or weight
    assert lane.adopt("b1", 2, "running", move="t") == known
    assert lane.adopt("b1", 1, "paused", move="s") == known
    assert lane.adopt("b1", 1, "cancelled", "cancelled") == known
    assert lane.copy("b1") == before


def test_a_copy_of_an_earlier_version_that_knows_no_move_is_not_ahead(lane: Lane) -> None:
    lane.adopt("b1", 2, "paused", move="t")
    lane.client.hdel(lane.key("lane_broadcast", "b1"), "move", "reason")
    assert lane.adopt("b1", 2, "paused", move="u") == [0, 0]
    assert lane.adopt("b1", 1, "paused") == [-1, 0, 2, "paused", 0, "", ""]


def test_a_generation_that_an_earlier_version_brought_is_not_ahead(lane: Lane) -> None:
    lane.adopt("b1", 2, "paused", move="t")
    lane.client.hset(lane.key("lane_broadcast", "b1"), mapping={"generation": 3})
    assert lane.adopt("b1", 3, "paused", move="u") == [0, 0]


@pytest.mark.parametrize("state", ["cancelled", "aborted"])
def test_who_was_cancelled_or_aborted_never_goes_on(lane: Lane, state: str) -> None:
    lane.start("b1", "anna")
    lane.adopt("b1", 2, state, "cancelled")
    for offered in ("scheduled", "running", "paused"):
        assert lane.adopt("b1", 7, offered)[:4] == [-1, 0, 2, state]
    assert lane.adopt("b1", 8, "aborted", "cancelled") == [1, 0]
    assert lane.adopt("b1", 9, "finished") == [1, 0]


def test_what_is_dropped_is_counted_before_it_may_go_on(lane: Lane) -> None:
    lane.give("anna", form("A"))
    lane.start("b1", "anna", "bert")
    lane.take_one()
    lane.adopt("b1", 2, "running", "late", sweep=False)
    assert "sweeping" in lane.copy("b1")
    assert lane.adopt("b1", 3, "running")[:1] == [0]  # swept by that
    assert lane.counts("b1") == {"total": 2, "done": 1, "o:late": 1}
    assert lane.adopt("b1", 3, "running") == [1, 0]


def test_what_waits_is_unsure_once_since_the_generation_that_says_so(lane: Lane) -> None:
    lane.adopt("b1")
    lane.adopt("b1", 3, "paused")
    assert "unsure" not in lane.copy("b1")
    lane.now_ms += 5
    lane.adopt("b1", 5, unsure=4)
    assert lane.copy("b1")["unsure"] == "1"
    assert lane.copy("b1")["unsure_at_ms"] == str(lane.now_ms)
    then = lane.now_ms
    lane.now_ms += 5
    lane.adopt("b1", 6, unsure=4)
    assert lane.copy("b1")["unsure_at_ms"] == str(then)


@pytest.mark.parametrize(("given", "due"), [([], {}), (["anna"], {"b1": 0})])
def test_an_end_that_comes_before_its_recipients_is_looked_at(
    lane: Lane, given: list[str], due: dict[str, int]
) -> None:
    lane.start("b1", *given)
    lane.client.delete(lane.key("due"))
    assert lane.adopt("b1", 2, "finished") == [1, 0]
    assert lane.due() == due


def test_pausing_leaves_the_ring_and_resuming_rejoins_it_at_its_end(lane: Lane) -> None:
    lane.start("b1", "anna")
    lane.start("b2", "anna")
    steps = [
        (2, "paused", ["b2"]),
        (3, "running", ["b2", "b1"]),
        (4, "paused", ["b2"]),
        (5, "running", ["b2", "b1"]),
    ]
    for generation, state, ring in steps:
        assert lane.adopt("b1", generation, state) == [1, 0]
        assert lane.ring() == ring
        assert lane.queue("b1") == ["anna"]


def test_a_priority_broadcast_leaves_and_joins_its_own_ring(lane: Lane) -> None:
    lane.start("b1", "anna", priority=1)
    lane.adopt("b1", 2, "paused")
    assert lane.ring(first=True) == []
    lane.adopt("b1", 3, "running")
    assert (lane.ring(first=True), lane.ring()) == (["b1"], [])


def test_resuming_with_nothing_queued_joins_no_ring(lane: Lane) -> None:
    lane.adopt("b1", 1, "paused")
    lane.adopt("b1", 2, "running")
    assert lane.ring() == []


def test_a_newer_generation_clears_verdict_and_streaks_and_keeps_the_rest(lane: Lane) -> None:
    lane.adopt("b1")
    marks = {"verdict": "pause 43101", "template_errors": 3, "refusals": 10, "unknowns": 2}
    lane.client.hset(lane.key("lane_broadcast", "b1"), mapping={**marks, "unjudged": 4, "total": 9})
    lane.adopt("b1", 2, "paused")
    copy = lane.copy("b1")
    assert [copy[name] for name in marks] == ["", "0", "0", "0"]
    assert (copy["unjudged"], copy["total"], copy["state"]) == ("4", "9", "paused")


def test_cancelling_counts_and_drops_what_is_queued_and_delayed(lane: Lane) -> None:
    for openid in ("anna", "bert"):
        lane.give(openid, form(openid))
    lane.start("b1", "anna", "bert", "carl", "dora")
    anna = lane.take_one()
    bert = lane.take_one()
    lane.settle(row(anna, "delay", "back", errcode=43108, delay=1000))
    assert (lane.queue("b1"), list(lane.delayed("b1"))) == (["carl", "dora"], ["anna"])
    assert lane.adopt("b1", 2, "cancelled", "cancelled") == [1, 3]
    assert (lane.queue("b1"), lane.delayed("b1"), lane.ring()) == ([], {}, [])
    assert list(lane.flight("b1")) == ["bert"]
    assert lane.counts("b1") == {"total": 4, "done": 3, "o:cancelled": 3, "e:43108": 1}
    lane.deliver(bert)
    counted = {"total": 4, "done": 4, "o:cancelled": 3, "o:delivered": 1, "e:43108": 1}
    assert lane.counts("b1") == counted
    lane.check_ledger("b1")


def test_a_resumed_message_that_is_dropped_is_in_doubt_and_its_permit_spent(lane: Lane) -> None:
    lane.give("anna", form("A"))
    lane.give("bert", form("B"))
    lane.start("b1", "anna", "bert", "carl")
    lane.take(most=2)
    lane.recover("b1", "w1")
    queued = lane.take_one("w2")
    lane.settle(row(queued, "keep", "keep", delay=1000), worker="w2")
    assert len(lane.queue("b1")) == 2
    assert len(lane.delayed("b1")) == 1
    assert lane.adopt("b1", 2, "running", "late") == [1, 1]
    assert lane.outcomes("b1") == {"anna": "in_doubt", "bert": "in_doubt"}
    assert lane.counts("b1") == {"total": 3, "done": 3, "o:late": 1, "o:in_doubt": 2}
    assert (lane.flight("b1"), lane.sending()) == ({}, {})
    assert lane.ledger() == {"collected:f": 2, "spent:f": 2}
    lane.check_ledger("b1")


def test_a_drop_does_not_end_the_lease_of_the_users_other_message(lane: Lane) -> None:
    """The resumed message that is dropped has no lease: it waits; another one is being sent."""
    lane.give("anna", form("A"), form("B"), form("C"))
    for broadcast in ("b1", "b2", "b3"):
        lane.start(broadcast, "anna")
    assert lane.take_one("w1").broadcast == "b1"
    lane.recover("b1", "w1")
    lane.client.lrem(lane.key("ring", "shop"), 0, "b1")
    assert lane.take_one("w2").broadcast == "b2"
    lane.adopt("b1", 2, "cancelled", "cancelled")
    assert lane.outcomes("b1") == {"anna": "in_doubt"}
    assert lane.take("w3").claims == []
    assert lane.sending().keys() == {"anna"}


def test_a_broadcast_that_is_late_is_taken_from_no_more(lane: Lane) -> None:
    lane.give("anna", form("A", lane.now_ms + MARGIN + 1))
    lane.start("b1", "anna")
    lane.adopt("b1", 2, "running", "late")
    assert lane.take().claims == []
    assert lane.ring() == []


def test_a_second_adoption_of_a_drop_counts_nothing_twice(lane: Lane) -> None:
    lane.start("b1", "anna")
    assert lane.adopt("b1", 2, "cancelled", "cancelled") == [1, 1]
    assert lane.adopt("b1", 2, "cancelled", "cancelled") == [0, 0]
    assert lane.counts("b1") == {"total": 1, "done": 1, "o:cancelled": 1}


def test_it_wakes_the_workers(lane: Lane) -> None:
    with lane.client.pubsub(ignore_subscribe_messages=True) as wakes:
        wakes.subscribe("wxb:wake")
        wakes.get_message(timeout=1)
        for generation, state, drop in (
            (1, "running", ""),
            (2, "paused", ""),
            (3, "running", "late"),
            (3, "running", "late"),
        ):
            lane.adopt("b1", generation, state, drop)
        heard = [wakes.get_message(timeout=1)["data"] for _ in range(3)]
        assert heard == ["go b1", "stop b1", "stop b1"]
        assert wakes.get_message(timeout=0) is None


@pytest.mark.parametrize(
    ("state", "drop", "needs"),
    [
        ("running", "", True),
        ("running", "late", True),
        ("cancelled", "cancelled", True),
        ("paused", "", False),
    ],
)
def test_what_a_move_leaves_to_do_is_due_at_once(
    lane: Lane, state: str, drop: str, *, needs: bool
) -> None:
    lane.adopt("b1")
    lane.client.delete(lane.key("due"))
    lane.adopt("b1", 2, state, drop)
    assert lane.due() == ({"b1": 0} if needs else {})
