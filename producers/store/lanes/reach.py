"""Reach: lanes whose keys one call may name.

On one server that is all of them; on a cluster each lane lies in a slot of its own, and a call that
names two is refused. A lane at rest costs nothing where one call asks about many.
"""

import weakref
from collections.abc import Sequence
from typing import Any, Final

from redis.exceptions import ClusterCrossSlotError

from producers.store.connection import Client, is_cluster

_WIDEST: Final = 64
"""A lane at rest costs a script about 5 µs: with so many it stays far below 5 ms."""

_SPLIT: Final[weakref.WeakSet[Client]] = weakref.WeakSet()
"""Clients that were told so by a node of a cluster, or a proxy before one."""


def is_split(client: Client) -> bool:
    """Say whether a call may name keys of one slot only, as on a cluster."""
    return is_cluster(client) or client in _SPLIT


def learn(client: Client, error: object) -> bool:
    """Note that a call named two slots where it may not; returns whether it is that."""
    if not isinstance(error, ClusterCrossSlotError):
        return False
    _SPLIT.add(client)
    return True


def in_turn(lanes: Sequence[int], turn: int) -> list[int]:
    """Return lanes, of which another one comes first each turn: that is fair."""
    first = turn % max(1, len(lanes))
    return [*lanes[first:], *lanes[:first]]


def groups(client: Client, lanes: Sequence[int], turn: int = 0) -> list[list[int]]:
    """Return lanes in groups, each of which one call may reach.

    Args:
        client: Redis.
        lanes: which ones.
        turn: as for `in_turn`.
    """
    ordered, widest = in_turn(lanes, turn), 1 if is_split(client) else _WIDEST
    return [ordered[at : at + widest] for at in range(0, len(ordered), widest)]


def are_empty(client: Client, names: Sequence[str]) -> bool:
    """Say whether no key of several lanes is there, where one call can say so; else False.

    Raises:
        redis.RedisError: whatever asking raises; nothing is repeated.
    """
    if is_split(client):
        return False
    try:
        return not client.exists(*names)
    except ClusterCrossSlotError as error:
        return not learn(client, error)


def members(client: Client, names: Sequence[str]) -> list[set[str]]:
    """Return the members of sets, each of another lane; one call where all of them are empty.

    Raises:
        redis.RedisError: whatever asking raises; nothing is repeated.
    """
    found: list[set[str]] = []
    for some in members_or_errors(client, names):
        if isinstance(some, Exception):
            raise some
        found.append(some)
    return found


def members_or_errors(client: Client, names: Sequence[str]) -> list[set[str] | Exception]:
    """As `members`; what a node of a cluster lost or refused stands in its place."""
    if len(names) > 1 and are_empty(client, names):
        return [set() for _ in names]
    pipeline = client.pipeline(transaction=False)
    for name in names:
        pipeline.smembers(name)
    found: list[Any] = pipeline.execute(raise_on_error=False)
    return [some if isinstance(some, Exception) else set(some) for some in found]
