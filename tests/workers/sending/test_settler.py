"""The settler on a real Valkey: answers recorded in batches, through lost requests and replies."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import redis
from send_path import Stall, Way, by, connected_async, soon, way_to
from webhook_end import of_app

from producers.broadcasts import Broadcasts
from producers.settings import Settings
from producers.store import keys, replicas
from workers.duties.recover import Recoverer
from workers.lanes.keeper import Keeper
from workers.sending.claim import Claim
from workers.sending.hands import Hands
from workers.sending.settle import Answer, Settler
from workers.sending.take import Asking, Taker
from workers.sending.verdict import Action, Streak, Verdict, judge
from workers.wechat.reply import Fate, Reply

SETTLE = "settle:shop"
TTL_MS = 1_000_000_000

DELIVERED = Verdict(Action.SETTLE, "spent", "delivered", streak=Streak.OK)
IN_DOUBT = Verdict(Action.SETTLE, "doubt", "in_doubt")
HANDED_BACK = Verdict(Action.REQUEUE, "back")
OK = Reply(Fate.ANSWERED, latency_ms=50.0)


class Desk:
    """A worker that has taken messages, and its settler."""

    def __init__(
        self, client: "redis.Redis", settings: Settings, loop_client: Any, worker: str
    ) -> None:
        self.stall = Stall(client, settings)
        self.settings = settings
        self.hands = Hands(10_000)
        self.flags: list[tuple[str, str, int, str]] = []
        self._taker = Taker(client, settings, worker, TTL_MS)
        self.settler = Settler(
            loop_client,
            settings,
            worker,
            TTL_MS,
            self.hands,
            lambda *flag: self.flags.append(flag),
        )

    def take(self, most: int = 500) -> list[Claim]:
        claims = self._taker.take(Asking.of("shop", 0, most), {}).claims
        self.hands.take(claims)
        return claims

    def put(self, claim: Claim, verdict: Verdict, reply: Reply | None = OK) -> None:
        self.settler.put(Answer(claim, reply, verdict))

    async def settled(self, left: int = 0) -> None:
        await soon(lambda: self.hands.held == left, f"{left} claims are left in hand")


Opener = Callable[..., Any]


@pytest.fixture
async def desk(
    client: "redis.Redis", make_settings: Callable[..., Settings]
) -> AsyncIterator[Opener]:
    """Give an opener of workers; each may reach Redis by a way of its own."""
    async with contextlib.AsyncExitStack() as stack:

        async def opened(
            worker: str = "w1",
            *,
            way: Way | None = None,
            timeout_s: float = 5.0,
            canary: int = 1000,
            **more: Any,
        ) -> Desk:
            settings = make_settings(canary=canary, **more)
            reached = by(settings, way, timeout_s) if way else settings
            loop_client = await stack.enter_async_context(connected_async(reached))
            desk = Desk(client, settings, loop_client, worker)
            stack.push_async_callback(desk.settler.close)
            return desk

        yield opened


@pytest.fixture
def way(settings: Settings) -> Iterator[Way]:
    with way_to(settings) as way:
        yield way


def verdict_on(claim: Claim, reply: Reply) -> Verdict:
    return judge(
        reply,
        kind=claim.kind,
        resumed=claim.resumed,
        tries=claim.tries,
        attempts=5,
        permit_age_ms=24 * 3600 * 1000,
        retry_when_busy=True,
    )


def status_counts(desk: Desk, broadcast: str) -> dict[str, int]:
    return desk.stall.broadcasts.status(broadcast).outcomes


def scripts_run(desk: Desk) -> int:
    """Return how many scripts were run; one that was not there yet was not."""
    calls = desk.stall.client.info("commandstats")["cmdstat_evalsha"]
    return int(calls["calls"] - calls["failed_calls"])


async def test_answers_that_are_told_are_settled_in_shorter_scripts(desk: Opener) -> None:
    """Each of them is a webhook event too: 512 of those held Redis up to 13 ms."""
    app = of_app("https://hooks.example/", webhook_events=["message.settled"])
    for more, runs in (({}, 1), ({"app": app}, 3)):
        it = await desk(**more)
        it.stall.form_ids(300)
        it.stall.broadcast()
        claims = it.take()
        assert len(claims) == 300
        scripts_before = scripts_run(it)
        for claim in claims:
            it.put(claim, DELIVERED)
        await it.settled()
        assert scripts_run(it) - scripts_before == runs
        it.stall.client.flushdb()


# -- what an answer does ------------------------------------------------------------------------


async def test_a_delivered_message_is_written_once_and_its_permit_spent(desk: Opener) -> None:
    it = await desk()
    it.stall.form_ids(3)
    broadcast = it.stall.broadcast()
    for claim in it.take():
        it.put(claim, DELIVERED)
    await it.settled()
    assert it.stall.outcomes(broadcast) == dict.fromkeys(("o0", "o1", "o2"), "delivered")
    assert it.stall.ledger() == {"collected": 3, "spent": 3}
    assert it.stall.flight(broadcast) == {}
    assert status_counts(it, broadcast) == {"delivered": 3}
    assert ("shop", broadcast, 0, "opened") in it.flags
    assert ("shop", broadcast, 0, "complete") in it.flags


async def test_a_claim_handed_back_goes_to_the_front_with_its_permit_free(desk: Opener) -> None:
    it = await desk()
    it.stall.form_ids(6)
    broadcast = it.stall.broadcast()
    queued = it.stall.queue(broadcast)
    (claim,) = it.take(1)
    assert claim.openid == queued[0]
    it.put(claim, HANDED_BACK, None)
    await it.settled()
    assert it.stall.queue(broadcast) == queued
    assert it.stall.flight(broadcast) == {}
    assert it.stall.ledger() == {"collected": 6, "available": 6}
    (again,) = it.take(1)
    assert (again.member, again.tries, again.resumed) == (claim.member, 0, False)
    assert int(again.fence) > int(claim.fence)


async def test_what_was_never_posted_counts_at_once_and_as_no_outcome_without_a_replica(
    desk: Opener, client: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "WAIT_MS", 20)
    settled = 0
    it = await desk(redis_replicas=1)
    it.stall.form_ids(6)
    it.stall.broadcast()
    for verdict, reply, posted in ((HANDED_BACK, None, 0), (DELIVERED, OK, 2)):
        for claim in it.take(2):
            it.put(claim, verdict, reply)
        await it.settled()
        settled += posted
        assert int(client.get(keys.UNREPLICATED) or 0) == settled


async def test_a_lost_answer_keeps_the_very_form_id_for_the_next_attempt(
    desk: Opener, client: "redis.Redis"
) -> None:
    it = await desk()
    it.stall.form_ids(1, each=3)
    broadcast = it.stall.broadcast()
    (claim,) = it.take()
    lost = Reply(Fate.UNANSWERED, errmsg="TimeoutError")
    it.put(claim, verdict_on(claim, lost), lost)
    await it.settled()
    assert it.stall.outcomes(broadcast) == {}
    ((worker, _, member, *_, tries, resumed),) = it.stall.flight(broadcast).values()
    assert (worker, member, tries, resumed) == ("-", claim.member, "1", "1")
    _make_due(client, broadcast)
    keeper = Keeper(client, it.settings, it.stall.broadcasts, "k1")
    keeper.run_once()
    (again,) = it.take()
    assert (again.member, again.tries, again.resumed) == (claim.member, 1, True)
    used = Reply(Fate.ANSWERED, 41029, "form id used count reach limit")
    it.put(again, verdict_on(again, used), used)
    await it.settled()
    assert it.stall.outcomes(broadcast) == {"o0": "delivered"}
    assert it.stall.ledger() == {"collected": 3, "spent": 1, "available": 2}


def _make_due(client: "redis.Redis", broadcast: str) -> None:
    """Make every delayed message due, as time would."""
    for item in client.zrange(keys.delayed(0, broadcast), 0, -1):
        client.zadd(keys.delayed(0, broadcast), {item: 1})


async def test_a_lost_answer_to_a_subscription_is_in_doubt_at_once(desk: Opener) -> None:
    it = await desk()
    it.stall.subscriptions(1)
    broadcast = it.stall.broadcast("subscribe")
    (claim,) = it.take()
    lost = Reply(Fate.UNANSWERED, errmsg="TimeoutError")
    it.put(claim, verdict_on(claim, lost), lost)
    await it.settled()
    assert it.stall.outcomes(broadcast) == {"o0": "in_doubt"}
    assert it.stall.ledger() == {"collected": 1, "spent": 1}


async def test_a_dead_permit_is_swapped_and_stays_in_hand(
    desk: Opener, client: "redis.Redis"
) -> None:
    it = await desk()
    it.stall.form_ids(1, each=2)
    broadcast = it.stall.broadcast()
    client.hset(keys.lane_broadcast(0, broadcast), "open", "1")
    (claim,) = it.take()
    dead = Reply(Fate.ANSWERED, 41029)
    it.put(claim, verdict_on(claim, dead), dead)
    await soon(lambda: it.hands.swapped, "the next permit is claimed")
    assert it.hands.held == 1
    (swapped,) = it.hands.swapped
    assert {claim.member, swapped.member} == {"f:f0x0", "f:f0x1"}
    ((_, fence, member, *_, resumed),) = it.stall.flight(broadcast).values()
    assert (fence, member, resumed) == (swapped.fence, swapped.member, "0")
    assert not swapped.resumed
    it.put(swapped, DELIVERED)
    await it.settled()
    assert it.stall.outcomes(broadcast) == {"o0": "delivered"}
    assert it.stall.ledger() == {"collected": 2, "spent": 1, "void": 1}


async def test_an_account_that_may_use_neither_kind_ends_after_its_attempts(
    desk: Opener, client: "redis.Redis"
) -> None:
    """41032 hands the form_id back for a prepay_id, 41035 that one for the form_id, and so on."""
    it = await desk()
    it.stall.collect([{"openid": "o0", "formIds": ["f0"]}, {"openid": "o0", "prepayId": "wx2018a"}])
    broadcast = it.stall.broadcast()
    client.hset(keys.lane_broadcast(0, broadcast), "open", "1")
    (claim,) = it.take()
    posts = 0
    while claim:
        posts += 1
        assert posts <= it.settings.attempts, "it is sent again and again, for ever"
        refused = Reply(Fate.ANSWERED, 41032 if claim.kind == "f" else 41035)
        it.put(claim, verdict_on(claim, refused), refused)
        await soon(lambda: it.hands.swapped or not it.hands.held, "it is settled")
        claim = it.hands.swapped.popleft() if it.hands.swapped else None
    assert it.stall.ledger()["collected"] == it.stall.ledger()["available"]


async def test_the_life_of_a_swapped_claim_begins_with_its_claim(
    desk: Opener, client: "redis.Redis", way: Way
) -> None:
    """Not with the reply that told of it: that one may be lost, and come much later."""
    it = await desk(way=way, timeout_s=0.5)
    it.stall.form_ids(1, each=2)
    broadcast = it.stall.broadcast()
    client.hset(keys.lane_broadcast(0, broadcast), "open", "1")
    (claim,) = it.take()
    way.lose(SETTLE, "silence")
    dead = Reply(Fate.ANSWERED, 41029)
    it.put(claim, verdict_on(claim, dead), dead)
    await soon(
        lambda: it.stall.flight(broadcast)["o0"][1] != claim.fence, "the next permit is claimed"
    )
    claimed_by = asyncio.get_running_loop().time()
    assert not it.hands.swapped
    await soon(lambda: it.hands.swapped, "the worker knows of it")
    assert it.hands.swapped[0].claimed_at <= claimed_by


async def test_template_errors_in_a_row_flag_the_verdict(desk: Opener) -> None:
    it = await desk(canary=3)
    it.stall.form_ids(3)
    broadcast = it.stall.broadcast()
    wrong = Reply(Fate.ANSWERED, 40037, "invalid template_id")
    claims = it.take()
    assert len(claims) == 3
    for claim in claims:
        it.put(claim, verdict_on(claim, wrong), wrong)
    await it.settled()
    assert ("shop", broadcast, 0, "verdict abort 40037") in it.flags
    assert ("shop", broadcast, 0, "closed") in it.flags
    assert it.stall.ledger() == {"collected": 3, "available": 3}


async def test_another_workers_message_is_not_settled(desk: Opener, client: "redis.Redis") -> None:
    first, second = await desk("w1"), await desk("w2")
    first.stall.form_ids(1)
    broadcast = first.stall.broadcast()
    (claim,) = first.take()
    Recoverer(client, first.settings, Broadcasts(client, first.settings)).recover(
        "shop", broadcast, 0, "w1"
    )
    (resumed,) = second.take()
    assert resumed.resumed
    first.put(claim, DELIVERED)
    await first.settled()
    assert first.stall.outcomes(broadcast) == {}
    assert first.stall.flight(broadcast)["o0"][:2] == ["w2", resumed.fence]
    second.put(resumed, DELIVERED)
    await second.settled()
    assert first.stall.ledger() == {"collected": 1, "spent": 1}
    assert status_counts(first, broadcast) == {"delivered": 1}


async def test_the_same_answer_twice_counts_once(desk: Opener) -> None:
    it = await desk()
    it.stall.form_ids(1)
    broadcast = it.stall.broadcast()
    (claim,) = it.take()
    it.put(claim, DELIVERED)
    await it.settled()
    it.hands.take([claim])
    it.put(claim, IN_DOUBT)
    await it.settled()
    assert it.stall.outcomes(broadcast) == {"o0": "delivered"}
    assert status_counts(it, broadcast) == {"delivered": 1}


# -- batches ------------------------------------------------------------------------------------


async def test_many_answers_are_settled_in_few_script_runs(
    desk: Opener, client: "redis.Redis"
) -> None:
    it = await desk()
    it.stall.form_ids(300)
    broadcast = it.stall.broadcast()
    claims = it.take()
    assert len(claims) == 300
    calls = _script_runs(client)
    for claim in claims:
        it.put(claim, DELIVERED)
    await it.settled()
    assert _script_runs(client) - calls <= 4
    assert status_counts(it, broadcast) == {"delivered": 300}
    assert it.stall.ledger() == {"collected": 300, "spent": 300}


def _script_runs(client: "redis.Redis") -> int:
    return int(client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0))


async def test_two_broadcasts_are_settled_in_one_batch(desk: Opener) -> None:
    it = await desk()
    it.stall.form_ids(2, each=2)
    first, second = it.stall.broadcast(), it.stall.broadcast()
    claims = it.take(1) + it.take(1)
    for claim in claims:
        it.put(claim, DELIVERED)
    await it.settled()
    for claim in it.take():
        it.put(claim, DELIVERED)
    await it.settled()
    assert set(it.stall.outcomes(first)) | set(it.stall.outcomes(second)) == {"o0", "o1"}
    done = {flag for flag in it.flags if flag[3] == "opened"}
    assert {flag[1] for flag in done} == {first, second}


async def test_each_settled_answer_is_one_line_without_the_permit(
    desk: Opener, lines: list[Any]
) -> None:
    it = await desk()
    it.stall.form_ids(1)
    broadcast = it.stall.broadcast()
    (claim,) = it.take()
    rid = "61b0437c-57de737e-47cbfd49"
    it.put(claim, DELIVERED, Reply(Fate.ANSWERED, rid=rid, msgid="77", latency_ms=51.5))
    await it.settled()
    (line,) = [line for line in lines if line["event"] == "message_settled"]
    assert claim.permit_id not in repr(lines)
    assert {name: str(value) for name, value in line.items()} == {
        "event": "message_settled",
        "log_level": "info",
        "app": "shop",
        "broadcast": broadcast,
        "lane": "0",
        "openid": "o0",
        "attempt": "1",
        "action": "settled",
        "outcome": "delivered",
        "errcode": "0",
        "errmsg": "",
        "rid": rid,
        "msgid": "77",
        "permit_kind": "form_id",
        "resumed": "False",
        "latency_ms": "51.5",
        "sample": "1.0",
    }


async def test_a_line_says_what_was_recorded_instead_of_the_verdict(
    desk: Opener, lines: list[Any]
) -> None:
    """A lost answer of a cancelled broadcast is in doubt, and what waits is not settled."""
    it = await desk()
    it.stall.form_ids(1, each=2)
    waits = it.stall.broadcast()
    (claim,) = it.take()
    dead = Reply(Fate.ANSWERED, 41028, "invalid form id")
    it.put(claim, verdict_on(claim, dead), dead)  # the next one waits for the canary
    await it.settled()
    cancelled = it.stall.broadcast()
    (claim,) = it.take()
    assert claim.broadcast == cancelled
    it.stall.broadcasts.cancel(cancelled)
    lost = Reply(Fate.ANSWERED, -1, "system error")
    it.put(claim, Verdict(Action.KEEP, "keep", delay_ms=1000), lost)
    await it.settled()
    told = [line for line in lines if line["event"] == "message_settled"]
    assert [(one["broadcast"], one["action"], one["outcome"]) for one in told] == [
        (waits, "delayed", ""),
        (cancelled, "settled", "in_doubt"),
    ]


async def test_per_send_lines_can_be_left_out(desk: Opener, lines: list[Any]) -> None:
    it = await desk(log_sample=0)
    it.stall.form_ids(5)
    it.stall.broadcast()
    for claim in it.take():
        it.put(claim, DELIVERED)
    await it.settled()
    assert not [line for line in lines if line["event"] == "message_settled"]


# -- lost requests and replies ------------------------------------------------------------------


@pytest.mark.parametrize("how", ["request", "reply"])
async def test_a_lost_settle_is_asked_again_and_nothing_is_lost_or_doubled(
    desk: Opener, client: "redis.Redis", way: Way, lines: list[Any], how: str
) -> None:
    it = await desk(way=way)
    it.stall.form_ids(40, each=2)
    broadcast = it.stall.broadcast()
    client.hset(keys.lane_broadcast(0, broadcast), "open", "1")
    claims = it.take()
    assert len(claims) == 40
    delivered, dead, waiting, back = claims[:10], claims[10:20], claims[20:30], claims[30:]
    way.lose(SETTLE, how)
    for claim in delivered:
        it.put(claim, DELIVERED)
    for claim in dead:
        it.put(claim, Verdict(Action.SWAP, "void", "no_permit"), Reply(Fate.ANSWERED, 41029))
    for claim in waiting:
        it.put(claim, Verdict(Action.DELAY, "back", delay_ms=60_000), Reply(Fate.ANSWERED, 43108))
    for claim in back:
        it.put(claim, HANDED_BACK, None)
    await it.settled(left=10)
    assert way.lost == 1
    assert status_counts(it, broadcast) == {"delivered": 10}
    assert sorted(it.stall.outcomes(broadcast)) == sorted(claim.openid for claim in delivered)
    assert sorted(it.stall.queue(broadcast)) == sorted(claim.openid for claim in back)
    assert client.zcard(keys.delayed(0, broadcast)) == 10
    swapped = list(it.hands.swapped)
    assert sorted(claim.openid for claim in swapped) == sorted(claim.openid for claim in dead)
    flight = it.stall.flight(broadcast)
    assert {claim.openid: claim.fence for claim in swapped} == {
        openid: entry[1] for openid, entry in flight.items()
    }
    assert it.stall.ledger() == {"collected": 80, "spent": 10, "void": 10, "available": 50}
    unreachable = [line for line in lines if line["event"] == "store_unreachable"]
    assert [(line["during"], line["attempt"]) for line in unreachable] == [("settling", 1)]


async def test_a_settle_is_asked_again_until_it_is_answered(desk: Opener, way: Way) -> None:
    it = await desk(way=way)
    it.stall.form_ids(5)
    broadcast = it.stall.broadcast()
    way.lose(SETTLE, "reply", times=3)
    for claim in it.take():
        it.put(claim, DELIVERED)
    await it.settled()
    assert way.lost == 3
    assert status_counts(it, broadcast) == {"delivered": 5}
    assert it.stall.ledger() == {"collected": 5, "spent": 5}


async def test_answers_that_come_while_redis_is_silent_are_settled_after_it(
    desk: Opener, way: Way
) -> None:
    it = await desk(way=way, timeout_s=0.3)
    it.stall.form_ids(10)
    broadcast = it.stall.broadcast()
    claims = it.take()
    way.lose(SETTLE, "silence")
    it.put(claims[0], DELIVERED)
    await soon(lambda: way.lost == 1, "the reply is lost")
    for claim in claims[1:]:
        it.put(claim, DELIVERED)
    assert it.hands.held == 10
    await it.settled()
    assert status_counts(it, broadcast) == {"delivered": 10}
    assert len(it.stall.outcomes(broadcast)) == 10


async def test_what_a_closed_settler_did_not_settle_is_found_by_recovery(
    desk: Opener, client: "redis.Redis", way: Way
) -> None:
    it = await desk(way=way)
    it.stall.form_ids(2)
    broadcast = it.stall.broadcast()
    claims = it.take()
    way.lose(SETTLE, "request", times=1000)
    for claim in claims:
        it.put(claim, DELIVERED)
    await soon(lambda: way.lost, "a request is lost")
    await it.settler.close()
    assert it.stall.outcomes(broadcast) == {}
    assert it.hands.held == 2
    recoverer = Recoverer(client, it.settings, Broadcasts(client, it.settings))
    assert recoverer.recover("shop", broadcast, 0, "w1") == (2, 0, 0, 0)
    assert recoverer.recover("shop", broadcast, 0, "w1") == (0, 0, 0, 0)
    assert sorted(it.stall.queue(broadcast)) == ["o0", "o1"]
    assert it.stall.ledger() == {"collected": 2}
