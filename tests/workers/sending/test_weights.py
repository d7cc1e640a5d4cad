"""Weights: an app's broadcasts share its takes by them, exactly, however small the takes are."""

import json
import random
from collections import Counter
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from lane_driver import Lane, accept
from shop import Shop

from producers.broadcasts.spec import Spec
from producers.errors import IllegalMoveError, InvalidInputError
from producers.settings import Settings
from producers.store import keys


def stand(lane: Lane, name: str, users: int, **copy: Any) -> None:
    """Have a broadcast run to so many users of its own."""
    openids = [f"{name}-{number}" for number in range(users)]
    lane.collect({openid: [accept()] for openid in openids})
    lane.start(name, *openids, channel="subscribe", open=1, **copy)


def shares(lane: Lane, takes: int, most: int) -> Counter[str]:
    """Take so often; returns how much each broadcast got."""
    got: Counter[str] = Counter()
    for _ in range(takes):
        got.update(claim.broadcast for claim in lane.take(most=most).claims)
    return got


@pytest.mark.parametrize("most", [1, 3, 7, 40, 400])
def test_three_to_one_is_three_to_one_whatever_a_take_is_given(lane: Lane, most: int) -> None:
    stand(lane, "b1", 330, weight=3)
    stand(lane, "b2", 330)
    got = shares(lane, 400 // most, most)
    assert got["b1"] == pytest.approx(sum(got.values()) * 3 / 4, abs=3)


def test_takes_of_changing_size_favour_nobody(lane: Lane) -> None:
    stand(lane, "b1", 360, weight=3)
    stand(lane, "b2", 360)
    rng = random.Random(7)
    got: Counter[str] = Counter()
    while sum(got.values()) < 400:
        got += shares(lane, 1, rng.choice([1, 2, 50]))
    assert got["b1"] == pytest.approx(sum(got.values()) * 3 / 4, abs=3)


@hypothesis_settings(max_examples=15, deadline=None)
@given(
    weights=st.lists(st.integers(1, 100), min_size=2, max_size=4),
    takes=st.lists(st.integers(1, 30), min_size=10, max_size=20),
)
def test_each_gets_its_weight_to_within_a_round(weights: list[int], takes: list[int]) -> None:
    """Nobody is more than one turn away from what it would have, shared out drop by drop."""
    lane: Lane = LANE[0]
    lane.client.flushdb()
    for number, weight in enumerate(weights):
        stand(lane, f"b{number}", sum(takes), weight=weight)
    got: Counter[str] = Counter()
    for most in takes:
        got += shares(lane, 1, most)
    assert got.total() == sum(takes)  # whoever has less to come leaves nothing undone
    all_of_it = sum(weights)
    for number, weight in enumerate(weights):
        turn = weight * max(1, max(takes) / all_of_it)
        assert abs(got[f"b{number}"] - got.total() * weight / all_of_it) <= turn + 1


LANE: list[Lane] = []


@pytest.fixture(autouse=True)
def _one_lane(lane: Lane) -> None:
    LANE[:] = [lane]


def test_nobody_starves_beside_the_heaviest(lane: Lane) -> None:
    stand(lane, "b1", 450, weight=100)
    for name in ("b2", "b3", "b4"):
        stand(lane, name, 20)
    got = shares(lane, 412, 1)
    assert {name: got[name] for name in ("b2", "b3", "b4")} == {"b2": 4, "b3": 4, "b4": 4}


def test_what_one_leaves_goes_to_the_others_and_is_not_saved_up(lane: Lane) -> None:
    stand(lane, "b1", 200, weight=9, rate=1)
    stand(lane, "b2", 200)
    for _ in range(10):  # b1 has no slot of its own rate
        taken = lane.take(most=10, allowances={"b1": 0})
        assert [claim.broadcast for claim in taken.claims] == ["b2"] * 10
    got: Counter[str] = Counter()
    for _ in range(10):
        taken = lane.take(most=10, allowances={"b1": 10})
        got.update(claim.broadcast for claim in taken.claims)
    assert got["b1"] == pytest.approx(90, abs=2)


def test_one_whose_queue_ran_dry_goes_on_by_its_weight(lane: Lane) -> None:
    stand(lane, "b1", 30, weight=3)
    stand(lane, "b2", 300)
    assert shares(lane, 10, 10) == {"b1": 30, "b2": 70}
    more = [f"b1-more{number}" for number in range(200)]
    lane.collect({openid: [accept()] for openid in more})
    lane.client.rpush(lane.key("queue", "b1"), *map(lane.item, more))
    lane.ends("queue", "b1")
    lane.client.rpush(keys.ring(0, "shop"), "b1")
    assert shares(lane, 20, 10)["b1"] == pytest.approx(150, abs=3)


def test_a_new_weight_counts_from_the_next_take_on(lane: Lane) -> None:
    stand(lane, "b1", 300)
    stand(lane, "b2", 300)
    assert shares(lane, 10, 10) == {"b1": 50, "b2": 50}
    lane.adopt("b1", 2, weight=4, state_generation=1)
    assert shares(lane, 10, 10)["b1"] == pytest.approx(80, abs=4)
    lane.adopt("b1", 3, weight=1, state_generation=1)
    assert shares(lane, 10, 10) == {"b1": 50, "b2": 50}


def test_where_all_weigh_the_same_nothing_is_kept_of_it(lane: Lane) -> None:
    key = keys.shares(0, "shop")
    stand(lane, "b1", 50, weight=3)
    stand(lane, "b2", 50)
    shares(lane, 2, 7)
    assert set(lane.client.hkeys(key)) == {"round", "more", "b1"}
    assert lane.client.pttl(key) > 0
    for generation, (state, drop) in enumerate(
        [("paused", ""), ("running", ""), ("cancelled", "cancelled")], 2
    ):
        lane.adopt("b1", generation, state, drop, weight=3)
        assert bool(lane.client.exists(key)) == (state == "running")


def test_priority_broadcasts_go_first_and_have_their_turns_as_ever(lane: Lane) -> None:
    stand(lane, "b1", 60, weight=100)
    stand(lane, "b2", 30, priority=1)
    stand(lane, "b3", 30, priority=1)
    assert shares(lane, 6, 10) == {"b2": 30, "b3": 30}
    assert shares(lane, 1, 10) == {"b1": 10}


@pytest.mark.parametrize("spoiled", ["x y", "", "nan 1", "9e99 -1", "5"])
def test_a_round_that_somebody_wrote_into_costs_a_round(lane: Lane, spoiled: str) -> None:
    stand(lane, "b1", 100, weight=3)
    stand(lane, "b2", 100)
    lane.client.hset(keys.shares(0, "shop"), mapping={"round": spoiled, "more": spoiled})
    lane.client.hset(lane.key("lane_broadcast", "b2"), "turn", spoiled)
    assert shares(lane, 10, 8)["b1"] == pytest.approx(60, abs=8)


def test_it_holds_over_lanes_from_the_door_to_the_take(
    client: "redis.Redis", make_settings: Any
) -> None:
    shop = Shop(client, make_settings(lanes=4))
    for audience in ("one", "two"):
        openids = [f"{audience}{number}" for number in range(300)]
        for openid in openids:
            shop.give(openid, formIds=[f"f-{openid}"])
        shop.audiences.import_rows("shop", audience, openids)
    heavy, light = shop.broadcast(audience="one", weight=3), shop.broadcast(audience="two")
    for broadcast in (heavy, light):
        shop.open(broadcast)
    got = Counter(claim.broadcast for _ in range(10) for claim in shop.take(most=5))
    assert got[heavy] == pytest.approx(150, abs=8)
    assert shop.broadcasts.set_weight(light, 3) == "running"
    assert [shop.broadcasts.status(one).weight for one in (heavy, light)] == [3, 3]
    got = Counter(claim.broadcast for _ in range(5) for claim in shop.take(most=5))
    assert got[heavy] == pytest.approx(50, abs=8)


def test_a_weight_is_checked_and_changes_nothing_else(
    client: "redis.Redis", settings: Settings
) -> None:
    shop = Shop(client, settings)
    shop.give("o1", formIds=["f1"])
    broadcast = shop.broadcast()
    for wrong in (0, 101, -1, 1.5, True, "3"):
        with pytest.raises(InvalidInputError, match="weight"):
            shop.broadcasts.set_weight(broadcast, wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match="weight"):
            shop.broadcast(weight=wrong)
    urgent = shop.broadcast(priority=True)
    with pytest.raises(InvalidInputError, match="priority"):
        shop.broadcasts.set_weight(urgent, 3)
    shop.broadcasts.pause(broadcast, "look at it")
    assert shop.broadcasts.set_weight(broadcast, 7) == "paused"
    assert shop.broadcasts.status(broadcast).reason == "look at it"
    assert not shop.client.exists(keys.shares(0, "shop"))
    shop.broadcasts.resume(broadcast)
    assert shop.client.hgetall(keys.shares(0, "shop")) == {broadcast: "7", "more": "6"}
    shop.broadcasts.cancel(broadcast)
    with pytest.raises(IllegalMoveError, match="change the weight of"):
        shop.broadcasts.set_weight(broadcast, 3)


def test_the_digest_of_a_spec_without_a_weight_is_what_it_was() -> None:
    given: dict[str, Any] = {"app": "shop", "channel": "subscribe", "template_id": "T"}
    plain = Spec.checked(**given, audience="all", data={"thing1": "a"})
    stored = json.loads(plain.to_json())
    del stored["weight"]
    assert Spec.from_json(json.dumps(stored)) == plain
    assert plain.digest() == "f0d57bcc85f3c772bf1701175413ee41"
    heavier = Spec.checked(**given, audience="all", data={"thing1": "a"}, weight=2)
    assert heavier.digest() != plain.digest()
