"""The faults that only a cluster has.

A primary is killed, and comes back as the replica of whoever took over; one stands still for longer
than the others wait for it, and goes on; the slot of a lane moves while it is in use. They strike a
cluster that is whole: of two copies one must live.
"""

import random
import time
from collections.abc import Callable
from typing import Final

import redis
from redis.crc import key_slot

from producers.local.chaos.crew import Crew, Later
from producers.local.chaos.schedule import Fault, Strike
from producers.local.chaos.shards import Shards
from producers.local.cluster import Cluster
from producers.local.embedded import Server
from producers.local.nodes import Node
from producers.store import keys

_AGAIN_S: Final = 1.0
_LOOK_S: Final = 0.1


def kill_primary(crew: Crew, strike: Strike) -> list[Later]:
    """Kill a primary (kill -9); its replica takes over, and it comes back as the replica."""
    return _take_away(crew, strike, Server.kill, Server.start)


def partition(crew: Crew, strike: Strike) -> list[Later]:
    """Let a primary stand still until its replica took over, and go on with what it was told."""
    return _take_away(crew, strike, Server.stall, Server.go_on)


def _take_away(
    crew: Crew, strike: Strike, gone: Callable[[Server], None], back: Callable[[Server], None]
) -> list[Later]:
    shards = _shards(crew)
    if not shards.is_whole() or crew.link.is_cut:
        return [(_AGAIN_S, lambda: _take_away(crew, strike, gone, back))]
    primaries = shards.cluster.primaries()
    victim = random.Random(strike.at_s).choice(primaries)  # noqa: S311 - a fault, not a secret
    began = time.monotonic()
    gone(victim.server)
    crew.watch.out(strike.fault)

    def look() -> list[Later]:
        """Wait for the takeover; the victim comes back some time after it."""
        if not _is_served(shards.cluster, victim):
            return [(_LOOK_S, look)]
        shards.failovers_s.append(round(time.monotonic() - began, 2))
        return [(strike.lasts_s, come_back)]

    def come_back() -> list[Later]:
        back(victim.server)
        return _until_whole(crew, strike)

    return [(_LOOK_S, look)]


def restart_all(crew: Crew, strike: Strike) -> list[Later]:
    """Kill every node (kill -9), and start all of them later."""
    shards = _shards(crew)
    if not shards.is_whole() or crew.link.is_cut:
        return [(_AGAIN_S, lambda: restart_all(crew, strike))]
    shards.kill()
    crew.watch.out(strike.fault)

    def start() -> list[Later]:
        shards.start()
        return _until_whole(crew, strike)

    return [(strike.lasts_s, start)]


def _until_whole(crew: Crew, strike: Strike) -> list[Later]:
    """Redis is within reach again once all of it is: claims may wait for a replica."""
    if not _shards(crew).is_whole():
        return [(_LOOK_S, lambda: _until_whole(crew, strike))]
    crew.watch.back(strike.fault)
    return []


def reshard(crew: Crew, strike: Strike) -> list[Later]:
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


def _shards(crew: Crew) -> Shards:
    assert isinstance(crew.server, Shards)  # noqa: S101 - the plan has these faults with it alone
    return crew.server


STRIKES: Final = {
    Fault.NODES: kill_primary,
    Fault.PARTITIONS: partition,
    Fault.RESHARDS: reshard,
}
