"""Kept: broadcasts leave each user's last uses to single messages."""

from typing import Any

import pytest
import redis
from lane_driver import HOUR, Lane, accept, form, prepay, row, swapped
from pydantic import ValidationError
from shop import TEMPLATE, Shop

from producers.lanes.bounds import Bounds


def keeping(keep: str) -> Bounds:
    return Bounds(keep, "")


def outcomes(lane: Lane, broadcast: str = "b1") -> dict[str, str]:
    return lane.outcomes(broadcast)


def test_the_last_uses_of_both_kinds_together_are_left(lane: Lane) -> None:
    lane.give("anna", form("A"), form("B"))
    lane.give("bob", prepay("P"))  # three uses
    lane.give("carl", form("C"), form("D", lane.now_ms + 9_000))  # one ends within the margin
    lane.start("b1", "anna", "bob", "carl", "dora", open=1)
    assert lane.take(bounds=keeping("2")).openids == ["bob"]
    assert outcomes(lane) == {"anna": "kept", "carl": "kept", "dora": "no_permit"}
    assert lane.counts("b1") == {"total": 4, "done": 3, "o:kept": 2, "o:no_permit": 1}
    assert lane.uses("anna") == {"f:A": lane.uses("anna")["f:A"], "f:B": lane.uses("anna")["f:B"]}
    assert min(lane.uses("anna").values()) > 0
    lane.check_ledger("b1")


def test_accepts_count_by_template_and_long_term_ones_never_run_out(lane: Lane) -> None:
    lane.collect({"anna": [accept()], "bob": [accept(), accept()], "carl": [accept("U")]})
    lane.client.hset(lane.key("subscriptions", "shop", "dora"), "T", -1)
    lane.start("b1", "anna", "bob", "carl", "dora", channel="subscribe", open=1)
    assert lane.take(bounds=keeping("1")).openids == ["bob", "dora"]
    assert outcomes(lane) == {"anna": "kept", "carl": "no_permit"}


@pytest.mark.parametrize(
    ("keep", "reached"),
    [("1", []), ("1 T:0", ["anna"]), ("0 T:1", []), ("1 U:0", []), ("0 TT:1 U:5", ["anna"])],
)
def test_a_template_may_have_a_number_of_its_own(lane: Lane, keep: str, reached: list[str]) -> None:
    lane.give("anna", accept())
    lane.start("b1", "anna", channel="subscribe", open=1)
    assert lane.take(bounds=keeping(keep)).openids == reached


def test_single_messages_have_what_is_kept(lane: Lane) -> None:
    lane.give("anna", form("A"))
    lane.start("m1", "anna", open=1, priority=1)
    lane.client.hset(lane.key("mail", "m1"), lane.item("anna"), f"{lane.now_ms + HOUR} {{}}")
    lane.ends("mail", "m1")
    assert lane.take(bounds=keeping("5")).openids == ["anna"]


def test_what_holds_its_permit_goes_on(lane: Lane) -> None:
    lane.give("anna", form("A"))
    lane.start("b1", "anna", open=1)
    lane.take_one()
    lane.recover("b1", "w1")
    assert lane.take("w2", bounds=keeping("5")).claims[0].resumed


def test_a_dead_permit_gives_way_to_none_that_is_kept(lane: Lane) -> None:
    lane.give("anna", form("A", lane.now_ms + HOUR), form("B"), form("C"))
    lane.start("b1", "anna", open=1)
    claim = lane.take_one(bounds=keeping("1"))
    dead = {"errcode": 41028, "streak": "refusal"}
    settled = lane.settle(row(claim, "swap", "void", "no_permit", **dead), keep="1")
    claim = swapped(claim, settled.results[0])
    assert claim.member == "f:B"
    settled = lane.settle(row(claim, "swap", "void", "no_permit", **dead), keep="1")
    assert settled.results == ["kept"]
    assert outcomes(lane) == {"anna": "kept"}
    assert lane.uses("anna")["f:C"] > 0
    lane.check_ledger("b1")


def test_a_canary_finds_its_way_past_those_who_are_kept(lane: Lane) -> None:
    users = [f"o{number}" for number in range(30)]
    lane.collect({user: [form(user)] for user in users})
    lane.give("last", form("X"), form("Y"))
    lane.start("b1", *users, "last")
    assert lane.take(bounds=keeping("1")).openids == ["last"]
    assert lane.counts("b1")["o:kept"] == 30


def test_what_a_setting_keeps_is_left_from_door_to_take(
    client: "redis.Redis", make_settings: Any
) -> None:
    settings = make_settings(app={"keep_for_messages": 1, "keep_for_messages_of": {"U": 0}})
    shop = Shop(client, settings)
    shop.give("o1", subscriptions={TEMPLATE: "accept", "U": "accept"})
    first, second = shop.broadcast("subscribe"), shop.broadcast("subscribe", template_id="U")
    claims = shop.take()
    assert [claim.broadcast for claim in claims] == [second]
    shop.settle(claims[0])
    assert shop.broadcasts.status(first).outcomes == {"kept": 1}
    carrier = shop.post("o1")
    assert [claim.broadcast for claim in shop.take()] == [carrier]


@pytest.mark.parametrize(
    ("app", "says"),
    [
        ({"keep_for_messages": 101}, "less than or equal to 100"),
        ({"keep_for_messages": -1}, "greater than or equal to 0"),
        ({"keep_for_messages": 5, "permits_per_user": 5}, "would reach nobody"),
        ({"keep_for_messages_of": {"a b": 1}}, "is no template id"),
        ({"per_user_per_day": {"Marketing": 1}}, "is no purpose"),
        ({"per_user_per_day": {"marketing": 21}}, "less than or equal to 20"),
        ({"per_user_per_day": {f"p{n}": 1 for n in range(17)}}, "at most 16"),
    ],
)
def test_wrong_settings_say_what_is_wrong(
    make_settings: Any, app: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValidationError, match=says):
        make_settings(app=app)
