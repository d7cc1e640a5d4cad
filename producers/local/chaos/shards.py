"""The cluster that is struck in place of one server, and the links before its nodes.

To the faults of one server it is one: all of it is killed and started, all links lose replies, one
of them is cut. Beside these come faults that only a cluster has: a primary is killed, and comes
back as the replica of whoever took over; one stands still for longer than the others wait for it,
and goes on; the slot of a lane moves while it is in use. They strike a cluster that is whole: of
two copies one must live.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import redis
from redis.crc import key_slot

from producers.local.chaos.schedule import Fault, Strike
from producers.local.cluster import Cluster, cluster
from producers.local.embedded import Server
from producers.local.link import Link
from producers.local.nodes import Node
from producers.store import keys

if TYPE_CHECKING:
    from producers.local.chaos.faults import Crew, Later

_AGAIN_S: Final = 1.0
_LOOK_S: Final = 0.1


class Shards:
    """As `embedded.Server`: all nodes of a cluster.

    Attributes:
        cluster: the nodes.
        failovers_s: how long each took: until all slots were served again.
    """

    def __init__(self, nodes: Cluster) -> None:
        self.cluster = nodes
        self.failovers_s: list[float] = []

    @property
    def url(self) -> str:
        """Its URL."""
        return self.cluster.url

    def url_at(self, port: int) -> str:  # noqa: ARG002 - the links are announced themselves
        """Return its URL; who reads the map of slots is led through the links."""
        return self.cluster.url

    @property
    def running(self) -> bool:
        """Whether any node does."""
        return any(node.server.running for node in self.cluster.nodes)

    def kill(self) -> None:
        """Kill every node (kill -9)."""
        self.cluster.kill_all()

    def start(self) -> None:
        """Start what does not run, and let go on what stands still."""
        for server in self.cluster.servers:
            server.go_on()
        self.cluster.start_all()

    def is_whole(self) -> bool:
        """Say whether nothing is missing; not while a node does not answer."""
        if any(not node.server.answers for node in self.cluster.nodes):
            return False
        try:
            return self.cluster.is_healthy()
        except redis.RedisError:
            return False


class Links:
    """As `Link`: the links of all nodes."""

    def __init__(self, nodes: Cluster, seed: int) -> None:
        self._links: list[Link] = [node.link for node in nodes.nodes if node.link is not None]
        self._rng = random.Random(seed)  # noqa: S311 - a fault, not a secret

    @property
    def port(self) -> int:
        """The port of one of them."""
        return self._links[0].port

    @property
    def lost(self) -> int:
        """Replies that were swallowed."""
        return sum(link.lost for link in self._links)

    @property
    def is_cut(self) -> bool:
        """Whether some node is out of reach."""
        return any(link.is_cut for link in self._links)

    def cut(self) -> None:
        """Drop all connections to one node, and every new one."""
        self._rng.choice(self._links).cut()

    def heal(self) -> None:
        """Let connections through again."""
        for link in self._links:
            link.heal()

    def lose(self, probability: float) -> None:
        """Swallow each reply with this probability from now on."""
        for link in self._links:
            link.lose(probability)


@contextmanager
def laid(folder: Path, fsync: str, seed: int) -> Iterator[tuple[Shards, Links]]:
    """Run a cluster of three primaries with a replica each, behind links."""
    with cluster(folder, fsync=fsync, links=True) as nodes:
        yield Shards(nodes), Links(nodes, seed)


def kill_primary(crew: "Crew", strike: Strike) -> "list[Later]":
    """Kill a primary (kill -9); its replica takes over, and it comes back as the replica."""
    return _take_away(crew, strike, Server.kill, Server.start)


def partition(crew: "Crew", strike: Strike) -> "list[Later]":
    """Let a primary stand still until its replica took over, and go on with what it was told."""
    return _take_away(crew, strike, Server.stall, Server.go_on)


def _take_away(
    crew: "Crew", strike: Strike, gone: Callable[[Server], None], back: Callable[[Server], None]
) -> "list[Later]":
    shards = _shards(crew)
    if not shards.is_whole() or crew.link.is_cut:
        return [(_AGAIN_S, lambda: _take_away(crew, strike, gone, back))]
    primaries = shards.cluster.primaries()
    victim = random.Random(strike.at_s).choice(primaries)  # noqa: S311 - a fault, not a secret
    began = time.monotonic()
    gone(victim.server)
    crew.watch.out(strike.fault)

    def look() -> "list[Later]":
        """Wait for the takeover; the victim comes back some time after it."""
        if not _is_served(shards.cluster, victim):
            return [(_LOOK_S, look)]
        shards.failovers_s.append(round(time.monotonic() - began, 2))
        return [(strike.lasts_s, come_back)]

    def come_back() -> "list[Later]":
        back(victim.server)
        return _until_whole(crew, strike)

    return [(_LOOK_S, look)]


def restart_all(crew: "Crew", strike: Strike) -> "list[Later]":
    """Kill every node (kill -9), and start all of them later."""
    shards = _shards(crew)
    if not shards.is_whole() or crew.link.is_cut:
        return [(_AGAIN_S, lambda: restart_all(crew, strike))]
    shards.kill()
    crew.watch.out(strike.fault)

    def start() -> "list[Later]":
        shards.start()
        return _until_whole(crew, strike)

    return [(strike.lasts_s, start)]


def _until_whole(crew: "Crew", strike: Strike) -> "list[Later]":
    """Redis is within reach again once all of it is: claims may wait for a replica."""
    if not _shards(crew).is_whole():
        return [(_LOOK_S, lambda: _until_whole(crew, strike))]
    crew.watch.back(strike.fault)
    return []


def reshard(crew: "Crew", strike: Strike) -> "list[Later]":
    """Move the slot of a lane to another primary while it is in use."""
    shards = _shards(crew)
    if not shards.is_whole() or crew.link.is_cut:
        return [(_AGAIN_S, lambda: reshard(crew, strike))]
    rng = random.Random(strike.at_s)  # noqa: S311 - a fault, not a secret
    slot = key_slot(keys.lane_prefix(rng.randrange(crew.lanes)).encode())
    source = shards.cluster.primary_of(slot)
    shards.cluster.move(
        slot, rng.choice([n for n in shards.cluster.primaries() if n is not source])
    )
    return []


def _is_served(nodes: Cluster, without: Node) -> bool:
    """Say whether all slots are served, and none by a node that is gone."""
    try:
        return nodes.is_served(without)
    except redis.RedisError:
        return False


def _shards(crew: "Crew") -> Shards:
    assert isinstance(crew.server, Shards)  # noqa: S101 - the plan has these faults with it alone
    return crew.server


STRIKES: Final = {
    Fault.NODES: kill_primary,
    Fault.PARTITIONS: partition,
    Fault.RESHARDS: reshard,
}
