"""The plan: what a user is asked for is what coming broadcasts will lack."""

import json
from typing import Any

import pytest
from clerks import shelve
from shop import OTHER, TEMPLATE, Shop

from producers.errors import InvalidInputError, UnknownAppError
from producers.permits import demand as demand_module
from producers.planning.plan import Ask, Planner
from producers.store import keys
from producers.templates import Template
from producers.users.forget import Forgetter

both_layouts = pytest.mark.parametrize("lanes", [1, 4])

ANN, BOB = "oAnn", "oBob"
LONG = "L" * 43
WEEK = 7 * 24 * 3_600_000


class Adviser:
    """Plans anew each time, as another process would."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop

    def ask(self, openid: str = ANN, most: int = 5) -> list[Ask]:
        return Planner(self.shop.client, self.shop.settings).plan("shop", openid, most).templates

    def templates(self, openid: str = ANN, most: int = 5) -> list[str]:
        return [one.template_id for one in self.ask(openid, most)]

    def skip(self, openid: str = ANN) -> list[str]:
        return Planner(self.shop.client, self.shop.settings).plan("shop", openid).skip


@pytest.fixture
def adviser(shop: Shop) -> Adviser:
    return Adviser(shop)


def subscribers(shop: Shop, *openids: str, template: str = TEMPLATE, times: int = 1) -> None:
    for openid in openids:
        for n in range(times):
            shop.give(openid, subscriptions={template: "accept"}, id=f"{openid}-{n}")


def without_habit(shop: Shop) -> None:
    """Let all broadcasts so far be older than two weeks, as far as habits go."""
    history = keys.history("shop")
    for broadcast in shop.client.zrange(history, 0, -1):
        shop.client.zadd(history, {broadcast: shop.now_ms() - 3 * WEEK})


def tick(shop: Shop) -> None:
    """Let the server's clock go on: what is created next is newer."""
    now_ms = shop.now_ms()
    while shop.now_ms() == now_ms:
        pass


def withdrawn_since(shop: Shop, openid: str, template: str, ago_ms: int) -> None:
    """Let a withdrawal have been so long ago."""
    mark = f"0 {shop.now_ms() - ago_ms} 0"
    shop.client.hset(keys.marks(shop.lane(openid), "shop", openid), template, mark)


@both_layouts
def test_without_broadcasts_there_is_nothing_to_ask_for(shop: Shop, adviser: Adviser) -> None:
    subscribers(shop, ANN)
    assert adviser.ask(ANN) == []
    assert adviser.ask("stranger") == []


@both_layouts
def test_a_broadcast_that_comes_wants_an_accept_of_who_has_none(
    shop: Shop, adviser: Adviser
) -> None:
    subscribers(shop, ANN)
    shop.audiences.import_rows("shop", "vip", [ANN.encode(), BOB.encode()])
    shop.broadcast("subscribe", "vip")
    without_habit(shop)
    assert adviser.ask(ANN) == []
    (ask,) = adviser.ask(BOB)
    assert ask == Ask(
        TEMPLATE, "1 broadcast under way; the user has none", 1, 1, 0.0, 0, withdrawn=False
    )
    assert adviser.ask("stranger") == []  # no member of the audience


@both_layouts
def test_a_broadcast_that_came_wants_nothing_more(shop: Shop, adviser: Adviser) -> None:
    shop.audiences.import_rows("shop", "vip", [ANN.encode(), BOB.encode()])
    subscribers(shop, ANN, BOB)
    broadcast = shop.broadcast("subscribe", "vip")
    without_habit(shop)
    shop.open(broadcast)
    first, second = shop.take()
    assert adviser.ask(ANN) == adviser.ask(BOB) == []  # in flight: it has its accept
    shop.settle(first)
    shop.settle(second, "settle", "void_all", "refused", errcode=43101, streak="refusal")
    assert adviser.ask(ANN) == adviser.ask(BOB) == []


@both_layouts
def test_a_message_that_waits_for_another_attempt_still_wants_one(
    shop: Shop, adviser: Adviser
) -> None:
    shop.audiences.import_rows("shop", "vip", [ANN.encode()])
    subscribers(shop, ANN)
    broadcast = shop.broadcast("subscribe", "vip")
    without_habit(shop)
    shop.open(broadcast)
    (claim,) = shop.take()
    shop.settle(claim, "delay", "back", "-", streak="-")
    assert adviser.ask(ANN) == []  # handed back: the user has one again
    shop.give(ANN, subscriptions={TEMPLATE: "reject"})
    assert [one.withdrawn for one in adviser.ask(ANN)] == [True]


