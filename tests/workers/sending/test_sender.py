"""The sender against the sandbox: what it posts, and what its last look leaves alone.

The claims are real ones, taken from a real Valkey; the sandbox counts what is posted.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
import redis
from pydantic import SecretStr
from send_path import Stall, connected_async, soon

from producers.sandbox import FaultAction, FaultRule, Sandbox, SandboxConfig
from producers.sandbox.config import Taking
from producers.settings import Settings
from producers.store import keys
from workers.duties.peers import Peers
from workers.limits.breaker import SILENT, Trouble
from workers.limits.gate import Gate
from workers.limits.limiter import Penalty
from workers.sending.claim import Claim
from workers.sending.consequences import Consequences
from workers.sending.egress import Egress
from workers.sending.hands import Hands
from workers.sending.posting import SPARE
from workers.sending.sender import Sender
from workers.sending.settle import Settler
from workers.sending.stops import Stops
from workers.sending.take import CLAIM_LIFE_S, Asking, Taker
from workers.sending.verdict import Action, Verdict
from workers.wechat.client import WeChat
from workers.wechat.envelope import Envelope
from workers.wechat.errcodes import PermitFate
from workers.wechat.reply import Fate, Reply
from workers.wechat.tokens import TokenKeeper

CHANNELS = ("template", "subscribe")


class Desk:
    """A worker that takes when told to, its sender and its settler."""

    def __init__(
        self,
        client: "redis.Redis",
        settings: Settings,
        loop_client: Any,
        wechat: WeChat,
        keeper: TokenKeeper,
        sandbox: Sandbox,
    ) -> None:
        self.stall = Stall(client, settings)
        self.keeper, self.sandbox = keeper, sandbox
        self.hands, self.gate, self.stops = Hands(10_000), Gate(0.0), Stops()
        ttl_ms = self.stall.broadcasts.ttl_ms
        self._taker = Taker(client, settings, "w1", ttl_ms)
        self.settler = Settler(loop_client, settings, "w1", ttl_ms, self.hands, lambda *_: None)
        tokens, gates = {"shop": keeper}, {"shop": self.gate}
        self.sender = Sender(
            settings,
            wechat,
            tokens,
            Egress(wechat, gates, "w1", lambda: None),
            Consequences(tokens, Penalty(loop_client), gates, time.time),
            gates,
            self.settler,
            self.stops,
            time.time,
            loop_client,
            "w1",
        )

    def take(self, most: int = 1000) -> list[Claim]:
        """Take, as the pump does; the slots are in the past and do not end."""
        taken = self._taker.take(Asking.of("shop", 0, most), {})
        self.hands.take(taken.claims)
        return taken.claims

    def start(self, claims: list[Claim]) -> None:
        self.sender.start(
            [(claim, Envelope.of(self.stall.broadcasts.spec(claim.broadcast))) for claim in claims]
        )

    def hang(self, ms: float) -> None:
        """Answer sends so late."""
        late = FaultRule(action=FaultAction.DELAY, api="send", ms=ms)
        self.sandbox.orders.set_faults([late])

    def fail(self, errcode: int, count: int | None = None) -> None:
        """Answer sends with an errcode."""
        rule = FaultRule(action=FaultAction.ERRCODE, api="send", errcode=errcode, count=count)
        self.sandbox.orders.set_faults([rule])

    @property
    def posted(self) -> int:
        """Sends that the sandbox has seen, answered or not."""
        apis = self.sandbox.orders.stats()["apis"].items()
        return sum(int(api["requests"]) for path, api in apis if path.endswith("/send"))

    @property
    def idle(self) -> bool:
        """Whether every place of the sender is free again."""
        line = self.sender._lines["shop"]
        return (line.begun, line.posting, self.sender._posting) == (0, 0, 0)

    async def over(self, left: int = 0) -> None:
        await soon(lambda: self.hands.held == left, f"{left} claims are left in hand")

    def assert_handed_back(self, broadcast: str, uses: int) -> None:
        """So many uses are available again, and nothing of it is left in flight."""
        assert self.stall.flight(broadcast) == {}
        assert self.stall.ledger()["available"] == uses


Opener = Callable[..., Any]


@pytest.fixture
async def desk(
    client: "redis.Redis", make_settings: Callable[..., Settings]
) -> AsyncIterator[Opener]:
    """Give an opener of one worker with so many posters, beside a sandbox that takes any permit."""
    async with (
        Sandbox(SandboxConfig(permits=Taking.ANY)) as sandbox,
        contextlib.AsyncExitStack() as stack,
    ):

        async def opened(in_flight: int = 100) -> Desk:
            settings = make_settings(
                canary=1000,
                in_flight=in_flight,
                wechat_url=sandbox.url,
                post_timeout=timedelta(seconds=8),
            )
            loop_client = await stack.enter_async_context(connected_async(settings))
            await Peers(loop_client, "w1").beat()
            wechat = WeChat(settings)
            stack.push_async_callback(wechat.close)
            keeper = TokenKeeper(
                loop_client,
                wechat,
                "shop",
                settings,
                "w1",
                time.time,
                lambda: True,
                lambda *_: None,
            )
            await keeper.tick()
            assert keeper.ready
            desk = Desk(client, settings, loop_client, wechat, keeper, sandbox)
            stack.push_async_callback(desk.settler.close)
            stack.push_async_callback(desk.sender.close)
            return desk

        yield opened


def stocked(desk: Desk, channel: str, users: int) -> str:
    """Collect a permit of each user, and broadcast to all."""
    if channel == "template":
        desk.stall.form_ids(users)
    else:
        desk.stall.subscriptions(users)
    return desk.stall.broadcast(channel)


@pytest.mark.parametrize("channel", CHANNELS)
async def test_what_is_due_is_posted_once_and_settled(desk: Opener, channel: str) -> None:
    it = await desk()
    broadcast = stocked(it, channel, 40)
    it.start(it.take())
    await it.over()
    assert it.posted == 40
    assert set(it.stall.outcomes(broadcast).values()) == {"delivered"}
    assert it.stall.ledger() == {"collected": 40, "spent": 40}
    assert it.gate.unused == {}
    assert it.idle


@pytest.mark.parametrize("channel", CHANNELS)
async def test_nothing_is_posted_before_its_slot(desk: Opener, channel: str) -> None:
    it = await desk()
    stocked(it, channel, 1)
    (claim,) = it.take()
    started, ahead_s = time.time(), 0.3
    it.start([claim.at(time.monotonic() + ahead_s, ends=False)])
    await it.over()
    (message,) = it.sandbox.state.deliveries.of("o0")
    assert message["at_ms"] >= (started + ahead_s) * 1000 - 1


# -- the last look ------------------------------------------------------------------------------


def late_slot(it: Desk, claims: list[Claim]) -> list[Claim]:
    return [claim.at(time.monotonic() - 0.011, ends=True) for claim in claims]


def late_claim(it: Desk, claims: list[Claim]) -> list[Claim]:
    return [claim._replace(claimed_at=time.monotonic() - CLAIM_LIFE_S) for claim in claims]


def stopped(it: Desk, claims: list[Claim]) -> list[Claim]:
    it.stops.stop(claims[0].broadcast)
    return claims


def token_gone(it: Desk, claims: list[Claim]) -> list[Claim]:
    assert it.keeper.ready
    it.keeper.refuse(it.keeper.ready.value)
    return claims


def draining(it: Desk, claims: list[Claim]) -> list[Claim]:
    it.sender.drain()
    return claims


def closed_gate(it: Desk, claims: list[Claim]) -> list[Claim]:
    it.gate.breaker.trouble = Trouble.NO_ANSWER
    return claims


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize(
    "hindered", [late_slot, late_claim, stopped, token_gone, draining, closed_gate]
)
async def test_what_may_not_be_posted_any_more_is_handed_back(
    desk: Opener, channel: str, hindered: Callable[[Desk, list[Claim]], list[Claim]]
) -> None:
    it = await desk()
    broadcast = stocked(it, channel, 5)
    claims = it.take()
    assert len(claims) == 5
    it.start(hindered(it, claims))
    await it.over()
    assert it.posted == 0
    it.assert_handed_back(broadcast, 5)
    assert sorted(it.stall.queue(broadcast)) == [f"o{user}" for user in range(5)]
    assert it.stall.outcomes(broadcast) == {}
    assert it.stall.ledger() == {"collected": 5, "available": 5}


async def test_a_probe_that_breaks_is_followed_by_another(desk: Opener) -> None:
    """It was told that it may be posted, and nobody else is until it says what became of it."""
    it = await desk()
    stocked(it, "template", 1)
    breaker = it.gate.breaker
    for _ in range(SILENT):
        breaker.unanswered(time.monotonic())
    breaker.probe(time.monotonic())
    it.sender._wechat._bases.clear()  # whatever breaks where nobody foresaw it
    it.start(it.take())
    await it.over()
    assert breaker.trouble is Trouble.NO_ANSWER
    assert breaker.next_at < time.monotonic() + 3


async def test_each_slot_that_passed_unused_is_told_to_the_limiter(desk: Opener) -> None:
    it = await desk()
    stocked(it, "template", 5)
    claims = it.take()
    it.start([*late_slot(it, claims[:3]), *claims[3:]])
    await it.over()
    assert it.posted == 2
    assert it.gate.unused == {"template": 3}


async def test_a_slot_that_does_not_end_is_used_however_late(desk: Opener) -> None:
    it = await desk()
    stocked(it, "template", 3)
    it.start([claim.at(time.monotonic() - 1, ends=False) for claim in it.take()])
    await it.over()
    assert it.posted == 3


async def test_a_stop_concerns_what_was_claimed_before_it_alone(desk: Opener) -> None:
    it = await desk()
    broadcast = stocked(it, "template", 4)
    before = it.take(2)
    it.stops.stop(broadcast)
    it.start([*before, *it.take(2)])
    await it.over()
    assert it.posted == 2


# -- what an answer says beyond its message -----------------------------------------------------


async def test_a_limit_error_holds_the_app_back_until_an_answer_is_good_again(
    desk: Opener, lines: list[Any]
) -> None:
    def events() -> list[str]:
        return [line["event"] for line in lines if line["event"].startswith("limit_")]

    it = await desk()
    broadcast = stocked(it, "template", 3)
    it.fail(45009, count=1)
    it.start(it.take(1))
    await it.over()
    assert (it.gate.level, it.stall.outcomes(broadcast)) == (1, {})
    assert it.gate.not_before > time.monotonic()
    it.start(it.take(1))
    await it.over()
    assert (it.gate.level, events()) == (1, ["limit_hit"])  # it was under way already
    it.stall.client.hset(keys.limiter("shop"), "blocked_until_ms", 0)  # the wait is over
    it.start(it.take(1))
    await it.over()
    assert it.gate.level == 0
    assert events() == ["limit_hit", "limit_lifted"]


@pytest.mark.parametrize(("before", "after"), [(0, 1), (3, 3)])
async def test_a_limit_error_closes_the_gate_before_redis_has_answered(
    settings: Settings, before: int, after: int
) -> None:
    nobody = settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:1/0")})
    gate = Gate(0.0)
    gate.level = before
    claim = Claim("shop", 0, "b1", "1:anna", "f:A", 0, "1", 0, False, 0.0)
    reply = Reply(Fate.ANSWERED, errcode=45009)
    verdict = Verdict(Action.REQUEUE, PermitFate.BACK, penalize=True)
    async with connected_async(nobody) as away:
        consequences = Consequences({}, Penalty(away), {"shop": gate}, time.time)
        with pytest.raises(redis.RedisError):
            await consequences.tell(claim, reply, verdict, "")
    assert gate.level == after


async def test_a_token_that_was_refused_is_not_sent_with_again(desk: Opener) -> None:
    it = await desk()
    broadcast = stocked(it, "template", 3)
    refused = it.keeper.ready
    it.sandbox.state.tokens.revoke(it.sandbox.state.now())
    it.start(it.take(1))
    await it.over()
    assert it.stall.outcomes(broadcast) == {}
    assert it.keeper.ready != refused
    it.assert_handed_back(broadcast, 3)


async def test_a_prepay_id_of_a_payment_just_made_is_waited_for(desk: Opener) -> None:
    """WeChat knows it some minutes later; of an older one 41028 is believed."""
    it = await desk()
    it.stall.collect({"openid": f"o{user}", "prepayId": f"wx2026{user}"} for user in range(2))
    broadcast = it.stall.broadcast()
    young, old = it.take()
    it.fail(41028)
    hour_ms = 3_600_000
    it.start([young, old._replace(expires_at_ms=old.expires_at_ms - hour_ms)])
    await it.over(left=0)
    waiting = it.stall.client.zscore(keys.delayed(0, broadcast), young.item)
    assert 40_000 < waiting - time.time() * 1000 < 60_000
    assert it.stall.ledger()["void"] == 1


async def test_what_is_not_this_workers_any_more_is_not_posted(desk: Opener) -> None:
    """Its mark is refused, for somebody thought it dead."""
    it = await desk()
    broadcast = stocked(it, "subscribe", 5)
    claims = it.take()
    it.stall.client.hdel(keys.flight(0, broadcast), *(claim.item for claim in claims[:3]))
    it.start(claims)
    await it.over()
    assert it.posted == 2
    assert it.idle


async def test_what_had_no_room_for_a_mark_is_marked_as_posters_become_free(desk: Opener) -> None:
    it = await desk(in_flight=4)
    broadcast = stocked(it, "subscribe", 2 * (SPARE + 4))
    it.start(it.take())
    await soon(lambda: it.sender._marker.starved, "some wait for room", every_s=0)
    await it.over()
    assert it.posted == 2 * (SPARE + 4)
    assert set(it.stall.outcomes(broadcast).values()) == {"delivered"}


# -- the end ------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", CHANNELS)
async def test_a_drain_waits_for_what_is_posted_and_hands_all_else_back(
    desk: Opener, channel: str
) -> None:
    """More claims than posters: some wait for a poster, some for a mark, some for a slot."""
    it = await desk(in_flight=2)
    waiting, users = 5, 2 * SPARE + 20
    broadcast = stocked(it, channel, users)
    claims = it.take()
    it.hang(ms=2000)
    loop, broken = asyncio.get_running_loop(), list[Any]()
    loop.set_exception_handler(lambda _, context: broken.append(context))
    ahead = [claim.at(time.monotonic() + 1.5, ends=True) for claim in claims[:waiting]]
    it.start([*ahead, *claims[waiting:]])
    await soon(lambda: it.posted == 2, "both posters have one")
    it.sender.drain()
    await it.over(left=2)
    assert set(it.stall.flight(broadcast)) == set(openids_in_hand(it, claims))
    await it.over()
    assert it.posted == 2
    assert it.stall.outcomes(broadcast) == dict.fromkeys(
        it.sandbox.state.deliveries.counts, "delivered"
    )
    assert (broken, it.gate.unused) == ([], {})
    it.assert_handed_back(broadcast, users - 2)
    assert it.stall.ledger() == {"collected": users, "spent": 2, "available": users - 2}


def openids_in_hand(it: Desk, claims: list[Claim]) -> list[str]:
    fences = set(it.hands.fences([0]))
    return [claim.openid for claim in claims if claim.fence in fences]


async def test_a_mark_that_is_under_way_at_the_drain_is_not_posted(desk: Opener) -> None:
    """Redis answers it after the drain began: marked, and surely not sent."""
    it = await desk()
    broadcast = stocked(it, "subscribe", 20)
    it.start(it.take())
    lines = it.sender._marker._lines
    await soon(lambda: not any(line.items for line in lines), "all are asked for", every_s=0)
    it.sender.drain()
    await it.over()
    assert it.posted == 0
    it.assert_handed_back(broadcast, 20)


async def test_a_post_without_an_answer_holds_up_the_end_for_so_long_only(
    desk: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has no answer by then was perhaps sent, and is settled so before the end."""
    monkeypatch.setattr("workers.sending.sender._CUT_S", 0.2)
    it = await desk()
    broadcast = stocked(it, "subscribe", 3)
    it.hang(ms=6000)
    it.start(it.take())
    await soon(lambda: it.posted == 3, "all are posted")
    started = time.monotonic()
    it.sender.drain()
    await it.over()
    assert time.monotonic() - started < 5
    assert set(it.stall.outcomes(broadcast).values()) == {"in_doubt"}
    assert it.stall.flight(broadcast) == {}


async def test_a_closed_sender_posts_no_more(desk: Opener) -> None:
    it = await desk(in_flight=2)
    stocked(it, "template", 10)
    it.hang(ms=300)
    it.start(it.take())
    await soon(lambda: it.posted == 2, "both posters have one")
    await it.sender.close()
    await soon(lambda: all(poster.done() for poster in it.sender._posters), "they have ended")
    assert it.posted == 2
