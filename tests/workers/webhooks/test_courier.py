"""The courier: what happens to a broadcast reaches the app's service, in order, under one id."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import web
from cluster import cluster_of
from shop import Shop
from webhook_end import HERE, End, of_app

from producers import store
from producers.broadcasts.lifecycle import MoveArgs, MoveKeys
from producers.settings import Settings
from producers.store import keys
from producers.store.lanes.layout import follow
from producers.webhooks import DeadLetters
from producers.webhooks.wishes import Wishes
from workers.webhooks import courier as courier_module
from workers.webhooks import patience
from workers.webhooks.courier import Courier
from workers.webhooks.post import Answer

Make = Callable[..., Settings]


@pytest.fixture
def end() -> Iterator[End]:
    with End().open() as end:
        yield end


@pytest.fixture
def hooked(client: Any, make_settings: Make, end: End) -> Settings:
    """Give settings of a shop whose webhooks go to `end`, and told to Redis."""
    settings = make_settings(app=of_app(end.url), webhook_networks=[HERE], webhook_timeout=5)
    Wishes(client, settings).tell()
    return settings


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what failed be posted again at once."""
    monkeypatch.setattr(courier_module, "delay_ms", lambda *_: 1)


@asynccontextmanager
async def working(settings: Settings) -> AsyncIterator[Courier]:
    client = store.connect_async(settings)
    courier = Courier(client, settings)

    ends = asyncio.Event()

    async def go_on() -> None:
        while not ends.is_set():
            await courier.run()
            await asyncio.sleep(0.01)
            courier._all_at = float("-inf")

    task = asyncio.create_task(go_on())
    try:
        yield courier
    finally:
        ends.set()
        await task
        await courier.close()
        await client.aclose()
        await client.connection_pool.disconnect()


async def look_once(settings: Settings) -> None:
    """Look at the lanes once, beginning with the second, and wait for what is posted by that."""
    client = store.connect_async(settings)
    courier = Courier(client, settings)
    await courier.run()
    await asyncio.gather(*courier._tasks)
    await courier.close()
    await client.aclose()
    await client.connection_pool.disconnect()


async def until(holds: Callable[[], Any], that: str, within_s: float = 10.0) -> Any:
    async with asyncio.timeout(within_s):
        while not (value := holds()):  # noqa: ASYNC110  (of another thread, or in Redis)
            await asyncio.sleep(0.01)
    assert value, that
    return value


def moved(shop: Shop) -> str:
    """Let a broadcast be paused, resumed and cancelled."""
    shop.give("o1", formId="f1")
    broadcast = shop.broadcast()
    shop.broadcasts.pause(broadcast, "wait")
    shop.broadcasts.resume(broadcast)
    shop.broadcasts.cancel(broadcast)
    return broadcast


def waiting(client: Any, settings: Settings) -> int:
    return DeadLetters(client, settings).box("shop").waiting


@pytest.mark.parametrize("lanes", [1, 4])
async def test_what_happens_to_a_broadcast_is_told_once_and_in_its_order(
    client: Any, make_settings: Make, end: End, lanes: int
) -> None:
    settings = make_settings(app=of_app(end.url), webhook_networks=[HERE], lanes=lanes)
    Wishes(client, settings).tell()
    broadcast = moved(Shop(client, settings))
    async with working(settings):
        await until(lambda: len(end.came) == 2 and not waiting(client, settings), "both came")
    assert end.types == ["broadcast.paused", "broadcast.cancelled"]
    first = end.came[0][1]
    assert first["data"] == {
        "app": "shop",
        "broadcast": broadcast,
        "state": "paused",
        "generation": 2,
        "reason": "wait",
        "errcode": 0,
    }
    assert len({event for event, _ in end.came}) == 2
    assert DeadLetters(client, settings).box("shop").bytes == 0


async def test_the_end_says_who_got_which_outcome(client: Any, hooked: Settings, end: End) -> None:
    shop = Shop(client, hooked)
    for one in ("o1", "o2"):
        shop.give(one, formId=one)
    broadcast = shop.broadcast()
    shop.run_dry(broadcast)
    shop.keeper.run_once()
    assert shop.broadcasts.finish(broadcast)
    async with working(hooked):
        await until(lambda: end.came, "it came")
    data = end.came[0][1]["data"]
    assert (data["state"], data["total"], data["outcomes"]) == ("finished", 2, {"delivered": 2})


async def test_what_is_not_taken_comes_again_under_its_id_and_holds_back_what_follows(
    client: Any, hooked: Settings, end: End, soon: None
) -> None:
    end.answer = lambda number: 503 if number < 3 else 200
    moved(Shop(client, hooked))
    async with working(hooked):
        await until(lambda: len(end.came) == 5 and not waiting(client, hooked), "all came")
    assert end.types == ["broadcast.paused"] * 4 + ["broadcast.cancelled"]
    assert len({event for event, _ in end.came[:4]}) == 1