@both_layouts
def test_a_stranger_may_still_join_a_broadcast_to_all(shop: Shop, adviser: Adviser) -> None:
    subscribers(shop, ANN)
    broadcast = shop.broadcast("subscribe")
    without_habit(shop)
    assert adviser.ask("stranger") == []  # everyone is split: too late for this one
    for lane in shop.settings.layout.lanes:
        fields = {"split": "", "cursor": 0}
        shop.client.hset(keys.lane_broadcast(lane, broadcast), mapping=fields)
    assert adviser.templates("stranger") == [TEMPLATE]


@both_layouts
def test_a_habit_is_what_two_weeks_had(shop: Shop, adviser: Adviser) -> None:
    shop.audiences.import_rows("shop", "vip", [ANN.encode()])
    for _ in range(4):
        shop.broadcasts.cancel(shop.broadcast("subscribe", "vip"))
    (ask,) = adviser.ask(ANN)
    assert (ask.per_week, ask.under_way, ask.has, ask.shortage) == (2.0, 0, 0, 2.0)
    assert ask.reason == "about 2 a week lately; the user has none"
    assert adviser.ask(BOB) == []
    subscribers(shop, ANN)
    assert adviser.ask(ANN)[0].shortage == 1
    assert adviser.ask(ANN)[0].reason == "about 2 a week lately; the user has 1"
    subscribers(shop, ANN, times=3)
    assert adviser.ask(ANN) == []
    without_habit(shop)
    assert adviser.ask(BOB) == adviser.ask(ANN) == []


@both_layouts
def test_a_habit_to_all_asks_strangers_too(shop: Shop, adviser: Adviser) -> None:
    shop.broadcasts.cancel(shop.broadcast("subscribe"))
    (ask,) = adviser.ask("stranger")
    assert (ask.per_week, ask.shortage) == (0.5, 0.5)


@both_layouts
def test_other_channels_and_ended_broadcasts_want_nothing(shop: Shop, adviser: Adviser) -> None:
    shop.audiences.import_rows("shop", "vip", [ANN.encode()])
    shop.broadcast("template", "vip")
    assert adviser.ask(ANN) == []
    for move in ("pause", "cancel"):
        broadcast = shop.broadcast("subscribe", "vip")
        without_habit(shop)
        getattr(shop.broadcasts, move)(broadcast)
        assert len(adviser.ask(ANN)) == (move == "pause")
        if move == "pause":
            shop.broadcasts.cancel(broadcast)


@both_layouts
def test_single_messages_want_one_of_everybody(shop: Shop, adviser: Adviser) -> None:
    shop.post(BOB, channel="template")
    assert adviser.ask(ANN) == []
    shop.post(BOB)
    for openid in (ANN, BOB):
        assert adviser.ask(openid) == [
            Ask(
                TEMPLATE, "single messages lately; the user has none", 1, 0, 0.0, 0, withdrawn=False
            )
        ]
    subscribers(shop, ANN)
    assert adviser.ask(ANN) == []
    shop.audiences.import_rows("shop", "vip", [ANN.encode()])
    shop.broadcasts.cancel(shop.broadcast("subscribe", "vip"))
    (ask,) = adviser.ask(ANN)
    assert ask.shortage == 0.5  # the broadcasts' may not take the one of a message
    assert ask.reason == "about 0.5 a week lately and single messages lately; the user has 1"
    without_habit(shop)
    assert adviser.ask(BOB) == []


@both_layouts
def test_the_apps_own_templates_are_planned_before_anything_was_sent(
    shop: Shop, make_settings: Any, lanes: int
) -> None:
    later = "Z" * 43
    own = {"subscribe_templates": [OTHER, TEMPLATE, later, LONG], "long_term_templates": [LONG]}
    adviser = Adviser(Shop(shop.client, make_settings(lanes=lanes, app=own)))
    assert adviser.templates() == sorted([OTHER, TEMPLATE, later])
    assert adviser.ask()[0].reason == (
        "one of the app, nothing was sent of it lately; the user has none"
    )
    shop.broadcasts.cancel(shop.broadcast("subscribe", template_id=later))  # half a one a week
    assert adviser.templates() == [later, *sorted([OTHER, TEMPLATE])]
    shop.give(ANN, subscriptions={OTHER: "accept"})
    assert adviser.templates() == [later, TEMPLATE]
    assert adviser.skip() == []


