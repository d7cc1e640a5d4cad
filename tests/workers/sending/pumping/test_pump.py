"""The pump on a real Valkey: what it takes, which slots it gives, and what it hands back."""

import asyncio
import math
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis
from distance import away, through
from pydantic import SecretStr
from send_path import (
    APP,
    OUTSIDE_TOKEN,
    PumpBench,
    Stall,
    by,
    connected,
    connected_async,
    pumping,
    soon,
    way_to,
)

from producers.errors import StoreUnavailableError
from producers.local.cluster import cluster
from producers.settings import Settings
from producers.store import check_layout, deadline, keys, replicas
from producers.store.cluster.slots import MovingError
from workers.limits.limiter import AHEAD_US
from workers.sending.claim import Claim
from workers.sending.settle import Answer, Settler
from workers.sending.verdict import Action, Verdict
from workers.wechat.reply import Fate, Reply

TAKE = "take:shop"


@pytest.fixture
def shop_settings(make_settings: Callable[..., Settings]) -> Callable[..., Settings]:
    """Give a maker of settings for a shop whose token lies in Redis, its canary wide open."""

    def make(*, canary: int = 1000, lanes: int = 1, **app: Any) -> Settings:
        return make_settings(canary=canary, lanes=lanes, app={**APP, **app})

    return make


Maker = Callable[..., Settings]


def openids_of(claims: list[Claim]) -> list[str]:
    return [claim.openid for claim in claims]


def check_held(stall: Stall, broadcast: str, claims: list[Claim]) -> None:
    """Check that exactly these claims lie in flight, each under its own fence."""
    flight = stall.flight(broadcast)
    assert sorted(openids_of(claims)) == sorted(flight)
    for claim in claims:
        worker, fence, member, *_ = flight[claim.openid]
        assert (worker, fence, member) == ("w1", claim.fence, claim.member)
    assert len({claim.fence for claim in claims}) == len(claims)


# -- taking and reserving -----------------------------------------------------------------------


async def test_a_batch_is_claimed_and_has_its_slots(
    client: "redis.Redis", shop_settings: Maker
) -> None:
    settings = shop_settings(rate_per_second=100)
    stall = Stall(client, settings)
    stall.form_ids(8)
    broadcast = stall.broadcast()
    async with pumping(settings) as bench:
        claims = await bench.next_batch()
        assert len(claims) == 8
        check_held(stall, broadcast, claims)
        for before, after in pairwise(claims):
            assert after.slot_at - before.slot_at == pytest.approx(0.01, abs=1e-5)
        assert bench.gate.rate == 100  # as the limiter said
        assert all(claim.slot_ends for claim in claims)
        assert all(claim.claimed_at <= claim.slot_at for claim in claims)
        assert {claim.broadcast for claim in claims} == {broadcast}
        assert bench.hands.held == 8
        assert bench.handed_back == []


async def test_without_a_rate_a_slot_does_not_end(
    client: "redis.Redis", shop_settings: Maker
) -> None:
    settings = shop_settings(rate_per_second=0)
    stall = Stall(client, settings)
    stall.form_ids(3)
    stall.broadcast()
    async with pumping(settings) as bench:
        claims = await bench.next_batch()
        assert [claim.slot_ends for claim in claims] == [False] * 3


@pytest.mark.parametrize(("workers", "most"), [(1, 20), (4, 5), (100, 1)])
async def test_a_batch_is_no_more_than_a_workers_share(
    client: "redis.Redis", shop_settings: Maker, workers: int, most: int
) -> None:
    settings = shop_settings(rate_per_second=100)
    stall = Stall(client, settings)
    stall.form_ids(40)
    stall.broadcast()
    async with pumping(settings, workers=workers) as bench:
        assert len(await bench.next_batch()) == most


