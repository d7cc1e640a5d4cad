"""take.lua, step by step: whose turn it is, which permit is claimed, and what is written."""

from collections import Counter

import pytest
from lane_driver import (
    HOUR,
    LEASE,
    MARGIN,
    TTL,
    Claimed,
    Lane,
    accept,
    form,
    prepay,
    row,
    subscription,
)

from producers.store.scripts import new_token


def users(lane: Lane, *openids: str) -> None:
    """Give each of these users one form_id of their own name."""
    lane.collect({openid: [form(openid)] for openid in openids})


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{n:03}" for n in range(count)]


def test_a_claim_holds_the_permit_under_a_fence_in_flight(lane: Lane) -> None:
    ends = lane.now_ms + 2 * HOUR
    lane.give("anna", form("A", ends))
    lane.start("b1", "anna", open=1)
    taken = lane.take("w1", 10)
    assert taken.claims == [Claimed("b1", lane.item("anna"), "f:A", ends, 1)]
    assert (taken.low, taken.closed, taken.complete) == ([], [], [])
    assert lane.flight("b1") == {"anna": ("w1", 1, "f:A", ends, lane.now_ms, 0, False)}
    assert lane.uses("anna") == {"f:A": -ends}
    assert lane.sending() == {"anna": LEASE}
    assert (lane.queue("b1"), lane.ring(), lane.stock()) == ([], [], {})
    assert lane.counts("b1") == {"total": 1, "done": 0}
    lane.check_ledger("b1")


def test_the_permit_that_expires_first_is_claimed_first(lane: Lane) -> None:
    at = lane.now_ms
    lane.give("anna", form("C", at + 3 * HOUR), form("A", at + HOUR), prepay("B", at + 2 * HOUR))
    stocks = [
        ("f:A", {"p:+2": 3, "f:+3": 1, "u:+3": 1}),
        ("p:B:1", {"p:+2": 2, "f:+3": 1, "u:+3": 1}),
        ("p:B:2", {"p:+2": 1, "f:+3": 1, "u:+3": 1}),
        ("p:B:3", {"f:+3": 1, "u:+3": 1}),
        ("f:C", {}),
    ]
    for number, (member, stock) in enumerate(stocks):
        lane.start(f"b{number}", "anna")
        claim = lane.take_one()
        assert claim.member == member
        assert lane.stock() == stock
        lane.deliver(claim)
        lane.check_ledger()
    assert lane.ledger() == {"collected:f": 2, "collected:p": 3, "spent:f": 2, "spent:p": 3}


def test_a_permit_nearer_to_its_end_than_the_margin_is_not_used(lane: Lane) -> None:
    lane.give("anna", form("soon", lane.now_ms + MARGIN), form("later", lane.now_ms + MARGIN + 1))
    lane.start("b1", "anna")
    lane.start("b2", "anna")
    assert lane.take_one().member == "f:later"
    assert lane.uses("anna") == {"f:soon": lane.now_ms + MARGIN, "f:later": -lane.now_ms - 10_001}
    assert lane.stock() == {"f:+0": 1, "u:+0": 1}
    lane.now_ms += LEASE + 1
    lane.client.delete(lane.key("sending", "shop"))
    assert lane.take().claims == []
    assert lane.outcomes("b2") == {"anna": "no_permit"}


def test_a_user_without_a_permit_is_recorded_at_once(lane: Lane) -> None:
    users(lane, "bert")
    lane.start("b1", "anna", "bert", "carl")
    taken = lane.take()
    assert taken.openids == ["bert"]
    assert lane.outcomes("b1") == {"anna": "no_permit", "carl": "no_permit"}
    assert lane.counts("b1") == {"total": 3, "done": 2, "o:no_permit": 2}
    assert 0 < lane.client.pttl(lane.key("outcomes", "b1", lane.bucket("anna"))) <= TTL


def test_a_lane_that_only_no_permit_completes_is_said_complete(lane: Lane) -> None:
    lane.start("b1", "anna", "bert")
    taken = lane.take()
    assert (taken.claims, taken.complete) == ([], ["b1"])
    assert lane.counts("b1") == {"total": 2, "done": 2, "o:no_permit": 2}


