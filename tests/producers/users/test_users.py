"""A user's card: what was given, what is left of it, and what became of each broadcast."""

import json
from typing import Any

import pytest
from shop import OTHER, TEMPLATE, Shop

from producers.errors import InvalidInputError, UnknownAppError
from producers.store import keys
from producers.users import UserCard, Users
from producers.users.card import RECENT, Send

both_layouts = pytest.mark.parametrize("lanes", [1, 4])

ANN = "oAnn"
HOUR = 3_600_000


@pytest.fixture
def users(shop: Shop) -> Users:
    return Users(shop.client, shop.settings)


def sends(card: UserCard) -> dict[str, str]:
    return {send.broadcast: send.outcome or send.state for send in card.sends}


def only(card: UserCard) -> Send:
    (send,) = card.sends
    return send


@both_layouts
def test_a_stranger_has_an_empty_card(users: Users) -> None:
    card = users.show("shop", "nobody")
    assert (card.balance, card.sends, card.audiences, card.held, card.sending) == (
        [],
        [],
        [],
        0,
        False,
    )
    assert set(card.usable.values()) == {0}
    with pytest.raises(UnknownAppError):
        users.show("shoq", ANN)


@both_layouts
def test_permits_are_shown_by_kind_and_expiry_hour(shop: Shop, users: Users) -> None:
    now = shop.now_ms()
    first, second = now + 5 * HOUR, now + 9 * HOUR
    shop.give(ANN, formIds=[{"formId": "a", "expire": first}, {"formId": "b", "expire": second}])
    shop.give(ANN, prepayIds=[{"prepayId": "wx1", "expire": second}])
    card = users.show("shop", ANN)
    shown = [(one.kind, one.uses, one.expires_after_ms // HOUR) for one in card.balance]
    assert shown == [
        ("form_id", 1, first // HOUR),
        ("form_id", 1, second // HOUR),
        ("prepay_id", 3, second // HOUR),
    ]
    assert all(one.expires_before_ms - one.expires_after_ms == HOUR for one in card.balance)
    assert card.usable == {"form_id": 2, "prepay_id": 3, "subscription": 0}
    json.dumps(card.as_dict())


@both_layouts
def test_subscriptions_are_shown_by_template(shop: Shop, users: Users, make_settings: Any) -> None:
    shop.give(ANN, subscriptions={TEMPLATE: "accept"}, id="1")
    shop.give(ANN, subscriptions={TEMPLATE: "accept"}, id="2")
    shop.give(ANN, subscriptions={OTHER: "reject"})
    long_term = make_settings(lanes=shop.settings.lanes, app={"long_term_templates": ["L" * 43]})
    Shop(shop.client, long_term).give(ANN, subscriptions={"L" * 43: "accept"})
    card = users.show("shop", ANN)
    assert {one.template_id: one.uses for one in card.balance} == {
        TEMPLATE: 2,
        OTHER: 0,
        "L" * 43: -1,
    }
    withdrawn = {one.template_id: one.withdrawn_at_ms for one in card.balance}
    assert abs(withdrawn[OTHER] - shop.now_ms()) < 60_000
    assert withdrawn[TEMPLATE] == 0
    assert card.usable["subscription"] == 2


@both_layouts
def test_a_permit_within_the_margin_is_there_and_not_usable(shop: Shop, users: Users) -> None:
    shop.give(ANN, formIds=[{"formId": "a", "expire": shop.now_ms() + 8000}])
    card = users.show("shop", ANN)
    assert [one.uses for one in card.balance] == [1]
    assert card.usable["form_id"] == 0


@both_layouts
def test_what_is_held_is_a_send_in_flight_and_no_balance(shop: Shop, users: Users) -> None:
    shop.give(ANN, formIds=["a", "b"])
    broadcast = shop.broadcast()
    shop.open(broadcast)
    (claim,) = shop.take()
    card = users.show("shop", ANN)
    assert (card.usable["form_id"], card.held, card.sending) == (1, 1, True)
    assert sends(card) == {broadcast: "in_flight"}
    shop.settle(claim, msgid="991")
    card = users.show("shop", ANN)
    assert (card.usable["form_id"], card.held, card.sending) == (1, 0, False)
    send = only(card)
    assert (send.state, send.outcome, send.errcode, send.msgid, send.settled_by) == (
        "settled", "delivered", 0, "991", "answer",
    )  # fmt: skip
    assert (send.channel, send.template_id) == ("template", TEMPLATE)


@both_layouts
def test_a_refusal_carries_its_errcode(shop: Shop, users: Users) -> None:
    shop.give(ANN, formIds=["a"])
    shop.open(shop.broadcast())
    (claim,) = shop.take()
    shop.settle(claim, "settle", "void_all", "refused", errcode=43101, streak="refusal")
    send = only(users.show("shop", ANN))
    assert (send.outcome, send.errcode) == ("refused", 43101)


@both_layouts
def test_a_broadcast_that_waits_shows_where(shop: Shop, users: Users) -> None:
    shop.give(ANN, formIds=["a", "b"])
    queued = shop.broadcast()
    assert sends(users.show("shop", ANN)) == {queued: "queued"}
    shop.open(queued)
    (claim,) = shop.take()
    shop.settle(claim, "delay", "back", "-", streak="-")
    assert sends(users.show("shop", ANN)) == {queued: "delayed"}
    # a resumed message waits, too
    lane = shop.lane(ANN)
    shop.client.delete(keys.sending(lane, "shop"))
    shop.client.zadd(keys.delayed(lane, queued), {f"{shop.bucket(ANN)}:{ANN}": 0})
    shop.keeper.run_once()
    assert len(shop.take()) == 1
    shop.recover(queued)
    card = users.show("shop", ANN)
    assert (sends(card), card.held) == ({queued: "delayed"}, 1)


@both_layouts
def test_a_bucket_that_was_not_split_yet_is_to_be_split(shop: Shop, users: Users) -> None:
    shop.give(ANN, formIds=["a"])
    broadcast = shop.broadcast()
    lane, item = shop.lane(ANN), f"{shop.bucket(ANN)}:{ANN}"
    shop.client.lrem(keys.queue(lane, broadcast), 0, item)
    shop.client.hset(keys.lane_broadcast(lane, broadcast), mapping={"split": "", "cursor": 0})
    assert sends(users.show("shop", ANN)) == {broadcast: "to_be_split"}
    shop.client.hset(keys.lane_broadcast(lane, broadcast), "cursor", shop.bucket(ANN) + 1)
    assert sends(users.show("shop", ANN)) == {}


@both_layouts
def test_who_is_no_recipient_has_no_send(shop: Shop, users: Users) -> None:
    shop.give("oBob", formIds=["a"])
    shop.run_dry(shop.broadcast())
    assert users.show("shop", ANN).sends == []


@both_layouts
def test_sends_come_newest_first_and_a_hundred_at_most(shop: Shop, users: Users) -> None:
    shop.give(ANN, formIds=[f"f{n}" for n in range(3)])
    ids = []
    for _ in range(3):
        ids.append(shop.broadcast())
        shop.run_dry(ids[-1])
    assert [send.broadcast for send in users.show("shop", ANN).sends] == ids[::-1]
    shop.client.zadd(keys.history("shop"), {f"new{n}": 2**50 + n for n in range(RECENT)})
    assert users.show("shop", ANN).sends == []


@both_layouts
def test_the_audiences_of_a_user_are_named(shop: Shop, users: Users) -> None:
    shop.give(ANN, formIds=["a"])
    shop.audiences.import_rows("shop", "vip", [ANN.encode()])
    shop.audiences.import_rows("shop", "new", [b"oBob"])
    assert users.show("shop", ANN).audiences == ["all", "vip"]
    shop.client.hset(keys.audiences("shop"), "vip", "-1")  # it is being deleted
    assert users.show("shop", ANN).audiences == ["all"]


@both_layouts
def test_showing_changes_nothing(shop: Shop, users: Users) -> None:
    shop.give(ANN, formIds=["a"], subscriptions={TEMPLATE: "accept"})
    shop.broadcast()
    shop.broadcast("subscribe")
    before = shop.everything()
    users.show("shop", ANN)
    users.show("shop", "nobody")
    assert shop.everything() == before


def test_whom_users_forget_they_do_not_know(shop: Shop, users: Users) -> None:
    shop.give(ANN, formIds=["a"])
    shop.run_dry(shop.broadcast())
    assert users.forget("shop", ANN).outcomes == 1
    assert users.show("shop", ANN).sends == []


@both_layouts
def test_a_single_message_is_a_send_with_an_id_of_its_own(shop: Shop, users: Users) -> None:
    shop.give(ANN, subscriptions={TEMPLATE: "accept"})
    carrier = shop.post(ANN)
    send = only(users.show("shop", ANN))
    assert (send.broadcast, send.state, send.message) == (carrier, "queued", f"{carrier}.{ANN}")
    assert users.show("shop", "oBob").sends == []
    (claim,) = shop.take()
    shop.settle(claim, msgid="5")
    send = only(users.show("shop", ANN))
    assert (send.outcome, send.message) == ("delivered", f"{carrier}.{ANN}")


def test_what_is_no_openid_is_refused(users: Users) -> None:
    for openid in ("", "a b", "o:1", "o" * 65, "o1\n"):
        with pytest.raises(InvalidInputError, match="openid"):
            users.show("shop", openid)
