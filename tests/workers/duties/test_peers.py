"""Who lives: beats in a real Valkey, monotonic time in the test's hand."""

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import redis
from send_path import by, connected_async, way_to

from producers.settings import Apps, Settings
from producers.store import keys
from workers.duties.peers import LEASE_S, Peers

Opener = Callable[..., Awaitable[Peers]]


@pytest.fixture
async def worker(settings: Settings) -> AsyncIterator[Opener]:
    """Give an opener of workers, each with a client of its own."""
    async with contextlib.AsyncExitStack() as stack:

        async def opened(name: str, its_settings: Settings = settings) -> Peers:
            client = await stack.enter_async_context(connected_async(its_settings))
            return Peers(client, name)

        yield opened


@pytest.fixture
def workers_in_redis(client: "redis.Redis") -> Callable[[], list[str]]:
    return lambda: sorted(client.zrange(keys.WORKERS, 0, -1))


async def beats(peers: Peers, start: float, seconds: float, step: float = 1.0) -> float:
    """Beat second by second, nobody being found dead; returns the time of the next beat."""
    now = start
    while now < start + seconds:
        assert await peers.beat(now) == []
        now += step
    return now


async def test_a_worker_alone_is_alive(
    worker: Opener, workers_in_redis: Callable[[], list[str]]
) -> None:
    me = await worker("me")
    assert me.alive == 0, "until it has beaten nobody could recover what it takes"
    await beats(me, 100.0, 20)
    assert me.alive == 1
    assert workers_in_redis() == ["me"]


async def test_workers_see_each_other(worker: Opener) -> None:
    first, second, third = [await worker(name) for name in ("a", "b", "c")]
    for peers in (first, second, third, first, second):
        await peers.beat(100.0)
    assert [peers.alive for peers in (first, second, third)] == [3, 3, 3]


async def test_a_peer_that_beats_is_never_dead(worker: Opener, client: "redis.Redis") -> None:
    me, other = await worker("me"), await worker("other")
    for second in range(30):
        # each beat of the other's has a time of its own, however fast this test runs
        await other.beat(500.0 + second)
        client.zadd(keys.WORKERS, {"other": 1_000_000 + second})
        assert await me.beat(100.0 + second) == []


async def test_a_peer_that_stands_still_for_a_whole_lease_is_dead(worker: Opener) -> None:
    me, other = await worker("me"), await worker("other")
    await other.beat(0.0)
    now = await beats(me, 100.0, LEASE_S)
    assert now == 100.0 + LEASE_S
    assert await me.beat(now) == [("other", round(LEASE_S * 1000))]
    assert await me.beat(now + 1) == [("other", round(LEASE_S * 1000) + 1000)]


async def test_nobody_is_dead_for_one_who_has_just_come(worker: Opener) -> None:
    other = await worker("other")
    await other.beat(0.0)
    me = await worker("me")
    assert await me.beat(10_000.0) == []
    assert await me.beat(10_001.0) == []


async def test_after_an_own_pause_nobody_is_buried_alive(worker: Opener) -> None:
    """Everybody's beats stood still, when Redis paused: that time counts as nobody's silence."""
    me, other = await worker("me"), await worker("other")
    await other.beat(0.0)
    now = await beats(me, 100.0, 1)
    now += 60
    now = await beats(me, now, LEASE_S - 1)
    assert await other.beat(now) == []
    assert await me.beat(now) == []


async def test_the_silence_before_an_own_pause_counts(worker: Opener) -> None:
    """Else short cuts of the network, one after the other, put recovery off for ever."""
    me, other = await worker("me"), await worker("other")
    await other.beat(0.0)
    now = await beats(me, 100.0, 7)
    now = await beats(me, now + 20, 2)
    assert await me.beat(now) == [("other", round(LEASE_S * 1000))]


async def test_a_short_own_pause_does_not_help_the_dead(worker: Opener) -> None:
    me, other = await worker("me"), await worker("other")
    await other.beat(0.0)
    now = await beats(me, 100.0, LEASE_S, step=2.0)
    assert await me.beat(now) == [("other", round(LEASE_S * 1000))]


async def test_time_in_which_redis_never_answered_does_not_count(
    worker: Opener, settings: Settings
) -> None:
    with way_to(settings) as way:
        me, other = await worker("me", by(settings, way)), await worker("other")
        await other.beat(0.0)
        now = await beats(me, 100.0, 6)
        way.lose("wxb:workers", "request", times=4)
        for _ in range(4):
            with pytest.raises(redis.ConnectionError):
                await me.beat(now)
            now += 1
        assert way.lost == 4
        now = await beats(me, now, 3)
        assert await me.beat(now) == [("other", round(LEASE_S * 1000))]


