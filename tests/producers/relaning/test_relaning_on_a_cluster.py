"""More lanes on a cluster: old and new ones lie on different nodes, and each lane guards itself."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from cluster import Nodes, cluster_of, flush
from redis.crc import key_slot

from producers import store
from producers.care.audit import Auditor
from producers.permits.collect import Collector
from producers.relaning import Relaner
from producers.relaning import leaving as leaving_module
from producers.relaning import looking as looking_module
from producers.relaning import moving as moving_module
from producers.relaning import relane as relane_module
from producers.relaning.looking import Looks
from producers.settings import Settings
from producers.store import keys
from producers.store.lanes.layout import follow
from producers.store.lanes.plain import PLAIN, PlainArgs, PlainKeys
from producers.store.primary import NotDoneError

USERS = [f"o{n:03}" for n in range(60)]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with cluster_of(3) as nodes:
        yield nodes


@pytest.fixture
def settings(
    nodes: Nodes, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """Give settings of two lanes; nobody drains in a moment."""
    monkeypatch.setattr(moving_module, "_DRAIN_S", 0.0)
    monkeypatch.setattr(leaving_module, "_READERS_S", 0.0)
    flush(nodes.url)
    return make_settings(redis_url=nodes.url, lanes=2)


@pytest.fixture
def connected(settings: Settings) -> Iterator[Callable[..., Any]]:
    with contextlib.ExitStack() as stack:

        def connect(of: Settings = settings, **how: Any) -> Any:
            client = store.connect(of, **how)
            stack.callback(client.connection_pool.disconnect)
            return client

        yield connect


def give(client: Any, settings: Settings, letter: str) -> int:
    uploads = [{"openid": one, "formIds": [f"{one}{letter}"]} for one in USERS]
    return Collector(client, settings).collect("shop", uploads).new


def held(client: Any) -> int:
    return sum(client.zcard(name) for name in client.scan_iter(match="wxb:{*}:permits:*"))


@pytest.fixture
def stale(
    settings: Settings, connected: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Give a process whose connections live on, and whose deployment has other lanes by now."""
    client = connected()
    store.check_layout(client, settings)
    assert give(client, settings, "a") == len(USERS)
    monkeypatch.setattr(relane_module, "cut_off", lambda *_: None)
    free = connected(fenced=False)
    assert Relaner(free, settings).run(8).keys
    assert held(free) == len(USERS)
    return client


def test_who_knows_the_lanes_of_before_is_refused_in_the_lane_itself(
    stale: Any, settings: Settings, connected: Callable[..., Any], nodes: Nodes
) -> None:
    script = PLAIN.on(stale)
    for lane in range(2):  # wherever it lies by now
        slot = key_slot(keys.lane_prefix(lane).encode())
        nodes.move(slot, (nodes.number_of(slot) + 1) % 3)
        with pytest.raises(redis.ResponseError, match="FENCED"):
            script(PlainKeys(keys.audience_dropped(lane, "shop", "x")), PlainArgs("UNLINK"))
    assert settings.layout.counts == (2,)
    assert give(stale, settings, "b") == len(USERS), "it follows"
    assert settings.layout.counts == (2, 8)
    assert held(stale) == 2 * len(USERS)
    assert Auditor(stale, settings).run().wrong == []


@pytest.mark.parametrize("transaction", [False, True])
def test_a_pipeline_and_one_call_are_refused_alike(stale: Any, transaction: bool) -> None:
    script = stale.register_script("return redis.call('SET', KEYS[1], '1', 'PX', 60000)")
    names = [keys.audience_dropped(0, "shop", "x")]
    pipeline = stale.pipeline(transaction=transaction)
    script(keys=names, client=pipeline)
    with pytest.raises(redis.ResponseError, match="FENCED"):
        pipeline.execute()
    with pytest.raises(redis.ResponseError, match="FENCED"):
        script(keys=names)
    assert not stale.exists(*names)


async def test_an_event_loop_is_refused_alike(stale: Any, settings: Settings) -> None:
    client = store.connect_async(settings)
    script = client.register_script("return 1")
    names = [keys.audience_dropped(1, "shop", "x")]
    with pytest.raises(redis.ResponseError, match="FENCED"):
        await script(keys=names)
    pipeline = client.pipeline(transaction=False)
    await script(keys=names, client=pipeline)
    with pytest.raises(redis.ResponseError, match="FENCED"):
        await pipeline.execute()
    await client.aclose()