@both_layouts
def test_what_the_user_has_enough_of_is_skipped(shop: Shop, adviser: Adviser) -> None:
    shop.audiences.import_rows("shop", "vip", [ANN.encode()])
    assert adviser.skip() == []
    shop.broadcast("subscribe", "vip")
    without_habit(shop)
    assert adviser.skip() == []
    subscribers(shop, ANN)
    assert adviser.skip() == [TEMPLATE]  # as many as the broadcasts want
    assert adviser.skip(BOB) == []


@both_layouts
def test_where_no_broadcast_tells_three_in_hand_are_enough(shop: Shop, adviser: Adviser) -> None:
    for has in (1, 2, 3):
        assert adviser.skip() == []
        shop.give(ANN, subscriptions={TEMPLATE: "accept"}, id=f"id{has}")
    assert adviser.skip() == [TEMPLATE]
    shop.post(BOB)
    assert adviser.skip() == [TEMPLATE]
    shop.audiences.import_rows("shop", "vip", [ANN.encode()])
    for _ in range(4):
        shop.broadcasts.cancel(shop.broadcast("subscribe", "vip"))  # two a week
    assert adviser.skip() == [TEMPLATE]
    shop.broadcasts.cancel(shop.broadcast("subscribe", "vip"))
    assert adviser.skip() == []
    assert adviser.templates() == [TEMPLATE]


