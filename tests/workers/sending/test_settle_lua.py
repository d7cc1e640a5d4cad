"""settle.lua, step by step: each action and fate, the fence, the canary and the breaker."""

import pytest
import redis
from lane_driver import (
    HOUR,
    LEASE,
    TTL,
    WEEK,
    Claimed,
    Lane,
    accept,
    form,
    prepay,
    reject,
    row,
    subscription,
    swapped,
)

from producers.store.scripts import new_token


def names(count: int) -> list[str]:
    return [f"o{n:03}" for n in range(count)]


def running(lane: Lane, *openids: str, **copy: object) -> list[Claimed]:
    """Run b1 to these users, a form_id each, and take all of it."""
    lane.collect({openid: [form(openid)] for openid in openids})
    lane.start("b1", *openids, **copy)
    return lane.take(most=1000).claims


def refused(claim: Claimed, errcode: int = 43101) -> str:
    return row(claim, "settle", "void_all", "refused", errcode=errcode, streak="refusal")


def template_error(claim: Claimed, errcode: int = 40037) -> str:
    return row(claim, "delay", "back", errcode=errcode, delay=2000, streak="template")


def test_a_delivery_is_written_counted_and_its_permit_spent(lane: Lane) -> None:
    (claim,) = running(lane, "anna", open=1)
    settled = lane.settle(row(claim, "settle", "spent", "delivered", streak="ok", msgid="77"))
    assert settled.results == ["done"]
    assert settled.flags == ["b1 complete"]
    assert lane.outcomes("b1") == {"anna": "delivered"}
    assert lane.counts("b1") == {"total": 1, "done": 1, "o:delivered": 1}
    assert (lane.flight("b1"), lane.sending()) == ({}, {})
    assert lane.ledger() == {"collected:f": 1, "spent:f": 1}
    msgids = lane.key("msgids", "b1", lane.bucket("anna"))
    assert lane.client.hgetall(msgids) == {"anna": "77"}
    assert 0 < lane.client.ttl(msgids) <= 24 * 3600
    assert 0 < lane.client.pttl(lane.key("outcomes", "b1", lane.bucket("anna"))) <= TTL


@pytest.mark.parametrize(
    ("fate", "outcome", "errcode", "ledger", "kept"),
    [
        ("spent", "delivered", 0, {"spent:f": 1}, False),
        ("doubt", "in_doubt", 0, {"spent:f": 1}, False),
        ("void", "failed", 12345, {"void:f": 1}, False),
        ("back", "bad_data", 47003, {}, True),
    ],
)
def test_a_settled_permit_has_exactly_one_fate(
    lane: Lane, fate: str, outcome: str, errcode: int, ledger: dict[str, int], kept: bool
) -> None:
    (claim,) = running(lane, "anna", open=1)
    assert lane.settle(row(claim, "settle", fate, outcome, errcode=errcode)).results == ["done"]
    written = outcome if outcome in ("delivered", "in_doubt") else f"{outcome} {errcode}"
    assert lane.outcomes("b1") == {"anna": written}
    assert lane.ledger() == {"collected:f": 1} | ledger
    assert lane.stock() == ({"f:+168": 1, "u:+168": 1} if kept else {})
    assert (lane.uses("anna")["f:anna"] > 0) is kept
    lane.check_ledger("b1")


def test_an_answer_of_a_used_form_id_that_arrived_is_written_as_delivered(lane: Lane) -> None:
    (claim,) = running(lane, "anna")
    lane.settle(row(claim, "settle", "spent", "delivered", errcode=41029, streak="ok"))
    assert lane.outcomes("b1") == {"anna": "delivered"}
    assert lane.counts("b1")["e:41029"] == 1


def test_an_answer_under_another_fence_or_worker_is_stale(lane: Lane) -> None:
    (claim,) = running(lane, "anna")
    zombie = Claimed("b1", claim.item, claim.member, claim.expires_at_ms, claim.fence + 1)
    answer = row(claim, "settle", "spent", "delivered", streak="ok")
    before = lane.flight("b1")
    for settled in (
        lane.settle(row(zombie, "settle", "spent", "delivered", streak="ok")),
        lane.settle(answer, worker="w2"),
    ):
        assert settled.results == ["stale"]
        assert lane.flight("b1") == before
        assert lane.counts("b1") == {"total": 1, "done": 0}
        assert lane.canary_of("b1") == ("0", 1, 0, 0, 0)
    assert lane.settle(answer).results == ["done"]
    assert lane.settle(answer).results == ["stale"]
    assert lane.counts("b1") == {"total": 1, "done": 1, "o:delivered": 1}


def test_whoever_was_buried_settles_nothing(lane: Lane) -> None:
    (claim,) = running(lane, "anna")
    lane.recover("b1", "w1")
    answer = row(claim, "settle", "back", "failed", errcode=1)
    assert lane.settle(answer).results == ["stale"]
    again = lane.take_one("w2")
    assert lane.settle(answer).results == ["stale"]
    assert lane.deliver(again, "w2").results == ["done"]
    assert lane.ledger() == {"collected:f": 1, "spent:f": 1}


def test_the_same_token_returns_the_first_answer(lane: Lane) -> None:
    lane.give("anna", form("A"), form("B"))
    lane.start("b1", "anna", open=1)
    claim = lane.take_one()
    token = new_token()
    answer = row(claim, "swap", "void", "no_permit", errcode=41028, streak="refusal")
    first = lane.settle(answer, token=token)
    assert first.results[0].startswith("next f:B")
    assert lane.settle(answer, token=token) == first
    assert lane.ledger() == {"collected:f": 2, "void:f": 1}
    assert lane.counts("b1") == {"total": 1, "done": 0, "e:41028": 1}