async def test_no_more_is_taken_than_hands_can_hold(
    client: "redis.Redis", shop_settings: Maker
) -> None:
    settings = shop_settings(rate_per_second=0)
    stall = Stall(client, settings)
    stall.form_ids(20)
    broadcast = stall.broadcast()
    async with pumping(settings, in_flight=7) as bench:
        first = await bench.next_batch()
        assert len(first) == 7
        assert await bench.next_batch(0.05) == []
        assert len(stall.flight(broadcast)) == 7
        bench.hands.drop(first[:3])
        assert len(await bench.next_batch()) == 3


async def test_room_wakes_a_pump_that_waits(client: "redis.Redis", shop_settings: Maker) -> None:
    settings = shop_settings(rate_per_second=0)
    stall = Stall(client, settings)
    stall.form_ids(20)
    stall.broadcast()
    async with pumping(settings, in_flight=5) as bench:
        first = await bench.next_batch()
        waiting = asyncio.create_task(bench.next_batch(60))
        await soon(lambda: bench.hands._changed._waiters, "the pump waits")  # type: ignore[attr-defined]
        bench.hands.drop(first)
        assert len(await waiting) == 5


async def test_nothing_is_taken_without_a_good_token(
    client: "redis.Redis", shop_settings: Maker
) -> None:
    settings = shop_settings()
    stall = Stall(client, settings)
    stall.form_ids(5)
    broadcast = stall.broadcast()
    async with pumping(settings) as bench:
        bench.keeper.refuse("outside-token-1")
        assert await bench.next_batch(0.05) == []
        assert len(stall.queue(broadcast)) == 5
        assert stall.flight(broadcast) == {}
        client.set(OUTSIDE_TOKEN, "outside-token-2", ex=3600)
        await bench.keeper.tick()
        assert len(await bench.next_batch()) == 5


async def test_it_returns_when_nothing_came_in_time(
    client: "redis.Redis", shop_settings: Maker
) -> None:
    async with pumping(shop_settings()) as bench:
        assert await bench.next_batch(0.01) == []
        assert bench.hands.held == 0


async def test_a_closing_worker_takes_nothing(client: "redis.Redis", shop_settings: Maker) -> None:
    settings = shop_settings()
    stall = Stall(client, settings)
    stall.form_ids(5)
    broadcast = stall.broadcast()
    async with pumping(settings) as bench:
        bench.hands.close()
        assert await bench.next_batch(60) == []
        assert len(stall.queue(broadcast)) == 5


async def test_every_lane_gets_its_turn(
    client: "redis.Redis", make_settings: Callable[..., Settings], valkey_url: str
) -> None:
    client.flushall()
    settings = make_settings(canary=1000, lanes=4, app={**APP, "rate_per_second": 0})
    stall = Stall(client, settings)
    stall.form_ids(40)
    broadcast = stall.broadcast()
    for lane in range(4):
        client.hset(keys.lane_broadcast(lane, broadcast), "open", "1")
    async with pumping(settings) as bench:
        claims: list[Claim] = []
        while len(claims) < 40:
            claims += await bench.next_batch()
        assert [*dict.fromkeys(claim.lane for claim in claims)] == [0, 1, 2, 3]
        assert sorted(openids_of(claims)) == sorted(f"o{user}" for user in range(40))


