"""Expressions in a broadcast: exactly whom the sets say, whatever happens to them meanwhile."""

import random
from collections import Counter
from typing import Any

import pytest
from lane_driver import BUCKETS, Lane
from shop import Shop

from producers.broadcasts.spec import Spec
from producers.broadcasts.split import Splitter
from producers.errors import InvalidInputError, NotFoundError
from producers.planning.forecast import Forecaster
from producers.planning.plan import Planner
from producers.retries import Retries
from producers.store import keys
from producers.users.card import Users

both_layouts = pytest.mark.parametrize("lanes", [1, 4])

PEOPLE = [f"o{n:04}" for n in range(1600)]
CASES = {
    "vip & active - churned": lambda v, a, c: (v & a) - c,
    "(vip | active) - churned": lambda v, a, c: (v | a) - c,
    "vip | (active - churned)": lambda v, a, c: v | (a - c),
    "churned & (vip | active)": lambda v, a, c: c & (v | a),
    "all - vip": lambda v, *_: set(PEOPLE) - v,
    "all - (all - vip)": lambda v, *_: v,
    "vip - vip": lambda *_: set(),
    "vip | vip | vip": lambda v, *_: v,
}


@pytest.fixture
def sets(shop: Shop) -> tuple[set[str], set[str], set[str]]:
    """Give everybody a permit, and import three audiences; returns their members."""
    lot = random.Random(11)
    shop.collector.collect("shop", [{"openid": one, "formIds": [f"f{one}"]} for one in PEOPLE])
    vip, active, churned = ({o for o in PEOPLE if lot.random() < p} for p in (0.5, 0.7, 0.1))
    for name, members in (("vip", vip), ("active", active), ("churned", churned)):
        shop.audiences.import_rows("shop", name, sorted(members))
    return vip, active, churned


def all_queued(shop: Shop, broadcast: str) -> Counter[str]:
    """Split a broadcast to its end; returns who was queued, how often."""
    splitter, found = Splitter(shop.client, shop.settings), Counter[str]()
    for _ in range(1000):
        for lane in shop.settings.layout.lanes:
            found.update(
                item.partition(":")[2]
                for item in shop.client.lpop(keys.queue(lane, broadcast), 10_000) or ()
            )
            splitter.fill(broadcast, lane)
        if shop.is_split(broadcast) and not any(
            shop.client.llen(keys.queue(lane, broadcast)) for lane in shop.settings.layout.lanes
        ):
            return found
    raise AssertionError("it was never split")


@both_layouts
@pytest.mark.parametrize("text", CASES)
def test_a_broadcast_is_for_whom_the_sets_say(shop: Shop, sets: Any, text: str) -> None:
    expected = CASES[text](*sets)
    assert shop.audiences.count("shop", text) == len(expected)
    broadcast = shop.broadcast(audience=text)
    assert all_queued(shop, broadcast) == Counter(expected)
    status = shop.broadcasts.status(broadcast)
    assert (status.audience, status.total, status.expected) == (text, len(expected), len(expected))


def test_nothing_but_its_recipients_is_kept_of_an_expression(shop: Shop, sets: Any) -> None:
    before = set(shop.client.scan_iter("*audience*")) | set(shop.client.scan_iter("*buckets*"))
    all_queued(shop, shop.broadcast(audience="vip & active - churned"))
    after = set(shop.client.scan_iter("*audience*")) | set(shop.client.scan_iter("*buckets*"))
    assert before == after


@both_layouts
@pytest.mark.parametrize("gone", ["churned", "vip", "active"])
def test_a_deleted_audience_ends_it_with_those_who_were_split(
    shop: Shop, sets: Any, gone: str
) -> None:
    vip, active, churned = sets
    broadcast = shop.broadcast(audience="vip & active - churned", rate=1)
    some = Counter(
        item.partition(":")[2]
        for lane in shop.settings.layout.lanes
        for item in shop.client.lpop(keys.queue(lane, broadcast), 10_000) or ()
    )
    assert 0 < len(some) < len((vip & active) - churned)
    shop.audiences.delete("shop", gone)
    assert not all_queued(shop, broadcast)
    assert set(some) <= (vip & active) - churned
    with pytest.raises(NotFoundError, match=gone):
        shop.broadcast(audience="vip & active - churned")
    # made anew, it is an audience as any other
    shop.audiences.import_rows("shop", gone, ["o0001"])
    shop.broadcast(audience=f"all - {gone}")
    assert shop.audiences.count("shop", f"all - {gone}") == len(PEOPLE) - 1


def test_one_that_is_half_deleted_lets_nobody_through_whom_it_left_out(
    shop: Shop, sets: Any
) -> None:
    _vip, _, churned = sets
    broadcast = shop.broadcast(audience="vip - churned", rate=1)
    already = {
        item.partition(":")[2] for item in shop.client.lpop(keys.queue(0, broadcast), 10_000)
    }
    drop = shop.audiences._drop_lane(0, "shop", "churned")
    assert next(drop) > 0
    assert shop.client.scard(keys.audience(0, "shop", "churned", 0)) == 0
    after = set(all_queued(shop, broadcast))
    assert not (already | after) & churned


