"""Epochs of a cluster: what a node may have forgotten puts its own lanes in doubt alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from cluster import Nodes, cluster_of
from redis.crc import key_slot

from producers import store
from producers.broadcasts import Broadcasts
from producers.broadcasts.spec import Spec
from producers.permits.collect import Collector
from producers.settings import Settings
from producers.store import keys
from workers.duties.epochs import NodeEpochs, ServerChangedError
from workers.duties.epochs.server import _FENCES

LANES = 4


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with cluster_of(3, tmp_path) as nodes:
        yield nodes


@pytest.fixture
def settings(nodes: Nodes) -> Settings:
    app = {"appid": "wx0000000000000001", "secret": "shop-secret"}
    return Settings(
        _env_file=None, redis_url=nodes.url, apps={"shop": app}, buckets=256, lanes=LANES
    )


@pytest.fixture
def client(settings: Settings) -> Iterator[Any]:
    client = store.connect(settings)
    store.check_layout(client, settings)
    yield client
    client.close()


@pytest.fixture
def epochs(client: Any, settings: Settings) -> NodeEpochs:
    return NodeEpochs(client, settings, Broadcasts(client, settings))


@pytest.fixture
def running(client: Any, settings: Settings) -> str:
    rows = [{"openid": f"o{n}", "formIds": [f"f{n}"]} for n in range(20)]
    Collector(client, settings).collect("shop", rows)
    spec = Spec.checked(app="shop", channel="template", template_id="T", data="a", audience="all")
    return Broadcasts(client, settings).create(spec).id


def number_of(nodes: Nodes, lane: int) -> int:
    return nodes.number_of(key_slot(str(lane).encode()))


def unsure(client: Any, broadcast: str) -> set[int]:
    marks = {lane: keys.lane_broadcast(lane, broadcast) for lane in range(LANES)}
    return {lane for lane, key in marks.items() if client.hget(key, "unsure")}


def restart(nodes: Nodes, number: int) -> None:
    nodes.servers[number].stop()
    nodes.servers[number].start()
    nodes.wait_until_ok()


def test_a_node_that_was_restarted_has_its_own_lanes_in_doubt(
    nodes: Nodes, client: Any, settings: Settings, epochs: NodeEpochs, running: str
) -> None:
    epochs.begin()
    epochs.begin()
    assert unsure(client, running) == set()
    mine = {lane for lane in range(LANES) if number_of(nodes, lane) == 0}
    assert mine
    guarded = store.connect(settings, 2)
    epochs.guard(guarded)
    assert guarded.ping()
    restart(nodes, 0)
    with pytest.raises(redis.ConnectionError):  # the old connection is gone
        guarded.hgetall(keys.lane_broadcast(min(mine), running))
    with pytest.raises(ServerChangedError):
        guarded.hgetall(keys.lane_broadcast(min(mine), running))
    other = next(lane for lane in range(LANES) if lane not in mine)
    assert guarded.hgetall(keys.lane_broadcast(other, running)), "the other nodes are as they were"
    epochs.begin()
    assert guarded.hgetall(keys.lane_broadcast(min(mine), running))
    assert unsure(client, running) == mine
    fences = {lane: int(client.get(keys.fence(lane)) or 0) for lane in range(LANES)}
    assert {lane for lane, fence in fences.items() if fence >= _FENCES} == mine
    assert epochs.changed_at_ms
    guarded.close()


@pytest.mark.parametrize("ended", [False, True], ids=["forgotten too", "known"])
def test_lanes_that_forgot_how_a_broadcast_ended_are_in_doubt_though_nobody_lists_it(
    nodes: Nodes, client: Any, epochs: NodeEpochs, running: str, *, ended: bool
) -> None:
    epochs.begin()
    client.zrem(keys.active("shop"), running)  # after its end, which this node forgets
    broken = [name(n) for n in range(LANES) for name in (keys.doing, keys.flying)]
    for key in broken:  # by somebody; nothing of the others is lost by that
        client.set(key, "x")
    if ended:
        home = keys.home(epochs._broadcasts.home_lane(running), running)
        client.hset(home, mapping={"state": "finished", "generation": 2, "state_generation": 2})
    restart(nodes, 0)
    epochs.begin()
    assert unsure(client, running) == {n for n in range(LANES) if number_of(nodes, n) == 0}
    assert (client.zscore(keys.active("shop"), running) is None) is ended
    states = {client.hget(keys.lane_broadcast(n, running), "state") for n in range(LANES)}
    assert states == {"finished" if ended else "running"}  # nobody takes until the keeper looked


def test_a_slot_that_was_moved_is_in_no_doubt(
    nodes: Nodes, client: Any, epochs: NodeEpochs, running: str
) -> None:
    epochs.begin()
    for lane in range(LANES):
        slot = key_slot(str(lane).encode())
        nodes.move(slot, (nodes.number_of(slot) + 1) % 3)
        epochs.begin()
    assert unsure(client, running) == set()
    assert epochs.changed_at_ms == 0


def test_a_node_that_is_away_does_not_keep_the_others_from_being_looked_at(
    nodes: Nodes, client: Any, epochs: NodeEpochs, running: str
) -> None:
    epochs.begin()
    away = next(n for n in range(3) if n != nodes.number_of(key_slot(keys.SERVERS.encode())))
    nodes.servers[away].stop()
    epochs.begin()
    nodes.servers[away].start()
    nodes.wait_until_ok()
    epochs.begin()
    assert unsure(client, running) == {n for n in range(LANES) if number_of(nodes, n) == away}
