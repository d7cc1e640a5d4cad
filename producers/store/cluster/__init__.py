"""The clients of a cluster: as a redis-py client of one server, to whoever calls them."""

from producers.store.cluster.client import Cluster
from producers.store.cluster.loop_client import LoopCluster, LoopPools
from producers.store.cluster.nodes import Pools

__all__ = ["Cluster", "LoopCluster", "LoopPools", "Pools"]
