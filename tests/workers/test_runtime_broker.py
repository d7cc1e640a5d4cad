"""The broker as Dramatiq loads it, and a runtime as a worker boots and drains it."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from cluster import cluster_of
from dramatiq.brokers.redis import _RedisConsumer
from own_valkey import own_valkey
from redis.crc import key_slot
from send_path import APP, OUTSIDE_TOKEN, Stall

import workers
from producers import store
from producers.broadcasts import jobs
from producers.broadcasts.jobs import Jobs
from producers.local.isolation import isolated
from producers.sandbox import FaultAction, FaultRule, SandboxConfig
from producers.sandbox.latency import Latency
from producers.sandbox.thread import SandboxThread
from producers.settings import Settings
from producers.store import keys
from workers.broker import Lifecycle, SendConsumer, UvloopAsyncIO, WorkBroker
from workers.duties.epochs import ServerChangedError
from workers.runtime import Runtime
from workers.sending.take import Asking

SEND = "/cgi-bin/message/wxopen/template/send"
IMPORTING = """
import json, sys, threading
seen = []
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen"):
        seen.append(event)
    if event == "open" and str(args[0]).endswith(".env"):
        seen.append("reads .env")
sys.addaudithook(watch)
import workers
print(json.dumps({
    "seen": seen,
    "threads": [thread.name for thread in threading.enumerate()],
    "runtime": workers.broker.runtime is None,
}))
"""

STOPPED = """
import os, signal, sys
from workers.broker import _stop_once
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append("TERM"))
signal.signal(signal.SIGHUP, lambda *_: told.append("HUP"))
_stop_once()
for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGHUP):
    os.kill(os.getpid(), number)
print(*told)
"""

BOOTING = """
from workers import broker
broker.emit_before("worker_boot", None)
print("it booted")
"""

LEAVING = """
import os, sys
from producers import logs
from producers.logs.events import BootFailed
from workers import broker
logs.configure("worker-1")
for number in range(2_000):
    logs.emit(BootFailed(f"the {number}th"))
print("leaving", file=sys.stderr, flush=True)
broker.emit_after("worker_shutdown", None)
os._exit(0)  # as Dramatiq's child process ends
"""


def in_fresh_process(code: str, folder: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run code in a Python of its own, where nothing is set but what is given."""
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(root), **env},
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )


# -- the end ------------------------------------------------------------------------------------


def test_a_stop_that_comes_twice_is_one_stop(tmp_path: Path) -> None:
    ran = in_fresh_process(STOPPED, tmp_path)
    assert (ran.stdout.split(), ran.returncode) == (["TERM"], 0), ran.stderr


def test_the_last_lines_are_written_before_a_worker_is_gone(tmp_path: Path) -> None:
    """More than a pipe holds, and its reader comes late."""
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", LEAVING],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stderr.readline() == b"leaving\n"
        lines = [json.loads(line) for line in process.stdout]
    assert [line["error"] for line in lines] == [f"the {number}th" for number in range(2_000)]


# -- declared -----------------------------------------------------------------------------------


def test_every_actor_that_producers_name_is_declared() -> None:
    assert workers.broker.get_declared_actors() == set(jobs.ACTORS)
    for name in jobs.ACTORS:
        actor = workers.broker.get_actor(name)
        assert (actor.actor_name, actor.queue_name) == (name, name)


def test_there_is_a_queue_for_each_and_no_delay_queue() -> None:
    assert workers.broker.get_declared_queues() == set(jobs.ACTORS)
    assert workers.broker.get_declared_delay_queues() == set()


def test_the_loop_stands_before_what_needs_it() -> None:
    assert [type(one) for one in workers.broker.middleware] == [UvloopAsyncIO, Lifecycle]


def test_the_stock_queues_have_no_maintenance() -> None:
    assert workers.broker.maintenance_chance == 0
    assert workers.broker.namespace == keys.DRAMATIQ_NAMESPACE


