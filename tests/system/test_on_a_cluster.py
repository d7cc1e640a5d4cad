"""A deployment on a real cluster of three nodes: sent, stopped, looked at, and told of."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Nodes, cluster_of
from crash import Backstage
from stage import Stage

from producers.store import keys

LANES = 6


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with cluster_of(3) as nodes:
        yield nodes


@pytest.fixture
def stage(nodes: Nodes, tmp_path: Path) -> Iterator[Stage]:
    for client in nodes.each():
        client.flushall()
    backstage = Backstage()
    stage = Stage(backstage, nodes.url, tmp_path, lanes=LANES, buckets=LANES * 32)
    try:
        yield stage
    finally:
        stage.close()
        backstage.close()


@pytest.mark.parametrize("channel", ["template", "subscribe"])
def test_everybody_is_reached_once_over_all_nodes(stage: Stage, channel: str) -> None:
    served = {stage.client.place_of(keys.lane_prefix(lane)) for lane in range(LANES)}
    assert len(served) == 3, "the lanes lie on all nodes"
    stage.permits(channel, 500)
    stage.unit()
    broadcast = stage.create(channel)
    status = stage.wait(broadcast)
    assert status.outcomes == {"delivered": 500}
    stage.assert_sound(broadcast, 500)
    assert stage.lines("duty_failed") == []
