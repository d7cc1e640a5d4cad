"""The commands beside a node of the cluster that stands still: soon, and told what is unknown."""

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_runs import Ran, run
from cluster import Nodes, cluster_of
from stage import Stage, stages_at

from producers.settings import Layout
from producers.store import keys

LANES = 6
LAYOUT = Layout(LANES, [LANES])
USERS = 60


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with cluster_of(3) as nodes:
        yield nodes


@pytest.fixture
def stage(nodes: Nodes, tmp_path: Path) -> Iterator[Stage]:
    with stages_at(nodes.url, tmp_path) as stages:
        stage = stages(lanes=LANES, buckets=LANES * 32)
        stage.form_ids(USERS)
        yield stage


@contextlib.contextmanager
def frozen(nodes: Nodes, port: int) -> Iterator[None]:
    process: Any = next(one for one in nodes.servers if one.port == port)._process
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)
        nodes.wait_until_ok()


def ended(stage: Stage, *args: object) -> Ran:
    began = time.monotonic()
    ran = run(stage.settings, *args)
    assert time.monotonic() - began < 6, args
    return ran


def test_what_lies_on_the_other_nodes_is_told_and_marked_as_a_part(
    nodes: Nodes, stage: Stage
) -> None:
    def port_of(name: str) -> int:
        return int(stage.client.place_of(name)[1])

    needed = {port_of(name) for name in (keys.DEPLOYMENT, keys.active("shop"))}
    victim = next(one.port for one in nodes.servers if one.port not in needed)
    lanes = [n for n in range(LANES) if port_of(keys.lane_prefix(n)) == victim]
    assert lanes
    here = sum(keys.place_of(f"o{n}", stage.settings)[0] not in lanes for n in range(USERS))
    made: dict[bool, str] = {}
    while len(made) < 2:
        broadcast = stage.create()
        made[LAYOUT.home_of(broadcast) in lanes] = broadcast
    others, theirs = made[False], made[True]
    every = stage.broadcasts.page("shop").broadcasts

    whole = ended(stage, "status", others, "--json")
    assert whole.code == 0
    assert "partial" not in whole.json
    assert ended(stage, "audit", "--json").code == 0
    with frozen(nodes, victim):
        status = ended(stage, "status", others, "--json")
        assert status.code == 5
        assert status.json["partial"]["lanes"] == lanes
        assert status.json["partial"]["nodes"] == {f"127.0.0.1:{victim}": lanes}
        assert (status.json["total"], status.json["complete"]) == (here, False)
        told = ended(stage, "status", others)
        assert told.code == 5
        assert f"PARTIAL: node 127.0.0.1:{victim} of the cluster does not answer" in told.err
        unknown = ended(stage, "status", theirs, "--json")
        assert unknown.code == 4
        assert f"127.0.0.1:{victim}" in unknown.json["error"]

        listed = ended(stage, "list", "--app", "shop", "--json")
        assert listed.code == 5
        left = [one.id for one in every if LAYOUT.home_of(one.id) not in lanes]
        assert [one["id"] for one in listed.json["broadcasts"]] == left

        audit = ended(stage, "audit", "--json")
        assert audit.code == 5, audit.json
        assert audit.json["discrepancies"] == []
        assert audit.json["users"] == {"shop": here}
        assert audit.json["broadcasts"] == len(left)
        assert audit.json["left_out"] == len(every) - len(left)
        assert audit.json["partial"]["lanes"] == lanes
        for command in (["pause", theirs], ["doubts", others], ["forecast", "--app", "shop"]):
            more = ["--channel", "template"] if command[0] == "forecast" else []
            ran = ended(stage, *command, *more, "--json")
            assert ran.code == 4, ran.err
            assert f"127.0.0.1:{victim}" in ran.json["error"]
    again = ended(stage, "status", others, "--json")
    assert (again.code, again.json["total"]) == (0, USERS)


def test_without_the_node_that_has_the_layout_nothing_is_told(nodes: Nodes, stage: Stage) -> None:
    broadcast = stage.create()
    victim = int(stage.client.place_of(keys.DEPLOYMENT)[1])
    with frozen(nodes, victim):
        for command in (["status", broadcast], ["audit"], ["list", "--app", "shop"]):
            ran = ended(stage, *command, "--json")
            assert ran.code == 4
            assert f"127.0.0.1:{victim}" in ran.json["error"]
