"""Forgetting: the user is nowhere, every sum is still true, and nothing brings the user back."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from log_lines import recorded
from shop import OTHER, TEMPLATE, Shop

from producers.errors import IllegalMoveError, InvalidInputError, UnknownAppError
from producers.permits import ledger
from producers.recipients.doubts import Doubts
from producers.recipients.receipts import Receipts
from producers.store import keys
from producers.users.forget import Forgetter, Forgotten

both_layouts = pytest.mark.parametrize("lanes", [1, 4])

ANN, BOB = "oAnn-the-first", "oBob-the-second"
HOUR = 3_600_000


@pytest.fixture
def forgetter(shop: Shop) -> Forgetter:
    return Forgetter(shop.client, shop.settings)


def gone(shop: Shop, openid: str) -> None:
    """Check that nothing in Redis knows a user, and that all sums are true."""
    assert shop.mentions(openid) == set()
    assert shop.wrong() == []


def endless(shop: Shop) -> set[str]:
    """Return the keys of users and sends that would never end."""
    kinds = ("permits:", "marks:", "outcomes:", "recipients:", "leaving", "doubts:", "suspects:")
    return {
        key
        for key in shop.client.scan_iter(count=1000)
        if any(f"}}:{kind}" in key for kind in kinds) and shop.client.ttl(key) == -1
    }


@both_layouts
def test_nothing_of_the_user_is_left_and_all_others_are(shop: Shop, forgetter: Forgetter) -> None:
    for openid in (ANN, BOB):
        shop.give(openid, formIds=[f"{openid}1", f"{openid}2"], prepayId=f"wx{openid}")
        shop.give(openid, subscriptions={TEMPLATE: "accept"}, id="1")
    shop.audiences.import_rows("shop", "vip", [ANN.encode(), BOB.encode(), b"oEve"])
    shop.audiences.import_rows("shop", "ann", [ANN.encode()])
    done = shop.broadcast()
    shop.run_dry(done)
    found = forgetter.forget("shop", ANN)
    assert found == Forgotten(uses=5, audiences=3, outcomes=1, dropped=0, in_doubt=0, in_hands=0)
    gone(shop, ANN)
    assert shop.audiences.page("shop").audiences == [("all", 1), ("ann", 0), ("vip", 2)]
    written = shop.outcomes(done)
    assert sorted(written.values()) == ["delivered", "delivered"]
    assert sorted(openid[0] for openid in written) == ["o", "~"]
    assert shop.mentions(BOB)
    assert forgetter.forget("shop", ANN) == Forgotten(0, 0, 0, 0, 0, 0)


@both_layouts
def test_a_user_who_was_distrusted_or_doubted_is_so_no_more(
    shop: Shop, forgetter: Forgetter
) -> None:
    lane, today = shop.lane(ANN), shop.now_ms() // (24 * HOUR)
    marks = [keys.dead_permits(lane, "shop", day) for day in (today - 1, today)]
    marks.append(keys.doubted(lane, "shop"))
    for key in marks:
        shop.client.hset(key, mapping={ANN: 3, BOB: 3})
        shop.client.expire(key, 60)
    forgetter.forget("shop", ANN)
    assert [shop.client.hgetall(key) for key in marks] == [{BOB: "3"}] * 3


@both_layouts
def test_the_permits_of_the_user_are_void_in_the_ledger(shop: Shop, forgetter: Forgetter) -> None:
    shop.give(ANN, formIds=["a", "b"], prepayId="wx1")
    shop.give(ANN, subscriptions={TEMPLATE: "accept", OTHER: "accept"})
    forgetter.forget("shop", ANN)
    total = ledger.totals(shop.client, shop.settings, "shop").total
    assert (total.collected, total.void, total.available, total.held) == (7, 7, 0, 0)


def test_hours_that_are_past_are_expired_and_not_void(shop: Shop, forgetter: Forgetter) -> None:
    shop.give(ANN, formIds=["a", "b", "c"])
    lane, now = shop.lane(ANN), shop.now_ms()
    permits, stock = keys.permits(lane, "shop", ANN), keys.stock(lane, "shop")
    hour = now // HOUR
    # one ended within this hour, one in an hour that the keeper has trimmed, one is still good
    last = int(shop.client.zscore(permits, "f:c")) // HOUR
    shop.client.zadd(permits, {"f:a": now - 1, "f:b": (hour - 2) * HOUR})
    shop.client.hset(
        stock, mapping={f"f:{last}": 1, f"f:{(now - 1) // HOUR}": 1, "trimmed": hour - 1}
    )
    shop.client.hincrby(keys.ledger(lane, "shop"), "expired:f", 1)
    assert forgetter.forget("shop", ANN).uses == 1
    kinds = ledger.totals(shop.client, shop.settings, "shop").total
    assert (kinds.collected, kinds.void, kinds.expired, kinds.available) == (3, 1, 2, 0)
    assert shop.wrong() == []


@both_layouts
def test_a_waiting_message_is_dropped_and_counted_as_cancelled(
    shop: Shop, forgetter: Forgetter
) -> None:
    shop.give(ANN, formId="a")
    shop.give(BOB, formId="b")
    broadcast = shop.broadcast()
    assert forgetter.forget("shop", ANN).dropped == 1
    gone(shop, ANN)
    shop.run_dry(broadcast)
    shop.keeper.run_once()
    status = shop.broadcasts.status(broadcast)
    assert (status.state, status.outcomes) == ("finished", {"delivered": 1, "cancelled": 1})


@both_layouts
def test_the_only_recipient_who_waits_leaves_a_broadcast_that_finishes(
    shop: Shop, forgetter: Forgetter
) -> None:
    shop.give(ANN, formId="a")
    broadcast = shop.broadcast()
    forgetter.forget("shop", ANN)
    shop.keeper.run_once()
    assert shop.broadcasts.status(broadcast).state == "finished"


ANSWERS: dict[str, tuple[str, str, str, int, str]] = {
    "delivered": ("settle", "spent", "delivered", 0, "ok"),
    "refused": ("settle", "void_all", "refused", 43101, "refusal"),
    "no permit": ("swap", "void", "no_permit", 41028, "refusal"),
    "handed back": ("delay", "back", "-", 45009, "-"),
    "unsent": ("requeue", "back", "-", 0, "-"),
    "kept": ("keep", "keep", "-", -1, "-"),
    "in doubt": ("settle", "doubt", "in_doubt", 0, "-"),
}


@both_layouts
@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize("channel", ["template", "subscribe"])
@pytest.mark.parametrize("answer", ANSWERS)
def test_what_is_in_hands_ends_without_bringing_the_user_back(
    shop: Shop, forgetter: Forgetter, answer: str, channel: str, opened: bool
) -> None:
    shop.give(ANN, formIds=["a", "b"], subscriptions={TEMPLATE: "accept"})
    broadcast = shop.broadcast(channel)
    if opened:
        shop.open(broadcast)
    for lane in shop.settings.layout.lanes:  # the canary may be at home elsewhere
        shop.client.hset(keys.lane_broadcast(lane, broadcast), "canary", "10")
    (claim,) = shop.take()
    assert forgetter.forget("shop", ANN).in_hands == 1
    assert shop.wrong() == []
    action, fate, outcome, errcode, streak = ANSWERS[answer]
    shop.settle(claim, action, fate, outcome, errcode=errcode, streak=streak, msgid="77")
    for lane in shop.settings.layout.lanes:
        shop.client.delete(keys.sending(lane, "shop"))  # the turn is over
        for item in shop.client.zrange(keys.delayed(lane, broadcast), 0, -1):
            shop.client.zadd(keys.delayed(lane, broadcast), {item: 0})
    shop.keeper.run_once()
    if shop.broadcasts.status(broadcast).state == "paused":
        shop.broadcasts.resume(broadcast)
    assert shop.take() == []  # nothing is sent again
    gone(shop, ANN)
    assert endless(shop) == set()
    status = shop.broadcasts.status(broadcast)
    assert status.complete
    assert [openid[0] for openid in shop.outcomes(broadcast)] == ["~"]


@both_layouts
def test_a_message_whose_worker_died_is_not_sent_again(shop: Shop, forgetter: Forgetter) -> None:
    shop.give(ANN, formId="a")
    broadcast = shop.broadcast()
    shop.open(broadcast)
    assert len(shop.take()) == 1
    forgetter.forget("shop", ANN)
    shop.recover(broadcast)
    assert shop.take() == []
    gone(shop, ANN)
    assert shop.broadcasts.status(broadcast).outcomes == {"in_doubt": 1}


@both_layouts
@pytest.mark.parametrize("opened", [True, False])
def test_a_resumed_message_that_waits_was_perhaps_sent(
    shop: Shop, forgetter: Forgetter, opened: bool
) -> None:
    shop.give(ANN, formId="a")
    broadcast = shop.broadcast()
    for lane in shop.settings.layout.lanes:
        shop.client.hset(
            keys.lane_broadcast(lane, broadcast), mapping={"canary": 10, "open": int(opened)}
        )
    assert len(shop.take()) == 1
    shop.recover(broadcast)
    assert forgetter.forget("shop", ANN).in_doubt == 1
    gone(shop, ANN)
    assert shop.take() == []
    assert shop.broadcasts.status(broadcast).outcomes == {"in_doubt": 1}
    assert shop.client.hget(keys.lane_broadcast(shop.lane(ANN), broadcast), "unjudged") in (
        None,
        "0",
    )


def test_a_message_that_was_set_aside_was_perhaps_sent(shop: Shop, forgetter: Forgetter) -> None:
    shop.give(ANN, formId="a")
    broadcast = shop.broadcast()
    shop.open(broadcast)
    for _ in range(shop.settings.attempts):
        shop.take()
        shop.recover(broadcast)
    assert shop.broadcasts.status(broadcast).aside == 1
    assert forgetter.forget("shop", ANN).in_doubt == 1
    assert shop.broadcasts.status(broadcast).aside == 0
    gone(shop, ANN)


@both_layouts
def test_a_suspect_is_forgotten_too(shop: Shop, forgetter: Forgetter) -> None:
    shop.give(ANN, subscriptions={TEMPLATE: "accept"})
    shop.give(BOB, subscriptions={TEMPLATE: "accept"})
    broadcast = shop.broadcast("subscribe")
    for lane in shop.settings.layout.lanes:
        shop.client.hset(keys.lane_broadcast(lane, broadcast), "canary", "10")
    for claim in shop.take():
        shop.settle(claim, "settle", "void_all", "refused", errcode=43101, streak="refusal")
    forgetter.forget("shop", ANN)
    shop.keeper.run_once()
    gone(shop, ANN)
    assert endless(shop) == set()


@both_layouts
def test_of_those_refused_before_the_first_delivery_only_the_user_is_let_off(
    shop: Shop, forgetter: Forgetter
) -> None:
    refused = (ANN, BOB, f"{ANN}-and-more")
    for openid in (*refused, *(f"o{n}" for n in range(20))):  # in each lane somebody who waits
        shop.give(openid, subscriptions={TEMPLATE: "accept"})
    broadcast = shop.broadcast("subscribe")
    for lane in shop.settings.layout.lanes:
        shop.client.hset(keys.lane_broadcast(lane, broadcast), "canary", "50")
    for claim in shop.take():
        if claim.openid in refused:
            shop.settle(claim, "settle", "void_all", "refused", errcode=43101, streak="refusal")
    forgetter.forget("shop", ANN)
    left = [
        row.split(" ")[0]
        for lane in shop.settings.layout.lanes
        for row in shop.client.lrange(keys.suspects(lane, broadcast), 0, -1)
    ]
    assert sorted(left) == [f"{ANN}-and-more", BOB]


@both_layouts
def test_attempts_that_were_counted_for_the_user_go(shop: Shop, forgetter: Forgetter) -> None:
    shop.give(ANN, formId="a")
    shop.give(BOB, formId="b")
    broadcast = shop.broadcast()
    shop.open(broadcast)
    for claim in shop.take():
        shop.settle(claim, "delay", "back", "-", streak="-")
    tries = {openid: keys.tries(shop.lane(openid), broadcast) for openid in (ANN, BOB)}
    items = {openid: f"{shop.bucket(openid)}:{openid}" for openid in (ANN, BOB)}
    assert shop.client.hexists(tries[ANN], items[ANN])
    assert forgetter.forget("shop", ANN).dropped == 1
    assert not shop.client.hexists(tries[ANN], items[ANN])
    assert shop.client.hexists(tries[BOB], items[BOB])
    gone(shop, ANN)


def test_a_bucket_is_empty_once_its_last_member_is_forgotten(
    shop: Shop, forgetter: Forgetter
) -> None:
    mate = next(f"o{n}" for n in range(10_000) if shop.bucket(f"o{n}") == shop.bucket(ANN))
    for openid in (ANN, mate):
        shop.give(openid, formId=openid)
    buckets = keys.audience_buckets(0, "shop", "all")
    forgetter.forget("shop", ANN)
    assert shop.client.getbit(buckets, shop.bucket(ANN)) == 1
    forgetter.forget("shop", mate)
    assert shop.client.getbit(buckets, shop.bucket(ANN)) == 0


@both_layouts
def test_doubts_and_receipts_go_and_a_late_receipt_moves_nothing(
    shop: Shop, forgetter: Forgetter
) -> None:
    receipts = Receipts(shop.client, shop.settings)
    doubts = Doubts(shop.client, shop.settings)
    shop.give(ANN, subscriptions={TEMPLATE: "accept"})
    broadcast = shop.broadcast("subscribe")
    shop.open(broadcast)
    assert len(shop.take()) == 1
    receipts.settle("shop", ANN, OTHER, msgid="5", errcode=0, at_ms=shop.now_ms())
    shop.recover(broadcast)
    assert len(list(doubts.of(broadcast))) == 1
    forgetter.forget("shop", ANN)
    gone(shop, ANN)
    assert list(doubts.of(broadcast)) == []
    receipts.settle("shop", ANN, TEMPLATE, msgid="6", errcode=0, at_ms=shop.now_ms())
    assert shop.broadcasts.status(broadcast).outcomes == {"in_doubt": 1}
    # WeChat's own word stays for a day, and nowhere else
    assert {key.split(":")[2] for key in shop.mentions(ANN)} <= {"receipts"}
    assert all(0 < shop.client.ttl(key) <= 86_400 for key in shop.mentions(ANN))


@both_layouts
@pytest.mark.parametrize("answer", [None, *ANSWERS])
def test_a_single_message_and_its_content_go_too(
    shop: Shop, forgetter: Forgetter, answer: str | None
) -> None:
    shop.give(ANN, subscriptions={TEMPLATE: "accept"})
    carrier = shop.post(ANN, data={"thing1": "for Ann alone"})
    assert any("for Ann alone" in content for content in shop.everything().values())
    claims = shop.take() if answer else []
    found = forgetter.forget("shop", ANN)
    assert (found.dropped, found.in_hands) == ((0, 1) if answer else (1, 0))
    for claim in claims:
        action, fate, outcome, errcode, streak = ANSWERS[answer or ""]
        shop.settle(claim, action, fate, outcome, errcode=errcode, streak=streak)
    for lane in shop.settings.layout.lanes:
        shop.client.delete(keys.sending(lane, "shop"))
        for item in shop.client.zrange(keys.delayed(lane, carrier), 0, -1):
            shop.client.zadd(keys.delayed(lane, carrier), {item: 0})
    shop.keeper.run_once()
    assert shop.take() == []
    gone(shop, ANN)
    kept = {key: text for key, text in shop.everything().items() if ":reply:" not in key}
    assert not any("for Ann alone" in content for content in kept.values())
    assert shop.post(ANN) == carrier  # who comes back is a new user


@both_layouts
def test_a_user_who_comes_back_is_a_new_user(shop: Shop, forgetter: Forgetter) -> None:
    shop.give(ANN, formId="a", subscriptions={TEMPLATE: "accept"})
    broadcast = shop.broadcast()
    shop.open(broadcast)
    (claim,) = shop.take()
    forgetter.forget("shop", ANN)
    assert shop.give(ANN, formIds=["a", "new"]) == 2  # one that WeChat may have spent already
    shop.settle(claim, "requeue", "back", "-", streak="-")
    assert shop.wrong() == []
    assert shop.audiences.count("shop", "all") == 1
    assert endless(shop) == set()


@both_layouts
def test_who_was_forgotten_is_not_split_any_more(shop: Shop, forgetter: Forgetter) -> None:
    shop.give(ANN, formId="a")
    shop.give(BOB, formId="b")
    forgetter.forget("shop", ANN)
    broadcast = shop.broadcast()
    assert shop.broadcasts.status(broadcast).total == 1
    shop.run_dry(broadcast)
    assert set(shop.outcomes(broadcast)) == {BOB}


def test_one_name_does_not_join_two_broadcasts(shop: Shop, forgetter: Forgetter) -> None:
    shop.give(ANN, formIds=["a", "b"])
    ids = []
    for _ in range(2):
        ids.append(shop.broadcast())
        shop.run_dry(ids[-1])
    forgetter.forget("shop", ANN)
    names = [openid for broadcast in ids for openid in shop.outcomes(broadcast)]
    assert len(set(names)) == len(names) == 2


def test_an_outcome_without_a_name_ends_when_it_would_have(
    shop: Shop, forgetter: Forgetter
) -> None:
    shop.give(ANN, formId="a")
    broadcast = shop.broadcast()
    shop.run_dry(broadcast)
    key = keys.outcomes(shop.lane(ANN), broadcast, shop.bucket(ANN))
    before = shop.client.pexpiretime(key)
    forgetter.forget("shop", ANN)
    assert shop.client.pexpiretime(key) == before > 0


def test_a_stranger_and_an_unknown_app_change_nothing(shop: Shop, forgetter: Forgetter) -> None:
    shop.give(BOB, formId="b")
    shop.broadcast()
    before = shop.everything()
    assert forgetter.forget("shop", ANN) == Forgotten(0, 0, 0, 0, 0, 0)
    with pytest.raises(UnknownAppError):
        forgetter.forget("shoq", BOB)
    for openid in ("", "a b", "o:1", "o" * 65, f"{BOB}\n"):
        with pytest.raises(InvalidInputError, match="openid"):
            forgetter.forget("shop", openid)
    assert shop.everything() == before


def test_the_log_line_does_not_say_who(shop: Shop, forgetter: Forgetter, tmp_path: Path) -> None:
    shop.give(ANN, formId="a")
    with recorded(tmp_path) as read:
        forgetter.forget("shop", ANN)
        (line,) = read()
    assert (line["event"], line["uses"], line["audiences"]) == ("user_forgotten", 1, 1)
    assert ANN not in json.dumps(line)


WHO = st.sampled_from([ANN, BOB])
NOBODY = st.just("")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("give"), WHO, st.sampled_from("abcdef")),
        st.tuples(st.just("accept"), WHO, NOBODY),
        st.tuples(st.just("broadcast"), st.sampled_from(["template", "subscribe"]), NOBODY),
        st.tuples(st.just("post"), WHO, NOBODY),
        st.tuples(st.just("take"), NOBODY, NOBODY),
        st.tuples(st.just("settle"), st.sampled_from(sorted(ANSWERS)), NOBODY),
        st.tuples(st.just("die"), NOBODY, NOBODY),
        st.tuples(st.just("forget"), WHO, NOBODY),
        st.tuples(st.just("cancel"), NOBODY, NOBODY),
        st.tuples(st.just("keep"), NOBODY, NOBODY),
    ),
    max_size=14,
)


class Story:
    """What happens to a shop; each method is a step."""

    def __init__(self, shop: Shop, forgetter: Forgetter) -> None:
        self.shop, self.forgetter = shop, forgetter
        self.hands: list[Any] = []
        self.broadcasts: list[str] = []

    def give(self, openid: str, permit: str) -> None:
        self.shop.give(openid, formId=f"{openid}-{permit}")

    def accept(self, openid: str, _: str) -> None:
        self.shop.give(openid, subscriptions={TEMPLATE: "accept"})

    def broadcast(self, channel: str, _: str) -> None:
        self.broadcasts.append(self.shop.broadcast(channel))
        self.shop.open(self.broadcasts[-1])

    def post(self, openid: str, _: str) -> None:
        carrier = self.shop.post(openid)
        if carrier not in self.broadcasts:
            self.broadcasts.append(carrier)

    def take(self, *_: str) -> None:
        self.hands += self.shop.take()

    def settle(self, answer: str, _: str) -> None:
        if self.hands:
            action, fate, outcome, errcode, streak = ANSWERS[answer]
            claim = self.hands.pop(0)
            self.shop.settle(claim, action, fate, outcome, errcode=errcode, streak=streak)

    def die(self, *_: str) -> None:
        self.hands.clear()
        for broadcast in self.broadcasts:
            self.shop.recover(broadcast)

    def forget(self, openid: str, _: str) -> None:
        self.forgetter.forget("shop", openid)

    def cancel(self, *_: str) -> None:
        for broadcast in self.broadcasts[-1:]:
            with contextlib.suppress(IllegalMoveError):
                self.shop.broadcasts.cancel(broadcast)

    def keep(self, *_: str) -> None:
        self.shop.keeper.run_once()


@both_layouts
@hypothesis_settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_whatever_happened_before_the_sums_are_true_and_the_user_is_nowhere(
    shop: Shop, forgetter: Forgetter, steps: list[tuple[str, str, str]]
) -> None:
    shop.client.flushall()
    shop.give("oEve", formId="e")
    story = Story(shop, forgetter)
    for step, what, which in [*steps, ("forget", ANN, "")]:
        getattr(story, step)(what, which)
        assert shop.wrong() == [], (step, what)
    # a message that was handed back, and its broadcast cancelled, leaves its name among the leaving
    stays = {"leaving"} if any(step == "cancel" for step, *_ in steps) else set()
    in_hands = [claim for claim in story.hands if claim.openid == ANN]
    kept = {key.split(":")[2] for key in shop.mentions(ANN)}
    assert kept <= ({"flight", "leaving", "mail", "sending"} if in_hands else stays)
    for claim in in_hands:
        shop.settle(claim)
    assert {key.split(":")[2] for key in shop.mentions(ANN)} <= stays
    assert shop.wrong() == []
    assert endless(shop) == set()


@both_layouts
@pytest.mark.parametrize("answer", ["no permit", "handed back", "unsent"])
def test_a_forgotten_users_message_does_not_use_what_the_user_gives_later(
    shop: Shop, forgetter: Forgetter, answer: str
) -> None:
    shop.give(ANN, formIds=["a"])
    broadcast = shop.broadcast()
    shop.open(broadcast)
    (claim,) = shop.take()
    forgetter.forget("shop", ANN)
    shop.give(ANN, formIds=["new"])  # back again, as a new user
    action, fate, outcome, errcode, streak = ANSWERS[answer]
    settled = shop.settle(claim, action, fate, outcome, errcode=errcode, streak=streak)
    assert settled == "cancelled"
    for item in shop.client.zrange(keys.delayed(claim.lane, broadcast), 0, -1):
        shop.client.zadd(keys.delayed(claim.lane, broadcast), {item: 0})
    shop.keeper.run_once()
    assert shop.take() == []
    assert shop.wrong() == []
    assert shop.broadcasts.status(broadcast).outcomes == {"cancelled": 1}
