"""Reach: one call asks about many lanes of one server, and about one of a cluster."""

import pytest
import redis
from redis.exceptions import ClusterCrossSlotError

from producers.store import keys
from producers.store.lanes import reach


@pytest.fixture
def node(cluster_url: str) -> "redis.Redis":
    """Give a client that does not know that it is connected to a cluster, an empty one."""
    node = redis.Redis.from_url(cluster_url, decode_responses=True)
    node.flushall()
    return node


def calls(client: "redis.Redis") -> int:
    return int(client.info("stats")["total_commands_processed"])


@pytest.mark.parametrize(
    ("some", "turn", "found"),
    [([], 3, []), ([5], 7, [[5]]), ([0, 1, 2], 0, [[0, 1, 2]]), ([0, 1, 2], 4, [[1, 2, 0]])],
)
def test_lanes_of_one_server_go_together_another_one_first_each_time(
    client: "redis.Redis", some: list[int], turn: int, found: list[list[int]]
) -> None:
    assert reach.groups(client, some, turn) == found


def test_no_call_names_more_lanes_than_it_does_in_time(client: "redis.Redis") -> None:
    assert [len(one) for one in reach.groups(client, range(150))] == [64, 64, 22]


def test_where_nothing_is_one_call_says_so(client: "redis.Redis") -> None:
    names = [keys.busy(lane) for lane in range(16)]
    before = calls(client)
    assert reach.members(client, names) == [set()] * 16
    assert calls(client) - before == 2  # and the one that counts
    client.sadd(names[7], "shop")
    assert reach.members(client, names)[7] == {"shop"}


def test_a_cluster_says_that_it_is_one(node: "redis.Redis") -> None:
    names = [keys.busy(lane) for lane in range(4)]
    node.sadd(names[2], "shop")
    node.expire(names[2], 60)
    assert not reach.is_split(node)
    assert reach.members(node, names) == [set(), set(), {"shop"}, set()]
    assert reach.is_split(node)
    assert reach.groups(node, range(3)) == [[0], [1], [2]]
    assert not reach.are_empty(node, names[:2])  # nothing that one call can say
    node.delete(names[2])


def test_other_errors_say_nothing_of_it(client: "redis.Redis") -> None:
    assert not reach.learn(client, redis.ResponseError("WRONGTYPE"))
    assert not reach.is_split(client)
    assert reach.learn(client, ClusterCrossSlotError())
    assert reach.is_split(client)