def test_without_a_runtime_an_actor_does_nothing() -> None:
    assert workers.broker.runtime is None
    workers.send([])
    workers.split("no-such-broadcast")


def test_importing_opens_no_connection_and_reads_no_settings(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("WXB_NONSENSE=1\n")
    done = in_fresh_process(IMPORTING, tmp_path, WXB_ALSO_NONSENSE="1")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said == {"seen": [], "threads": ["MainThread"], "runtime": True}


def test_a_worker_without_settings_ends_and_says_what_to_set(tmp_path: Path) -> None:
    done = in_fresh_process(BOOTING, tmp_path)
    assert done.returncode == os.EX_CONFIG
    (line,) = [json.loads(text) for text in done.stdout.splitlines()]
    assert line["event"] == "boot_failed"
    assert "WXB_REDIS_URL" in line["error"]
    assert "WXB_APPS" in line["error"]
    assert done.stderr.startswith("wxbroadcast: ")
    assert "Traceback" not in done.stderr


def test_a_worker_whose_redis_is_away_ends_and_names_the_setting(tmp_path: Path) -> None:
    apps = json.dumps({"shop": {"appid": "wx1", "secret": "shop-secret"}})
    url = "redis://:redis-password@127.0.0.1:1/0"
    done = in_fresh_process(BOOTING, tmp_path, WXB_REDIS_URL=url, WXB_APPS=apps)
    assert done.returncode == os.EX_TEMPFAIL
    *waiting, line = [json.loads(text) for text in done.stdout.splitlines()]
    assert {one["event"] for one in waiting} == {"store_unreachable"}
    assert "WXB_REDIS_URL" in line["error"]
    for secret in ("redis-password", "shop-secret"):
        assert secret not in done.stdout + done.stderr


def test_a_worker_that_redis_refuses_ends_at_once_and_says_why(tmp_path: Path) -> None:
    apps = json.dumps({"shop": {"appid": "wx1", "secret": "shop-secret"}})
    with own_valkey() as valkey:
        url = valkey.url.replace("://", "://unknown:redis-password@")
        done = in_fresh_process(BOOTING, tmp_path, WXB_REDIS_URL=url, WXB_APPS=apps)
    assert done.returncode == os.EX_TEMPFAIL
    (line,) = [json.loads(text) for text in done.stdout.splitlines()]  # nothing was waited for
    assert line["event"] == "boot_failed"
    assert "Redis refuses WXB_REDIS_URL: invalid username-password" in line["error"]
    for secret in ("redis-password", "shop-secret"):
        assert secret not in done.stdout + done.stderr


@pytest.mark.timeout(60)
def test_a_worker_that_needs_a_node_of_a_cluster_that_is_away_names_it(tmp_path: Path) -> None:
    """It knows what each node may have forgotten from one of them."""
    apps = {"shop": {"appid": "wx1", "secret": "s"}}
    with cluster_of(3) as nodes:
        settings = isolated({"redis_url": nodes.url, "apps": apps, "lanes": 6, "buckets": 192})
        client = store.connect(settings)
        with contextlib.closing(client):
            store.check_layout(client, settings)
            client.connection_pool.disconnect()
        gone = nodes.servers[nodes.number_of(key_slot(keys.SERVERS.encode()))]
        port = gone.port
        process: Any = gone._process
        process.kill()
        process.wait()
        where = {"WXB_APPS": json.dumps(apps), "WXB_REDIS_URL": nodes.url}
        code = "import workers.broker\nworkers.broker._BOOT_S = 0\n" + BOOTING
        done = in_fresh_process(code, tmp_path, **where)
    assert done.returncode == os.EX_TEMPFAIL
    *_, line = [json.loads(text) for text in done.stdout.splitlines()]
    assert line["event"] == "boot_failed"
    assert f"node 127.0.0.1:{port} of the cluster does not answer" in line["error"]


SOMEWHERE = {
    "WXB_APPS": json.dumps({"shop": {"appid": "wx1", "secret": "s"}}),
    "WXB_REDIS_URL": "redis://127.0.0.1:1/0",
}


def test_a_worker_gives_its_lines_to_the_applications_processors(tmp_path: Path) -> None:
    (tmp_path / "ours.py").write_text(
        "def region(logger, level, line):\n    return {**line, 'region': 'cn-north'}\n"
    )
    code = "import workers.broker\nworkers.broker._BOOT_S = 0\n" + BOOTING
    done = in_fresh_process(code, tmp_path, WXB_LOG_PROCESSORS="ours:region", **SOMEWHERE)
    lines = [json.loads(text) for text in done.stdout.splitlines()]
    assert [(line["event"], line["region"]) for line in lines[-1:]] == [("boot_failed", "cn-north")]


def test_a_worker_whose_processors_are_not_there_ends_and_names_the_setting(tmp_path: Path) -> None:
    done = in_fresh_process(BOOTING, tmp_path, WXB_LOG_PROCESSORS="ours:region", **SOMEWHERE)
    assert done.returncode == os.EX_CONFIG
    (line,) = [json.loads(text) for text in done.stdout.splitlines()]
    assert line["event"] == "boot_failed"
    assert "WXB_LOG_PROCESSORS: ours:region" in line["error"]


def test_a_worker_leaves_an_applications_structlog_as_it_is(tmp_path: Path) -> None:
    hosting = """
import structlog

def mine(logger, level, line):
    return f"mine: {line['event']}"

structlog.configure(processors=[mine])
"""
    done = in_fresh_process(hosting + BOOTING, tmp_path)
    assert done.returncode == os.EX_CONFIG
    assert done.stdout == "mine: boot_failed\n"


# -- booted -------------------------------------------------------------------------------------


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Give a loop that runs on a thread, as Dramatiq's does."""
    running = asyncio.new_event_loop()
    thread = threading.Thread(target=running.run_forever, daemon=True)
    thread.start()
    yield running
    running.call_soon_threadsafe(running.stop)
    thread.join(5)
    running.close()


@pytest.fixture
def boot(
    client: "redis.Redis",
    make_settings: Callable[..., Settings],
    loop: asyncio.AbstractEventLoop,
) -> Iterator[Callable[..., WorkBroker]]:
    """Give a starter of a broker with a runtime, whose token lies in Redis."""
    client.set(OUTSIDE_TOKEN, "outside-token-1", ex=3600)
    brokers: list[WorkBroker] = []

    def started(wechat_url: str = "http://127.0.0.1:9") -> WorkBroker:
        broker = WorkBroker()
        # a POST to nobody would be sent back; hardly a test here posts
        settings = make_settings(app=APP, canary=1000, wechat_url=wechat_url)
        broker.open(Runtime(settings, loop))
        brokers.append(broker)
        return broker

    yield started
    for broker in brokers:
        runtime = broker.runtime
        assert runtime
        if not runtime.hands.closing:
            runtime.stop()
        runtime.rota.join(lambda: 5.0)
        runtime.ways.client.connection_pool.disconnect()
        broker.client.connection_pool.disconnect()
        left = runtime.ways.loop_client.connection_pool.disconnect()
        asyncio.run_coroutine_threadsafe(left, loop).result(5)


def next_batch(consumer: Any) -> Any:
    """Return the next message of a consumer, as Dramatiq's thread asks for it."""
    for _ in range(20):
        message = next(consumer)
        if message is not None:
            return message
    pytest.fail("the consumer gave nothing")


def runtime_of(broker: WorkBroker) -> Runtime:
    assert broker.runtime
    return broker.runtime


def test_send_has_our_consumer_and_split_the_stock_one(boot: Callable[[], WorkBroker]) -> None:
    broker = boot()
    assert isinstance(broker.consume(jobs.SEND), SendConsumer)
    stock = broker.consume(jobs.SPLIT)
    assert isinstance(stock, _RedisConsumer)
    stock.close()


def test_a_split_that_producers_ask_for_reaches_the_worker(
    boot: Callable[[], WorkBroker], client: "redis.Redis"
) -> None:
    broker = boot()
    Jobs(client).split("b1")
    consumer = broker.consume(jobs.SPLIT, timeout=10)
    message = next_batch(consumer)
    assert (message.actor_name, message.args) == (jobs.SPLIT, ("b1",))
    consumer.ack(message)
    consumer.close()


def test_a_split_fills_the_window_of_each_lane(
    boot: Callable[[], WorkBroker], client: "redis.Redis"
) -> None:
    runtime = runtime_of(boot())
    stall = Stall(client, runtime.settings)
    stall.form_ids(5)
    broadcast = stall.broadcast()
    client.delete(keys.queue(0, broadcast))
    begun = {"split": "", "cursor": 0, "total": 0}
    client.hset(keys.lane_broadcast(0, broadcast), mapping=begun)
    runtime.split(broadcast)
    assert sorted(stall.queue(broadcast)) == [f"o{user}" for user in range(5)]
    runtime.stop()


@pytest.mark.parametrize("how", ["requeue", "nack"])
def test_a_batch_that_no_actor_call_took_goes_back_to_its_queue(
    boot: Callable[[], WorkBroker],
    client: "redis.Redis",
    eventually: Callable[..., Any],
    how: str,
) -> None:
    broker = boot()
    runtime = runtime_of(broker)
    stall = Stall(client, runtime.settings)
    stall.form_ids(5)
    broadcast = stall.broadcast()
    queued = set(stall.queue(broadcast)) or {f"o{user}" for user in range(5)}
    consumer = broker.consume(jobs.SEND)
    message = next_batch(consumer)
    assert (message.queue_name, message.actor_name) == (jobs.SEND, jobs.SEND)
    assert {claim.openid for claim, _ in message.args[0]} == queued
    runtime.hands.close()  # shutdown begins; else it would be taken again at once
    if how == "requeue":
        consumer.requeue([message])
    else:
        consumer.nack(message)
    eventually(lambda: runtime.hands.held == 0, "the batch is out of hand")
    assert set(stall.queue(broadcast)) == queued
    assert stall.flight(broadcast) == {}
    assert stall.ledger() == {"collected": 5, "available": 5}
    runtime.stop()


def test_a_send_that_breaks_settles_its_claim_and_the_others_go_on(
    boot: Callable[[], WorkBroker], client: "redis.Redis", eventually: Callable[..., Any]
) -> None:
    broker = boot()
    runtime = runtime_of(broker)
    client.hset(keys.limiter("shop"), "rate", 0)  # else a slot is void 10 ms later, sent or not
    stall = Stall(client, runtime.settings)
    stall.form_ids(3)
    broadcast = stall.broadcast()
    batch = next_batch(broker.consume(jobs.SEND)).args[0]
    assert not any(claim.slot_ends for claim, _ in batch)
    runtime.ways.wechat._bases.clear()  # whatever breaks where nobody foresaw it
    runtime.send(batch)
    eventually(lambda: runtime.hands.held == 0, "no claim stays in hand")
    flight = stall.flight(broadcast)
    assert {entry[0] for entry in flight.values()} == {"-"}  # kept: they were perhaps sent
    assert len(flight) == len(batch)


def test_a_broadcasts_new_rate_is_followed_though_the_wake_up_was_lost(
    boot: Callable[[], WorkBroker], client: "redis.Redis"
) -> None:
    broker = boot()
    runtime = runtime_of(broker)
    stall = Stall(client, runtime.settings)
    stall.form_ids(5)
    broadcast = stall.broadcast(rate=0.1)
    runtime.memory.gates["shop"].own_next[broadcast] = (0.1, time.monotonic() + 600)
    client.hset(keys.lane_broadcast(0, broadcast), "rate", "50.0")  # and nobody says so
    batch = next_batch(broker.consume(jobs.SEND)).args[0]
    assert {claim.rate for claim, _ in batch} == {50.0}


def test_an_apps_new_rate_is_followed_though_the_wake_up_was_lost(
    boot: Callable[[], WorkBroker], client: "redis.Redis", eventually: Callable[..., Any]
) -> None:
    """An app that is not held back learns its rate as it sends; one with no work needs none."""
    runtime = runtime_of(boot())
    gate = runtime.memory.gates["shop"]
    gate.set_rate(0.001)
    gate.horizon = time.monotonic() + 600
    stall = Stall(client, runtime.settings)
    stall.form_ids(1)
    stall.broadcast()
    client.hset(keys.limiter("shop"), "rate", 7_000)
    eventually(lambda: gate.rate == 7, "the worker has looked")


def forget(runtime: Runtime, client: "redis.Redis", broadcast: str) -> None:
    """Claim under the worker's name what its hands know nothing of, 20 s ago."""
    taken = runtime.pump._intake._taker.take(Asking.of("shop", 0, 5), {})
    assert len(taken.claims) == 5
    flight = keys.flight(0, broadcast)
    for item, entry in client.hgetall(flight).items():
        parts = entry.split(" ")
        parts[4] = str(int(parts[4]) - 20_000)
        client.hset(flight, item, " ".join(parts))


def test_what_lies_under_its_name_and_not_in_its_hands_is_handed_back(
    boot: Callable[[], WorkBroker], client: "redis.Redis", eventually: Callable[..., Any]
) -> None:
    runtime = runtime_of(boot())
    stall = Stall(client, runtime.settings)
    stall.form_ids(5)
    broadcast = stall.broadcast()
    forget(runtime, client, broadcast)
    eventually(lambda: stall.flight(broadcast) == {}, "the claims are handed back")
    assert sorted(stall.queue(broadcast)) == [f"o{user}" for user in range(5)]
    assert stall.ledger() == {"collected": 5, "available": 5}
    runtime.stop()


def test_after_a_restart_of_redis_what_it_forgot_may_have_been_sent(
    boot: Callable[[], WorkBroker], client: "redis.Redis", eventually: Callable[..., Any]
) -> None:
    runtime = runtime_of(boot())
    stall = Stall(client, runtime.settings)
    stall.form_ids(5)
    broadcast = stall.broadcast()
    runtime.ways.epochs.changed_at_ms = round(runtime.ways.peers.server_time() * 1000)
    forget(runtime, client, broadcast)
    eventually(
        lambda: {entry[0] for entry in stall.flight(broadcast).values()} == {"-"},
        "they wait to be sent again with the same permit",
    )
    assert {entry[6] for entry in stall.flight(broadcast).values()} == {"1"}
    assert stall.ledger() == {"collected": 5}
    runtime.stop()


def test_a_claim_in_hand_is_left_alone_however_old(
    boot: Callable[[], WorkBroker], client: "redis.Redis"
) -> None:
    runtime = runtime_of(boot())
    stall = Stall(client, runtime.settings)
    stall.form_ids(5)
    broadcast = stall.broadcast()
    forget(runtime, client, broadcast)
    entries = runtime.rota.flights._recoverer.entries(broadcast, 0)
    runtime.hands.take([entry.claim("shop", 0, broadcast) for entry in entries])
    runtime.rota.flights.run()
    assert len(stall.flight(broadcast)) == 5
    runtime.hands.drop([entry.claim("shop", 0, broadcast) for entry in entries])
    runtime.stop()


def test_neither_takes_nor_the_loop_reach_another_run_of_redis(
    boot: Callable[[], WorkBroker], loop: asyncio.AbstractEventLoop
) -> None:
    ways = runtime_of(boot()).ways

    async def ping() -> None:
        await ways.loop_client.connection_pool.disconnect()
        await ways.loop_client.ping()

    with ways.epochs._beginning:  # nobody sees the change meanwhile
        known, ways.epochs._server = ways.epochs._server, "an earlier run"
        ways.taking.connection_pool.disconnect()
        with pytest.raises(ServerChangedError):
            ways.taking.ping()
        with pytest.raises(ServerChangedError):
            asyncio.run_coroutine_threadsafe(ping(), loop).result(5)
        ways.epochs._server = known
    assert ways.taking.ping()


def test_a_stopped_worker_leaves_nothing_behind(
    boot: Callable[[], WorkBroker],
    client: "redis.Redis",
    loop: asyncio.AbstractEventLoop,
    eventually: Callable[..., Any],
) -> None:
    broker = boot()
    runtime = runtime_of(broker)
    stall = Stall(client, runtime.settings)
    stall.form_ids(5)
    broadcast = stall.broadcast()
    assert client.zrange(keys.WORKERS, 0, -1) == [runtime.worker]
    message = next_batch(broker.consume(jobs.SEND))
    far = [(claim.at(claim.slot_at + 60, ends=True), sent) for claim, sent in message.args[0]]
    runtime.send(far)
    runtime.stop()
    assert runtime.hands.held == 0
    assert stall.flight(broadcast) == {}
    assert sorted(stall.queue(broadcast)) == [f"o{user}" for user in range(5)]
    assert stall.ledger() == {"collected": 5, "available": 5}
    assert client.zcard(keys.WORKERS) == 0
    assert broker.consume(jobs.SEND).__next__() is None
    eventually(lambda: not asyncio.all_tasks(loop), "none of its tasks is left on the loop")


def test_claims_that_were_swapped_while_it_drained_are_handed_back(
    boot: Callable[..., WorkBroker], client: "redis.Redis", eventually: Callable[..., Any]
) -> None:
    """The first permit proves dead while the worker drains: the next one is free again."""
    dead = FaultRule(action=FaultAction.ERRCODE, errcode=41028, api="send")
    with SandboxThread(SandboxConfig(latency=Latency(fixed_ms=1000), faults=(dead,))) as wechat:
        broker = boot(wechat_url=wechat.url)
        runtime = runtime_of(broker)
        stall = Stall(client, runtime.settings)
        stall.form_ids(5, each=2)
        broadcast = stall.broadcast()
        client.hset(keys.lane_broadcast(0, broadcast), "open", "1")
        message = next_batch(broker.consume(jobs.SEND))
        # slots that do not end: a busy machine lets one pass, and nobody takes it again here
        ready = [(claim.at(claim.slot_at, ends=False), sent) for claim, sent in message.args[0]]
        runtime.send(ready)

        def posted() -> int:
            return int(wechat.stats()["apis"].get(SEND, {"requests": 0})["requests"])

        eventually(lambda: posted() == 5, "all are posted")
        runtime.stop()
    assert runtime.hands.held == 0
    assert stall.flight(broadcast) == {}
    assert sorted(stall.queue(broadcast)) == [f"o{user}" for user in range(5)]
    assert stall.ledger() == {"collected": 10, "void": 5, "available": 5}
    assert client.zcard(keys.WORKERS) == 0


def test_a_stopped_worker_closes_every_connection_that_it_opened(
    boot: Callable[[], WorkBroker], client: "redis.Redis", eventually: Callable[..., Any]
) -> None:
    before = {entry["id"] for entry in client.client_list()}
    runtime = runtime_of(boot())
    next(SendConsumer(runtime))
    opened = {entry["id"] for entry in client.client_list()} - before
    assert len(opened) >= 3
    runtime.stop()
    runtime.rota.join(lambda: 5.0)
    eventually(
        lambda: not opened & {entry["id"] for entry in client.client_list()},
        "its connections are closed",
        within_s=3,
    )


def test_a_worker_has_a_new_id_at_every_start(
    boot: Callable[[], WorkBroker],
) -> None:
    first, second = runtime_of(boot()), runtime_of(boot())
    assert first.worker != second.worker
