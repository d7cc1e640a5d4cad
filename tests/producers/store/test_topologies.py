"""One server, a primary that sentinels name, a cluster: each by its URL, with user and TLS."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from certificate import Certificate
from cluster import Nodes, cluster_of
from own_valkey import own_valkey
from sentinel import NAME, sentinel_of
from tls_way import tls_way

from producers import store
from producers.care import servers
from producers.care.check import Health
from producers.errors import SettingsError, StoreUnavailableError
from producers.local.ports import free_port
from producers.producer import Producer
from producers.settings import Settings
from producers.settings.redis_url import parsed
from producers.store.clock import now_ms
from producers.store.retry import repeat

MakeSettings = Callable[..., Settings]
MINE = "127.0.0.1"


@pytest.mark.parametrize(
    ("url", "kind", "way", "hosts", "service", "options"),
    [
        ("redis://h:1/2", "single", "redis", [("h", 1)], "", {"host": "h", "port": 1, "db": 2}),
        (
            "redis+sentinel://h1,h2:7,[::1]:8/my%20main/3",
            *("sentinel", "redis", [("h1", 26379), ("h2", 7), ("::1", 8)], "my main", {"db": 3}),
        ),
        (
            "rediss+sentinel://me:p%40ss@h1/main?ssl_cert_reqs=none",
            *("sentinel", "rediss", [("h1", 26379)], "main"),
            {"username": "me", "password": "p@ss", "ssl_cert_reqs": "none"},
        ),
        ("redis+cluster://h1:7,h2", "cluster", "redis", [("h1", 7), ("h2", 6379)], "", {}),
        (
            "rediss+cluster://:p@h1/0?socket_timeout=2",
            *("cluster", "rediss", [("h1", 6379)], "", {"password": "p", "socket_timeout": 2.0}),
        ),
    ],
)
def test_a_url_says_what_is_there(
    url: str, kind: str, way: str, hosts: Any, service: str, options: dict[str, Any]
) -> None:
    found = parsed(url)
    assert (found.kind, found.way, list(found.hosts)) == (kind, way, hosts)
    assert (found.service, found.options) == (service, options)


def test_the_sentinels_have_a_user_of_their_own() -> None:
    found = parsed("redis+sentinel://me:mine@h/main?sentinel_username=s&sentinel_password=p%2F")
    assert found.options == {"username": "me", "password": "mine"}
    assert found.sentinel == {"username": "s", "password": "p/"}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://h", "must start with redis://, rediss://, unix://, redis+sentinel://"),
        ("unix+cluster://h", "must start with"),
        ("redis+sentinel://h1,h2", "the name of the primary is missing"),
        ("redis+sentinel://h1/main/one", "not as redis+sentinel://host1"),
        ("redis+cluster://h1,h2/1", "a cluster has one database"),
        ("redis+cluster://:secret/x@h1", "percent-encoded"),
        ("redis+cluster://h1,,h2", "a host is missing or wrong"),
        ("redis+cluster://h1:secret", "a host is missing or wrong"),
        ("redis+cluster://h1?secret=secret", "unknown parameter: 'secret'"),
    ],
)
def test_a_wrong_url_is_said_without_its_password(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"\S") as caught:
        parsed(url)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value).replace("'secret'", "")


def test_files_of_tls_without_tls_are_refused(make_settings: MakeSettings, tmp_path: Path) -> None:
    mine = Certificate(tmp_path, MINE)
    for changes, said in (
        ({"redis_ca_file": mine.path}, "must start with rediss"),
        ({"redis_url": "rediss://h", "redis_key_file": mine.key_path}, "needs WXB_REDIS_CERT_FILE"),
        ({"redis_url": "rediss://h", "redis_cert_file": tmp_path / "none"}, "is no file"),
        ({"redis_url": "rediss://h", "redis_ca_file": mine.key_path}, "no certificate"),
    ):
        with pytest.raises((SettingsError, ValueError), match=said):
            make_settings(**changes)


@pytest.fixture(autouse=True)
def _empty(request: pytest.FixtureRequest) -> None:
    if "nodes" in request.fixturenames:
        for client in request.getfixturevalue("nodes").each():
            client.flushall()


def collects(settings: Settings) -> None:
    with Producer(settings) as producer:
        assert producer.collect("shop", [{"openid": "oA", "formId": "f"}]).new == 1


def test_a_private_authority_and_a_certificate_of_ours(
    make_settings: MakeSettings, settings: Settings, tmp_path: Path
) -> None:
    certificate, mine = Certificate(tmp_path, MINE), Certificate(tmp_path / "mine", MINE)
    with own_valkey() as valkey, tls_way(valkey.url, certificate, mine) as address:
        collects(
            make_settings(
                redis_url=f"rediss://{address}/0",
                redis_ca_file=certificate.path,
                redis_cert_file=mine.path,
                redis_key_file=mine.key_path,
            )
        )


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A cluster whose user `wxb` may do what it must, and others nothing."""
    with cluster_of(3) as nodes:
        for client in nodes.each():
            client.acl_setuser(
                "wxb",
                enabled=True,
                passwords=["+p@ss"],
                categories=["+@all"],
                commands=["-@admin", "-command", "+cluster|slots", "-config"],
                keys=["wxb:*", "{wxb:*"],
                channels=["*"],
            )
        yield nodes


