"""A cluster that is broken while it serves: who takes over, what moves, what is left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from redis.crc import key_slot

from producers.local.cluster import SLOTS, Cluster, cluster
from producers.local.link import Link

pytestmark = pytest.mark.timeout(90)
Eventually = Callable[..., object]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Give a cluster of three primaries with a replica each, all behind links."""
    with cluster(tmp_path_factory.mktemp("cluster"), links=True) as made:
        yield made


@pytest.fixture
def whole(three: Cluster) -> Cluster:
    three.start_all()
    three.await_healthy()
    return three


def holder(whole: Cluster, key: str) -> redis.Redis:
    """Return a client of whoever serves a key."""
    client: redis.Redis = whole.primary_of(key_slot(key.encode())).client
    return client


def test_each_primary_serves_its_share_and_has_a_replica(whole: Cluster) -> None:
    primaries = whole.primaries()
    assert len(primaries) == 3
    assert sum(len(whole.slots_of(each)) for each in primaries) == SLOTS
    followers = [whole.replicas_of(each) for each in primaries]
    assert sorted(map(len, followers)) == [1, 1, 1]
    ports = {each.port for each in whole.nodes}
    assert ports == {each.link.port for each in whole.nodes if isinstance(each.link, Link)}


def test_a_replica_takes_over_and_the_killed_one_comes_back_as_its_replica(whole: Cluster) -> None:
    holder(whole, "k").set("k", "kept")
    lost = whole.primary_of(key_slot(b"k"))
    [heir] = whole.replicas_of(lost)
    assert lost.client.wait(1, 5000) == 1
    lost.server.kill()
    assert whole.await_takeover(lost) is heir
    assert heir.client.get("k") == "kept"
    lost.server.start()
    whole.await_healthy()
    assert whole.replicas_of(heir) == [lost]


def test_who_stood_still_is_replaced_and_finds_that_out(whole: Cluster) -> None:
    lost = whole.primaries()[0]
    lost.server.stall()
    assert whole.await_takeover(lost) is not lost
    lost.server.go_on()
    whole.await_healthy()
    assert lost not in whole.primaries()


def test_a_failover_in_agreement_changes_places(whole: Cluster) -> None:
    primary = whole.primaries()[0]
    [replica] = whole.replicas_of(primary)
    whole.failover(replica)
    whole.await_healthy()
    assert whole.replicas_of(replica) == [primary]


def test_a_slot_moves_with_its_keys_and_the_move_may_be_repeated(whole: Cluster) -> None:
    slot = key_slot(b"tag")
    source = whole.primary_of(slot)
    for number in range(500):
        source.client.set(f"{{tag}}{number}", number)
    target = next(each for each in whole.primaries() if each is not source)
    for _ in range(2):
        whole.move(slot, target)
        assert whole.primary_of(slot) is target
        assert target.client.cluster("countkeysinslot", slot) == 500
        whole.await_healthy()


def test_all_stop_and_start_again_with_what_they_had(whole: Cluster) -> None:
    holder(whole, "all").set("all", "kept")
    whole.stop_all()
    assert not whole.running
    whole.start_all()
    whole.await_healthy()
    assert holder(whole, "all").get("all") == "kept"


_RUNS = """
import sys, time
from pathlib import Path
from producers.local.cluster import cluster
with cluster(Path(sys.argv[1]), 3, 0) as made:
    made.nodes[0].server.stall()
    print(*(each.server.pid for each in made.nodes), flush=True)
    time.sleep(60)
"""


def test_when_its_process_is_killed_no_node_is_left(tmp_path: Path, eventually: Eventually) -> None:
    command = [sys.executable, "-c", _RUNS, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as runs:
        assert runs.stdout is not None
        pids = [int(pid) for pid in runs.stdout.readline().split()]
        assert len(pids) == 3
        runs.send_signal(signal.SIGKILL)
    eventually(lambda: not any(map(_is_there, pids)), "the nodes have ended")


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