def test_a_replaced_audience_is_met_bucket_by_bucket(shop: Shop, sets: Any) -> None:
    vip, _, churned = sets
    broadcast = shop.broadcast(audience="vip - churned", rate=1)
    first = {item.partition(":")[2] for item in shop.client.lpop(keys.queue(0, broadcast), 10_000)}
    shop.audiences.replace_rows("shop", "churned", PEOPLE[:300])
    found = first | set(all_queued(shop, broadcast))
    assert first <= vip - churned
    assert found - first <= vip - set(PEOPLE[:300])
    assert found >= vip - churned - set(PEOPLE[:300])


def test_what_a_cancelled_one_had_left_is_counted(shop: Shop, sets: Any) -> None:
    vip, _, churned = sets
    broadcast = shop.broadcast(audience="vip - churned", rate=1)
    shop.broadcasts.move(broadcast, "cancel")
    Splitter(shop.client, shop.settings).fill(broadcast, 0)
    status = shop.broadcasts.status(broadcast)
    assert status.outcomes == {"cancelled": len(vip - churned)}
    # and they are whom a retry of them is for
    shop.keeper.run_once()
    again = Retries(shop.client, shop.settings).retry(broadcast, ["cancelled"])
    assert again.recipients == len(vip - churned)
    assert set(all_queued(shop, again.id)) == vip - churned


def test_a_step_that_finds_nobody_ends_in_time(lane: Lane) -> None:
    members = [f"big{n:05}" for n in range(9000)]
    for name, some in (("left", members[:4500]), ("right", members[4500:])):
        for at in range(0, 4500, 500):
            lane.audience(name, *some[at : at + 500])
    lane.adopt("b1", audience="left right &", window=10_000)
    steps = 0
    while lane.split("b1")[0] == 1:
        steps += 1
    copy = lane.copy("b1")
    assert (copy["split"], copy["total"]) == ("done", "0")
    assert steps >= 3  # of eight buckets with 560 members each to look at, twice


def test_an_unknown_name_and_a_slip_are_told_apart(shop: Shop, sets: Any) -> None:
    for text in ("vip & nobody", "nobody", "all - nobody"):
        with pytest.raises(NotFoundError, match="no audience 'nobody'"):
            shop.broadcast(audience=text)
    with pytest.raises(NotFoundError, match="written with blanks: a - b"):
        shop.broadcast(audience="vip-churned")
    with pytest.raises(InvalidInputError, match="two ways"):
        shop.broadcast(audience="vip | active - churned")


def test_a_name_with_a_minus_is_the_name_it_was(shop: Shop) -> None:
    shop.audiences.import_rows("shop", "old-vip", ["o1", "o2"])
    shop.audiences.import_rows("shop", "old", ["o3"])
    shop.audiences.import_rows("shop", "vip", ["o1"])
    assert all_queued(shop, shop.broadcast(audience="old-vip")) == Counter(["o1", "o2"])
    assert all_queued(shop, shop.broadcast(audience="old-vip - vip")) == Counter(["o2"])


def test_one_key_is_one_broadcast_however_its_blanks_are_set(shop: Shop, sets: Any) -> None:
    fields: dict[str, Any] = {"app": "shop", "channel": "template", "template_id": "T", "data": "a"}
    one, two = (Spec.checked(audience=text, **fields) for text in ("vip&active", " vip  & active"))
    assert shop.broadcasts.create(one, "k").id == shop.broadcasts.create(two, "k").id
    with pytest.raises(Exception, match="k"):
        shop.broadcasts.create(Spec.checked(audience="active & vip", **fields), "k")


@pytest.mark.parametrize("most", [50_000, 100])
def test_a_large_expression_is_estimated(
    shop: Shop, sets: Any, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producers.audiences.counting.COUNTED", most)
    monkeypatch.setattr("producers.audiences.counting._SAMPLED", 400)
    vip, active, churned = sets
    real = len((vip & active) - churned)
    found = shop.audiences.measure("shop", "vip & active - churned")
    assert found.exact == (most == 50_000)
    assert found.members == real if found.exact else real / 2 < found.members < real * 2


@both_layouts
def test_a_forecast_looks_at_those_alone(shop: Shop, sets: Any) -> None:
    vip, active, churned = sets
    found = Forecaster(shop.client, shop.settings).forecast(
        "shop", "template", audience="vip & active - churned"
    )
    real = len((vip & active) - churned)
    assert (found.members, found.horizons[0].users, found.method) == (real, real, "scan")


@both_layouts
def test_a_user_is_told_what_waits_and_asked_for_what_is_wanted(shop: Shop, sets: Any) -> None:
    vip, _, churned = sets
    inside, outside = min(vip - churned), min(vip & churned)
    broadcast = shop.broadcast("subscribe", "vip - churned", rate=1)
    for lane in shop.settings.layout.lanes:
        shop.client.hset(keys.lane_broadcast(lane, broadcast), mapping={"cursor": 0, "split": ""})
        shop.client.delete(keys.queue(lane, broadcast))
    users = Users(shop.client, shop.settings)
    assert [send.state for send in users.show("shop", inside).sends] == ["to_be_split"]
    assert users.show("shop", outside).sends == []
    planner = Planner(shop.client, shop.settings)
    assert [ask.under_way for ask in planner.plan("shop", inside).templates] == [1]
    assert [ask.under_way for ask in planner.plan("shop", outside).templates] == []


def test_bucket_numbers_are_those_of_the_lane(lane: Lane) -> None:
    lane.audience("a", "anna", "bert")
    lane.audience("b", "bert", "cleo")
    lane.adopt("b1", audience="a b -")
    assert lane.split("b1")[:3] == [1, BUCKETS, 1]
    assert lane.queue("b1") == ["anna"]
