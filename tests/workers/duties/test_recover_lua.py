"""recover.lua: what a dead worker had in flight is resumed, or in doubt."""

import pytest
from lane_driver import Lane, accept, form, prepay, row


def in_flight(lane: Lane, worker: str = "w1", **users: object) -> None:
    lane.collect({openid: [item] for openid, item in users.items()})
    lane.start("b1", *users)
    assert len(lane.take(worker).claims) == len(users)


def test_a_form_id_goes_back_to_the_front_resumed_with_its_permit(lane: Lane) -> None:
    lane.collect({"anna": [form("A")], "bert": [form("B")]})
    lane.start("b1", "anna", "bert")
    claim = lane.take_one("w1")
    lane.now_ms += 9000
    assert lane.recover("b1", "w1") == [1, 0]
    assert lane.queue("b1") == ["anna", "bert"]
    entry = ("-", claim.fence, "f:A", claim.expires_at_ms, lane.now_ms - 9000, 1, True)
    assert lane.flight("b1") == {"anna": entry}
    assert lane.sending() == {}
    assert lane.ring() == ["b1"]
    assert lane.canary_of("b1")[:2] == ("0", 1)
    assert lane.counts("b1") == {"total": 2, "done": 0}
    lane.check_ledger("b1")


@pytest.mark.parametrize(("item", "channel"), [(prepay("P"), "template"), (accept(), "subscribe")])
def test_what_has_no_key_of_its_own_is_in_doubt_and_never_repeated(
    lane: Lane, item: object, channel: str
) -> None:
    lane.collect({"anna": [item]})
    lane.start("b1", "anna", channel=channel)
    claim = lane.take_one()
    assert lane.recover("b1", "w1") == [0, 1]
    assert lane.outcomes("b1") == {"anna": "in_doubt"}
    assert (lane.flight("b1"), lane.sending(), lane.queue("b1")) == ({}, {}, [])
    assert lane.counts("b1") == {"total": 1, "done": 1, "o:in_doubt": 1}
    assert lane.ledger()[f"spent:{claim.member[0]}"] == 1
    assert lane.canary_of("b1")[:2] == ("0", 0)
    lane.check_ledger("b1")


def test_run_again_it_finds_nothing(lane: Lane) -> None:
    in_flight(lane, anna=form("A"), bert=prepay("P"))
    assert lane.recover("b1", "w1") == [1, 1]
    assert lane.recover("b1", "w1") == [0, 0]
    assert lane.queue("b1") == ["anna"]
    assert lane.counts("b1")["done"] == 1


def test_the_living_keep_what_they_have(lane: Lane) -> None:
    lane.collect({"anna": [form("A")], "bert": [form("B")]})
    lane.start("b1", "anna", "bert")
    lane.take_one("w1")
    bert = lane.take_one("w2")
    assert lane.recover("b1", "w1") == [1, 0]
    assert lane.flight("b1")["bert"][0] == "w2"
    assert lane.sending().keys() == {"bert"}
    assert lane.deliver(bert, "w2").results == ["done"]


def test_a_message_that_kills_its_workers_is_set_aside_with_its_permit(lane: Lane) -> None:
    in_flight(lane, anna=form("A"))
    for tries in range(1, 5):
        assert lane.recover("b1", f"w{tries}") == [1, 0]
        assert lane.take_one(f"w{tries + 1}").tries == tries
    assert lane.recover("b1", "w5") == [0, 0]
    assert lane.flight("b1")["anna"][0] == "aside"
    assert (lane.copy("b1")["aside"], lane.outcomes("b1")) == ("1", {})
    assert lane.recover("b1", "aside-hunter") == [0, 0]
    assert lane.ledger() == {"collected:f": 1}


@pytest.mark.parametrize("drop", ["cancelled", "late"])
def test_of_a_dropped_broadcast_all_are_in_doubt(lane: Lane, drop: str) -> None:
    in_flight(lane, anna=form("A"))
    lane.adopt("b1", 2, "running" if drop == "late" else "cancelled", drop)
    assert lane.recover("b1", "w1") == [0, 1]
    assert (lane.queue("b1"), lane.ring()) == ([], [])
    assert lane.outcomes("b1") == {"anna": "in_doubt"}
    lane.check_ledger("b1")


def test_a_paused_broadcast_gets_them_back_outside_the_ring(lane: Lane) -> None:
    in_flight(lane, anna=form("A"))
    lane.adopt("b1", 2, "paused")
    assert lane.recover("b1", "w1") == [1, 0]
    assert (lane.queue("b1"), lane.ring()) == (["anna"], [])


def test_a_doubt_frees_its_place_in_the_canary_only_while_closed(lane: Lane) -> None:
    lane.collect({"anna": [prepay("P")], "bert": [form("B")]})
    lane.start("b1", "anna", "bert")
    anna, bert = lane.take("w1").claims
    lane.settle(row(bert, "settle", "spent", "delivered", streak="ok"))
    before = lane.canary_of("b1")
    assert lane.recover("b1", "w1") == [0, 1]
    assert lane.canary_of("b1") == before
    assert anna.openid in lane.outcomes("b1")


def test_a_recovery_does_not_end_the_lease_of_the_users_next_message(lane: Lane) -> None:
    lane.give("anna", form("A"), form("B"))
    lane.start("b1", "anna")
    lane.start("b2", "anna")
    lane.take_one("w1")
    lane.now_ms += 12_001
    assert lane.take_one("w2").broadcast == "b2"
    lane.recover("b1", "w1")
    assert lane.sending() == {"anna": 12_000}


@pytest.mark.parametrize("what", ["doubted", "set aside", "dropped", "resumed"])
def test_what_a_recovery_ended_is_due_at_once(lane: Lane, what: str) -> None:
    """Perhaps it was the last one, or a place of the canary is free."""
    permit = prepay("P") if what in {"doubted", "dropped"} else form("A")
    lane.give("anna", permit)
    lane.start("b1", "anna", open=1)
    lane.take_one("w1")
    if what == "dropped":
        lane.adopt("b1", 2, "cancelled", "cancelled", sweep=False)
    lane.client.delete(lane.key("due"))
    lane.recover("b1", "w1", attempts=1 if what == "set aside" else 5, posted=what != "dropped")
    assert lane.due() == ({} if what == "resumed" else {"b1": 0})


def test_an_unsent_message_of_a_dropped_broadcast_is_settled_and_counted(lane: Lane) -> None:
    lane.give("anna", prepay("P"))
    lane.start("b1", "anna", open=1)
    lane.take_one("w1")
    lane.adopt("b1", 2, "cancelled", "cancelled", sweep=False)
    lane.recover("b1", "w1", posted=False)
    assert lane.unsent == 1
    assert lane.counts("b1") == {"total": 1, "done": 1, "o:cancelled": 1}
    assert (lane.flight("b1"), lane.queue("b1")) == ({}, [])
    lane.check_ledger("b1")
