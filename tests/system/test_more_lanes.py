"""A deployment that lives gets more lanes: units and services follow, and nobody gets it twice."""

import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from stage import Stage, Stages

from producers import Producer, store
from producers.broadcasts import Broadcasts
from producers.errors import StoreUnavailableError
from producers.relaning.carrying import cut_off
from producers.store import keys

Eventually = Callable[..., Any]
USERS = 2000
pytestmark = pytest.mark.cluster
COMMAND = [sys.executable, "-m", "producers.cli", "lanes", "64", "--json"]


def follow(stage: Stage) -> None:
    """Look at the deployment with the lanes that it has now."""
    stage.settings = stage.settings.anew()
    stage.client.connection_pool.disconnect()
    stage.client = store.connect(stage.settings)
    store.check_layout(stage.client, stage.settings)
    stage.broadcasts = Broadcasts(stage.client, stage.settings)


@pytest.mark.timeout(90)
def test_a_broadcast_under_way_goes_on_in_more_lanes_whoever_is_killed(
    stages: Stages, eventually: Eventually
) -> None:
    stage = stages(lanes=None, app={"rate_per_second": 400})
    assert stage.settings.lanes == 16  # as many as one is born with
    stage.form_ids(USERS)
    broadcast = stage.create()
    units = [stage.unit(), stage.unit()]
    producer = Producer(stage.settings.anew())
    assert producer.status(broadcast).total
    eventually(lambda: stage.accepted > 300, "it is under way")
    free = store.connect(stage.settings, fenced=False)

    first = stage.command(COMMAND)
    eventually(lambda: free.hget(keys.DEPLOYMENT, "relaning") == "64", "it is announced")
    stage.kill(first)  # while the units drain
    for unit in units:
        assert unit.wait(20) == 75  # to be started anew
    settled = stage.accepted
    with pytest.raises(StoreUnavailableError, match="from 16 to 64: nothing is stored"):
        Producer(stage.settings.anew()).status(broadcast)
    late = stage.unit()  # it waits until it may begin

    second = stage.command(COMMAND)
    eventually(lambda: free.hget(keys.DEPLOYMENT, "moving"), "keys are moved", every_s=0.001)
    stage.kill(second)
    accepted = stage.accepted
    if was_killed := free.hget(keys.DEPLOYMENT, "lanes") == "16":
        assert accepted == settled  # nobody is sent anything meanwhile
    last = stage.command(COMMAND)
    assert last.wait(30) == 0
    said = orjson.loads(stage.logs[-1].read_bytes().splitlines()[-1])
    assert free.hgetall(keys.DEPLOYMENT)["lanes"] == "64"
    assert said["resumed"] is was_killed
    free.connection_pool.disconnect()

    follow(stage)
    assert stage.settings.lanes == 64
    eventually(lambda: stage.lines("worker_started")[2:], "the one that waited is at work")
    status = stage.wait(broadcast)
    assert status.outcomes == {"delivered": USERS}
    stage.assert_sound(broadcast, USERS)
    assert producer.status(broadcast).settled == USERS  # it takes the new ones, told or not
    producer.close()
    stage.kill(late, signal.SIGTERM)
    outlived = stage.lines("worker_outlived")
    assert [(line["before"], line["after"]) for line in outlived] == [(16, 64)] * 2
    assert not stage.lines("worker_broken")


@pytest.mark.timeout(60)
def test_a_service_answers_503_meanwhile_and_ends_to_be_started_anew_though_nobody_asks(
    stages: Stages, eventually: Eventually
) -> None:
    stage = stages(lanes=None)
    web = [sys.executable, "-m", "producers.cli", "web", "--port", "0"]
    service = stage.command(web)
    [line] = eventually(lambda: stage.lines("web_started"), "it listens")
    url = f"http://127.0.0.1:{line['port']}/readyz"

    def ready() -> str:
        asked = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", url]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout

    eventually(lambda: ready() == "200", "it is ready")
    free = store.connect(stage.settings, fenced=False)
    free.hset(keys.DEPLOYMENT, "relaning", "32")
    cut_off(free)
    eventually(lambda: ready() == "503", "it says so")
    assert service.poll() is None
    done = stage.command([*COMMAND[:-2], "32"])
    assert done.wait(20) == 0
    assert service.wait(10) == 75
    free.connection_pool.disconnect()