@both_layouts
def test_who_withdrew_is_skipped_for_a_day(shop: Shop, adviser: Adviser) -> None:
    subscribers(shop, ANN)
    shop.give(ANN, subscriptions={TEMPLATE: "reject"})
    assert adviser.skip() == [TEMPLATE]
    withdrawn_since(shop, ANN, TEMPLATE, WEEK // 7 - 60_000)
    assert adviser.skip() == [TEMPLATE]
    withdrawn_since(shop, ANN, TEMPLATE, WEEK // 7 + 60_000)
    assert adviser.skip() == []
    shop.give(ANN, subscriptions={TEMPLATE: "reject"})
    shop.give(ANN, subscriptions={TEMPLATE: "accept"})  # and changed her mind
    assert adviser.skip() == []


@both_layouts
def test_an_accept_for_good_is_skipped(shop: Shop, adviser: Adviser) -> None:
    shop.give(ANN, subscriptions={OTHER: "accept"})
    shop.client.hset(keys.subscriptions(shop.lane(ANN), "shop", ANN), OTHER, -1)
    assert adviser.skip() == [OTHER]


@both_layouts
@pytest.mark.parametrize("errcode", [40037, 43102, 43107])
def test_a_template_that_wechat_does_not_know_leaves_the_plan(
    shop: Shop, make_settings: Any, lanes: int, errcode: int
) -> None:
    own = {"subscribe_templates": [TEMPLATE, OTHER]}
    adviser = Adviser(Shop(shop.client, make_settings(lanes=lanes, app=own)))
    first = shop.broadcast("subscribe")
    shop.broadcasts.move(first, "abort", "template errors", errcode)
    assert adviser.templates() == [OTHER]
    assert adviser.skip() == [TEMPLATE]
    assert adviser.skip("stranger") == [TEMPLATE]
    tick(shop)
    again = shop.broadcast("subscribe")  # somebody mended it
    assert adviser.templates("stranger") == [TEMPLATE, OTHER]
    assert adviser.skip() == []
    shop.broadcasts.pause(again)
    assert adviser.skip() == []
    tick(shop)
    carrier = shop.post(BOB)
    shop.broadcasts.pause(carrier, "template errors", errcode)
    assert adviser.skip() == [TEMPLATE]
    shop.broadcasts.resume(carrier)
    assert adviser.skip() == []


@both_layouts
def test_other_ends_do_not_make_a_template_unknown(shop: Shop, adviser: Adviser) -> None:
    shop.broadcasts.move(shop.broadcast("subscribe"), "abort", "page errors", 41030)
    assert adviser.templates() == [TEMPLATE]
    assert adviser.skip() == []


@both_layouts
def test_the_most_missing_comes_first_and_the_withdrawn_last(shop: Shop, adviser: Adviser) -> None:
    shop.audiences.import_rows("shop", "vip", [ANN.encode()])
    wanted = {letter * 43: times for letter, times in zip("ABCD", (1, 3, 2, 4), strict=True)}
    for template, times in wanted.items():
        for _ in range(times):
            shop.broadcast("subscribe", "vip", template_id=template)
    shop.give(ANN, subscriptions={"D" * 43: "reject"})
    assert adviser.templates() == ["B" * 43, "C" * 43, "A" * 43, "D" * 43]
    assert adviser.templates(most=2) == ["B" * 43, "C" * 43]
    last = adviser.ask()[-1]
    assert last.withdrawn
    assert "withdrew it in the last two weeks" in last.reason
    withdrawn_since(shop, ANN, "D" * 43, 3 * WEEK)
    assert adviser.templates()[0] == "D" * 43  # that was long ago


@both_layouts
def test_a_long_term_template_is_never_asked_for_again(
    shop: Shop, make_settings: Any, lanes: int
) -> None:
    shop.audiences.import_rows("shop", "vip", [ANN.encode()])
    shop.broadcast("subscribe", "vip", template_id=LONG)
    shop.broadcast("subscribe", "vip", template_id=OTHER)
    settings = make_settings(lanes=lanes, app={"long_term_templates": [LONG]})
    assert Adviser(Shop(shop.client, settings)).templates() == [OTHER]
    shop.client.hset(keys.subscriptions(shop.lane(ANN), "shop", ANN), OTHER, -1)
    assert Adviser(shop).templates() == [LONG]  # -1 is any number, whatever the settings say


@both_layouts
def test_what_the_apps_own_list_lacks_is_not_asked_for(shop: Shop, make_settings: Any) -> None:
    settings = make_settings(lanes=shop.settings.lanes, app={"subscribe_templates": [OTHER, LONG]})
    adviser = Adviser(Shop(shop.client, settings))
    assert set(adviser.templates()) == {OTHER, LONG}  # nothing is known
    shelve(shop.client, Template(OTHER), age_ms=3_600_000)
    assert (adviser.templates(), adviser.skip()) == ([OTHER], [LONG])
    assert shop.client.zscore(keys.TEMPLATES_DUE, "subscribe shop")  # it may have been added since
    shelve(shop.client, Template(OTHER), Template(LONG, kind="long_term"))
    assert (adviser.templates(), adviser.skip()) == ([OTHER], [])


@both_layouts
def test_who_was_forgotten_is_a_stranger(shop: Shop, adviser: Adviser) -> None:
    shop.audiences.import_rows("shop", "vip", [ANN.encode()])
    shop.broadcast("subscribe", "vip")
    assert adviser.templates() == [TEMPLATE]
    Forgetter(shop.client, shop.settings).forget("shop", ANN)
    assert adviser.ask() == []


def test_demand_is_read_anew_every_ten_seconds(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(demand_module.time, "monotonic", lambda: now)
    planner = Planner(shop.client, shop.settings)
    shop.audiences.import_rows("shop", "vip", [ANN.encode()])
    assert planner.plan("shop", ANN).templates == []
    shop.broadcast("subscribe", "vip")
    now += 9.9
    assert planner.plan("shop", ANN).templates == []
    now += 0.2
    (ask,) = planner.plan("shop", ANN).templates
    assert (ask.under_way, ask.per_week) == (1, 0.5)
    subscribers(shop, ANN, times=2)  # the user is read each time
    assert planner.plan("shop", ANN).templates == []


def test_what_is_looked_at_for_a_user_is_bounded(shop: Shop, adviser: Adviser) -> None:
    for n in range(60):
        shop.audiences.import_rows("shop", f"a{n}", [ANN.encode()])
        shop.broadcast("subscribe", f"a{n}")
    (ask,) = adviser.ask()
    assert (ask.under_way, ask.per_week) == (50, 25.0)


def test_wrong_questions_are_refused(shop: Shop) -> None:
    planner = Planner(shop.client, shop.settings)
    for most in (0, 6):
        with pytest.raises(InvalidInputError, match="most"):
            planner.plan("shop", ANN, most)
    with pytest.raises(InvalidInputError, match="openid"):
        planner.plan("shop", "o:1")
    with pytest.raises(UnknownAppError):
        planner.plan("shoq", ANN)


def test_planning_changes_nothing(shop: Shop, adviser: Adviser) -> None:
    subscribers(shop, ANN)
    shop.broadcast("subscribe")
    adviser.ask(ANN)  # has the app's list of templates read, where it is not known
    before = shop.everything()
    adviser.ask(ANN)
    adviser.ask(BOB)
    assert shop.everything() == before
    json.dumps(Planner(shop.client, shop.settings).plan("shop", BOB).as_dict())


def test_what_the_door_would_refuse_is_not_asked_for(
    shop: Shop, make_settings: Any, lanes: int
) -> None:
    shop.give("o1", formIds=["f"])
    for template in (TEMPLATE, OTHER):
        shop.broadcast("subscribe", template_id=template)
    settings = make_settings(app={"subscribe_templates": [OTHER]}, lanes=lanes)
    asks = Planner(shop.client, settings).plan("shop", "o1").templates
    assert [ask.template_id for ask in asks] == [OTHER]
