"""More lanes amid whatever is under way: it is there afterwards, and goes on."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from shop import TEMPLATE, Shop
from webhook_end import of_app

from producers import store
from producers.broadcasts.spec import Spec
from producers.broadcasts.split import Splitter
from producers.care.audit import Auditor
from producers.relaning import Relaner
from producers.relaning import leaving as leaving_module
from producers.relaning import moving as moving_module
from producers.series import Series
from producers.settings import Layout, Settings
from producers.store import keys
from producers.suppressions import Suppressions
from producers.users import Users
from producers.webhooks import DeadLetters
from producers.webhooks.outbox import Letter, Outbox
from producers.webhooks.wishes import Wishes
from producers.words import State

pytestmark = pytest.mark.cluster

BEFORE, AFTER = 2, 8
USERS = [f"o{n:03}" for n in range(80)]
APP = of_app(
    "https://hooks.example/",
    webhook_events=["message.settled", "broadcast.paused", "broadcast.cancelled"],
    per_user_per_day={"news": 1},
)

Grow = Callable[..., Shop]


@pytest.fixture
def grown(client: Any, make_settings: Callable[..., Settings]) -> Settings:
    """Give the settings of more lanes."""
    client.flushall()
    return make_settings(app=APP, lanes=AFTER)


@pytest.fixture
def shop(grown: Settings) -> Iterator[Shop]:
    settings = grown.model_copy(update={"lanes": BEFORE})
    mine = store.connect(settings)
    store.check_layout(mine, settings)
    Wishes(mine, settings).tell()
    yield Shop(mine, settings)
    mine.connection_pool.disconnect()


@pytest.fixture
def grow(shop: Shop, grown: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Grow]:
    """Give what gives the shop more lanes, and those who go on in them."""
    monkeypatch.setattr(moving_module, "_DRAIN_S", 0.0)
    monkeypatch.setattr(leaving_module, "_READERS_S", 0.0)
    opened: list[Any] = []

    def run(*, sums_stay: bool = True) -> Shop:
        sums = audited(shop)
        opened.append(store.connect(shop.settings, fenced=False))
        assert Relaner(opened[-1], shop.settings).run(AFTER).keys
        grown.live_in(Layout(grown.buckets, [BEFORE, AFTER]))
        opened.append(store.connect(grown))
        more = Shop(opened[-1], grown, "w2")
        after = audited(more)
        assert after == sums or not sums_stay
        return more

    yield run
    for one in opened:
        one.connection_pool.disconnect()


def audited(shop: Shop) -> dict[str, Any]:
    audit = Auditor(shop.client, shop.settings).run()
    assert audit.wrong == []
    return audit.as_dict()


def give_everybody(shop: Shop) -> None:
    for user in USERS:
        shop.give(user, formIds=[f"{user}a", f"{user}b"])
        shop.give(user, subscriptions={TEMPLATE: "accept"}, id="1")


def deliver(shop: Shop, broadcast: str) -> Counter[str]:
    """Deliver all of a broadcast; return who got it."""
    got: Counter[str] = Counter()
    for lane in shop.settings.layout.lanes:
        shop.client.zadd(keys.due(lane), {broadcast: 0})
    for _ in range(60):
        shop.client.delete(*(keys.sending(lane, "shop") for lane in shop.settings.layout.lanes))
        for claim in shop.take():
            got[claim.openid] += claim.broadcast == broadcast
            shop.settle(claim)
        shop.keeper.run_once()
        if shop.broadcasts.status(broadcast).state != State.RUNNING:
            break
    return +got


def test_an_ordered_pass_goes_on_and_who_was_put_first_goes_first(shop: Shop, grow: Grow) -> None:
    now_ms = shop.now_ms()
    uploads = [
        {"openid": f"oSoon{n}", "formId": f"f{n}", "expire": now_ms + 20_000 + 300 * n}
        for n in range(500)
    ]
    assert shop.collector.collect("shop", uploads).new == 500
    later = [f"oLater{n}" for n in range(200)]
    shop.collector.collect("shop", [{"openid": one, "formId": f"f{one}"} for one in later])
    broadcast = shop.broadcast("template", rate=1)
    copies = [shop.client.hgetall(keys.lane_broadcast(lane, broadcast)) for lane in range(BEFORE)]
    assert {copy["pass"] for copy in copies} == {"1"}
    assert not {copy["split"] for copy in copies} - {""}
    assert (waiting := sum(int(copy["hurried"]) for copy in copies))
    more = grow()
    copies = [
        more.client.hgetall(keys.lane_broadcast(lane, broadcast))
        for lane in more.settings.layout.lanes
    ]
    assert sum(int(copy["hurried"]) for copy in copies) == waiting
    rest = []
    for lane in more.settings.layout.lanes:
        mine: list[str] = []
        while some := popped(more, broadcast, lane):
            mine += some
        places = [one.startswith("oLater") for one in mine]
        assert places == sorted(places), "who can wait comes later"
        assert {more.lane(one) for one in mine} <= {lane}
        rest += mine
    assert Counter(rest) == Counter(one["openid"] for one in uploads) + Counter(later)


def popped(shop: Shop, broadcast: str, lane: int, some: int = 20) -> list[str]:
    """Take from one lane's queue, and fill it; returns the openids in turn."""
    items = shop.client.lpop(keys.queue(lane, broadcast), some) or []
    Splitter(shop.client, shop.settings).fill(broadcast, lane)
    return [item.partition(":")[2] for item in items]


