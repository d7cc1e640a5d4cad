"""The marker: claims are marked late, many together, and none is posted without its mark."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis
from send_path import Stall, by, connected_async, soon, way_to

from producers.settings import Settings
from producers.store import keys
from workers.sending.claim import Claim
from workers.sending.heirs import Heirs
from workers.sending.posting import Marker, needs_mark
from workers.sending.take import Asking, Taker
from workers.wechat.envelope import Envelope

ENVELOPE = Envelope("/cgi-bin/message/subscribe/send", b"")


class Bench:
    """A marker, and all that it told."""

    def __init__(self, client: Any, settings: Settings, worker: str) -> None:
        self.room = 1000
        self.marked: list[Claim] = []
        self.refused: list[Claim] = []
        self.marker = Marker(
            client,
            worker,
            Heirs(client, settings),
            lambda: self.room,
            self._take,
            self.refused.extend,
        )

    def _take(self, claim: Claim, envelope: Envelope) -> None:
        assert envelope is ENVELOPE
        self.room -= 1
        self.marked.append(claim)

    def put(self, claims: list[Claim], in_s: float = 0.0) -> None:
        for claim in claims:
            self.marker.put(claim.at(time.monotonic() + in_s, ends=True), ENVELOPE)


@asynccontextmanager
async def bench(settings: Settings, worker: str = "w1") -> AsyncIterator[Bench]:
    async with connected_async(settings) as client:
        made = Bench(client, settings, worker)
        try:
            yield made
        finally:
            await made.marker.close()


@pytest.fixture
def taken(client: "redis.Redis", settings: Settings) -> Callable[[int], tuple[str, list[Claim]]]:
    """Give a taker of subscribe claims for worker w1."""

    def take(users: int) -> tuple[str, list[Claim]]:
        stall = Stall(client, settings)
        stall.subscriptions(users)
        broadcast = stall.broadcast("subscribe")
        client.hset(keys.lane_broadcast(0, broadcast), "open", 1)
        taker = Taker(client, settings, "w1", stall.broadcasts.ttl_ms)
        claims = taker.take(Asking.of("shop", 0, users), {}).claims
        assert len(claims) == users
        assert all(map(needs_mark, claims))
        return broadcast, claims

    return take


def marks(client: "redis.Redis", broadcast: str) -> list[str]:
    return sorted(entry[-1] for entry in client.hvals(keys.flight(0, broadcast)))


async def test_claims_are_marked_before_they_may_be_posted(
    client: "redis.Redis", settings: Settings, taken: Any
) -> None:
    broadcast, claims = taken(40)
    assert marks(client, broadcast) == ["n"] * 40
    async with bench(settings) as it:
        it.put(claims, in_s=0.05)
        await soon(lambda: len(it.marked) == 40, "all are marked")
    assert marks(client, broadcast) == ["0"] * 40
    assert it.refused == []


@pytest.mark.parametrize(
    ("took_ms", "lead_ms", "wait_ms"), [(0, 8, 0), (4, 14, 0), (20, 38, 22), (200, 200, 200)]
)
async def test_the_longer_a_mark_takes_the_sooner_it_is_asked_for(
    settings: Settings, took_ms: float, lead_ms: float, wait_ms: float
) -> None:
    async with bench(settings) as it:
        it.marker._took_s = took_ms / 1000
        assert it.marker.lead_s * 1000 == pytest.approx(lead_ms)
        assert it.marker.wait_s * 1000 == pytest.approx(wait_ms)


async def test_no_more_are_marked_than_there_is_room_for(
    client: "redis.Redis", settings: Settings, taken: Any
) -> None:
    broadcast, claims = taken(100)
    async with bench(settings) as it:
        it.room = 30
        it.put(claims)
        await soon(lambda: it.marker.starved, "it waits for room")
        assert marks(client, broadcast).count("0") == len(it.marked) == 30
        it.room = 50
        it.marker.freed()
        await soon(lambda: len(it.marked) == 80 and it.marker.starved, "the room is used")
        assert len(it.marker.drain()) == 20
        it.room = 50
        it.marker.freed()
        it.put(claims[:1])  # stale by nobody: it is marked already
        await soon(lambda: len(it.marked) == 81, "it goes on after a drain")
    assert marks(client, broadcast).count("0") == 80


async def test_what_is_no_longer_the_workers_is_not_posted(
    client: "redis.Redis", settings: Settings, taken: Any
) -> None:
    broadcast, claims = taken(3)
    async with bench(settings, "w2") as it:
        it.put(claims)
        await soon(lambda: len(it.refused) == 3, "all are refused")
    assert it.marked == []
    assert marks(client, broadcast) == ["n"] * 3


@pytest.mark.parametrize("how", ["request", "reply"])
async def test_a_mark_of_which_nobody_heard_posts_nothing(
    client: "redis.Redis", settings: Settings, taken: Any, how: str
) -> None:
    _, claims = taken(6)
    with way_to(settings) as way:
        async with bench(by(settings, way)) as it:
            it.put(claims[:1])
            await soon(lambda: len(it.marked) == 1, "the way is good")
            way.lose("EVALSHA", how)
            it.put(claims[1:4])
            await soon(lambda: len(it.refused) == 3, "they go back")
            it.put(claims[4:])
            await soon(lambda: len(it.marked) == 3, "the next ones are marked")
            await asyncio.sleep(0)
    assert way.lost == 1
