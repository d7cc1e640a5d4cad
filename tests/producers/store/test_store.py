"""Opening Redis: a deployment is born once, and what is wrong is said with what to do."""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import redis
from mishaps import closed_port
from send_path import connected_async

from producers import store
from producers.errors import LayoutMismatchError, StoreUnavailableError, WxbroadcastError
from producers.settings import Layout, Settings
from producers.store import keys
from producers.store.lanes.layout import NUMBERED


def check(settings: Settings) -> None:
    client = store.connect(settings)
    try:
        store.check_layout(client, settings)
    finally:
        client.close()
        client.connection_pool.disconnect()


@pytest.mark.parametrize("lanes", [1, 4])
def test_a_deployment_is_born_with_the_settings_numbers(client: Any, settings: Settings) -> None:
    born = {"lanes": str(settings.lanes), "buckets": "256", "layout": str(store.LAYOUT)}
    assert client.hgetall(keys.DEPLOYMENT) == born
    assert client.ttl(keys.DEPLOYMENT) == -1
    store.check_layout(client, settings)
    assert client.hgetall(keys.DEPLOYMENT) == born


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"lanes": 4}, ["WXB_LANES is 4", "has 1"]),
        ({"buckets": 512}, ["WXB_BUCKETS is 512", "has 256"]),
        ({"lanes": 2, "buckets": 64}, ["WXB_LANES is 2", "WXB_BUCKETS is 64", "has 256"]),
    ],
)
def test_other_numbers_are_refused_and_change_nothing(
    client: Any, make_settings: Any, other: dict[str, int], said: list[str]
) -> None:
    before = client.hgetall(keys.DEPLOYMENT)
    with pytest.raises(LayoutMismatchError) as caught:
        check(make_settings(**other))
    for part in [*said, "unset it, or set the value it has"]:
        assert part in str(caught.value)
    assert client.hgetall(keys.DEPLOYMENT) == before


@pytest.mark.parametrize("lanes", [1, 4])
def test_what_is_not_set_is_as_the_deployment_has_it(client: Any, settings: Settings) -> None:
    unset = Settings(_env_file=None, redis_url=settings.redis_url, apps=settings.apps)
    assert (unset.lanes, unset.buckets) == (16, 16_384)
    check(unset)
    assert (unset.lanes, unset.buckets) == (settings.lanes, 256)
    grown = Layout(256, [settings.lanes, 8])
    client.hset(keys.DEPLOYMENT, mapping=grown.written() | {"layout": "2"})
    check(unset)
    assert (unset.lanes, unset.layout) == (8, grown)
    client.hset(keys.DEPLOYMENT, mapping=Layout(256, [settings.lanes]).written())
    check(unset)  # an older answer that comes late
    assert (unset.lanes, unset.layout) == (8, grown)


@pytest.mark.parametrize(("buckets", "lanes"), [(16_384, 16), (1000, 8), (17, 1)])
def test_a_new_deployment_has_as_many_lanes_as_its_buckets_fill_evenly(
    settings: Settings, buckets: int, lanes: int
) -> None:
    fresh = Settings(
        _env_file=None, redis_url=settings.redis_url, apps=settings.apps, buckets=buckets
    )
    check(fresh)
    with redis.Redis.from_url(settings.redis_url.get_secret_value()) as client:
        born = client.hgetall(keys.DEPLOYMENT)
    assert (fresh.lanes, int(born[b"lanes"]), int(born[b"buckets"])) == (lanes, lanes, buckets)


def test_another_layout_is_refused(client: Any, settings: Settings) -> None:
    client.hset(keys.DEPLOYMENT, "layout", str(NUMBERED + 1))
    with pytest.raises(LayoutMismatchError):
        store.check_layout(client, settings)


def test_a_birth_that_died_halfway_is_completed(settings: Settings, make_settings: Any) -> None:
    client = redis.Redis.from_url(settings.redis_url.get_secret_value(), decode_responses=True)
    client.hset(keys.DEPLOYMENT, "lanes", "1")
    check(settings)
    assert client.hget(keys.DEPLOYMENT, "buckets") == "256"
    client.close()


def test_a_redis_that_is_not_there_is_named_by_its_setting(make_settings: Any) -> None:
    url = f"redis://:open-sesame@127.0.0.1:{closed_port()}/0"
    with pytest.raises(StoreUnavailableError) as caught:
        check(make_settings(redis_url=url))
    assert "WXB_REDIS_URL" in str(caught.value)
    assert "start it" in str(caught.value)
    assert "open-sesame" not in f"{caught.value} {caught.value!r} {caught.value.__cause__}"


def test_a_redis_that_never_answers_is_given_up_in_time(make_settings: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        settings = make_settings(redis_url=url, redis_timeout=timedelta(milliseconds=200))
        with pytest.raises(StoreUnavailableError, match="WXB_REDIS_URL"):
            check(settings)


@pytest.mark.parametrize("wrong", ["password", "database"])
def test_a_url_that_redis_refuses_is_named_by_its_setting(
    settings: Settings, make_settings: Any, wrong: str
) -> None:
    _, _, address = settings.redis_url.get_secret_value().partition("://")
    address = address.split("/")[0]
    url = (
        f"redis://nobody:open-sesame@{address}"
        if wrong == "password"
        else f"redis://{address}/4242"
    )
    with pytest.raises(WxbroadcastError, match="WXB_REDIS_URL") as caught:
        check(make_settings(redis_url=url))
    assert "open-sesame" not in f"{caught.value} {caught.value!r} {caught.value.__cause__}"


def test_connecting_opens_nothing_yet(make_settings: Any) -> None:
    client = store.connect(make_settings(redis_url=f"redis://127.0.0.1:{closed_port()}/0"))
    assert "open-sesame" not in repr(client)
    client.close()


def test_more_threads_than_connections_wait_for_one_another(settings: Settings) -> None:
    client = store.connect(settings, connections=2)
    with ThreadPoolExecutor(16) as pool:
        counted = set(pool.map(lambda _: client.incr("wxb:test"), range(400)))
    assert counted == set(range(1, 401))
    client.delete("wxb:test")
    client.connection_pool.disconnect()


@pytest.mark.parametrize("is_open", [False, True], ids=["connecting", "connected"])
async def test_a_task_that_is_cancelled_in_a_call_hears_of_it(
    client: Any, settings: Settings, is_open: bool
) -> None:
    """Wherever it is: on Python 3.11 redis-py forgets it in the moment in which it has sent."""
    async with connected_async(settings) as loop_client:
        for steps in range(40):
            await loop_client.connection_pool.disconnect()
            if is_open:
                await loop_client.ping()
            task = asyncio.create_task(loop_client.get(keys.WORKERS))
            for _ in range(steps):
                await asyncio.sleep(0)  # one step of the loop
            if task.done():
                break
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled(), f"after {steps} steps"
        assert steps > 3


async def test_the_async_client_answers_in_text(settings: Settings) -> None:
    client = store.connect_async(settings)
    await client.set("wxb:test", "字")
    assert await client.get("wxb:test") == "字"
    await client.delete("wxb:test")
    await client.aclose()
    await client.connection_pool.aclose()