async def test_redirects_are_not_followed(client: Any, hooked: Settings, end: End) -> None:
    end.answer = lambda _: web.Response(status=307, headers={"Location": end.url + "/inner"})
    moved(Shop(client, hooked))
    async with working(hooked):
        tries = keys.hook_tries(0, "shop")
        await until(lambda: client.hvals(tries), "it failed")
    assert client.hvals(keys.hook_tries(0, "shop")) == ["1 HTTP 307"]
    assert len(end.came) == 1


async def test_of_a_long_answer_little_is_read(
    client: Any, hooked: Settings, end: End, soon: None
) -> None:
    end.answer = lambda _: web.Response(status=200, body=b"x" * 5_000_000)
    moved(Shop(client, hooked))
    async with working(hooked):
        await until(lambda: not waiting(client, hooked), "both were taken")
    assert end.types == ["broadcast.paused", "broadcast.cancelled"]


async def test_who_wants_no_more_makes_dead_letters_that_are_replayed(
    client: Any, hooked: Settings, end: End
) -> None:
    end.answer = lambda _: 410
    broadcast = moved(Shop(client, hooked))
    letters = DeadLetters(client, hooked)
    async with working(hooked):
        await until(lambda: letters.box("shop").dead == 2, "both are dead")
        page = letters.page("shop")
        assert [(one.type, one.broadcast, one.attempts, one.why) for one in page.letters] == [
            ("broadcast.paused", broadcast, 1, "HTTP 410"),
            ("broadcast.cancelled", broadcast, 1, "HTTP 410"),
        ]
        assert page.box.dead_today == 2
        end.answer = lambda _: 200
        assert letters.replay("shop", [page.letters[1].id]) == 1
        await until(lambda: len(end.came) == 3, "the second came again")
        assert letters.replay("shop") == 1
        await until(lambda: len(end.came) == 4 and not waiting(client, hooked), "and the first")
    assert [event for event, _ in end.came[2:]] == [page.letters[1].id, page.letters[0].id]
    assert letters.box("shop").dead == 0
    assert letters.replay("shop", [page.letters[0].id]) == 0


async def test_after_a_day_an_event_is_given_up_and_the_next_one_comes(
    client: Any, hooked: Settings, end: End, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "DAY_MS", 0)
    end.answer = lambda _: 500
    moved(Shop(client, hooked))
    async with working(hooked):
        await until(lambda: DeadLetters(client, hooked).box("shop").dead == 2, "both are dead")
    assert end.types == ["broadcast.paused"] * 6 + ["broadcast.cancelled"] * 6


async def test_an_endpoint_that_hangs_delays_no_other_app(
    client: Any, make_settings: Make, end: End
) -> None:
    slow = End(answer=lambda _: asyncio.sleep(30, 200))
    with slow.open():
        apps = {
            "shop": {"appid": "wx1", "secret": "s", **of_app(end.url)},
            "slow": {"appid": "wx2", "secret": "s", **of_app(slow.url, webhook_in_flight=3)},
        }
        settings = make_settings(apps=apps, webhook_networks=[HERE], webhook_timeout=20)
        Wishes(client, settings).tell()
        shop = Shop(client, settings)
        for number in range(40):
            paused_at(shop, 0, f"b{number}", "slow")
        moved(shop)
        async with working(settings):
            await until(lambda: len(end.came) == 2, "the other app's came", within_s=5)
            await asyncio.sleep(0.1)
            assert len(slow.came) == 3
            assert client.zcard(keys.hook_out(0, "slow")) == 3


def paused_at(shop: Shop, lane: int, broadcast: str, app: str = "shop") -> None:
    """Let a broadcast be paused whose home is a lane."""
    home = keys.home(lane, broadcast)
    shop.client.hset(home, mapping={"state": "running", "generation": 1, "app": app})
    shop.client.pexpire(home, 60_000)
    args = MoveArgs("pause", "", "", "", 60_000, 0.0, "")
    shop.broadcasts._move.repeated("moving", MoveKeys(home), args)


async def test_a_lane_whose_keys_are_broken_holds_up_no_other(
    client: Any, make_settings: Make, end: End
) -> None:
    settings = make_settings(app=of_app(end.url), webhook_networks=[HERE], lanes=4)
    Wishes(client, settings).tell()
    paused_at(Shop(client, settings), 0, "b1")
    for broken in (1, 2, 3):
        client.set(keys.hooks_due(broken), "none", ex=60)
    await look_once(settings)
    assert end.types == ["broadcast.paused"]


