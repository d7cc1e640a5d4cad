"""A cluster's clients: commands follow their slots, whatever moves, dies or stalls."""

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from cluster import Nodes, cluster_of
from redis.crc import key_slot
from redis.exceptions import ClusterCrossSlotError

from producers import store
from producers.errors import StoreUnavailableError
from producers.settings import Settings
from producers.store import deadline
from producers.store.ahead import Ahead
from producers.store.cluster.silence import SilentError
from producers.store.cluster.slots import MovingError, slot_of
from producers.store.retry import repeat, repeat_all

NAMES = [f"key-{number}" for number in range(30)]

FINDS = """
redis.call('SET', KEYS[1], ARGV[1], 'PX', 60000)
redis.call('SET', '{' .. ARGV[2] .. '}:found', ARGV[1], 'PX', 60000)
return #KEYS
"""
"""Writes a key that is declared, and then one that is found on the way."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with cluster_of(3) as nodes:
        yield nodes


@pytest.fixture
def settings(nodes: Nodes, make_settings: Any) -> Settings:
    for client in nodes.each():
        client.flushall()
    return make_settings(redis_url=nodes.url, redis_timeout=2)


@pytest.fixture
def client(settings: Settings) -> Iterator[Any]:
    client = store.connect(settings)
    yield client
    client.close()


@pytest.fixture
def make_settings() -> Any:
    def make(**changes: Any) -> Settings:
        app = {"appid": "wx0000000000000001", "secret": "shop-secret"}
        return Settings(_env_file=None, apps={"shop": app}, buckets=256, **changes)

    return make


def key_of(nodes: Nodes, number: int, word: str = "k") -> str:
    """Return a key that a node serves."""
    return next(
        f"{word}-{n}"
        for n in range(500)
        if nodes.number_of(key_slot(f"{word}-{n}".encode())) == number
    )


@pytest.mark.parametrize(
    ("args", "key"),
    [
        (("GET", "a"), "a"),
        (("HSET", "a{b}", "f", 1), "b"),
        (("EVALSHA", "sha", 1, "k", "a"), "k"),
        (("EVALSHA", "sha", 0, "a"), None),
        (("TIME",), None),
        (("PUBLISH", "channel", "m"), None),
        (("CONFIG GET", "maxmemory"), None),
        (("OBJECT ENCODING", "a"), "a"),
    ],
)
def test_a_command_goes_where_its_first_key_lies(args: tuple[Any, ...], key: str | None) -> None:
    assert slot_of(args) == (None if key is None else key_slot(key.encode()))


def test_several_keys_may_lie_anywhere(client: Any) -> None:
    for name in NAMES[:20]:
        client.set(name, name.upper(), px=60_000)
    assert client.mget(NAMES) == [n.upper() for n in NAMES[:20]] + [None] * 10
    assert client.exists(*NAMES) == 20
    assert set(client.scan_iter()) == set(NAMES[:20])
    assert client.dbsize() == 20
    assert client.unlink(*NAMES[:5]) == 5
    assert client.delete(*NAMES) == 15


def test_a_pipeline_answers_in_its_order_and_scripts_are_loaded_where_they_lack(
    client: Any, nodes: Nodes
) -> None:
    script = client.register_script(FINDS)

    def fill(pipeline: Any) -> None:
        for name in NAMES:
            script(keys=[name], args=[name, name], client=pipeline)
            pipeline.get(f"{{{name}}}:found")
        pipeline.time()

    for flushed in (None, 0, 2):
        if flushed is not None:
            with contextlib.closing(nodes.client(flushed)) as node:
                node.script_flush()
        *answers, clock = repeat_all("trying", client, fill)
        assert answers[0::2] == [1] * len(NAMES), "the script sees its own keys alone"
        assert answers[1::2] == NAMES
        assert abs(clock[0] - time.time()) < 5


def test_an_error_in_a_pipeline_is_raised_after_all_was_read(client: Any) -> None:
    client.set(NAMES[0], "text", px=60_000)
    pipeline = client.pipeline(transaction=False)
    for name in NAMES:
        pipeline.incr(name)
        pipeline.pexpire(name, 60_000)
    with pytest.raises(redis.ResponseError, match="not an integer"):
        pipeline.execute()
    assert [client.get(name) for name in NAMES[1:]] == ["1"] * (len(NAMES) - 1)


def test_a_transaction_is_run_on_the_node_of_its_slot(client: Any) -> None:
    for name in NAMES:
        pipeline = client.pipeline(transaction=True)
        pipeline.set(name, 1, px=60_000)
        pipeline.incr(name)
        assert pipeline.execute() == [True, 2]


def test_a_transaction_over_two_slots_is_refused_and_does_nothing(client: Any) -> None:
    pipeline = client.pipeline(transaction=True)
    for name in NAMES[:2]:
        pipeline.set(name, 1, px=60_000)
    with pytest.raises(ClusterCrossSlotError, match="of one slot"):
        pipeline.execute()
    assert not client.exists(*NAMES[:2])


def test_a_script_is_never_cut_in_two_while_its_slot_moves(client: Any, nodes: Nodes) -> None:
    script = client.register_script(FINDS)
    key = f"{{moving-{time.time()}}}"
    tag = key[1:-1]
    slot = key_slot(tag.encode())
    source = nodes.number_of(slot)
    to = (source + 1) % 3
    assert script(keys=[key], args=["before", tag]) == 1
    for number in range(4):
        client.set(f"{key}:{number}", number, px=60_000)
    nodes.begin_move(slot, to)
    moved = 0
    while True:
        with pytest.raises(MovingError):
            script(keys=[key], args=["meanwhile", tag])
        pipeline = client.pipeline(transaction=False)
        script(keys=[key], args=["meanwhile", tag], client=pipeline)
        with pytest.raises(MovingError):
            pipeline.execute()
        assert {client.get(key), client.get(f"{key}:found")} == {"before"}
        assert client.mget([f"{key}:{n}" for n in range(4)]) == ["0", "1", "2", "3"]
        client.set(f"{key}:new-{moved}", 1, px=60_000)
        if not nodes.move_keys(slot, source, to, 2):
            break
        moved += 1
    assert moved >= 3
    nodes.end_move(slot, to)
    assert script(keys=[key], args=["after", tag]) == 1
    assert client.get(f"{key}:found") == "after"
    assert all(client.get(f"{key}:new-{n}") == "1" for n in range(moved))


def test_calls_wait_while_a_slot_moves_and_are_done_once(client: Any, nodes: Nodes) -> None:
    count = client.register_script(
        "redis.call('PEXPIRE', KEYS[1], 60000) return redis.call('INCR', KEYS[1])"
    )
    key = f"counted-{time.time()}"
    slot = key_slot(key.encode())
    client.set(key, 0, px=60_000)
    done: list[int] = []
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            done.append(repeat("counting", lambda: count(keys=[key])))

    thread = threading.Thread(target=call)
    thread.start()
    try:
        for _ in range(4):
            nodes.move(slot, (nodes.number_of(slot) + 1) % 3)
    finally:
        stop.set()
        thread.join(20)
    assert done == list(range(1, len(done) + 1))
    assert int(client.get(key)) == len(done) > 4


def test_a_slot_that_moves_as_a_whole_refuses_nothing(client: Any, nodes: Nodes) -> None:
    script = client.register_script(FINDS)
    key = f"whole-{time.time()}"
    slot = key_slot(key.encode())
    for turn in range(4):
        source = nodes.number_of(slot)
        to = nodes.ids()[(source + 1) % 3]
        with contextlib.closing(nodes.client(source)) as node:
            node.execute_command("CLUSTER MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", to)
        deadline_at = time.monotonic() + 10
        while nodes.number_of(slot) == source:
            assert time.monotonic() < deadline_at
            assert repeat("trying", lambda: script(keys=[key], args=["x", key])) == 1
        assert script(keys=[key], args=[str(turn), key]) == 1
        assert client.get(f"{{{key}}}:found") == str(turn)


def test_a_call_ahead_follows_its_slot(client: Any, nodes: Nodes) -> None:
    ahead = Ahead(client, client.register_script(FINDS), "trying")
    key = f"ahead-{time.time()}"
    slot = key_slot(key.encode())
    for _ in range(3):
        ahead.start([key], ["x", key])
        assert ahead.finish() == 1
        nodes.move(slot, (nodes.number_of(slot) + 1) % 3)
    ahead.close()


async def test_the_loops_client_follows_too(settings: Settings, nodes: Nodes) -> None:
    client = store.connect_async(settings)
    script = client.register_script(FINDS)
    try:
        for turn in range(3):
            for name in NAMES[:6]:
                assert await script(keys=[name], args=[str(turn), name]) == 1
            pipeline = client.pipeline(transaction=False)
            for name in NAMES[:6]:
                pipeline.get(f"{{{name}}}:found")
                await script(keys=[name], args=[str(turn), name], client=pipeline)
            assert await pipeline.execute() == [str(turn), 1] * 6
            slot = key_slot(NAMES[turn].encode())
            to = (nodes.number_of(slot) + 1) % 3
            await asyncio.to_thread(nodes.move, slot, to)
    finally:
        await client.aclose()


def test_one_stalled_node_delays_its_own_keys_alone(client: Any, nodes: Nodes) -> None:
    stalled, good = key_of(nodes, 0), key_of(nodes, 1)
    client.set(good, 1, px=60_000)
    client.set(stalled, 1, px=60_000)
    process: Any = nodes.servers[0]._process
    process.send_signal(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        with deadline.within(1.5), pytest.raises(StoreUnavailableError):
            repeat("reading", lambda: client.get(stalled))
        assert time.monotonic() - begun < 2.0
        begun = time.monotonic()
        assert client.get(good) == "1"
        assert client.time()
        assert time.monotonic() - begun < 0.5
    finally:
        process.send_signal(signal.SIGCONT)
        nodes.wait_until_ok()
    assert repeat("reading", lambda: client.get(stalled)) == "1"


def test_a_subscriber_finds_a_node_that_lives(make_settings: Any) -> None:
    with cluster_of(3) as nodes:
        client = store.connect(make_settings(redis_url=nodes.url, redis_timeout=2))
        assert client.ping()
        nodes.servers[0].stop()
        heard = None
        for _ in range(30):  # what is said while nodes look for the dead one is a hint that is lost
            if heard is not None:
                break
            subscriber = client.pubsub(ignore_subscribe_messages=True)
            with contextlib.suppress(redis.ConnectionError), contextlib.closing(subscriber):
                subscriber.subscribe("wxb:wake")
                subscriber.get_message(timeout=1)
                repeat("saying", lambda: client.publish("wxb:wake", "go"))
                heard = subscriber.get_message(timeout=2)
        assert heard is not None
        assert heard["data"] == "go"
        client.close()


@contextlib.contextmanager
def stalled_node(nodes: Nodes, number: int) -> Iterator[None]:
    process: Any = nodes.servers[number]._process
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)
        nodes.wait_until_ok()


def test_a_silent_node_fails_what_is_its_own_and_is_asked_no_more_until_it_answers(
    client: Any, nodes: Nodes, eventually: Any
) -> None:
    names = [key_of(nodes, number) for number in (0, 1, 0, 2)]
    for name in names:
        client.set(name, name, px=60_000)

    def answers() -> list[Any]:
        pipeline = client.pipeline(transaction=False)
        for name in names:
            pipeline.get(name)
        return list(pipeline.execute(raise_on_error=False))

    with stalled_node(nodes, 0):
        lost, good, lost_too, good_too = answers()
        assert [type(lost), type(lost_too)] == [redis.TimeoutError] * 2
        assert [good, good_too] == [names[1], names[3]]
        eventually(lambda: client.is_silent(client.place_of(names[0])), "it is known as silent")
        begun = time.monotonic()
        for _ in range(20):
            refused, good, *_ = answers()
            assert isinstance(refused, SilentError)
            assert good == names[1]
            with pytest.raises(SilentError):
                client.get(names[0])
        assert time.monotonic() - begun < 1.0, "nobody waits for it"
    assert repeat("reading", lambda: client.get(names[0])) == names[0]
    eventually(lambda: answers() == names, "it is asked again")


async def test_a_silent_node_fails_what_is_its_own_on_a_loop_too(
    settings: Settings, nodes: Nodes
) -> None:
    client = store.connect_async(settings)
    names = [key_of(nodes, number) for number in (0, 1)]

    async def answers() -> list[Any]:
        pipeline = client.pipeline(transaction=False)
        for name in names:
            pipeline.get(name)
        return list(await pipeline.execute(raise_on_error=False))

    try:
        assert await answers() == [None, None]
        with stalled_node(nodes, 0):
            lost, good = await answers()
            assert (type(lost), good) == (redis.TimeoutError, None)
            while not isinstance((await answers())[0], SilentError):
                pass
            begun = time.monotonic()
            for _ in range(20):
                assert isinstance((await answers())[0], SilentError)
            assert time.monotonic() - begun < 1.0
        while await answers() != [None, None]:
            pass
    finally:
        await client.aclose()


def test_what_one_impatient_call_met_refuses_nobody(client: Any, nodes: Nodes) -> None:
    name = key_of(nodes, 0)
    client.set(name, 1, px=60_000)
    client.doubt(client.place_of(name))  # as a call does whose own time was over
    assert client.get(name) == "1"