def test_a_slot_that_is_resharded_meanwhile_hides_nobody(
    settings: Settings,
    connected: Callable[..., Any],
    nodes: Nodes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A lane goes from the node that is looked at last to the one that was looked at first."""
    client, free = connected(), connected(fenced=False)
    store.check_layout(client, settings)
    assert give(client, settings, "a") == len(USERS)
    places = {lane: nodes.number_of(key_slot(keys.lane_prefix(lane).encode())) for lane in range(2)}
    lane = max(places, key=lambda one: places[one])
    slot, source = key_slot(keys.lane_prefix(lane).encode()), places[lane]
    if source == 0:
        nodes.move(slot, 2)
        source = 2
    looked = Looks.pages

    def pages(self: Looks, match: str) -> Iterator[Any]:
        for number, page in enumerate(looked(self, match)):
            if number == 0 and nodes.number_of(slot) == source:
                nodes.move(slot, 0)
            yield page

    monkeypatch.setattr(looking_module, "_PAGE", 1)
    monkeypatch.setattr(Looks, "pages", pages)
    Relaner(free, settings).run(8)
    assert give(client, settings, "a") == 0  # each is where it belongs
    assert Auditor(client, settings).run().wrong == []


def test_it_waits_while_slots_are_on_their_way(
    settings: Settings, connected: Callable[..., Any], nodes: Nodes
) -> None:
    client, free = connected(), connected(fenced=False)
    store.check_layout(client, settings)
    slot = key_slot(b"elsewhere")
    to = (nodes.number_of(slot) + 1) % 3
    nodes.begin_move(slot, to)
    told: list[tuple[str, int]] = []

    def progress(what: str, count: int) -> None:
        told.append((what, count))
        if what.startswith("slots") and len(told) > 3:
            nodes.end_move(slot, to)

    Relaner(free, settings, progress).run(8)
    assert ("slots that are resharded", 2) in told  # as both nodes say


def test_what_no_replica_acknowledges_is_not_opened(
    settings: Settings, connected: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, free = connected(), connected(fenced=False)
    store.check_layout(client, settings)
    assert give(client, settings, "a") == len(USERS)
    host, port = free.place_of("wxb:{5}:")
    monkeypatch.setattr(free, "replicated", lambda: {f"{host}:{port}"})
    monkeypatch.setattr(relane_module, "_TRIES", 2)
    with pytest.raises(NotDoneError, match="no replica"):
        Relaner(free, settings).run(8)
    assert not free.hget(keys.DEPLOYMENT, "divided")
    assert held(free) == len(USERS)
    monkeypatch.undo()
    assert Relaner(free, settings).run(8).resumed
    assert give(client, settings, "a") == 0
    assert Auditor(client, settings).run().wrong == []


def test_a_lane_whose_opening_was_forgotten_is_not_copied_over_what_the_new_ones_did(
    settings: Settings, connected: Callable[..., Any], make_settings: Callable[..., Settings]
) -> None:
    """The layout's node dies before its replica has it; the others have gone on meanwhile."""
    client, free = connected(), connected(fenced=False)
    store.check_layout(client, settings)
    assert give(client, settings, "a") == len(USERS)

    def die(what: str, count: int) -> None:
        if what == "lanes" and count == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Relaner(free, settings, die).run(8)
    assert give(client, settings, "b") == len(USERS)
    free.hdel(keys.DEPLOYMENT, "divided")
    free.hset(keys.DEPLOYMENT, "shut", "1")

    later = make_settings(redis_url=settings.redis_url.get_secret_value(), lanes=2)
    assert Relaner(connected(later, fenced=False), later).run(8).resumed
    assert held(free) == 2 * len(USERS)
    follow(free, later)
    assert give(connected(later), later, "b") == 0
    assert Auditor(connected(later), later).run().wrong == []


@pytest.mark.parametrize("lacks", ["client|kill", "restore"])
def test_who_lacks_a_right_is_told_before_anything_is_changed(
    settings: Settings,
    connected: Callable[..., Any],
    make_settings: Callable[..., Settings],
    nodes: Nodes,
    lacks: str,
) -> None:
    store.check_layout(connected(), settings)
    for client in nodes.each():
        client.execute_command("ACL SETUSER", "few", "on", ">few", "~*", "&*", "+@all", f"-{lacks}")
    url = nodes.url.replace("://", "://few:few@")
    few = make_settings(redis_url=url, lanes=2)
    before = connected().hgetall(keys.DEPLOYMENT)
    with pytest.raises(redis.exceptions.NoPermissionError, match=lacks):
        Relaner(connected(few, fenced=False), few).run(8)
    assert connected().hgetall(keys.DEPLOYMENT) == before