@pytest.mark.timeout(60)
async def test_lanes_of_a_node_that_stands_still_hold_up_no_others(
    make_settings: Make, end: End
) -> None:
    with cluster_of(3) as nodes:
        settings = make_settings(
            redis_url=nodes.url,
            redis_timeout=1,
            app=of_app(end.url),
            webhook_networks=[HERE],
            lanes=8,
        )
        client: Any = store.connect(settings)
        Wishes(client, settings).tell()
        places = [client.place_of(keys.lane_prefix(lane)) for lane in range(8)]
        victim = next(server for server in nodes.servers if server.port == places[1][1])
        others = [lane for lane in range(8) if places[lane] != places[1]]
        assert others
        for lane in others:
            paused_at(Shop(client, settings), lane, f"b{lane}")
        process: Any = victim._process
        process.send_signal(signal.SIGSTOP)
        try:
            await look_once(settings)
            assert len(end.came) == len(others)
        finally:
            process.send_signal(signal.SIGCONT)
            client.close()
            client.connection_pool.disconnect()


async def test_a_lane_in_which_much_waits_holds_up_no_other(
    client: Any, make_settings: Make, end: End
) -> None:
    app = of_app(end.url, webhook_in_flight=50)
    settings = make_settings(app=app, webhook_networks=[HERE], lanes=2)
    Wishes(client, settings).tell()
    shop = Shop(client, settings)
    for number in range(100):
        paused_at(shop, 0, f"b{number}")
    paused_at(shop, 1, "other")
    async with working(settings):
        await until(lambda: len(end.came) == 101, "all came")
    order = [body["data"]["broadcast"] for _, body in end.came]
    assert order.index("other") <= 2 * courier_module._AT_ONCE


async def test_what_a_killed_worker_had_in_hand_comes_again_under_its_id(
    client: Any, hooked: Settings, end: End
) -> None:
    moved(Shop(client, hooked))
    async_client = store.connect_async(hooked)
    dead = Courier(async_client, hooked)
    (letter,) = await dead._outbox.take(0, 10)
    assert await dead._outbox.take(0, 10) == []
    client.zadd(keys.hook_out(0, "shop"), {letter.event.broadcast: 1})  # its lease is over
    client.zadd(keys.hook_due(0, "shop"), {letter.event.broadcast: 1})
    client.zadd(keys.hooks_due(0), {"shop": 1})
    async with working(hooked):
        await until(lambda: len(end.came) == 2, "both came")
        assert end.came[0][0] == letter.event.id
        await dead._outbox.failed(letter, "late", 1)  # a word too late changes nothing
        await until(lambda: not waiting(client, hooked), "all taken")
    await dead.close()
    await async_client.aclose()
    await async_client.connection_pool.disconnect()
    assert len(end.came) == 2


async def test_private_addresses_are_reached_only_where_the_settings_say_so(
    client: Any, make_settings: Make, end: End
) -> None:
    settings = make_settings(app=of_app(end.url), webhook_networks=["10.0.0.0/8"])
    Wishes(client, settings).tell()
    moved(Shop(client, settings))
    tries = keys.hook_tries(0, "shop")
    async with working(settings):
        await until(lambda: client.hvals(tries), "it failed")
    assert end.came == []
    assert client.hvals(tries) == ["1 forbidden address: see WXB_WEBHOOK_NETWORKS"]


async def test_a_post_that_does_not_end_keeps_no_worker_longer_than_a_second(
    client: Any, hooked: Settings
) -> None:
    async_client = store.connect_async(hooked)
    courier, ends = Courier(async_client, hooked), asyncio.Event()

    async def stubborn() -> None:
        while not ends.is_set():
            with suppress(asyncio.CancelledError):
                await ends.wait()

    post = asyncio.create_task(stubborn())
    await asyncio.sleep(0)  # it has begun
    courier._tasks.add(post)
    began = asyncio.get_running_loop().time()
    try:
        await courier.close()
        assert asyncio.get_running_loop().time() - began < 2.8
    finally:
        ends.set()
        await post
        await async_client.aclose()
        await async_client.connection_pool.disconnect()


async def test_an_event_whose_lane_is_divided_while_it_is_posted_is_ended_in_the_heir(
    client: Any, hooked: Settings, end: End, division: Any, lines: list[Any]
) -> None:
    moved(Shop(client, hooked))
    loop_client = store.connect_async(hooked)
    courier = Courier(loop_client, hooked)
    try:
        [letter] = await courier._outbox.take(0, 1)
        division.shut()
        said = asyncio.create_task(courier._say(letter, Answer(200, "", 1.0)))
        await courier.run()
        assert end.came == [], "nothing is taken of a shut lane"
        assert not said.done()
        await asyncio.to_thread(division.end)
        follow(client, hooked)
        await said
        assert waiting(client, hooked) == 1, "the other one"
        assert courier._where_it_lies(letter).event.id == letter.event.id
    finally:
        await courier.close()
        await loop_client.aclose()
        await loop_client.connection_pool.disconnect()
    assert not [line for line in lines if line["event"] == "duty_failed"]