def test_a_cluster_is_used_by_a_user_of_few_rights(
    nodes: Nodes, make_settings: MakeSettings
) -> None:
    hosts = nodes.url.partition("://")[2]
    collects(make_settings(redis_url=f"redis+cluster://wxb:p%40ss@{hosts}", lanes=4))
    with pytest.raises(StoreUnavailableError, match="refuses WXB_REDIS_URL"):
        collects(make_settings(redis_url=f"redis+cluster://wxb:wrong@{hosts}", lanes=4))


def test_one_node_of_a_cluster_is_enough_to_find_the_others(
    nodes: Nodes, make_settings: MakeSettings
) -> None:
    nobody, port = free_port(), nodes.servers[1].port
    collects(make_settings(redis_url=f"redis+cluster://{MINE}:{nobody},{MINE}:{port}", lanes=4))


def test_one_server_is_no_cluster(make_settings: MakeSettings) -> None:
    with own_valkey() as valkey:
        url = valkey.url.replace("redis://", "redis+cluster://")
        with pytest.raises(
            StoreUnavailableError, match="is no cluster: set WXB_REDIS_URL to redis://"
        ):
            store.check_layout(store.connect(make_settings(redis_url=url)), make_settings())


def test_a_node_of_a_cluster_is_no_server(nodes: Nodes, make_settings: MakeSettings) -> None:
    url = f"redis://{MINE}:{nodes.servers[0].port}"
    wrong = make_settings(redis_url=url)
    with contextlib.closing(store.connect(wrong)) as client:
        checks = {check.name: check for check in servers.examine(client, wrong)}
    assert checks["cluster"].health is Health.BAD
    assert "redis+cluster://" in checks["cluster"].advice
    with pytest.raises(StoreUnavailableError, match="is a node of a cluster"):
        collects(wrong)


def test_a_cluster_over_tls(make_settings: MakeSettings, tmp_path: Path) -> None:
    certificate = Certificate(tmp_path, MINE)
    with cluster_of(3) as nodes, contextlib.ExitStack() as stack:
        addresses = []
        for server, client in zip(nodes.servers, nodes.each(), strict=True):
            way = tls_way(server.connection_url, certificate)
            addresses.append(stack.enter_context(way))
            client.config_set("cluster-announce-port", addresses[-1].partition(":")[2])
        collects(
            make_settings(
                redis_url=f"rediss+cluster://{addresses[0]}",
                redis_ca_file=certificate.path,
                lanes=4,
            )
        )


def test_sentinels_that_refuse_and_servers_that_are_none_are_told_apart(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    mine = Certificate(tmp_path, MINE)
    with (
        own_valkey() as one,
        sentinel_of(one.port, tmp_path, "s3") as port,
        tls_way(one.url, mine) as address,
    ):
        secured = address.partition(":")[2]
        for hosts, name, said in (
            (f"{port}", f"{NAME}?sentinel_password=open-sesame", "set what they take"),
            (f"{port}", NAME, r"set what they take: \?sentinel_password="),
            (f"{port}", "nobody?sentinel_password=s3", f"take one of: {NAME}"),
            (f"{one.port}", NAME, "these are no sentinels"),
            (f"{secured}", NAME, r"rediss\+sentinel:// where they want TLS"),
            (
                f"{port}",
                f"{NAME}?ssl_cert_reqs=none",
                r"redis\+sentinel:// where they speak no TLS",
            ),
        ):
            way = "rediss" if "ssl" in name else "redis"
            wrong = make_settings(redis_url=f"{way}+sentinel://{MINE}:{hosts}/{name}")
            with pytest.raises(StoreUnavailableError, match=said) as caught:
                store.check_layout(store.connect(wrong), wrong)
            assert "open-sesame" not in str(caught.value)
        for way in ("redis", "redis+cluster"):
            wrong = make_settings(redis_url=f"{way}://:s3@{MINE}:{port}")
            with pytest.raises(StoreUnavailableError, match=r"is a sentinel.*redis\+sentinel://"):
                store.check_layout(store.connect(wrong), wrong)


def test_a_primary_is_found_by_its_sentinels_and_followed(
    make_settings: MakeSettings, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    nobody = free_port()
    with (
        own_valkey() as first,
        own_valkey(replicaof=f"{MINE} {first.port}") as second,
        sentinel_of(first.port, tmp_path, "s3") as port,
    ):
        url = f"redis+sentinel://{MINE}:{nobody},{MINE}:{port}/{NAME}/0?sentinel_password=s3"
        settings = make_settings(redis_url=url, redis_timeout=1, producer_timeout=10)
        collects(settings)
        eventually(
            lambda: second.client.info("replication")["master_link_status"] == "up", "it follows"
        )
        with (
            contextlib.closing(store.connect(settings)) as client,
            contextlib.closing(
                redis.Redis(port=port, password="s3", decode_responses=True)
            ) as sentinel,
        ):
            checks = {check.name: check for check in servers.examine(client, settings)}
            assert checks[f"sentinel {MINE}:{nobody}"].found == "ConnectionError"
            assert checks["sentinels"].health is Health.OK
            eventually(lambda: sentinel.sentinel_master(NAME)["num-slaves"] == 1, "it is known")
            first.stall()
            try:
                collects_more(settings)
                info = repeat("looking", lambda: client.info("replication"))
                assert info["role"] == "master"
                assert now_ms(client)
            finally:
                first.go_on()
        assert second.client.info("replication")["role"] == "master"


def collects_more(settings: Settings) -> None:
    with Producer(settings) as producer:
        assert producer.collect("shop", [{"openid": "oB", "formId": "g"}]).new == 1