@pytest.mark.timeout(60)
async def test_a_server_without_its_replica_does_not_hold_up_the_lanes_of_the_others(
    make_settings: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each take of its lanes waits for the replica, with all that is in the same trip."""
    monkeypatch.setattr(replicas, "WAIT_MS", 100)
    with cluster(tmp_path, 3) as nodes:
        app = {**APP, "rate_per_second": 0}
        settings = make_settings(redis_url=nodes.url, canary=1000, lanes=16, app=app)
        with connected(settings) as client:
            check_layout(client, settings)
            stall = Stall(client, settings)
            stall.form_ids(320)
            broadcast = stall.broadcast()
            bad = nodes.primaries()[0]
            held = {
                lane
                for lane in range(16)
                if client.place_of(keys.fence(lane))[1] in {bad.port, bad.server.port}
            }
            good = sum(len(client.lrange(keys.queue(n, broadcast), 0, -1)) for n in range(16))
            good -= sum(len(client.lrange(keys.queue(n, broadcast), 0, -1)) for n in held)
            for lane in range(16):
                client.hset(keys.lane_broadcast(lane, broadcast), "open", "1")
            [replica] = nodes.replicas_of(bad)
            replica.server.kill()
            wanting = settings.model_copy(update={"redis_replicas": 1})
            async with pumping(wanting) as bench:
                claims: list[Claim] = []
                while len(claims) < good:
                    claims += await bench.next_batch()
                assert not {claim.lane for claim in claims} & held
                assert len({claim.lane for claim in bench.handed_back}) == 1
                replica.server.start()
                while len(claims) < 320 - len(bench.handed_back):
                    claims += await bench.next_batch()
                assert not bench.intake.behind


async def test_what_is_claimed_counts_before_it_has_its_slots(
    client: "redis.Redis", shop_settings: Maker
) -> None:
    """The trip that reserves for it takes no second share beside it."""
    settings = shop_settings(rate_per_second=100)
    stall = Stall(client, settings)
    stall.form_ids(60)
    stall.broadcast()
    async with pumping(settings) as bench:
        began = time.monotonic()
        claims = await bench.next_batch()
        is_late = time.monotonic() - began > 0.15  # on a busy machine it is time for more by then
        assert len(claims) == 20
        assert bench.hands.held == 20 or is_late


async def test_what_nobody_wakes_it_for_is_found_within_a_second(
    client: "redis.Redis", shop_settings: Maker
) -> None:
    settings = shop_settings(rate_per_second=0)
    stall = Stall(client, settings)
    stall.form_ids(3)
    stall.broadcast()
    async with pumping(settings) as bench:
        bench.intake._workers = lambda: 0  # no peer is known yet
        pumped = asyncio.create_task(bench.next_batch(10.0))
        await soon(lambda: bench.pump.thread is not None, "it pumps")
        bench.intake._workers = lambda: 1
        began = asyncio.get_running_loop().time()
        assert len(await pumped) == 3
        assert asyncio.get_running_loop().time() - began < 2.8


async def test_a_queue_that_runs_low_and_a_lane_that_is_through_are_told(
    client: "redis.Redis", shop_settings: Maker
) -> None:
    settings = shop_settings(rate_per_second=0)
    stall = Stall(client, settings)
    stall.form_ids(3)
    broadcast = stall.broadcast()
    client.hset(keys.lane_broadcast(0, broadcast), "split", "")
    async with pumping(settings) as bench:
        await bench.next_batch()
        assert bench.low == [(broadcast, 0)]
    client.delete(keys.lane_broadcast(0, broadcast))
    nobody = stall.broadcast()
    client.delete(keys.queue(0, nobody))
    client.hset(keys.lane_broadcast(0, nobody), "done", 3)
    async with pumping(settings, worker="w2") as bench:
        assert await bench.next_batch(0.05) == []
        assert nobody in bench.complete


async def test_where_redis_is_far_a_trip_takes_and_reserves_at_once(
    client: "redis.Redis", shop_settings: Maker
) -> None:
    """One after the other a take and a reserve for each batch are four trips for the last two."""
    settings = shop_settings(rate_per_second=0)
    stall = Stall(client, settings)
    stall.form_ids(700)
    broadcast = stall.broadcast()
    client.hset(keys.lane_broadcast(0, broadcast), "open", "1")
    url = settings.redis_url.get_secret_value()
    with away(url, 40) as distance:
        there = settings.model_copy(update={"redis_url": SecretStr(through(distance, url))})
        async with pumping(there) as bench:
            claims = await bench.next_batch()  # connects
            assert len(claims) == 256
            before = distance.trips
            while len(claims) < 700:
                claims += await bench.next_batch()
            assert distance.trips - before <= 2
            check_held(stall, broadcast, claims)


async def test_where_redis_is_far_more_is_in_hand_within_a_bound(
    client: "redis.Redis", shop_settings: Maker
) -> None:
    settings = shop_settings(rate_per_second=0)
    stall = Stall(client, settings)
    stall.form_ids(400)
    broadcast = stall.broadcast()
    client.hset(keys.lane_broadcast(0, broadcast), "open", "1")
    url = settings.redis_url.get_secret_value()
    with away(url, 40) as distance:
        there = settings.model_copy(update={"redis_url": SecretStr(through(distance, url))})
        async with pumping(there, in_flight=100, beyond=200) as bench:
            claims: list[Claim] = []
            while batch := await bench.next_batch(1.0):
                claims += batch
            assert len(claims) == bench.hands.held == 300
            check_held(stall, broadcast, claims)


# -- slots that were not granted ----------------------------------------------------------------


async def test_what_got_no_slot_is_handed_back_and_not_asked_for_at_once(
    client: "redis.Redis", shop_settings: Maker
) -> None:
    settings = shop_settings(rate_per_second=0, rate_per_minute=5)
    stall = Stall(client, settings)
    stall.form_ids(20)
    broadcast = stall.broadcast()
    async with pumping(settings) as bench:
        claims = await bench.next_batch()
        assert len(claims) == 5
        assert len(bench.handed_back) == 15
        check_held(stall, broadcast, [*claims, *bench.handed_back])
        calls = client.info("commandstats")["cmdstat_evalsha"]["calls"]
        assert await bench.next_batch(0.2) == []
        assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == calls
        await _settle_back(settings, bench, bench.handed_back)
        assert bench.hands.held == 5
        check_held(stall, broadcast, claims)
        assert sorted(stall.queue(broadcast)) == sorted(openids_of(bench.handed_back))
        assert stall.ledger()["available"] == 15


async def _settle_back(settings: Settings, bench: PumpBench, claims: list[Claim]) -> None:
    async with connected_async(settings) as client:
        settler = Settler(client, settings, "w1", 1_000_000, bench.hands, lambda *_: None)
        before = bench.hands.held
        for claim in claims:
            settler.put(Answer(claim, None, Verdict(Action.REQUEUE, "back")))
        await soon(lambda: bench.hands.held == before - len(claims), "all are handed back")
        await settler.close()


async def test_a_used_up_day_takes_nothing_more(
    client: "redis.Redis", shop_settings: Maker
) -> None:
    settings = shop_settings(rate_per_second=0, daily_limit=3)
    stall = Stall(client, settings)
    stall.form_ids(5)
    stall.broadcast()
    async with pumping(settings) as bench:
        assert len(await bench.next_batch()) == 3
        assert len(bench.handed_back) == 2
        assert await bench.next_batch(0.05) == []


async def test_slots_that_passed_unused_are_told_to_the_limiter(
    client: "redis.Redis", shop_settings: Maker
) -> None:
    settings = shop_settings(rate_per_second=0, daily_limit=100)
    stall = Stall(client, settings)
    stall.form_ids(10)
    stall.broadcast()
    async with pumping(settings, in_flight=5) as bench:
        first = await bench.next_batch()
        bench.gate.unused["template"] = 2
        bench.hands.drop(first)
        await bench.next_batch()
        assert bench.gate.unused == {}
        assert client.hget(keys.limiter("shop"), "day_count") == "8"


async def test_a_broadcast_with_a_rate_of_its_own_leaves_the_rest_to_others(
    client: "redis.Redis", shop_settings: Maker
) -> None:
    settings = shop_settings(rate_per_second=200)
    stall = Stall(client, settings)
    stall.form_ids(30, each=2)
    slow = stall.broadcast(rate=20)
    quick = stall.broadcast()
    async with pumping(settings) as bench:
        claims: list[Claim] = []
        while len([claim for claim in claims if claim.broadcast == quick]) < 20:
            claims += await bench.next_batch()
        slots = [claim.slot_at for claim in claims if claim.broadcast == slow]
        for before, after in pairwise(slots):
            assert after - before >= 0.05 - 0.02
        assert len(slots) < 10
        assert bench.handed_back == []


async def test_a_single_claim_of_a_broadcast_with_a_rate_of_its_own_has_its_slot(
    client: "redis.Redis", shop_settings: Maker
) -> None:
    settings = shop_settings(rate_per_second=0)
    stall = Stall(client, settings)
    stall.form_ids(3)
    broadcast = stall.broadcast(rate=5)
    async with pumping(settings) as bench:
        (claim,) = await bench.next_batch()
        assert (claim.broadcast, claim.rate, claim.slot_ends) == (broadcast, 5, True)
        assert set(bench.gate.own_next) == {broadcast}
        assert bench.handed_back == []


async def test_a_pump_with_nothing_to_do_sleeps_for_a_while(
    client: "redis.Redis", shop_settings: Maker
) -> None:
    async with pumping(shop_settings()) as bench:
        now = asyncio.get_running_loop().time()
        assert bench.intake.next_at(now) - now >= 0.1


async def test_swapped_claims_get_slots_before_anything_is_taken(
    client: "redis.Redis", shop_settings: Maker
) -> None:
    settings = shop_settings(rate_per_second=100)
    stall = Stall(client, settings)
    stall.form_ids(4, each=2)
    broadcast = stall.broadcast()
    client.hset(keys.lane_broadcast(0, broadcast), "open", "1")
    async with pumping(settings, in_flight=2) as bench:
        first = await bench.next_batch()
        dead = Verdict(Action.SWAP, "void", "no_permit")
        async with connected_async(settings) as loop_client:
            settler = Settler(loop_client, settings, "w1", 10**6, bench.hands, lambda *_: None)
            for claim in first:
                settler.put(Answer(claim, Reply(Fate.ANSWERED, 41029), dead))
            await soon(lambda: len(bench.hands.swapped) == 2, "both are swapped")
            await settler.close()
        assert bench.hands.held == 2
        second = await bench.next_batch()
        assert openids_of(second) == openids_of(first)
        assert not {claim.member for claim in first} & {claim.member for claim in second}
        check_held(stall, broadcast, second)
        assert second[1].slot_at - second[0].slot_at == pytest.approx(0.01, abs=1e-5)
        assert bench.hands.held == 2
        assert not bench.hands.swapped


# -- what cannot be read ------------------------------------------------------------------------


async def test_claims_whose_spec_is_gone_by_the_time_they_are_reserved_are_handed_back(
    client: "redis.Redis", shop_settings: Maker, lines: list[Any]
) -> None:
    settings = shop_settings(rate_per_second=0)
    stall = Stall(client, settings)
    stall.form_ids(6, each=2)
    gone, sound = stall.broadcast(), stall.broadcast()
    client.delete(keys.home(stall.broadcasts.home_lane(gone), gone))
    async with pumping(settings, in_flight=6) as bench:
        claims = await bench.next_batch()
        assert {claim.broadcast for claim in claims} == {sound}
        assert {claim.broadcast for claim in bench.handed_back} == {gone}
        check_held(stall, sound, claims)
        check_held(stall, gone, bench.handed_back)
        (line,) = [line for line in lines if line["event"] == "app_failed"]
        assert (line["app"], line["during"]) == ("shop", f"reading {gone}")
        assert bench.gate.not_before > asyncio.get_running_loop().time()  # not at once again
        day_count = client.hget(keys.limiter("shop"), "day_count")
        unused = bench.gate.unused["template"]
        assert int(day_count) - unused == len(claims), "their slots are told to the day as unused"


async def test_swapped_claims_whose_spec_is_gone_are_handed_back(
    client: "redis.Redis", shop_settings: Maker
) -> None:
    settings = shop_settings(rate_per_second=0)
    stall = Stall(client, settings)
    stall.form_ids(2)
    broadcast = stall.broadcast()
    async with pumping(settings) as bench:
        claims = await bench.next_batch()
        bench.reserver._envelopes._known.clear()
        client.delete(keys.home(stall.broadcasts.home_lane(broadcast), broadcast))
        bench.hands.swapped.extend(claims)
        assert await bench.next_batch(0.05) == []
        assert bench.handed_back == claims


async def test_a_message_that_lies_on_a_node_that_is_away_is_asked_for_once(
    client: "redis.Redis", shop_settings: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All nodes' apps wait for the one thread that pumps."""
    settings = shop_settings(rate_per_second=0)
    stall = Stall(client, settings)
    stall.form_ids(12)
    stall.broadcast()
    async with pumping(settings) as bench:
        reserver, asked = bench.reserver, list[float | None]()
        reserver._is_cluster = True

        def away(_broadcast: str) -> None:
            asked.append(deadline.left_s())
            raise StoreUnavailableError("a node is away")

        monkeypatch.setattr(reserver._envelopes, "learn", lambda *_: None)
        monkeypatch.setattr(reserver._envelopes._register, "spec", away)
        assert await bench.next_batch(0.1) == []
        (left_s,) = asked
        assert left_s is not None
        assert left_s <= 0.1
        assert len(bench.handed_back) == 12


# -- lost requests and replies ------------------------------------------------------------------


@pytest.mark.parametrize("how", ["request", "reply"])
async def test_a_lost_take_is_asked_again_and_nothing_is_lost_or_doubled(
    client: "redis.Redis", shop_settings: Maker, lines: list[Any], how: str
) -> None:
    settings = shop_settings(rate_per_second=0)
    stall = Stall(client, settings)
    stall.form_ids(12)
    broadcast = stall.broadcast()
    with way_to(settings) as way:
        async with pumping(by(settings, way)) as bench:
            way.lose(TAKE, how)
            claims = await bench.next_batch()
            assert way.lost == 1
            assert len(claims) == 12
            check_held(stall, broadcast, claims)
            assert stall.queue(broadcast) == []
            assert bench.hands.held == 12
            assert stall.ledger() == {"collected": 12}
            (line,) = [line for line in lines if line["event"] == "store_unreachable"]
            assert (line["during"], line["attempt"]) == ("taking", 1)


async def test_a_take_that_one_node_lost_holds_no_other_lane(
    client: "redis.Redis", shop_settings: Maker
) -> None:
    settings = shop_settings(rate_per_second=0, lanes=2)
    stall = Stall(client, settings)
    stall.form_ids(40)
    broadcast = stall.broadcast()
    for lane in (0, 1):
        client.hset(keys.lane_broadcast(lane, broadcast), "open", 1)
    away = True
    async with pumping(settings) as bench:
        pump, intake = bench.pump, bench.intake
        intake._is_cluster, taken = True, intake._taken

        def lose(asking: Any, answer: Any) -> None:
            lost = away and asking.lane == 0
            taken(asking, redis.TimeoutError("lost") if lost else answer)

        intake._taken = lose  # type: ignore[method-assign]
        for lane in (0, 1):
            bench.turns.wake("shop", lane)
        first = await bench.next_batch()
        assert {claim.lane for claim in first} == {1}
        assert (pump.is_unknown([0]), pump.is_unknown([1]), pump.unknown) == (True, False, True)
        away = False
        rest = await bench.next_batch()
        assert {claim.lane for claim in rest} == {0}
        assert not pump.is_unknown([0])
        assert sorted(openids_of([*first, *rest])) == sorted(f"o{user}" for user in range(40))


async def test_a_take_is_asked_again_until_it_is_answered(
    client: "redis.Redis", shop_settings: Maker
) -> None:
    settings = shop_settings(rate_per_second=0)
    stall = Stall(client, settings)
    stall.form_ids(12)
    broadcast = stall.broadcast()
    with way_to(settings) as way:
        async with pumping(by(settings, way)) as bench:
            way.lose(TAKE, "reply", times=3)
            claims = await bench.next_batch()
            assert way.lost == 3
            check_held(stall, broadcast, claims)
            assert len(claims) == 12


async def test_while_a_take_is_unanswered_its_claims_are_unknown_and_a_closing_worker_asks_on(
    client: "redis.Redis", shop_settings: Maker
) -> None:
    """Else what it claimed would lie under its name until it is buried."""
    settings = shop_settings(rate_per_second=0)
    stall = Stall(client, settings)
    stall.form_ids(12)
    broadcast = stall.broadcast()
    with way_to(settings) as way:
        async with pumping(by(settings, way)) as bench:
            way.lose(TAKE, "reply", times=4)
            taking = asyncio.create_task(bench.next_batch())
            await soon(lambda: way.lost, "a reply is lost")
            assert bench.pump.unknown
            bench.hands.close()
            assert await taking == []
            assert way.lost == 4
            check_held(stall, broadcast, bench.handed_back)
            assert (len(bench.handed_back), bench.pump.unknown) == (12, False)


async def test_an_error_that_nobody_foresaw_holds_its_app_up_for_a_second(
    client: "redis.Redis",
    shop_settings: Maker,
    lines: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def take(*_: object) -> None:
        raise ZeroDivisionError

    async with pumping(shop_settings()) as bench:
        monkeypatch.setattr(bench.intake._taker, "call", take)
        assert await bench.next_batch(0.05) == []
        assert not bench.pump.unknown
        assert 0.5 < bench.gate.not_before - asyncio.get_running_loop().time() <= 1.0
        (line,) = [line for line in lines if line["event"] == "app_failed"]
        assert (line["during"], line["error"]) == ("taking", "ZeroDivisionError: ")
        assert bench.turns.lanes("shop") == [0]  # it is not forgotten


@pytest.mark.parametrize(
    ("left", "ready", "rests_s"),
    [("more", [0], math.inf), ("soon", [], 0.02), ("rest", [], 60.0), ("", [], math.inf)],
)
async def test_the_pump_comes_back_to_where_something_is_left(
    client: "redis.Redis", shop_settings: Maker, left: str, ready: list[int], rests_s: float
) -> None:
    """And not to a lane with nothing in it, though a rate lets another lane's broadcast go on."""
    async with pumping(shop_settings()) as bench:
        now = asyncio.get_running_loop().time()
        bench.gate.own_next["another"] = (0.01, now + 60 + bench.gate._near_s)
        bench.intake._leave("shop", 0, left)
        assert bench.turns.lanes("shop") == ready
        assert rests_s - 1e-6 <= bench.turns.next_at - now < rests_s + 5 or rests_s == math.inf
        assert math.isinf(bench.turns.next_at) == math.isinf(rests_s)


async def test_the_life_of_a_claim_is_counted_from_the_take_whose_reply_was_lost(
    client: "redis.Redis", shop_settings: Maker
) -> None:
    """Else it would be posted later than 3 s after its claim, and its lease end too soon."""
    settings = shop_settings(rate_per_second=0)
    stall = Stall(client, settings)
    stall.form_ids(1)
    broadcast = stall.broadcast()
    with way_to(settings) as way:
        async with pumping(by(settings, way, timeout_s=0.5)) as bench:
            way.lose(TAKE, "silence")
            pump = asyncio.create_task(bench.next_batch(10))
            await soon(lambda: stall.flight(broadcast), "the permit is claimed")
            claimed_by = asyncio.get_running_loop().time()
            (claim,) = await pump
            assert way.lost == 1
            assert claim.claimed_at <= claimed_by


async def test_a_lost_reserve_is_asked_again(client: "redis.Redis", shop_settings: Maker) -> None:
    settings = shop_settings(rate_per_second=100)
    stall = Stall(client, settings)
    stall.form_ids(8)
    broadcast = stall.broadcast()
    with way_to(settings) as way:
        async with pumping(by(settings, way)) as bench:
            way.lose("reply:reserve", "reply")
            claims = await bench.next_batch()
            assert way.lost == 1
            assert len(claims) == 8
            check_held(stall, broadcast, claims)
            assert client.hget(keys.limiter("shop"), "day_count") == "8"
            assert bench.handed_back == []


async def test_without_slots_for_long_the_claims_are_handed_back(
    client: "redis.Redis", shop_settings: Maker, lines: list[Any]
) -> None:
    settings = shop_settings(rate_per_second=0)
    stall = Stall(client, settings)
    stall.form_ids(3)
    broadcast = stall.broadcast()
    with way_to(settings) as way:
        async with pumping(by(settings, way)) as bench:
            way.lose("reply:reserve", "request", times=4)
            assert await bench.next_batch(0.1) == []
            assert way.lost == 4
            check_held(stall, broadcast, bench.handed_back)
            assert len(bench.handed_back) == 3
            assert "app_failed" not in {line["event"] for line in lines}, "it is foreseen"


@pytest.mark.parametrize(
    ("error", "asked"),
    [(redis.ConnectionError("lost"), 1), (MovingError("CLUSTERDOWN"), 0)],
    ids=["lost", "not done"],
)
async def test_slots_that_one_node_does_not_give_hold_its_app_and_nobody_else(
    client: "redis.Redis",
    shop_settings: Maker,
    monkeypatch: pytest.MonkeyPatch,
    error: redis.RedisError,
    asked: int,
) -> None:
    """All nodes' apps wait for the one thread that pumps."""
    settings = shop_settings(rate_per_second=0)
    stall = Stall(client, settings)
    stall.form_ids(3)
    broadcast = stall.broadcast()
    async with pumping(settings) as bench:
        reserver, waits, asks = bench.reserver, list[int](), list[bool]()
        reserver._is_cluster, granted = True, reserver._granted

        def lose(wanted: Any, _answer: Any, *times: float) -> Any:
            return granted(wanted, error, *times)

        def ask(*_: object, again: bool) -> None:
            asks.append(again)
            raise error

        monkeypatch.setattr(reserver, "_granted", lose)
        monkeypatch.setattr(reserver._limiter, "ask", ask)
        monkeypatch.setattr(
            "workers.sending.pumping.reserver.pause_s", lambda n: waits.append(n) or 0
        )
        assert await bench.next_batch(0.1) == []
        assert (waits, asks) == ([], [True] * asked)
        assert 0.5 < bench.gate.not_before - asyncio.get_running_loop().time() <= 1.0
        check_held(stall, broadcast, bench.handed_back)
        assert len(bench.handed_back) == 3


async def test_a_full_server_refuses_and_nothing_is_lost(
    client: "redis.Redis", shop_settings: Maker, lines: list[Any]
) -> None:
    settings = shop_settings(rate_per_second=0)
    stall = Stall(client, settings)
    stall.form_ids(6)
    broadcast = stall.broadcast()

    def refusals() -> list[Any]:
        return [line for line in lines if line["event"] == "store_unreachable"]

    async with pumping(settings) as bench:
        policy = client.config_get("maxmemory-policy")["maxmemory-policy"]
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        try:
            waiting = asyncio.create_task(bench.next_batch(10))
            await soon(lambda: len(refusals()) >= 2, "the refusals are logged")
            assert not waiting.done()
            assert stall.flight(broadcast) == {}
        finally:
            client.config_set("maxmemory", 0)
            client.config_set("maxmemory-policy", policy)
        claims = await waiting
        assert len(claims) == 6
        check_held(stall, broadcast, claims)
        assert {(line["during"], line["error"]) for line in refusals()} == {
            ("taking", "OutOfMemoryError")
        }


def test_a_slot_lies_nearer_than_a_claim_lives() -> None:
    assert AHEAD_US < 3_000_000
