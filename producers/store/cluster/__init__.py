"""The clients of a cluster: as a redis-py client of one server, to whoever calls them."""

from producers.store.cluster.client import Cluster, Pools
from producers.store.cluster.loop_client import LoopCluster, LoopPools

__all__ = ["Cluster", "LoopCluster", "LoopPools", "Pools"]
