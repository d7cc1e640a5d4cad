"""In a worker's hands while its lane is divided: nothing more is taken, and all is settled."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis
from send_path import APP, Stall, connected_async, pumping, soon

from producers.settings import Layout, Settings
from producers.store import keys
from producers.store.lanes.layout import follow
from workers.lanes.copies import Copies
from workers.sending import lines as lines_module
from workers.sending.claim import Claim
from workers.sending.hands import Hands
from workers.sending.lines import Line, Lines
from workers.sending.posting import Marker
from workers.sending.settle import Answer, Settler
from workers.sending.take import Asking, Taker
from workers.sending.turns import Turns
from workers.sending.verdict import Action, Streak, Verdict
from workers.wechat.envelope import Envelope
from workers.wechat.reply import Fate, Reply

DELIVERED = Verdict(Action.SETTLE, "spent", "delivered", streak=Streak.OK)
SWAP = Verdict(Action.SWAP, "void", "-")
HANDED_BACK = Verdict(Action.REQUEUE, "back")
OK = Reply(Fate.ANSWERED, latency_ms=50.0)
USED = Reply(Fate.ANSWERED, errcode=41028, latency_ms=50.0)
TTL_MS = 1_000_000_000


def troubles(lines: list[Any]) -> list[Any]:
    """Return what is logged as a trouble; a change that goes on cuts off every connection."""
    loud = [line for line in lines if line["log_level"] in {"warning", "error"}]
    return [
        line
        for line in loud
        if line["event"] != "lanes_changing" and line.get("error") != "ConnectionError"
    ]


class Desk:
    """A worker that has taken all that there is, and its settler."""

    def __init__(self, client: "redis.Redis", settings: Settings, loop_client: Any) -> None:
        self.stall = Stall(client, settings)
        self.settings = settings
        self.hands = Hands(10_000)
        self.flags: list[tuple[str, str, int, str]] = []
        self.taker = Taker(client, settings, "w1", TTL_MS)
        self.settler = Settler(
            loop_client, settings, "w1", TTL_MS, self.hands, lambda *flag: self.flags.append(flag)
        )

    def take(self) -> list[Claim]:
        claims = self.taker.take(Asking.of("shop", 0, 500), {}).claims
        self.hands.take(claims)
        return claims

    def put(self, claims: list[Claim], verdict: Verdict, reply: Reply | None = OK) -> None:
        for claim in claims:
            self.settler.put(Answer(claim, reply, verdict))


@pytest.fixture
async def desk(client: "redis.Redis", make_settings: Any) -> AsyncIterator[Desk]:
    settings = make_settings(canary=1000)
    async with contextlib.AsyncExitStack() as stack:
        loop_client = await stack.enter_async_context(connected_async(settings))
        desk = Desk(client, settings, loop_client)
        stack.push_async_callback(desk.settler.close)
        follow(client, settings)
        yield desk


async def test_what_a_shut_lane_refuses_is_settled_in_the_lanes_that_it_was_divided_into(
    desk: Desk, division: Any, lines: list[Any]
) -> None:
    desk.stall.form_ids(40)
    broadcast = desk.stall.broadcast()
    claims = desk.take()
    assert len(claims) == 40
    division.shut()
    desk.put(claims[:20], DELIVERED)
    desk.put(claims[20:], HANDED_BACK, None)
    await soon(lambda: desk.settings.layout.shut == 0, "the settler has met the shut lane")
    assert desk.hands.held == 40, "what is refused stays in hand"
    await asyncio.to_thread(division.end)
    await soon(lambda: desk.hands.held == 0, "all are settled")
    assert desk.settings.layout.lanes == (1, 2)
    sent = {claim.openid for claim in claims[:20]}
    assert desk.stall.outcomes(broadcast) == dict.fromkeys(sent, "delivered")
    assert set(desk.stall.queue(broadcast)) == {claim.openid for claim in claims[20:]}
    assert desk.stall.flight(broadcast) == {}
    settled = [line["action"] for line in lines if line["event"] == "message_settled"]
    assert settled == 20 * ["settled"], "each of them, once"
    assert {lane for _, _, lane, _ in desk.flags} <= {1, 2}
    assert troubles(lines) == []


async def test_a_claim_of_a_lane_that_was_divided_since_is_settled_without_asking_there(
    desk: Desk, client: "redis.Redis", division: Any
) -> None:
    desk.stall.form_ids(10)
    broadcast = desk.stall.broadcast()
    claims = desk.take()
    await asyncio.to_thread(division.end)
    follow(client, desk.settings)
    desk.put(claims, DELIVERED)
    await soon(lambda: desk.hands.held == 0, "all are settled")
    assert len(desk.stall.outcomes(broadcast)) == 10


async def test_a_permit_that_is_swapped_then_is_a_claim_of_the_new_lane(
    desk: Desk, division: Any
) -> None:
    desk.stall.form_ids(10, each=2)
    broadcast = desk.stall.broadcast()
    first, *claims = desk.take()
    desk.put([first], DELIVERED)  # the flood is let go
    await soon(lambda: desk.hands.held == 9, "it is settled")
    division.shut()
    desk.put(claims, SWAP, USED)
    await asyncio.to_thread(division.end)
    await soon(lambda: len(desk.hands.swapped) == 9, "each has another permit")
    layout = desk.settings.layout
    assert all(one.lane == layout.of_number(one.bucket) for one in desk.hands.swapped)
    fences = {entry[1] for entry in desk.stall.flight(broadcast).values()}
    assert {one.fence for one in desk.hands.swapped} == fences
    desk.put(list(desk.hands.swapped), DELIVERED)
    await soon(lambda: desk.hands.held == 0, "all are settled")
    assert len(desk.stall.outcomes(broadcast)) == 10


@pytest.mark.parametrize("when", ["shut", "divided"])
async def test_a_mark_that_a_lane_refuses_is_no_mark_and_the_claim_goes_back_quietly(
    desk: Desk, client: "redis.Redis", division: Any, lines: list[Any], when: str
) -> None:
    desk.stall.subscriptions(10)
    broadcast = desk.stall.broadcast("subscribe")
    claims = desk.take()
    marked: list[Claim] = []
    refused: list[Claim] = []
    marker = Marker(
        desk.settler._client,
        "w1",
        desk.settler.heirs,
        lambda: 100,
        lambda claim, _: marked.append(claim),
        refused.extend,
    )
    if when == "shut":
        division.shut()
    else:
        await asyncio.to_thread(division.end)
        follow(client, desk.settings)
    for claim in claims:
        marker.put(claim.at(time.monotonic(), ends=True), Envelope("/", b""))
    await soon(lambda: len(marked) + len(refused) == 10, "each is told")
    await marker.close()
    assert (len(marked), len(refused)) == ((0, 10) if when == "shut" else (10, 0))
    if when == "divided":
        assert {entry[6] for entry in desk.stall.flight(broadcast).values()} == {"0"}, "there"
    assert troubles(lines) == []


# -- taking ---------------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", [2])
async def test_nothing_is_taken_from_a_lane_that_is_being_divided(
    client: "redis.Redis", make_settings: Any, division: Any, lines: list[Any]
) -> None:
    settings = make_settings(lanes=2, app=APP)
    follow(client, settings)
    stall = Stall(client, settings)
    stall.form_ids(40)
    broadcast = stall.broadcast()
    assert Copies(client).open("shop", broadcast, settings.layout.lanes)
    async with pumping(settings) as bench:
        lane = division.announce()
        follow(client, settings)
        claims = await bench.next_batch()
        assert {claim.lane for claim in claims} == {1}
        assert await bench.next_batch(0.2) == []
        assert client.hlen(keys.flight(lane, broadcast)) == 0
        assert bench.turns._ready == {}
        assert bench.turns._resting == {}
        assert bench.intake._more == set()
    assert troubles(lines) == []


async def test_a_take_that_was_refused_leaves_no_trace_and_holds_nobody_up(
    client: "redis.Redis", make_settings: Any, division: Any, lines: list[Any]
) -> None:
    settings = make_settings(app=APP)
    follow(client, settings)
    stall = Stall(client, settings)
    stall.form_ids(40)
    stall.broadcast()
    async with pumping(settings) as bench:
        bench.intake._more.add(("shop", 0))
        division.shut()
        assert await bench.next_batch(0.2) == []
        assert bench.turns.apps(time.monotonic()) == []
        assert bench.gate.not_before <= time.monotonic(), "the app is not put off"
        await asyncio.to_thread(division.end)
        follow(client, settings)
        for lane in settings.layout.lanes:
            bench.turns.follow(settings.layout)
            bench.turns.wake("shop", lane)
        claims = await bench.next_batch()
        assert {claim.lane for claim in claims} <= {1, 2}
        assert claims
        assert bench.intake._more <= {("shop", 1), ("shop", 2)}
    assert troubles(lines) == []


def test_turns_forget_lanes_that_were_divided() -> None:
    turns = Turns()
    before = Layout(256, [2], 4, 0)
    turns.follow(before)
    for lane in (0, 1):
        turns.wake("shop", lane)
        turns.rest("shop", lane, 5.0)
    turns.hold([0, 1], 5.0)
    turns.follow(Layout(256, [2], 4, 0, shut=True))
    assert (turns._ready, turns._resting, turns._held) == (
        {"shop": {1: None}},
        {"shop": (5.0, {1})},
        {1: 5.0},
    )
    turns.wake("shop", 0)
    turns.rest("shop", 0, 6.0)
    turns.hold([0], 6.0)
    assert (turns._ready, turns._held) == ({"shop": {1: None}}, {1: 5.0})
    turns.follow(Layout(256, [2, 4]))
    assert (turns._ready, turns._resting, turns._held) == ({}, {}, {})
    turns.wake("shop", 5)
    assert turns.lanes("shop") == [5]


async def test_a_line_where_nothing_comes_any_more_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "_IDLE_S", 0.05)
    served: list[int] = []

    async def serve(_: str, line: Line[int]) -> None:
        while await line.wait():
            served.extend(line.pop(9))

    some: Lines[str, int] = Lines(serve)
    some.put("a", 1)
    await soon(lambda: not list(some) and not some._tasks, "it is over")
    some.put("a", 2)
    await soon(lambda: served == [1, 2], "what comes later has another one")
    await some.close()
