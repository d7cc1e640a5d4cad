"""A deployment on a real cluster of three nodes: sent, stopped, looked at, and told of."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_runs import run
from cluster import Nodes, cluster_of
from redis.crc import key_slot
from stage import DATA, TEMPLATE, Stage, stages_at
from web_house import PERMITS, opened

from producers.access.api_keys import Scope
from producers.broadcasts.messages import Messages
from producers.care import doctor
from producers.care.check import Health
from producers.errors import StoreUnavailableError
from producers.permits.report import Report
from producers.settings import Layout
from producers.store import deadline, keys
from producers.words import State

LANES = 6
LAYOUT = Layout(LANES, [LANES])


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with cluster_of(3) as nodes:
        yield nodes


@pytest.fixture
def stage(nodes: Nodes, tmp_path: Path) -> Iterator[Stage]:
    with stages_at(nodes.url, tmp_path) as stages:
        yield stages(lanes=LANES, buckets=LANES * 32)


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


def test_it_is_paused_resumed_and_cancelled_and_a_message_goes_out(
    stage: Stage, eventually: Callable[..., Any]
) -> None:
    stage.form_ids(300, each=3)
    stage.unit()
    slow = stage.create(rate=100)
    eventually(lambda: stage.status(slow).settled >= 20, "it sends")
    stage.broadcasts.pause(slow)
    assert stage.status(slow).state is State.PAUSED
    stage.form_ids(301)  # whoever came after it was split is none of its recipients
    messages = Messages(stage.client, stage.settings)
    post = messages.post(
        app="shop", channel="template", template_id=TEMPLATE, openid="o300", data=DATA["template"]
    )
    eventually(lambda: messages.show(post.id).outcome == "delivered", "the message is delivered")
    before = stage.status(slow).settled
    stage.broadcasts.resume(slow)
    eventually(lambda: stage.status(slow).settled > before, "it goes on")
    stage.broadcasts.cancel(slow)
    ended = stage.wait(slow)
    assert (ended.state, ended.total) == (State.CANCELLED, 300)
    stage.assert_sound(slow, 300)


def test_a_slot_that_moves_while_it_is_sent_costs_nobody_anything(
    nodes: Nodes, stage: Stage, eventually: Callable[..., Any]
) -> None:
    stage.form_ids(600)
    stage.unit()
    broadcast = stage.create(rate=150)
    eventually(lambda: stage.status(broadcast).settled >= 30, "it sends")
    tags = [*map(str, range(LANES)), "app:shop"]
    for tag in tags:
        slot = key_slot(tag.encode())
        nodes.move(slot, (nodes.number_of(slot) + 1) % 3)
    status = stage.wait(broadcast)
    assert status.outcomes == {"delivered": 600}
    stage.assert_sound(broadcast, 600)
    assert stage.lines("server_changed") == [], "what was moved is in no doubt"


def test_the_service_and_the_commands_speak_to_it(
    stage: Stage, eventually: Callable[..., Any]
) -> None:
    with opened(stage.settings) as house:
        caller = house.caller(Scope.COLLECT, Scope.SEND, Scope.READ)
        uploads = [{"openid": f"o{n}", "formIds": [f"f{n}"]} for n in range(20)]
        assert caller("POST", PERMITS, {"permits": uploads}).status in {200, 201}
    ran = run(stage.settings, "audit", "--json")
    assert ran.code == 0, ran

    def looked() -> Any:
        """On a machine too busy to answer in time a node is named as well, for that moment."""
        doctor = run(stage.settings, "doctor", "--json")
        found = {check["name"]: check for check in doctor.json["checks"]}
        return (
            found["cluster"]["health"] == found["clocks of the nodes"]["health"] == "ok" and found
        )

    found = eventually(looked, "the doctor finds nothing wrong with the cluster", within_s=20)
    assert sum(name.startswith("node ") and name.endswith(": version") for name in found) == 3


@pytest.mark.timeout(120)
def test_a_node_that_stands_still_stops_its_own_lanes_alone(
    nodes: Nodes, stage: Stage, eventually: Callable[..., Any]
) -> None:
    def ports(*names: str) -> set[int]:
        return {stage.client.place_of(name)[1] for name in names}

    def sent_by(lanes: list[int]) -> int:
        return sum(
            int(stage.client.hget(keys.lane_broadcast(lane, broadcast), "done") or 0)
            for lane in lanes
        )

    stage.form_ids(600)
    needed = ports(keys.WORKERS, keys.active("shop"))
    victim = next(server for server in nodes.servers if server.port not in needed)
    theirs = [n for n in range(LANES) if ports(keys.lane_prefix(n)) == {victim.port}]
    others = [n for n in range(LANES) if n not in theirs]
    assert theirs
    waited_for = sum(LAYOUT.home_of(f"o{n}") in others for n in range(600))
    while LAYOUT.home_of(broadcast := stage.create(rate=60)) in theirs:
        stage.broadcasts.cancel(broadcast)
    stage.unit()  # alone: nobody does its part should it wait for that node
    eventually(lambda: sent_by(others) >= 30 and sent_by(theirs) >= 10, "all lanes send")
    process: Any = victim._process
    process.send_signal(signal.SIGSTOP)
    try:
        eventually(lambda: sent_by(others) == waited_for, "the other nodes' lanes are through")
    finally:
        process.send_signal(signal.SIGCONT)
        nodes.wait_until_ok()
    status = stage.wait(broadcast, 40)
    assert status.outcomes == {"delivered": 600}
    stage.assert_sound(broadcast, 600)


def test_what_a_node_that_stands_still_does_not_store_is_told_to_its_own_users_alone(
    nodes: Nodes, stage: Stage, eventually: Callable[..., Any]
) -> None:
    """And the doctor names it, and looks at the others."""
    needed = {stage.client.place_of(name)[1] for name in (keys.DEPLOYMENT, keys.active("shop"))}
    victim = next(server for server in nodes.servers if server.port not in needed)
    address = f"127.0.0.1:{victim.port}"

    def lies_there(openid: str) -> bool:
        prefix = keys.lane_prefix(LAYOUT.home_of(openid))
        return bool(stage.client.place_of(prefix)[1] == victim.port)

    users = [f"o{n}" for n in range(20)]
    theirs = {openid for openid in users if lies_there(openid)}
    assert 0 < len(theirs) < len(users)

    def collected(number: int) -> dict[str, Report | StoreUnavailableError]:
        uploads = [[{"openid": one, "formIds": [f"f{number}{one}"]}] for one in users]
        with deadline.within(5):
            return dict(zip(users, stage.collector.collect_each("shop", uploads), strict=True))

    assert all(isinstance(one, Report) for one in collected(0).values())
    process: Any = victim._process
    process.send_signal(signal.SIGSTOP)
    try:
        for number in (1, 2):
            found = collected(number)
            lost = {one for one, told in found.items() if isinstance(told, StoreUnavailableError)}
            assert lost == theirs
            assert all(f"node {address} of the cluster" in str(found[one]) for one in lost)
        eventually(lambda: is_refused_at_once(lambda: collected(3)), "nobody waits for it")
        checks = {check.name: check for check in doctor.examine(stage.settings)}
        assert checks[f"node {address}: answer"].health is Health.BAD
        assert sum(name.endswith(": version") for name in checks) == 2
        assert any(address in check.advice for check in checks.values())
    finally:
        process.send_signal(signal.SIGCONT)
        nodes.wait_until_ok()
    eventually(lambda: all(isinstance(one, Report) for one in collected(4).values()), "all store")


def is_refused_at_once(call: Callable[[], object]) -> bool:
    """Say whether a call takes far less than the second that a silent node is waited for."""
    began = time.monotonic()
    call()
    return time.monotonic() - began < 0.5