def test_who_is_settled_already_is_dropped(lane: Lane) -> None:
    users(lane, "anna")
    lane.start("b1", "anna", "anna")
    lane.client.hset(lane.key("outcomes", "b1", lane.bucket("anna")), "anna", "delivered")
    lane.ends("outcomes", "b1", lane.bucket("anna"))
    assert lane.take().claims == []
    assert (lane.queue("b1"), lane.flight("b1"), lane.stock()["f:+168"]) == ([], {}, 1)


def test_a_message_that_is_in_flight_is_not_taken_again(lane: Lane) -> None:
    lane.give("anna", form("A"), form("B"))
    lane.start("b1", "anna", "anna")
    lane.take_one()
    lane.now_ms += LEASE + 1
    assert lane.take().claims == []
    assert lane.flight("b1")["anna"][:3] == ("w1", 1, "f:A")


def test_a_user_who_is_being_sent_to_waits_without_a_permit(lane: Lane) -> None:
    lane.give("anna", form("A"), form("B"))
    lane.start("b1", "anna")
    lane.start("b2", "anna")
    first = lane.take_one()
    assert first.broadcast == "b1"
    assert lane.take("w2").claims == []
    assert lane.delayed("b2") == {"anna": 500}
    assert lane.stock()["f:+168"] == 1
    assert lane.client.ttl(lane.key("delayed", "b2")) > 0
    lane.deliver(first)
    lane.now_ms += 500
    assert lane.promote("b2") == 1
    assert lane.take_one("w2").member == "f:B"


def test_a_lease_that_is_over_blocks_nobody(lane: Lane) -> None:
    lane.give("anna", form("A"), form("B"))
    lane.start("b1", "anna")
    lane.start("b2", "anna")
    lane.take_one()
    lane.now_ms += LEASE
    assert lane.take_one("w2").broadcast == "b2"


def test_a_resumed_message_keeps_its_permit_and_gets_a_new_fence(lane: Lane) -> None:
    lane.give("anna", form("A"), form("B", lane.now_ms + HOUR))
    lane.start("b1", "anna", canary=5)
    first = lane.take_one()
    lane.recover("b1", "w1")
    lane.now_ms += 1000
    again = lane.take_one("w2")
    assert (again.member, again.expires_at_ms) == (first.member, first.expires_at_ms)
    assert again.fence > first.fence
    assert (again.tries, again.resumed) == (1, True)
    assert lane.flight("b1")["anna"][4:] == (lane.now_ms, 1, True)
    assert lane.canary_of("b1") == ("0", 1, 0, 0, 0)
    lane.check_ledger("b1")


def test_every_claim_says_that_redis_may_have_forgotten_an_attempt(lane: Lane) -> None:
    lane.collect({openid: [form(openid)] for openid in ("anna", "ben")})
    lane.start("b1", "anna", "ben")
    first = lane.take_one()
    lane.settle(row(first, "keep", "keep", delay=0))
    lane.now_ms += 1
    lane.promote("b1")
    lane.client.hset(lane.key("lane_broadcast", "b1"), "unsure", "1")
    rows = lane.rows()
    assert [row.split(" ")[5] for row in rows if not row.startswith("B ")] == ["3", "2"]


def test_who_was_sent_what_redis_forgot_is_in_doubt_in_all_that_ran_then(lane: Lane) -> None:
    users(lane, "anna", "ben", "cleo")
    week = 8 * 24 * HOUR
    noted = {"anna": lane.now_ms - 1, "ben": lane.now_ms - week}
    lane.doubt(noted)
    lane.start("b1", "anna", "ben", "cleo")
    lane.client.hset(lane.key("lane_broadcast", "b1"), "unsure", "1")
    before = lane.stock()

    taken = lane.take()

    assert {claim.openid for claim in taken.claims} == {"ben", "cleo"}
    assert lane.outcomes("b1") == {"anna": "in_doubt"}
    since, until, member = lane.client.hget(lane.key("doubts", "b1"), lane.item("anna")).split(" ")
    assert (int(since), int(until), member) == (lane.now_ms, lane.now_ms, "f:")
    assert sum(before.values()) - sum(lane.stock().values()) == 2 * 2  # a use and a user each
    lane.check_ledger("b1")


