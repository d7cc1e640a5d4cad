"""Whom the sentinels name where they differ, and what a connection does when that changes."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from own_valkey import own_valkey

from producers import Producer, store
from producers.errors import StoreUnavailableError
from producers.local.isolation import isolated
from producers.local.nodes import Node, node
from producers.local.ports import HOST
from producers.local.sentinels import DOWN_MS, NAME, Sentinels, sentinels
from producers.settings import Settings
from producers.store.connection import connect_async
from producers.store.primary import Fleet, NotDoneError

pytestmark = pytest.mark.timeout(90)
Eventually = Callable[..., object]
APPS = {"shop": {"appid": "wx0000000000000001", "secret": "shop-secret"}}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    with sentinels(tmp_path_factory.mktemp("servers")) as servers:
        yield servers


@contextlib.contextmanager
def cut_off(servers: Sentinels, folder: Path) -> Iterator[Node]:
    """Run one more sentinel, which hears nothing of the others, nor changes anything."""
    password = servers._password
    rights = ("~*", "allchannels", "+@all", "-subscribe", "-publish", "-replicaof", "-slaveof")
    for each in servers.nodes:
        each.ask("ACL", "SETUSER", "cut-off", "on", f">{password}", *rights)
    lines = (
        f"sentinel monitor {NAME} {HOST} {servers.primary.port} 2",
        f"sentinel auth-user {NAME} cut-off",
        f"sentinel auth-pass {NAME} {password}",
        f"sentinel down-after-milliseconds {NAME} {DOWN_MS}",
    )
    with node(folder, password, lines, options=("--sentinel",)) as made:
        yield made


def settings_of(servers: Sentinels, *asked: Node, name: str = NAME, **changes: Any) -> Settings:
    password, where = servers._password, ",".join(each.address for each in asked)
    url = f"redis+sentinel://:{password}@{where}/{name}/0?sentinel_password={password}"
    return isolated({"redis_url": url, "apps": APPS, **changes})


def named(client: Any) -> int:
    """The port of the primary that a client's sentinels name."""
    _, port = client.connection_pool.connection_kwargs["whereabouts"]()
    return int(port)


async def named_in_a_loop(settings: Settings) -> int:
    async with contextlib.aclosing(connect_async(settings)) as client:
        _, port = await client.connection_pool.connection_kwargs["whereabouts"]()
        return int(port)


def test_a_sentinel_that_is_cut_off_is_overruled_by_who_knows_of_the_failover(
    servers: Sentinels, tmp_path: Path, eventually: Eventually
) -> None:
    with cut_off(servers, tmp_path / "cut-off") as stale:
        settings = settings_of(servers, stale, *servers.sentinels)
        before = servers.primary
        with contextlib.closing(store.connect(settings)) as client:
            assert named(client) == before.port
            new = servers.failover()
            assert stale.ask("SENTINEL MASTERS")[NAME]["port"] == before.port
            eventually(lambda: named(client) == new.port, "the others name the new one")
            assert stale.ask("SENTINEL MASTERS")[NAME]["port"] == before.port
            assert asyncio.run(named_in_a_loop(settings)) == new.port
            with contextlib.ExitStack() as stack:
                for each in servers.sentinels:
                    each.server.stall()
                    stack.callback(each.server.go_on)
                with pytest.raises(redis.ConnectionError, match="know nothing of the latest"):
                    named(client)
            assert named(client) == new.port  # whoever is silent is asked when nobody else knows


@pytest.mark.parametrize(
    ("name", "said"),
    [("shop-main", f"no sentinel knows shop-main; take one of: {NAME}"), (NAME, "no sentinel ans")],
)
def test_whoever_names_nobody_is_said(
    servers: Sentinels, tmp_path: Path, name: str, said: str
) -> None:
    asked = servers.sentinels[0]
    with node(tmp_path / "gone", servers._password, (), options=("--sentinel",)) as gone:
        if name == NAME:
            asked = gone
            gone.server.kill()
        settings = settings_of(servers, asked, name=name, producer_timeout=1)
        with Producer(settings) as producer, pytest.raises(StoreUnavailableError) as caught:
            producer.status("x")
    assert said in str(caught.value)
    assert servers._password not in str(caught.value)


class Restless(Fleet):
    """A fleet whose primary is another one at each look, as where sentinels differ."""

    rests = False
    looks = 0

    @property  # type: ignore[override]
    def left(self) -> int:
        self.looks += not self.rests
        return self.looks

    @left.setter
    def left(self, number: int) -> None:
        pass


def test_a_primary_that_changes_all_the_time_ends_the_call_and_not_the_stack() -> None:
    """Each connection was made anew within the making of the one before: a RecursionError."""
    with own_valkey() as valkey, contextlib.closing(store.connect(valkey.settings)) as client:
        fleet = client.connection_pool.connection_kwargs["fleet"] = Restless()
        with pytest.raises(NotDoneError, match="another primary"):
            client.ping()
        assert fleet.looks < 20
        fleet.rests = True
        assert client.ping()


async def test_nor_does_it_in_an_event_loop() -> None:
    with own_valkey() as valkey:
        async with contextlib.aclosing(connect_async(valkey.settings)) as client:
            fleet = client.connection_pool.connection_kwargs["fleet"] = Restless()
            with pytest.raises(NotDoneError, match="another primary"):
                await client.ping()
            assert fleet.looks < 20
            fleet.rests = True
            assert await client.ping()


def test_a_server_that_cannot_write_to_its_disk_is_said_by_what_goes_in_a_pipeline_too(
    tmp_path: Path, eventually: Eventually
) -> None:
    with own_valkey(tmp_path, save="3600 1000000") as valkey, Producer(valkey.settings) as producer:
        producer.import_audience("shop", "vip", ["oA"])
        (tmp_path / "dump.rdb").unlink(missing_ok=True)
        (tmp_path / "dump.rdb").mkdir()  # in its way

        def fails() -> bool:
            with contextlib.suppress(redis.ResponseError):  # one is under way, or refused
                valkey.client.bgsave()
            return bool(valkey.client.info("persistence")["rdb_last_bgsave_status"] == "err")

        eventually(fails, "it cannot save")
        with pytest.raises(StoreUnavailableError, match="cannot write to its disk") as caught:
            producer.import_audience("shop", "others", ["oA"])
        assert "Command #" not in str(caught.value)
        valkey.client.config_set("stop-writes-on-bgsave-error", "no")
        assert producer.import_audience("shop", "others", ["oA"]).added == 1