def test_a_sweep_that_was_broken_off_is_done(
    shop: Shop, grow: Grow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled broadcast of which some, perhaps sent, wait: half a sweep is no sweep."""
    give_everybody(shop)
    broadcast = shop.broadcast("template")
    shop.open(broadcast)
    shop.keeper.run_once()
    claims = shop.take(30)
    for claim in claims[:10]:
        shop.settle(claim)
    shop.recover(broadcast)
    with monkeypatch.context() as patch:
        patch.setattr(type(shop.broadcasts), "_sweep_in", lambda *_: None)
        shop.broadcasts.cancel(broadcast)
    swept = [
        shop.client.hget(keys.lane_broadcast(lane, broadcast), "sweeping") for lane in range(BEFORE)
    ]
    assert all(swept)
    before = shop.outcomes(broadcast)
    more = grow(sums_stay=False)  # what was dropped is counted
    status = more.broadcasts.status(broadcast)
    assert (status.state, status.settled) == (State.CANCELLED, status.total)
    after = more.outcomes(broadcast)
    assert before.items() <= after.items()
    assert Counter(one.partition(" ")[0] for one in after.values()) == {
        "delivered": 10,
        "in_doubt": len(claims) - 10,
    }
    assert more.wrong() == []


def test_rows_suppressions_and_caps_hold_as_before(shop: Shop, grow: Grow) -> None:
    give_everybody(shop)
    said = {"app": "shop", "channel": "template", "template_id": TEMPLATE, "purpose": "news"}
    shop.audiences.import_rows("shop", "vip", [one.encode() for one in USERS[:20]])
    capped = shop.broadcast("template", "vip", purpose="news")
    shop.run_dry(capped)  # these had their one of the day
    Suppressions(shop.client, shop.settings).import_rows(
        "shop", "imported", [one.encode() for one in USERS[20:30]]
    )
    spec = Spec.checked(**said, data={"keyword1": "{a}"}, rows=True)
    rows = [{"openid": one, "a": f"for {one}"} for one in USERS]
    broadcast = shop.broadcasts.create_with_rows(spec, rows).id
    shop.open(broadcast)
    for claim in (early := [one for one in shop.take(8) if one.broadcast == broadcast]):
        assert f"for {claim.openid}" in claim.payload
        shop.settle(claim)
    more = grow()
    got: Counter[str] = Counter(claim.openid for claim in early)
    for _ in range(40):
        more.client.delete(*(keys.sending(lane, "shop") for lane in more.settings.layout.lanes))
        for lane in more.settings.layout.lanes:
            more.client.zadd(keys.due(lane), {broadcast: 0})
        more.keeper.run_once()
        for claim in more.take():
            assert f"for {claim.openid}" in claim.payload
            got[claim.openid] += 1
            more.settle(claim)
    assert got == Counter(USERS[30:])
    outcomes = more.outcomes(broadcast)
    assert {outcomes[one] for one in USERS[:20]} == {"capped"}
    assert {outcomes[one] for one in USERS[20:30]} == {"suppressed"}
    assert more.broadcasts.status(broadcast).state == State.FINISHED
    assert more.wrong() == []


def test_what_a_dead_worker_held_is_found_by_its_lane(shop: Shop, grow: Grow) -> None:
    give_everybody(shop)
    broadcast = shop.broadcast("template")
    shop.open(broadcast)
    shop.keeper.run_once()
    held = {claim.openid for claim in shop.take(24)}
    assert len(held) >= 24
    more = grow()
    more.keeper.run_once()
    found = [
        (lane, entry)
        for _, one, lane in more.recoverer.places([])
        for entry in more.recoverer.entries(one, lane)
    ]
    assert {entry.item.partition(":")[2] for _, entry in found} == held
    assert all(more.lane(entry.item.partition(":")[2]) == lane for lane, entry in found)
    more.worker = "w1"
    more.recover(broadcast)
    more.worker = "w2"
    assert deliver(more, broadcast) == Counter(USERS)
    assert more.wrong() == []


def test_a_series_makes_its_next_broadcast_in_all_lanes(shop: Shop, grow: Grow) -> None:
    give_everybody(shop)
    spec = {"app": "shop", "channel": "template", "template_id": TEMPLATE}
    Series(shop.client, shop.settings).create(
        "evening",
        "0 21 * * *",
        zone="Asia/Shanghai",
        data={"keyword1": "a"},
        audience="all",
        **spec,
    )
    more = grow()
    series = Series(more.client, more.settings)
    more.client.hset(keys.series("shop", "evening"), "next_ms", more.now_ms())
    more.client.zadd(keys.SERIES_DUE, {"shop evening": more.now_ms()})
    assert series.tick() == 1
    made = series.show("shop", "evening").last_broadcast
    more.run_dry(made)
    assert more.outcomes(made) == dict.fromkeys(USERS, "delivered")
    assert more.wrong() == []


def taken(shop: Shop, end: Callable[[Outbox, Letter], Any] | None = None) -> list[Letter]:
    """Take all that is to be posted, and say how each ended."""

    async def take() -> list[Letter]:
        client = store.connect_async(shop.settings)
        outbox = Outbox(client, shop.settings, {"shop": 1000}, 10_000)
        found: list[Letter] = []
        for _, lane in itertools.product(range(4), shop.settings.layout.lanes):
            some = await outbox.take(lane, 1000)
            for letter in some if end is not None else ():
                await end(outbox, letter)
            found += some
        await client.aclose()
        await client.connection_pool.disconnect()
        return found

    return asyncio.run(take())


def test_webhooks_that_wait_are_posted_once_and_the_dead_are_found(shop: Shop, grow: Grow) -> None:
    give_everybody(shop)
    carriers = {shop.post(one) for one in USERS[:30]}
    for one in carriers:
        shop.open(one)
    for claim in shop.take(10):
        shop.settle(claim)
    dead = taken(shop, lambda outbox, letter: outbox.died(letter, "HTTP 500"))
    for claim in shop.take(10):
        shop.settle(claim)
    paused = shop.broadcast("template")
    shop.broadcasts.pause(paused)
    more = grow()
    Wishes(more.client, more.settings).tell()
    more.broadcasts.cancel(paused)
    letters = DeadLetters(more.client, more.settings)
    box = letters.box("shop")
    assert (box.dead, box.waiting) == (20, 12)
    forgotten = dead[0].event.details["openid"]
    assert Users(more.client, more.settings).forget("shop", forgotten)
    assert letters.box("shop").dead == len(dead) - 1, "it lies where the user lived"
    posted = taken(more, lambda outbox, letter: outbox.delivered(letter))
    ids = Counter(letter.event.id for letter in posted)
    assert len(ids) == 12
    assert set(ids.values()) == {1}
    assert letters.replay("shop") == len(dead) - 1
    again = taken(more, lambda outbox, letter: outbox.delivered(letter))
    assert {letter.event.id for letter in again} == {letter.event.id for letter in dead[1:]}


def test_what_a_process_of_a_forgotten_future_left_in_lanes_to_come_is_taken_away(
    shop: Shop, grow: Grow
) -> None:
    shop.collector.collect("shop", [{"openid": one, "formId": "f"} for one in USERS])
    shop.client.hset(keys.outcomes(BEFORE, "forgotten", 2), "o1", "delivered")
    shop.client.set(keys.shut(BEFORE + 1), "1")
    grow()
    assert not shop.client.exists(keys.outcomes(BEFORE, "forgotten", 2))
    assert not shop.client.exists(keys.shut(BEFORE + 1))