@pytest.mark.parametrize("channel", ["template", "subscribe"])
def test_what_is_sure_or_of_the_other_channel_is_sent_to_the_doubted(
    lane: Lane, channel: str
) -> None:
    if channel == "template":
        users(lane, "anna")
    else:
        lane.give("anna", accept())
    lane.doubt({"anna": lane.now_ms})
    lane.start("b1", "anna", channel=channel)
    if channel == "subscribe":
        lane.client.hset(lane.key("lane_broadcast", "b1"), "unsure", "1")
    assert [claim.openid for claim in lane.take().claims] == ["anna"]


def test_tries_are_remembered_through_a_delay(lane: Lane) -> None:
    users(lane, "anna")
    lane.start("b1", "anna")
    for tries in range(3):
        claim = lane.take_one()
        assert (claim.tries, claim.resumed) == (tries, False)
        lane.settle(row(claim, "delay", "back", errcode=40001, delay=250))
        lane.now_ms += 250
        lane.promote("b1")
    assert lane.client.ttl(lane.key("tries", "b1")) > 0


def test_the_same_token_returns_the_first_claims(lane: Lane) -> None:
    users(lane, *names("o", 10))
    lane.start("b1", *names("o", 10))
    token = new_token()
    first = lane.take("w1", 5, token=token)
    assert len(first.claims) == 5
    assert lane.take("w1", 5, token=token) == first
    assert len(lane.flight("b1")) == 5
    assert len(lane.queue("b1")) == 5
    assert lane.canary_of("b1")[1] == 5


def test_the_same_token_says_again_that_a_lane_is_complete(lane: Lane) -> None:
    lane.start("b1", "anna")
    token = new_token()
    first = lane.take(token=token)
    assert (first.complete, first.left) == (["b1"], "")
    assert lane.take(token=token) == first


def test_fence_tokens_are_never_given_twice(lane: Lane) -> None:
    users(lane, *names("o", 30))
    lane.start("b1", *names("o", 30), open=1)
    fences = [claim.fence for _ in range(6) for claim in lane.take("w1", 5).claims]
    assert len(set(fences)) == 30
    assert fences == sorted(fences)


@pytest.mark.parametrize("state", ["scheduled", "paused", "finished", "cancelled", "aborted"])
def test_what_does_not_run_is_skipped_and_leaves_the_ring(lane: Lane, state: str) -> None:
    users(lane, "anna", "bert")
    lane.start("b1", "anna")
    lane.start("b2", "bert")
    lane.client.hset(lane.key("lane_broadcast", "b1"), "state", state)
    assert [claim.broadcast for claim in lane.take(most=1).claims] == ["b2"]
    assert lane.take().claims == []
    assert (lane.ring(), lane.queue("b1")) == ([], ["anna"])


def test_a_verdict_stops_the_taking(lane: Lane) -> None:
    users(lane, "anna")
    lane.start("b1", "anna")
    lane.client.hset(lane.key("lane_broadcast", "b1"), "verdict", "abort 40037")
    assert lane.take().claims == []
    assert lane.ring() == []