def test_a_dead_permit_is_swapped_for_the_users_next_one(lane: Lane) -> None:
    lane.give("anna", form("A", lane.now_ms + HOUR), form("B", lane.now_ms + 2 * HOUR))
    lane.start("b1", "anna", open=1)
    claim = lane.take_one()
    lane.now_ms += 40
    dead = {"errcode": 41028, "streak": "refusal"}
    settled = lane.settle(row(claim, "swap", "void", "no_permit", **dead))
    following = swapped(claim, settled.results[0])
    assert (following.member, settled.flags) == ("f:B", [])
    assert following.fence > claim.fence
    assert lane.flight("b1")["anna"] == (
        ("w1", following.fence, "f:B", following.expires_at_ms, lane.now_ms, 0, False)
    )
    assert lane.sending() == {"anna": LEASE}
    assert (lane.stock(), lane.ledger()) == ({}, {"collected:f": 2, "void:f": 1})
    lane.check_ledger("b1")
    settled = lane.settle(row(following, "swap", "void", "no_permit", **dead))
    assert (settled.results, settled.flags) == (["done"], ["b1 complete"])
    assert lane.outcomes("b1") == {"anna": "no_permit 41028"}
    assert lane.counts("b1") == {"total": 1, "done": 1, "o:no_permit": 1, "e:41028": 2}
    assert (lane.flight("b1"), lane.sending()) == ({}, {})
    assert lane.ledger() == {"collected:f": 2, "void:f": 2}


