"""posting.lua and what recovery makes of its marks: unmarked was surely never sent."""

import pytest
from lane_driver import Lane, accept, form, prepay, row

from workers.sending.posting import POSTING, PostingArgs, PostingKeys


def claimed(lane: Lane, *openids: str, channel: str = "subscribe", **copy: object) -> None:
    lane.collect(
        {openid: [accept() if channel == "subscribe" else prepay(openid)] for openid in openids}
    )
    lane.start("b1", *openids, channel=channel, **copy)
    lane.take("w1")


def marks(lane: Lane) -> dict[str, str]:
    """Return openid → the mark of what is in flight."""
    flight = lane.client.hgetall(lane.key("flight", "b1"))
    return {item.partition(":")[2]: entry[-1] for item, entry in flight.items()}


@pytest.mark.parametrize("channel", ["subscribe", "template"])
def test_a_claim_is_marked_under_its_own_worker_and_fence_alone(lane: Lane, channel: str) -> None:
    claimed(lane, "anna", "bert", channel=channel)
    assert marks(lane) == {"anna": "n", "bert": "n"}
    flight = lane.flight("b1")
    fence = flight["anna"][1]
    names = [lane.key("flight", "b1")]

    def mark(worker: str, what: str) -> list[str]:
        return lane.run(POSTING, PostingKeys(), PostingArgs(worker), [what], more_keys=names)

    assert mark("w2", f"{lane.item('anna')} {fence}") == [str(fence)]
    assert mark("w1", f"{lane.item('anna')} {fence + 99}") == [str(fence + 99)]
    assert mark("w1", f"{lane.item('carl')} 7") == ["7"]
    assert marks(lane) == {"anna": "n", "bert": "n"}
    assert mark("w1", f"{lane.item('anna')} {fence}") == []
    assert mark("w1", f"{lane.item('anna')} {fence}") == []  # a lost reply
    assert marks(lane) == {"anna": "0", "bert": "n"}
    assert lane.flight("b1")["anna"] == flight["anna"]


def test_a_form_id_needs_no_mark(lane: Lane) -> None:
    lane.give("anna", form("A"))
    lane.start("b1", "anna")
    lane.take("w1")
    assert marks(lane) == {"anna": "0"}
    assert lane.post("b1") == []


def test_a_swapped_permit_is_unmarked_again(lane: Lane) -> None:
    lane.give("anna", prepay("P"))
    lane.start("b1", "anna", open=1)
    claim = lane.take_one()
    lane.post("b1")
    lane.settle(row(claim, "swap", "void", "no_permit", errcode=41029))
    assert marks(lane) == {"anna": "n"}


@pytest.mark.parametrize("channel", ["subscribe", "template"])
def test_of_a_dead_worker_only_what_was_marked_is_in_doubt(lane: Lane, channel: str) -> None:
    claimed(lane, "anna", "bert", channel=channel)
    flight = lane.flight("b1")
    names = [lane.key("flight", "b1")]
    what = f"{lane.item('anna')} {flight['anna'][1]}"
    lane.run(POSTING, PostingKeys(), PostingArgs("w1"), [what], more_keys=names)

    assert lane.recover("b1", "w1", posted=False) == [0, 1]

    assert lane.unsent == 1
    assert lane.outcomes("b1") == {"anna": "in_doubt"}
    assert (lane.queue("b1"), lane.ring(), lane.flight("b1")) == (["bert"], ["b1"], {})
    assert (lane.sending(), lane.canary_of("b1")[1]) == ({}, 0)
    lane.check_ledger("b1")
    again = lane.take_one("w2")
    assert (again.openid, again.resumed, again.tries) == ("bert", False, 0)
    assert lane.recover("b1", "w1", posted=False) == [0, 0]


@pytest.mark.parametrize("drop", ["cancelled", "late"])
def test_what_was_never_sent_takes_the_drops_outcome(lane: Lane, drop: str) -> None:
    claimed(lane, "anna", "bert")
    state = "cancelled" if drop == "cancelled" else "running"
    lane.adopt("b1", 2, state, drop)
    lane.recover("b1", "w1", posted=False)
    assert lane.counts("b1") == {"total": 2, "done": 2, f"o:{drop}": 2}
    assert lane.queue("b1") == []
    lane.check_ledger("b1")


def test_a_mark_that_redis_may_have_forgotten_is_in_doubt(lane: Lane) -> None:
    claimed(lane, "anna")
    lane.now_ms += 10
    copy = lane.key("lane_broadcast", "b1")
    lane.client.hset(copy, mapping={"unsure": 1, "unsure_at_ms": lane.now_ms})
    lane.give("bert", accept())
    lane.client.rpush(lane.key("queue", "b1"), lane.item("bert"))
    lane.ends("queue", "b1")
    lane.now_ms += 10
    lane.take("w1")
    assert lane.recover("b1", "w1", posted=False) == [0, 1]
    assert lane.outcomes("b1") == {"anna": "in_doubt"}
    assert lane.queue("b1") == ["bert"]