@pytest.mark.parametrize(("count", "most"), [(2, 3), (2, 60), (3, 60), (4, 60), (5, 64), (3, 7)])
def test_broadcasts_share_what_is_taken_whatever_the_batch(
    lane: Lane, count: int, most: int
) -> None:
    """Over eight batches nobody is ahead of another by more than the share of one batch."""
    for number in range(count):
        openids = names(f"b{number}-", 8 * most)
        users(lane, *openids)
        lane.start(f"b{number}", *openids, open=1)
    taken: Counter[str] = Counter()
    for _ in range(8):
        taken += Counter(claim.broadcast for claim in lane.take(most=most).claims)
    assert taken.total() == 8 * most
    assert max(taken.values()) - min(taken.values()) <= -(-most // count)


def test_one_message_at_a_time_goes_round_the_ring(lane: Lane) -> None:
    users(lane, *names("o", 6))
    for number in range(3):
        lane.start(f"b{number}", *names("o", 6)[number * 2 : number * 2 + 2])
    order = [lane.take_one().broadcast for _ in range(6)]
    assert order == ["b0", "b1", "b2", "b0", "b1", "b2"]


def test_a_small_broadcast_is_served_at_once_beside_a_large_one(lane: Lane) -> None:
    users(lane, *names("o", 200), "anna")
    lane.start("large", *names("o", 200), open=1)
    lane.start("small", "anna")
    assert "anna" in lane.take(most=10).openids


def test_the_priority_ring_is_served_first(lane: Lane) -> None:
    users(lane, *names("o", 6), *names("p", 3))
    lane.start("slow", *names("o", 6))
    lane.start("fast", *names("p", 3), priority=1)
    assert [claim.broadcast for claim in lane.take(most=2).claims] == ["fast", "fast"]
    assert [claim.broadcast for claim in lane.take(most=2).claims] == ["fast", "slow"]
    assert lane.ring(first=True) == []


def test_before_the_first_delivery_at_most_k_permits_are_at_risk(lane: Lane) -> None:
    users(lane, *names("o", 30))
    lane.start("b1", *names("o", 30))
    first = lane.take(most=20)
    assert (len(first.claims), first.closed) == (10, ["b1"])
    assert lane.canary_of("b1") == ("0", 10, 0, 0, 0)
    assert lane.ring() == []  # it waits outside until a place is free
    assert lane.take("w2", 20).claims == []
    assert lane.deliver(first.claims[0]).flags == ["b1 opened"]
    assert lane.ring() == ["b1"]
    assert len(lane.take("w2", 20).claims) == 20
    assert lane.canary_of("b1")[0] == "1"


def test_users_without_a_permit_take_no_place_in_the_canary(lane: Lane) -> None:
    users(lane, *names("o", 12))
    lane.start("b1", *names("nobody", 20), *names("o", 12))
    claims = lane.take(most=20).claims
    claims += lane.take(most=20).claims
    assert len(claims) == 10
    assert lane.counts("b1")["o:no_permit"] == 20


def test_a_lane_without_the_canary_waits(lane: Lane) -> None:
    users(lane, "anna")
    lane.start("b1", "anna", canary=0)
    assert lane.take().claims == []
    assert (lane.queue("b1"), lane.ring()) == (["anna"], [])
    lane.client.hset(lane.key("lane_broadcast", "b1"), "open", 1)
    lane.promote("b1")
    assert lane.take().openids == ["anna"]


def test_template_refusals_hold_their_place_in_the_canary(lane: Lane) -> None:
    users(lane, *names("o", 30))
    lane.start("b1", *names("o", 30))
    claims = lane.take().claims
    refused = (
        row(claim, "delay", "back", errcode=40037, streak="template") for claim in claims[:4]
    )
    lane.settle(*refused)
    assert lane.canary_of("b1") == ("0", 6, 4, 0, 0)
    assert lane.take().claims == []


@pytest.mark.parametrize("way", ["recovered", "kept", "unsent again"])
def test_resumed_messages_have_their_place_and_are_taken_again(lane: Lane, way: str) -> None:
    """Else a broadcast whose first K sends are unanswered stands still for ever."""
    users(lane, *names("o", 30))
    lane.start("b1", *names("o", 30))
    claims = lane.take("w1").claims
    if way == "kept":
        lane.settle(*(row(claim, "keep", "keep", errcode=-1, delay=1) for claim in claims))
        lane.now_ms += 1
        lane.promote("b1")
    else:
        assert lane.recover("b1", "w1") == [10, 0]
    if way == "unsent again":
        again = lane.take("w2").claims
        lane.settle(*(row(claim, "requeue", "back") for claim in again), worker="w2")
    taken = lane.take("w3").claims
    assert {claim.openid for claim in taken} == {claim.openid for claim in claims}
    assert all(claim.resumed for claim in taken)
    assert lane.canary_of("b1") == ("0", 10, 0, 0, 0)
    assert lane.take("w3").claims == []


def test_resumed_messages_are_taken_beside_refusals_that_hold_the_rest(lane: Lane) -> None:
    users(lane, *names("o", 30))
    lane.start("b1", *names("o", 30))
    claims = lane.take("w1").claims
    refused = (row(c, "settle", "void", "refused", errcode=1, streak="refusal") for c in claims[:6])
    lane.settle(*refused)
    assert lane.recover("b1", "w1") == [4, 0]
    assert len(lane.take("w2").claims) == 4


@pytest.mark.parametrize("most", [1, 2, 50])
def test_an_allowance_is_how_many_a_broadcast_may_have_now(lane: Lane, most: int) -> None:
    users(lane, *names("o", 60))
    lane.start("b1", *names("o", 60), open=1, rate=10)
    assert len(lane.take(most=most, allowances={"b1": 3}).claims) == min(3, most)
    assert lane.take(most=most, allowances={"b1": 0}).claims == []
    assert lane.ring() == ["b1"]


def test_without_an_allowance_a_rate_allows_what_fits_in_100_ms(lane: Lane) -> None:
    users(lane, *names("o", 60))
    lane.start("b1", *names("o", 30), open=1, rate=50)
    lane.start("b2", *names("o", 60)[30:], open=1, rate=0.5)
    taken = Counter(claim.broadcast for claim in lane.take(most=50).claims)
    assert taken == {"b1": 5, "b2": 1}


def test_a_broadcast_with_a_rate_leaves_the_rest_to_the_others(lane: Lane) -> None:
    users(lane, *names("o", 60))
    lane.start("b1", *names("o", 30), open=1, rate=10)
    lane.start("b2", *names("o", 60)[30:], open=1)
    taken = Counter(claim.broadcast for claim in lane.take(most=20, allowances={"b1": 2}).claims)
    assert taken == {"b1": 2, "b2": 18}


def test_broadcasts_that_may_have_nothing_now_take_no_turn_from_the_others(lane: Lane) -> None:
    users(lane, *names("o", 4))
    for number, openid in enumerate(names("o", 3)):
        lane.start(f"b{number}", openid, open=1, rate=1)
    lane.start("b3", "o003", open=1)
    taken = lane.take(allowances={"b0": 0, "b1": 0, "b2": 0})
    assert taken.openids == ["o003"]
    assert lane.ring() == ["b0", "b1", "b2"]


@pytest.mark.parametrize(("idle", "taken"), [(127, ["zoe"]), (128, [])])
def test_a_take_visits_128_broadcasts_for_nothing_and_the_next_one_goes_on_behind_them(
    lane: Lane, idle: int, taken: list[str]
) -> None:
    openids = names("o", idle)
    users(lane, *openids, "zoe")
    for openid in openids:
        lane.start(f"b-{openid}", openid, open=1, rate=1)
    lane.start("last", "zoe", open=1)
    nothing = dict.fromkeys((f"b-{openid}" for openid in openids), 0)
    first = lane.take(allowances=nothing)
    assert first.openids == taken
    assert taken or (first.left, lane.take(allowances=nothing).openids) == ("soon", ["zoe"])


def test_a_queue_below_half_its_window_asks_for_a_split(lane: Lane) -> None:
    users(lane, *names("o", 10))
    lane.start("b1", *names("o", 10), split="", window=10, open=1)
    assert lane.take(most=5).low == []
    assert lane.take(most=1).low == ["b1"]
    assert lane.take(most=4).low == ["b1"]
    assert lane.take().low == []


def test_one_take_claims_one_message_per_user(lane: Lane) -> None:
    lane.give("anna", form("A"), form("B"))
    lane.start("b1", "anna")
    lane.start("b2", "anna")
    assert len(lane.take().claims) == 1
    assert len(lane.delayed("b1")) + len(lane.delayed("b2")) == 1


def test_a_subscription_is_counted_down_and_an_unlimited_one_is_not(lane: Lane) -> None:
    lane.give("anna", accept("T"), accept("T"))
    lane.give("bert", subscription("forever", "T"))
    steps = [("1", 1, 1), (None, None, 0)]
    for number, (left, stock, _) in enumerate(steps):
        lane.start(f"b{number}", "anna", "bert", channel="subscribe", template="T")
        anna, bert = lane.take().claims
        assert (anna.member, anna.expires_at_ms) == ("s:T", 1)
        assert (bert.member, bert.expires_at_ms) == ("s:T", 0)
        assert (lane.subs("anna").get("T"), lane.subs("bert")["T"]) == (left, "-1")
        assert lane.stock().get("s:T") == stock
        lane.deliver(anna)
        lane.deliver(bert)
        lane.check_ledger()
    lane.start("b9", "anna", channel="subscribe", template="T")
    assert lane.take().claims == []
    assert lane.outcomes("b9") == {"anna": "no_permit"}
    assert lane.ledger() == {"collected:s": 2, "spent:s": 2}


def test_a_subscribe_broadcast_spends_its_own_template_only(lane: Lane) -> None:
    lane.give("anna", accept("U"), form("A"))
    lane.start("b1", "anna", channel="subscribe", template="T")
    assert lane.take().claims == []
    assert lane.outcomes("b1") == {"anna": "no_permit"}
    assert (lane.subs("anna")["U"], len(lane.uses("anna"))) == ("1", 1)


def test_a_stretch_of_users_without_permits_does_not_end_the_take(lane: Lane) -> None:
    """One take looks at 4 × most + 256 messages before it gives back nothing at all."""
    users(lane, "anna")
    lane.start("b1", *names("nobody", 200), "anna", open=1)
    assert lane.take(most=1).openids == ["anna"]


def test_a_turn_looks_at_four_messages_for_each_claim_and_64_more(lane: Lane) -> None:
    """And a take begins no further turn after 4 x most + 256: here the fourth is the last."""
    lane.start("b1", *names("nobody", 400), open=1)
    assert lane.take(most=1).openids == []
    assert len(lane.outcomes("b1")) == 4 * (4 + 64)


def test_an_empty_lane_gives_nothing(lane: Lane) -> None:
    taken = lane.take()
    assert (taken.claims, taken.low, taken.closed, taken.complete) == ([], [], [], [])


# -- what lives how long ------------------------------------------------------------------------


def test_claims_and_what_the_canary_put_back_live_as_long_as_their_broadcast(lane: Lane) -> None:
    """A queue that was popped empty and filled again is a new key."""
    openids = ["anna", "bert", "carl", "dora"]
    lane.collect({openid: [form(openid)] for openid in openids})
    lane.start("b1", *openids, canary=1)
    claim = lane.take_one()
    lane.settle(row(claim, "keep", "keep", errcode=-1, delay=1000))
    assert lane.take().claims == []  # its only place is held: all others are put back …
    assert lane.queue("b1") == ["bert", "carl", "dora"]  # … in their order
    for name in ("queue", "flight"):
        assert TTL - 60_000 < lane.client.pttl(lane.key(name, "b1")) <= TTL, name


def test_a_users_last_end_is_counted_once_though_an_earlier_one_was_trimmed(lane: Lane) -> None:
    lane.give("anna", form("A", lane.now_ms + HOUR), form("B", lane.now_ms + 4 * HOUR))
    lane.start("b1", "anna", open=1)
    lane.take_one()
    lane.start("b2", "anna", open=1)
    lane.now_ms += LEASE + 1
    claim = lane.take_one()
    assert claim.member == "f:B"
    lane.give("anna", form("C", lane.now_ms + 2 * HOUR))
    lane.now_ms += 3 * HOUR
    lane.trim()
    lane.settle(row(claim, "delay", "back", errcode=43108, delay=1000))
    assert lane.stock() == {"f:+1": 1, "u:+1": 1}


def test_a_last_end_in_the_first_moment_of_the_stock_is_moved(lane: Lane) -> None:
    lane.give("anna", form("A", lane.now_ms + 2 * HOUR))
    lane.now_ms += 2 * HOUR - 1
    lane.trim()
    lane.now_ms += 1
    lane.trim()  # what ends in this hour is the first that is kept
    assert lane.stock() == {"f:+0": 1, "u:+0": 1}
    lane.give("anna", form("B", lane.now_ms + HOUR))
    assert lane.stock() == {"f:+1": 1, "u:+1": 1}


@pytest.mark.parametrize(("most", "left", "busy"), [(1, "more", {"shop"}), (3, "", set())])
def test_an_app_is_busy_while_something_stands_in_its_rings(
    lane: Lane, most: int, left: str, busy: set[str]
) -> None:
    lane.collect({openid: [form(openid)] for openid in ("anna", "bert")})
    lane.start("b1", "anna", "bert", open=1)
    assert lane.take(most=most).left == left
    assert lane.client.smembers(lane.key("busy")) == busy


def test_a_canary_that_ran_out_of_users_with_a_permit_is_due_at_once(lane: Lane) -> None:
    """Its canary may have to move to another lane."""
    lane.start("b1", "anna", split="")
    lane.client.delete(lane.key("due"))
    lane.take()
    assert lane.outcomes("b1") == {"anna": "no_permit"}
    assert lane.due() == {"b1": 0}