def test_a_users_dead_permits_end_a_message_after_two_swaps_and_the_users_day(lane: Lane) -> None:
    lane.give("anna", *(form(f"A{n}") for n in range(6)))
    lane.give("bert", form("B0"), form("B1"))
    lane.start("b1", "anna", "bert", open=1)
    anna, bert = lane.take().claims
    dead = ("swap", "void", "no_permit")
    for _ in range(2):
        (result,) = lane.settle(row(anna, *dead, errcode=41028, streak="refusal")).results
        anna = swapped(anna, result)
    settled = lane.settle(
        row(anna, *dead, errcode=41028, streak="refusal"), row(bert, *dead, errcode=41028)
    )
    assert settled.results[0] == "done"
    assert settled.results[1].startswith("next f:B1")
    assert lane.outcomes("b1") == {"anna": "no_permit 41028"}
    assert lane.ledger() == {"collected:f": 8, "void:f": 4}

    lane.start("b2", "anna", open=1)
    assert lane.take().claims == []
    assert lane.outcomes("b2") == {"anna": "no_permit"}
    key = lane.key("dead_permits", "shop", lane.now_ms // 86_400_000)
    assert lane.client.hgetall(key) == {"anna": "3", "bert": "1"}
    assert 0 < lane.client.pttl(key) <= 172_800_000
    lane.check_ledger("b1", "b2")

    lane.now_ms += 86_400_000  # tomorrow
    lane.start("b3", "anna", open=1)
    assert [claim.member for claim in lane.take().claims] == ["f:A3"]


def test_a_kind_that_the_account_may_not_use_is_no_dead_permit(lane: Lane) -> None:
    lane.give("anna", form("A"), prepay("P"))
    lane.start("b1", "anna", open=1)
    lane.settle(row(lane.take_one(), "swap", "back", "failed", errcode=41032, skip="f"))
    assert not lane.client.exists(lane.key("dead_permits", "shop", lane.now_ms // 86_400_000))


def test_a_swap_says_that_redis_may_have_forgotten_an_attempt(lane: Lane) -> None:
    lane.give("anna", form("A"), form("B"))
    lane.start("b1", "anna", open=1)
    claim = lane.take_one()
    lane.client.hset(lane.key("lane_broadcast", "b1"), "unsure", "1")
    settled = lane.settle(row(claim, "swap", "void", "no_permit", errcode=41028))
    assert settled.results[0].split(" ")[4] == "1"


@pytest.mark.parametrize("forgot", [True, False], ids=["Redis forgot", "it never did"])
def test_whose_permit_proves_used_is_noted_after_redis_forgot(lane: Lane, forgot: bool) -> None:
    lane.collect({openid: [form(openid)] for openid in ("anna", "ben", "cleo", "dora")})
    lane.start("b1", "anna", "ben", "cleo", "dora", open=1)
    anna, ben, cleo, dora = lane.take().claims
    if forgot:
        lane.client.set(lane.key("forgot"), "run", px=WEEK)
    used = {"errcode": 41029}
    lane.settle(
        row(anna, "settle", "doubt", "in_doubt", **used, streak="used"),
        row(ben, "swap", "void", "no_permit", **used),  # claimed before Redis forgot
        row(cleo, "settle", "spent", "delivered", **used, streak="ok"),  # or it was the first try
        row(dora, "swap", "void", "no_permit", errcode=41028),
    )
    noted = lane.client.hgetall(lane.key("doubted", "shop"))
    now = str(lane.now_ms)
    assert noted == ({"anna": now, "ben": now, "cleo": now} if forgot else {})
    if forgot:
        assert WEEK < lane.client.pttl(lane.key("doubted", "shop")) <= 8 * 24 * HOUR


def test_who_was_sent_what_redis_forgot_gets_no_next_permit(lane: Lane) -> None:
    lane.give("anna", form("A"), form("B"))
    lane.start("b1", "anna", open=1)
    claim = lane.take_one()
    lane.client.hset(lane.key("lane_broadcast", "b1"), "unsure", "1")
    lane.doubt({"anna": lane.now_ms})
    settled = lane.settle(row(claim, "swap", "void", "no_permit", errcode=41028))
    assert settled.results == ["later"]
    lane.now_ms += 1000
    lane.promote("b1")
    assert lane.take().claims == []
    assert lane.outcomes("b1") == {"anna": "in_doubt"}
    lane.check_ledger("b1")


def test_only_a_form_id_that_was_used_opens_and_no_forgotten_one_is_an_error(lane: Lane) -> None:
    copy = {"error_window": 2, "error_share": 0.4}
    claims = running(lane, *names(6), **copy)
    doubt = ("settle", "doubt", "in_doubt")
    settled = lane.settle(*(row(c, *doubt, errcode=41029, streak="forgotten") for c in claims[:4]))
    assert settled.flags == ["b1 closed"]
    assert lane.canary_of("b1") == ("0", 2, 0, 0, 0)
    settled = lane.settle(row(claims[4], *doubt, errcode=41029, streak="used"))
    assert settled.flags == ["b1 opened"]
    assert lane.canary_of("b1")[0] == "1"
    lane.settle(row(claims[5], *doubt, streak="-"))  # an answer that was lost is one
    assert lane.copy("b1")["verdict"] == "pause 0"


def test_a_swap_gives_no_permit_that_is_about_to_end(lane: Lane) -> None:
    lane.give("anna", form("A"), form("B", lane.now_ms + 5000))
    lane.start("b1", "anna", open=1)
    claim = lane.take_one()
    assert claim.member == "f:A"
    settled = lane.settle(row(claim, "swap", "void", "no_permit", errcode=41028))
    assert settled.results == ["done"]


def test_a_kind_that_the_account_may_not_use_is_handed_back_for_another(lane: Lane) -> None:
    lane.give("anna", prepay("P", lane.now_ms + HOUR), form("A", lane.now_ms + 2 * HOUR))
    lane.start("b1", "anna")
    claim = lane.take_one()
    assert claim.member == "p:P:1"
    other = {"errcode": 41030, "delay": 2000, "streak": "template", "skip": "p"}
    settled = lane.settle(row(claim, "swap", "back", "failed", **other))
    following = swapped(claim, settled.results[0])
    assert following.member == "f:A"
    assert lane.stock() == {"p:+1": 3, "u:+1": 1}
    assert lane.flight("b1")["anna"][5] == 1
    assert lane.canary_of("b1") == ("0", 1, 0, 0, 0)
    lane.check_ledger("b1")
    again = lane.settle(row(following, "swap", "back", "failed", **{**other, "skip": "f"}))
    assert again.results[0].startswith("next p:P:1")


def test_without_another_kind_it_waits_and_counts_as_a_template_error(lane: Lane) -> None:
    (claim,) = running(lane, "anna")
    other = {"errcode": 41030, "delay": 2000, "streak": "template", "skip": "f"}
    settled = lane.settle(row(claim, "swap", "back", "failed", **other))
    assert (settled.results, settled.flags) == (["later"], ["b1 closed"])
    assert lane.delayed("b1") == {"anna": 2000}
    assert lane.canary_of("b1") == ("0", 0, 1, 0, 0)
    assert lane.stock() == {"f:+168": 1, "u:+168": 1}
    assert lane.client.hgetall(lane.key("tries", "b1")) == {lane.item("anna"): "1"}


def test_before_the_first_delivery_a_dead_permit_waits_for_the_others(lane: Lane) -> None:
    lane.give("anna", form("A"), form("B"))
    lane.start("b1", "anna")
    claim = lane.take_one()
    dead = {"errcode": 41028, "streak": "refusal"}
    assert lane.settle(row(claim, "swap", "void", "no_permit", **dead)).results == ["later"]
    assert lane.delayed("b1") == {"anna": 1000}
    assert (lane.flight("b1"), lane.sending()) == ({}, {})
    assert lane.canary_of("b1") == ("0", 0, 0, 1, 0)
    lane.check_ledger("b1")
    lane.now_ms += 1000
    lane.promote("b1")
    assert lane.take_one().member == "f:B"


def test_a_delayed_message_waits_without_a_permit(lane: Lane) -> None:
    (claim,) = running(lane, "anna")
    settled = lane.settle(row(claim, "delay", "back", errcode=43108, delay=1234))
    assert (settled.results, settled.flags) == (["later"], ["b1 closed"])
    assert lane.delayed("b1") == {"anna": 1234}
    assert (lane.flight("b1"), lane.sending(), lane.outcomes("b1")) == ({}, {}, {})
    assert lane.stock() == {"f:+168": 1, "u:+168": 1}
    assert lane.counts("b1") == {"total": 1, "done": 0, "e:43108": 1}
    assert lane.client.ttl(lane.key("delayed", "b1")) > 0
    assert lane.canary_of("b1") == ("0", 0, 0, 0, 0)
    lane.check_ledger("b1")


def test_a_kept_message_is_resumed_with_its_permit_and_holds_its_place(lane: Lane) -> None:
    (claim,) = running(lane, "anna")
    settled = lane.settle(row(claim, "keep", "keep", errcode=-1, delay=1000))
    assert settled.results == ["later"]
    assert lane.delayed("b1") == {"anna": 1000}
    entry = lane.flight("b1")["anna"]
    assert entry == ("-", claim.fence, "f:anna", claim.expires_at_ms, lane.now_ms, 1, True)
    assert (lane.sending(), lane.stock()) == ({}, {})
    assert lane.counts("b1") == {"total": 1, "done": 0, "e:-1": 1}
    assert lane.canary_of("b1") == ("0", 1, 0, 0, 0)
    lane.now_ms += 1000
    lane.promote("b1")
    again = lane.take_one("w2")
    assert (again.member, again.tries, again.resumed) == ("f:anna", 1, True)
    lane.settle(row(again, "settle", "spent", "delivered", errcode=41029, streak="ok"), worker="w2")
    assert lane.ledger() == {"collected:f": 1, "spent:f": 1}


def test_an_unsent_message_returns_to_the_front_as_if_never_taken(lane: Lane) -> None:
    lane.collect({openid: [form(openid)] for openid in ("anna", "bert")})
    lane.start("b1", "anna", "bert")
    claim = lane.take_one()
    settled = lane.settle(row(claim, "requeue", "back"))
    assert (settled.results, settled.flags) == (["later"], ["b1 closed", "b1 queued"])
    assert (lane.queue("b1"), lane.ring()) == (["anna", "bert"], ["b1"])
    assert (lane.flight("b1"), lane.sending()) == ({}, {})
    assert lane.canary_of("b1") == ("0", 0, 0, 0, 0)
    assert lane.counts("b1") == {"total": 2, "done": 0}
    again = lane.take_one()
    assert (again.member, again.tries, again.resumed) == ("f:anna", 0, False)


def test_an_unsent_last_message_brings_its_broadcast_back_to_the_ring(lane: Lane) -> None:
    (claim,) = running(lane, "anna")
    assert lane.ring() == []
    lane.settle(row(claim, "requeue", "back"))
    assert lane.ring() == ["b1"]


def test_an_unsent_priority_message_returns_to_the_priority_ring(lane: Lane) -> None:
    (claim,) = running(lane, "anna", priority=1)
    lane.settle(row(claim, "requeue", "back"))
    assert (lane.ring(first=True), lane.ring()) == (["b1"], [])


def test_an_unsent_message_of_a_paused_broadcast_waits_outside_the_ring(lane: Lane) -> None:
    (claim,) = running(lane, "anna")
    lane.adopt("b1", 2, "paused")
    assert lane.settle(row(claim, "requeue", "back")).results == ["later"]
    assert (lane.queue("b1"), lane.ring()) == (["anna"], [])
    lane.adopt("b1", 3, "running")
    assert lane.take().openids == ["anna"]


def test_an_unsent_resumed_message_keeps_its_permit(lane: Lane) -> None:
    running(lane, "anna")
    lane.recover("b1", "w1")
    again = lane.take_one("w2")
    assert lane.settle(row(again, "requeue", "back"), worker="w2").results == ["later"]
    assert lane.queue("b1") == ["anna"]
    assert lane.flight("b1")["anna"][0] == "-"
    assert lane.flight("b1")["anna"][5:] == (1, True)
    assert (lane.sending(), lane.stock()) == ({}, {})
    assert lane.canary_of("b1") == ("0", 1, 0, 0, 0)
    lane.check_ledger("b1")


@pytest.mark.parametrize("drop", ["cancelled", "late"])
@pytest.mark.parametrize("action", ["delay", "requeue", "swap", "park"])
def test_of_a_dropped_broadcast_what_was_not_sent_takes_the_drops_outcome(
    lane: Lane, drop: str, action: str
) -> None:
    (claim,) = running(lane, "anna", open=0 if action == "park" else 1)
    lane.give("anna", form("next"))
    lane.adopt("b1", 2, "running" if drop == "late" else "cancelled", drop)
    answers = {
        "delay": row(claim, "delay", "back", errcode=43108, delay=1000),
        "requeue": row(claim, "requeue", "back"),
        "swap": row(claim, "swap", "void", "no_permit", errcode=41028, streak="refusal"),
        "park": row(claim, "swap", "void", "no_permit", errcode=41028, streak="refusal"),
    }
    settled = lane.settle(answers[action])
    assert settled.results == [drop]
    assert "b1 complete" in settled.flags
    counts = lane.counts("b1")
    assert (counts["done"], counts[f"o:{drop}"]) == (1, 1)
    assert (lane.flight("b1"), lane.sending()) == ({}, {})
    assert (lane.queue("b1"), lane.delayed("b1"), lane.ring()) == ([], {}, [])
    lane.check_ledger("b1")


@pytest.mark.parametrize("action", ["keep", "requeue"])
def test_of_a_dropped_broadcast_what_was_perhaps_sent_is_in_doubt(lane: Lane, action: str) -> None:
    running(lane, "anna")
    lane.recover("b1", "w1")
    again = lane.take_one("w2")
    lane.adopt("b1", 2, "cancelled", "cancelled")
    settled = lane.settle(row(again, action, "back", delay=1000), worker="w2")
    assert settled.results == ["in_doubt"]
    assert lane.outcomes("b1") == {"anna": "in_doubt"}
    assert lane.counts("b1") == {"total": 1, "done": 1, "o:in_doubt": 1}
    assert (lane.flight("b1"), lane.sending(), lane.queue("b1")) == ({}, {}, [])
    assert lane.ledger() == {"collected:f": 1, "spent:f": 1}


def test_a_message_kept_by_a_dropped_broadcast_completes_it(lane: Lane) -> None:
    (claim,) = running(lane, "anna")
    lane.adopt("b1", 2, "cancelled", "cancelled")
    settled = lane.settle(row(claim, "keep", "keep", errcode=-1, delay=1000))
    assert "b1 complete" in settled.flags
    assert settled.results == ["in_doubt"]
    assert lane.counts("b1") == {"total": 1, "done": 1, "o:in_doubt": 1, "e:-1": 1}


def test_of_a_dropped_broadcast_an_answer_still_counts(lane: Lane) -> None:
    (claim,) = running(lane, "anna")
    lane.adopt("b1", 2, "cancelled", "cancelled")
    lane.deliver(claim)
    assert lane.outcomes("b1") == {"anna": "delivered"}
    assert lane.counts("b1") == {"total": 1, "done": 1, "o:delivered": 1}


def test_a_permit_that_ended_while_held_is_expired_when_handed_back(lane: Lane) -> None:
    lane.give("anna", form("A", lane.now_ms + 20_000))
    lane.start("b1", "anna")
    claim = lane.take_one()
    lane.now_ms += 20_000
    lane.settle(row(claim, "delay", "back", errcode=43108, delay=1000))
    assert lane.ledger() == {"collected:f": 1, "expired:f": 1}
    assert lane.stock() == {}
    lane.check_ledger("b1")


def test_a_permit_handed_back_counts_the_users_last_hour_again(lane: Lane) -> None:
    lane.give("anna", form("A", lane.now_ms + HOUR), form("B", lane.now_ms + 3 * HOUR))
    lane.start("b1", "anna")
    lane.start("b2", "anna")
    first = lane.take_one()
    lane.settle(row(first, "settle", "spent", "delivered", streak="ok"))
    assert lane.stock() == {"f:+3": 1, "u:+3": 1}
    second = lane.take_one()
    assert lane.stock() == {}
    lane.settle(row(second, "delay", "back", errcode=43108, delay=10))
    assert lane.stock() == {"f:+3": 1, "u:+3": 1}


def test_a_subscription_voided_while_held_does_not_come_back(lane: Lane) -> None:
    lane.give("anna", accept(), accept())
    lane.start("b1", "anna", channel="subscribe")
    claim = lane.take_one()
    lane.now_ms += 10
    lane.give("anna", reject())
    lane.settle(row(claim, "delay", "back", errcode=43108, delay=10))
    assert lane.subs("anna") == {}
    assert (lane.stock(), lane.ledger()) == ({}, {"collected:s": 2, "void:s": 2})
    lane.check_ledger("b1")


def test_a_subscription_handed_back_is_available_again(lane: Lane) -> None:
    lane.give("anna", accept())
    lane.start("b1", "anna", channel="subscribe")
    claim = lane.take_one()
    lane.settle(row(claim, "delay", "back", errcode=43108, delay=10))
    assert lane.subs("anna")["T"] == "1"
    assert lane.stock() == {"s:T": 1}
    lane.check_ledger("b1")


def test_a_long_term_subscription_stays_unlimited_when_a_counted_one_comes_back(lane: Lane) -> None:
    lane.give("anna", accept())
    lane.start("b1", "anna", channel="subscribe")
    claim = lane.take_one()
    lane.give("anna", subscription("forever"))
    lane.settle(row(claim, "delay", "back", errcode=43108, delay=10))
    assert lane.subs("anna")["T"] == "-1"
    lane.check_ledger("b1")


@pytest.mark.parametrize("fate", ["spent", "void", "back", "doubt"])
def test_an_unlimited_subscription_is_counted_nowhere(lane: Lane, fate: str) -> None:
    lane.give("anna", subscription("forever"))
    lane.start("b1", "anna", channel="subscribe")
    lane.settle(row(lane.take_one(), "settle", fate, "failed"))
    assert lane.subs("anna") == {"T": "-1"}
    assert (lane.stock(), lane.ledger()) == ({}, {})


def test_a_refusal_after_opening_voids_every_permit_of_the_user(lane: Lane) -> None:
    lane.give("anna", form("A"), form("B", lane.now_ms + HOUR), prepay("P"))
    lane.start("b1", "anna", open=1)
    claim = lane.take_one()
    assert lane.settle(refused(claim)).results == ["done"]
    assert lane.outcomes("b1") == {"anna": "refused 43101"}
    assert all(score < 0 for score in lane.uses("anna").values())
    assert lane.stock() == {}
    assert lane.ledger() == {"collected:f": 2, "collected:p": 3, "void:f": 2, "void:p": 3}
    lane.check_ledger("b1")


def test_a_refusal_voids_one_templates_accepts_only(lane: Lane) -> None:
    lane.give("anna", accept("T"), accept("T"), accept("U"), form("A"))
    lane.start("b1", "anna", channel="subscribe", open=1)
    lane.settle(refused(lane.take_one()))
    assert lane.subs("anna") == {"U": "1"}
    assert lane.marks("anna")["T"][:2] == (lane.now_ms, lane.now_ms)
    assert lane.stock() == {"s:U": 1, "f:+168": 1, "u:+168": 1}
    assert lane.ledger() == {"collected:s": 3, "collected:f": 1, "void:s": 2}


def test_one_refused_before_the_first_delivery_loses_the_rest_once_it_came(lane: Lane) -> None:
    lane.collect({"anna": [form("A"), form("B")], "bert": [form("C")], "carl": [form("D")]})
    lane.start("b1", "anna", "bert", "carl")
    anna, bert, _ = lane.take().claims
    settled = lane.settle(refused(anna))
    assert (settled.results, settled.flags) == (["done"], ["b1 closed"])
    assert lane.ledger() == {"collected:f": 4, "void:f": 1}
    assert lane.stock() == {"f:+168": 1, "u:+168": 1}
    assert lane.client.ttl(lane.key("suspects", "b1")) > 0
    assert lane.deliver(bert).flags == ["b1 opened"]
    assert lane.ledger() == {"collected:f": 4, "void:f": 2, "spent:f": 1}
    assert lane.stock() == {}
    assert not lane.client.exists(lane.key("suspects", "b1"))
    lane.check_ledger("b1")


def test_one_refused_loses_the_rest_when_the_broadcast_ends(lane: Lane) -> None:
    lane.collect({"anna": [form("A"), form("B")], "bert": [form("C")]})
    lane.start("b1", "anna", "bert")
    anna, bert = lane.take().claims
    lane.settle(refused(anna))
    settled = lane.settle(row(bert, "settle", "void", "failed", errcode=1, streak="unknown"))
    assert settled.flags == ["b1 closed", "b1 complete"]
    assert lane.ledger() == {"collected:f": 3, "void:f": 2}  # another lane may still tell
    lane.adopt("b1", 2, "finished")
    assert lane.ledger() == {"collected:f": 3, "void:f": 3}
    lane.check_ledger("b1")


def test_an_accept_given_after_a_refusal_that_is_believed_later_stays(lane: Lane) -> None:
    lane.collect({"anna": [accept(), accept()], "bert": [accept()]})
    lane.start("b1", "anna", "bert", channel="subscribe")
    anna, bert = lane.take().claims
    lane.settle(refused(anna))
    lane.now_ms += 100
    lane.give("anna", accept())
    lane.deliver(bert)
    assert lane.subs("anna")["T"] == "1"
    assert lane.ledger() == {"collected:s": 4, "void:s": 2, "spent:s": 1}
    lane.check_ledger("b1")


def test_an_accept_given_before_a_refusal_that_is_believed_later_is_void_when_it_comes(
    lane: Lane,
) -> None:
    lane.collect({"anna": [accept(), accept()], "bert": [accept()]})
    lane.start("b1", "anna", "bert", channel="subscribe")
    anna, bert = lane.take().claims
    lane.now_ms += 1000
    lane.settle(refused(anna))
    lane.deliver(bert)
    assert lane.give("anna", accept(at=lane.now_ms - 500)) == [-2, 0]
    assert lane.subs("anna") == {}


def test_a_refusal_that_is_believed_later_does_not_move_a_newer_void_back(lane: Lane) -> None:
    lane.collect({"anna": [accept(), accept()], "bert": [accept()]})
    lane.start("b1", "anna", "bert", channel="subscribe")
    anna, bert = lane.take().claims
    lane.settle(refused(anna))
    lane.now_ms += 1000
    lane.give("anna", reject())
    rejected_at = lane.now_ms
    lane.now_ms += 1000
    lane.deliver(bert)
    assert lane.marks("anna")["T"][0] == rejected_at
    assert lane.give("anna", accept(at=rejected_at - 500)) == [-2, 0]


def test_k_refusals_before_any_delivery_pause_having_touched_one_permit_each(lane: Lane) -> None:
    openids = names(15)
    lane.collect({openid: [form(openid), form(openid + "x")] for openid in openids})
    lane.start("b1", *openids)
    claims = lane.take().claims
    settled = lane.settle(*(refused(claim, 40003) for claim in claims[:9]))
    assert settled.flags == ["b1 closed"]
    assert lane.take().claims == []
    settled = lane.settle(refused(claims[9], 40003))
    assert settled.flags == ["b1 verdict pause 40003", "b1 closed"]
    assert lane.copy("b1")["verdict"] == "pause 40003"
    assert (lane.ring(), lane.take().claims) == ([], [])
    assert lane.ledger() == {"collected:f": 30, "void:f": 10}


def test_a_canary_used_up_by_different_errors_passes_a_verdict_too(lane: Lane) -> None:
    """Else nothing is in flight, nothing may be claimed, and the broadcast stands still."""
    claims = running(lane, *names(15))
    settled = lane.settle(
        *(refused(claim) for claim in claims[:5]),
        *(
            row(c, "settle", "back", "bad_data", errcode=47003, streak="template")
            for c in claims[5:]
        ),
    )
    assert set(settled.results) == {"done"}
    assert lane.copy("b1")["verdict"] or lane.take().claims


def test_a_cancel_after_k_refusals_does_not_void_what_was_suspected(lane: Lane) -> None:
    """A wrong appid refuses everybody: the pause says so, and the permits are good elsewhere."""
    openids = names(10)
    lane.collect({openid: [form(openid), form(openid + "x")] for openid in openids})
    lane.start("b1", *openids, canary=11)
    claims = lane.take().claims
    lane.settle(*(refused(claim, 40003) for claim in claims[:9]))
    lane.adopt("b1", 2, "paused")
    lane.adopt("b1", 3, "cancelled", "cancelled")
    assert "b1 complete" in lane.settle(refused(claims[9], 40003)).flags
    assert lane.ledger() == {"collected:f": 20, "void:f": 10}


def test_refusals_after_opening_pause_nothing(lane: Lane) -> None:
    claims = running(lane, *names(30), open=1)
    settled = lane.settle(*(refused(claim) for claim in claims))
    assert settled.flags == ["b1 complete"]
    assert lane.copy("b1")["verdict"] == ""


def test_k_template_errors_abort_with_every_permit_handed_back(lane: Lane) -> None:
    claims = running(lane, *names(15))
    assert len(claims) == 10
    settled = lane.settle(*(template_error(claim) for claim in claims[:9]))
    assert (set(settled.results), settled.flags) == ({"later"}, ["b1 closed"])
    assert lane.canary_of("b1") == ("0", 1, 9, 0, 0)
    settled = lane.settle(template_error(claims[9]))
    assert settled.flags == ["b1 verdict abort 40037", "b1 closed"]
    assert lane.copy("b1")["verdict"] == "abort 40037"
    assert lane.ring() == []
    assert lane.ledger() == {"collected:f": 15}
    lane.check_ledger("b1")


def test_the_lanes_own_share_of_k_aborts_when_the_canary_was_handed_over(lane: Lane) -> None:
    """The keeper hands a canary on with K minus the errors seen: all of them must still abort."""
    claims = running(lane, *names(15), canary=4)
    assert len(claims) == 4
    settled = lane.settle(*(template_error(claim) for claim in claims))
    assert settled.flags == ["b1 verdict abort 40037", "b1 closed"]


def test_one_template_error_among_deliveries_does_not_abort(lane: Lane) -> None:
    claims = running(lane, *names(40), open=1)
    for good, bad in zip(claims[:20], claims[20:], strict=True):
        assert not any("verdict" in flag for flag in lane.settle(template_error(bad)).flags)
        assert lane.canary_of("b1")[2] == 1
        lane.deliver(good)
        assert lane.canary_of("b1") == ("1", 0, 0, 0, 0)
    assert lane.copy("b1")["verdict"] == ""


def test_k_template_errors_in_a_row_abort_after_opening_too(lane: Lane) -> None:
    claims = running(lane, *names(12), open=1)
    settled = lane.settle(*(template_error(claim) for claim in claims[:9]))
    assert settled.flags == []
    assert lane.settle(template_error(claims[9])).flags == ["b1 verdict abort 40037"]
    lane.deliver(claims[10])
    assert lane.copy("b1")["verdict"] == "abort 40037"


def test_k_unknown_errcodes_in_a_row_pause(lane: Lane) -> None:
    claims = running(lane, *names(25), open=1)
    unknown = [
        row(claim, "settle", "void", "failed", errcode=99999, streak="unknown") for claim in claims
    ]
    assert lane.settle(*unknown[:9]).flags == []
    lane.deliver(claims[9])
    assert lane.settle(*unknown[10:19]).flags == []
    assert lane.settle(unknown[19]).flags == ["b1 verdict pause 99999"]


def test_the_first_delivery_opens_and_frees_every_streak(lane: Lane) -> None:
    claims = running(lane, *names(15))
    lane.settle(template_error(claims[0]), refused(claims[1]))
    assert lane.canary_of("b1") == ("0", 8, 1, 1, 0)
    settled = lane.deliver(claims[2])
    assert settled.flags == ["b1 opened"]
    assert lane.canary_of("b1") == ("1", 7, 0, 0, 0)
    assert lane.deliver(claims[3]).flags == []


@pytest.mark.parametrize("outcome", ["in_doubt", "no_permit"])
def test_a_doubt_and_a_dead_permit_free_their_place(lane: Lane, outcome: str) -> None:
    claims = running(lane, *names(15))
    fate = "doubt" if outcome == "in_doubt" else "void"
    lane.settle(*(row(claim, "settle", fate, outcome) for claim in claims[:3]))
    assert lane.canary_of("b1") == ("0", 7, 0, 0, 0)
    assert len(lane.take(most=20).claims) == 3


def test_a_batch_settles_several_broadcasts_and_says_each_ones_flags(lane: Lane) -> None:
    lane.collect({openid: [form(openid)] for openid in names(4)})
    lane.start("b1", *names(4)[:2])
    lane.start("b2", *names(4)[2:])
    claims = {claim.openid: claim for claim in lane.take().claims}
    settled = lane.settle(
        row(claims["o000"], "settle", "spent", "delivered", streak="ok"),
        row(claims["o002"], "settle", "void", "failed", errcode=7, streak="unknown"),
        row(claims["o003"], "settle", "void", "failed", errcode=7, streak="unknown"),
        row(claims["o001"], "settle", "spent", "delivered", streak="ok"),
    )
    assert settled.results == ["done"] * 4
    assert settled.flags == ["b1 opened", "b1 complete", "b2 closed", "b2 complete"]
    assert lane.counts("b1") == {"total": 2, "done": 2, "o:delivered": 2}
    assert lane.counts("b2") == {"total": 2, "done": 2, "o:failed": 2, "e:7": 2}


def test_a_late_answer_does_not_end_the_lease_of_the_users_next_message(lane: Lane) -> None:
    """One message at a time per user, also after a worker stood still for a whole lease."""
    lane.give("anna", form("A"), form("B"), form("C"))
    for broadcast in ("b1", "b2", "b3"):
        lane.start(broadcast, "anna")
    slow = lane.take_one("w1")
    lane.now_ms += LEASE + 1
    following = lane.take_one("w2")
    lane.deliver(slow, "w1")
    assert lane.sending() == {"anna": LEASE}
    assert lane.take("w3").claims == []
    lane.deliver(following, "w2")
    assert lane.sending() == {}


@pytest.mark.parametrize("fate", ["void", "back"])
def test_a_late_swap_does_not_begin_while_another_message_is_sent_to_the_user(
    lane: Lane, fate: str
) -> None:
    lane.give("anna", form("A"), form("B"), form("C"))
    lane.give("anna", prepay("P"))
    lane.start("b1", "anna", open=1)
    lane.start("b2", "anna", open=1)
    late = lane.take_one("w1")
    lane.now_ms += LEASE + 1
    following = lane.take_one("w2")
    skip = "f" if fate == "back" else "-"
    answer = row(late, "swap", fate, "failed", errcode=41028, streak="refusal", delay=9, skip=skip)
    assert lane.settle(answer, worker="w1").results == ["later"]
    assert list(lane.delayed("b1")) == ["anna"]
    assert lane.sending() == {"anna": LEASE}
    lane.deliver(following, "w2")
    assert (lane.sending(), lane.flight("b1")) == ({}, {})
    lane.check_ledger("b1", "b2")


def test_a_turn_that_ends_this_very_moment_holds_no_swap_up(lane: Lane) -> None:
    lane.give("anna", form("A"), form("B"), form("C"))
    lane.start("b1", "anna", open=1)
    lane.start("b2", "anna", open=1)
    late = lane.take_one("w1")
    lane.now_ms += LEASE + 1
    lane.take_one("w2")
    lane.now_ms += LEASE
    answer = row(late, "swap", "void", "no_permit", errcode=41028, streak="refusal")
    assert lane.settle(answer, worker="w1").results[0].startswith("next ")


@pytest.mark.parametrize(("priority", "first"), [(0, False), (1, True)])
def test_a_verdict_takes_its_broadcast_out_of_the_ring(
    lane: Lane, priority: int, first: bool
) -> None:
    lane.collect({openid: [form(openid)] for openid in names(4)})
    lane.start("b1", *names(4), canary=2, priority=priority)
    claims = lane.take(most=2).claims
    assert lane.ring(first=first) == ["b1"]
    lane.settle(*(refused(claim) for claim in claims))
    assert (lane.copy("b1")["verdict"], lane.ring(first=first)) == ("pause 43101", [])


# -- the error budget ---------------------------------------------------------------------------


@pytest.mark.parametrize(("errors", "verdict"), [(2, ""), (3, "pause 0")])
def test_a_share_of_errors_that_is_just_met_pauses_nothing_and_one_more_does(
    lane: Lane, errors: int, verdict: str
) -> None:
    claims = running(lane, *names(8), open=1, error_window=8, error_share=0.25)
    ends = [("failed" if number < errors else "delivered") for number in range(8)]
    for claim, outcome in zip(claims[:7], ends, strict=False):
        lane.settle(row(claim, "settle", "spent", outcome))
        assert lane.copy("b1")["verdict"] == ""  # a window is judged when it is full
    lane.settle(row(claims[7], "settle", "spent", ends[7]))
    copy = lane.copy("b1")
    assert (copy["verdict"], copy["recent"], copy["recent_errors"]) == (verdict, "0", "0")


@pytest.mark.parametrize("outcome", ["failed", "bad_data", "in_doubt"])
def test_each_window_is_judged_on_its_own(lane: Lane, outcome: str) -> None:
    claims = running(lane, *names(6), open=1, error_window=3, error_share=0.5)
    for claim, end in zip(claims, ["delivered", "delivered", outcome, outcome], strict=False):
        lane.settle(row(claim, "settle", "spent", end))
    assert lane.copy("b1")["verdict"] == ""  # two of three, but not of one window
    lane.settle(row(claims[4], "settle", "spent", outcome))
    lane.settle(row(claims[5], "settle", "spent", "delivered"))
    assert lane.copy("b1")["verdict"] == "pause 0"


@pytest.mark.parametrize("outcome", ["refused", "no_permit", "invalid_user"])
def test_what_is_the_users_own_affair_is_no_error(lane: Lane, outcome: str) -> None:
    claims = running(lane, *names(3), open=1, error_window=3, error_share=0.1)
    lane.settle(*(row(claim, "settle", "spent", outcome) for claim in claims))
    assert lane.copy("b1")["verdict"] == ""


def test_a_fence_that_is_no_number_is_refused_before_anything_is_written(lane: Lane) -> None:
    lane.give("anna", form("A"), form("B"))
    lane.start("b1", "anna", open=1)
    claim = lane.take_one()
    fence = lane.key("fence")
    lane.client.set(fence, "x")
    before = lane.uses("anna"), lane.flight("b1"), lane.stock(), lane.ledger()
    with pytest.raises(redis.ResponseError, match="fence"):
        lane.settle(row(claim, "swap", "void", "no_permit", errcode=41028, streak="refusal"))
    assert (lane.uses("anna"), lane.flight("b1"), lane.stock(), lane.ledger()) == before
    lane.client.delete(fence)
    assert lane.settle(row(claim, "swap", "void", "no_permit", errcode=41028)).results != ["stale"]
