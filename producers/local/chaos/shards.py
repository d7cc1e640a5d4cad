"""The cluster that is struck in place of one server, and the links before its nodes.

To the faults of one server it is one: all of it is killed and started, all links lose replies, one
of them is cut. What only a cluster suffers is in `cluster_faults`.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from producers.local.cluster import Cluster, cluster
from producers.local.link import Link


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