async def test_one_who_beats_again_after_a_long_silence_lives(
    worker: Opener, client: "redis.Redis"
) -> None:
    me, other = await worker("me"), await worker("other")
    await other.beat(0.0)
    now = await beats(me, 100.0, LEASE_S)
    client.zadd(keys.WORKERS, {"other": 7})
    assert await me.beat(now) == []
    now = await beats(me, now + 1, LEASE_S - 1)
    assert await me.beat(now) == [("other", round(LEASE_S * 1000))]


async def test_the_dead_are_removed_with_the_next_beat(
    worker: Opener, workers_in_redis: Callable[[], list[str]]
) -> None:
    me, other = await worker("me"), await worker("other")
    await other.beat(0.0)
    now = await beats(me, 100.0, LEASE_S)
    assert await me.beat(now)
    me.bury("other")
    assert workers_in_redis() == ["me", "other"]
    assert await me.beat(now + 1) == []
    assert workers_in_redis() == ["me"]
    assert me.alive == 1


async def test_several_dead_are_all_removed_with_the_next_beat(
    worker: Opener, workers_in_redis: Callable[[], list[str]]
) -> None:
    """A whole host dies at once, and its workers with it."""
    me = await worker("me")
    others = ["a", "b", "c"]
    for name in others:
        await (await worker(name)).beat(0.0)
    now = await beats(me, 100.0, LEASE_S)
    dead = await me.beat(now)
    assert sorted(name for name, _ in dead) == others
    for name, _ in dead:
        me.bury(name)
    assert await me.beat(now + 1) == []
    assert workers_in_redis() == ["me"]


async def test_one_who_has_beaten_meanwhile_is_not_buried(
    worker: Opener, client: "redis.Redis", workers_in_redis: Callable[[], list[str]]
) -> None:
    me, other = await worker("me"), await worker("other")
    await other.beat(0.0)
    now = await beats(me, 100.0, LEASE_S)
    assert await me.beat(now)
    me.bury("other")
    client.zadd(keys.WORKERS, {"other": 7})
    assert await me.beat(now + 1) == []
    assert workers_in_redis() == ["me", "other"]


async def test_a_stranger_cannot_be_buried(
    worker: Opener, workers_in_redis: Callable[[], list[str]]
) -> None:
    me = await worker("me")
    await me.beat(100.0)
    me.bury("nobody")
    await me.beat(101.0)
    assert workers_in_redis() == ["me"]


async def test_one_who_leaves_is_gone_at_once(
    worker: Opener, workers_in_redis: Callable[[], list[str]]
) -> None:
    me, other = await worker("me"), await worker("other")
    await other.beat(0.0)
    await me.beat(100.0)
    await other.leave()
    assert workers_in_redis() == ["me"]
    await beats(me, 101.0, 20)


async def test_server_time_is_the_servers(worker: Opener, client: "redis.Redis") -> None:
    me = await worker("me")
    await me.beat()
    before = client.time()
    mine = me.server_time()
    after = client.time()
    # a beat's answer takes a moment to come, so its clock may lag by as much
    assert before[0] + before[1] / 1e6 - 1.0 <= mine <= after[0] + after[1] / 1e6


async def test_a_worker_says_which_apps_it_knows_again_and_again(
    settings: Settings, client: "redis.Redis"
) -> None:
    async with connected_async(settings) as its_client:
        apps = Apps({"shop": settings.app("shop"), "cafe": settings.app("shop")})
        me = Peers(its_client, "me", apps)
        now = await beats(me, 100.0, 3)
        key = keys.worker_apps("me")
        assert client.get(key) == f"shop cafe #{apps.digest}"
        assert 50_000 < client.pttl(key) <= 60_000
        client.delete(key)
        now = await beats(me, now, 15)
        assert client.get(key) is None  # it costs a command in twenty beats
        now = await beats(me, now, 4)
        assert client.get(key) == f"shop cafe #{apps.digest}"
        apps.put({"shop": settings.app("shop")})
        await beats(me, now, 1)  # a change is said at once
        assert client.get(key) == f"shop #{apps.digest}"


async def test_a_gate_that_a_worker_closed_is_told_of_until_it_opens(
    settings: Settings, client: "redis.Redis"
) -> None:
    async with connected_async(settings) as its_client:
        me = Peers(its_client, "me")
        await me.beat()
        key = keys.closed_gates("me")
        now = time.monotonic()
        await me.tell_closed({"shop": (now, "no answer"), "cafe": (now, "no connection")})
        told = client.hgetall(key)
        assert {app: why.partition(" ")[2] for app, why in told.items()} == {
            "shop": "no answer",
            "cafe": "no connection",
        }
        assert client.pttl(key) > 0
        await me.tell_closed({"cafe": (now, "no connection")})
        assert set(client.hgetall(key)) == {"cafe"}
        await me.tell_closed({})
        assert not client.exists(key)
        commands = client.info("commandstats")["cmdstat_del"]["calls"]
        await me.tell_closed({})
        assert client.info("commandstats")["cmdstat_del"]["calls"] == commands
