"""Replicas: an answer counts once they have what it tells of, and is repeated until then."""

import asyncio
import secrets
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple

import pytest
from failover import Pair, pair

from producers import store
from producers.care.doctor import examine
from producers.errors import StoreUnavailableError
from producers.local.isolation import isolated
from producers.settings import Settings
from producers.store import deadline, replicas, scripts
from producers.store.replicas import UnacknowledgedError
from producers.store.scripts import Bound, Script

pytestmark = pytest.mark.timeout(60)

TEXT = """#!lua
--@include store/reply
local again = first_answer(KEYS[1], ARGV[1])
if again then return again end
redis.call('INCRBY', KEYS[2], ARGV[3])
redis.call('PEXPIRE', KEYS[2], 60000)
return answer(KEYS[1], ARGV[1], 'done')
"""


class CountKeys(NamedTuple):
    reply: str
    count: str


class CountArgs(NamedTuple):
    by: int


COUNT = Script("tests", "count", CountKeys, CountArgs, token=True, clock=True, replicated=True)
KEYS = CountKeys("{n}reply", "{n}count")
APPS = {"shop": {"appid": "wx0000000000000001", "secret": "shop-secret"}}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pair(tmp_path_factory.mktemp("pair")) as servers:
        yield servers


@pytest.fixture
def behind(servers: Pair, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    """Give a primary whose replica gets nothing any more, until it is told otherwise."""
    monkeypatch.setattr(scripts, "source", lambda *_: scripts._with_pieces(TEXT, set()))
    monkeypatch.setattr(replicas, "WAIT_MS", 200)
    servers.primary.client.flushall()
    assert servers.primary.client.wait(1, 5000) == 1
    servers.lag(3600)
    yield servers
    servers.lag(0)
    servers.between.cut()  # what is late comes never
    servers.between.heal()
    servers.in_step(servers.replica, servers.primary)


def wanting(servers: Pair, wanted: int) -> Settings:
    return isolated({"redis_url": f"{servers.url}/0", "apps": APPS, "redis_replicas": wanted})


@pytest.fixture
def client(servers: Pair) -> Iterator[Any]:
    client = store.connect(wanting(servers, 1))
    yield client
    client.connection_pool.disconnect()


def catch_up(servers: Pair) -> None:
    """Let the replica have all of it."""
    servers.lag(0)
    servers.between.cut()
    servers.between.heal()
    servers.in_step(servers.replica, servers.primary)


def test_an_answer_without_a_replica_is_an_error_that_holds_it(behind: Pair, client: Any) -> None:
    count: Bound[CountKeys, CountArgs] = COUNT.on(client)
    with pytest.raises(UnacknowledgedError) as caught:
        count(KEYS, CountArgs(3), token="t" * 32)
    assert (caught.value.reply, caught.value.have) == ("done", 0)
    assert behind.primary.client.get("{n}count") == "3"
    assert client.ping(), "the connection is in step"


def test_the_same_call_on_another_connection_waits_for_what_the_first_one_did(
    behind: Pair, client: Any
) -> None:
    with pytest.raises(UnacknowledgedError):
        COUNT.on(client)(KEYS, CountArgs(3), token="t" * 32)
    other = store.connect(wanting(behind, 1))
    with pytest.raises(UnacknowledgedError) as caught:
        COUNT.on(other)(KEYS, CountArgs(3), token="t" * 32)
    assert caught.value.reply == "done"
    catch_up(behind)
    assert COUNT.on(other)(KEYS, CountArgs(3), token="t" * 32) == "done"
    assert behind.replica.client.get("{n}count") == "3"
    other.connection_pool.disconnect()


def test_who_asks_for_no_replicas_waits_for_none(behind: Pair) -> None:
    client = store.connect(wanting(behind, 0))
    assert COUNT.on(client)(KEYS, CountArgs(1), token="t" * 32) == "done"
    client.connection_pool.disconnect()


def test_in_a_pipeline_each_answer_stands_in_its_place(behind: Pair, client: Any) -> None:
    count: Bound[CountKeys, CountArgs] = COUNT.on(client)
    for atomic in (False, True):
        pipeline = client.pipeline(transaction=atomic)
        pipeline.set("{n}a", 1, px=60_000)
        count(KEYS, CountArgs(1), token=f"{atomic}", into=pipeline)
        pipeline.get("{n}a")
        if atomic:
            with pytest.raises(UnacknowledgedError) as caught:
                pipeline.execute()
            assert caught.value.reply == ["OK", "done", "1"]
        else:
            first, second, third = pipeline.execute(raise_on_error=False)
            assert (first, third) == (True, "1")
            assert isinstance(second, UnacknowledgedError)
            assert second.reply == "done"
    assert client.get("{n}count") == "2"


def test_an_answer_that_replicas_have_is_the_answer(behind: Pair, client: Any) -> None:
    catch_up(behind)
    count: Bound[CountKeys, CountArgs] = COUNT.on(client)
    assert count(KEYS, CountArgs(2)) == "done"
    assert behind.replica.client.get("{n}count") == "2"
    behind.primary.client.script_flush()
    assert count(KEYS, CountArgs(2)) == "done", "a script that is not there is loaded"
    assert count.repeated("counting", KEYS, CountArgs(1)) == "done"
    client.connection_pool.disconnect()
    assert count(KEYS, CountArgs(1)) == "done", "a connection asks questions of its own first"


def test_it_is_repeated_for_as_long_as_a_call_may_take(behind: Pair, client: Any) -> None:
    with (
        deadline.within(1.0),
        pytest.raises(StoreUnavailableError, match=r"while counting.*too few replicas"),
    ):
        COUNT.on(client).repeated("counting", KEYS, CountArgs(1))
    assert behind.primary.client.get("{n}count") == "1"


def test_it_is_no_silence_of_redis_however_short_the_timeouts(
    behind: Pair, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever was told that Redis does not answer would look at the wrong server."""
    monkeypatch.setattr(replicas, "WAIT_MS", 60_000)
    with deadline.within(1.2), pytest.raises(UnacknowledgedError):
        COUNT.on(client)(KEYS, CountArgs(1), token="t" * 32)
    hasty = wanting(behind, 1).model_copy(update={"redis_timeout": timedelta(seconds=0.6)})
    other = store.connect(hasty)
    with pytest.raises(UnacknowledgedError):
        COUNT.on(other)(KEYS, CountArgs(1), token="t" * 32)
    other.connection_pool.disconnect()

    async def count() -> None:
        loop_client = store.connect_async(hasty)
        try:
            await COUNT.on(loop_client)(KEYS, CountArgs(1), token="t" * 32)
        finally:
            await loop_client.connection_pool.disconnect()

    with pytest.raises(UnacknowledgedError):
        asyncio.run(count())


def test_on_an_event_loop_it_is_the_same(behind: Pair) -> None:
    async def count() -> Any:
        client = store.connect_async(wanting(behind, 1))
        try:
            return await COUNT.on(client)(KEYS, CountArgs(3), token="t" * 32), await client.ping()
        finally:
            await client.connection_pool.disconnect()

    with pytest.raises(UnacknowledgedError) as caught:
        asyncio.run(count())
    assert caught.value.reply == "done"
    catch_up(behind)
    assert asyncio.run(count()) == ("done", True)


def test_who_became_a_replica_has_acknowledged_nothing(behind: Pair) -> None:
    """WAIT on a replica is refused; a claim of such a server is nobody's."""
    connection = store.connect(wanting(behind, 1)).connection_pool.get_connection()
    connection.send_command("PING")
    assert connection.read_response() == "PONG"
    connection._expected.append(True)
    connection.send_packed_command(connection.pack_commands([("PING",), ("WAIT", "x", "y")]))
    connection._expected.pop()
    with pytest.raises(UnacknowledgedError):
        connection.read_response()
    connection.disconnect()


@pytest.mark.parametrize("wanted", [1, 2])
def test_the_doctor_counts_replicas(servers: Pair, wanted: int) -> None:
    servers.primary.client.flushall()
    servers.in_step(servers.replica, servers.primary)
    [check] = [one for one in examine(wanting(servers, wanted)) if one.name == "replicas"]
    assert check.health == ("ok" if wanted == 1 else "bad")
    assert f"1 in step, WXB_REDIS_REPLICAS is {wanted}" in check.found
    servers.primary.client.flushall()


def test_the_doctor_says_when_our_user_may_not_ask_replicas(servers: Pair) -> None:
    """Everything else looks well then, and nothing is sent."""
    password = secrets.token_hex(8)
    servers.primary.ask(
        "ACL", "SETUSER", "app", "on", f">{password}", "allkeys", "allchannels", "+@all", "-wait"
    )
    url = f"redis://app:{password}@127.0.0.1:{servers.address.port}/0"
    settings = isolated({"redis_url": url, "apps": APPS, "redis_replicas": 1})
    [check] = [one for one in examine(settings) if one.name == "replicas"]
    assert (check.health, check.found) == ("bad", "WAIT is not allowed")
    assert "+wait" in check.advice
    servers.primary.ask("ACL", "DELUSER", "app")
    servers.primary.client.flushall()
