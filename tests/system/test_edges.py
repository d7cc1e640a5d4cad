"""Edges are hints: a worker that hears nothing over pub/sub does all that one does which hears."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from crash import Trap
from stage import DATA, TEMPLATE, Stage, Stages

from producers.broadcasts.messages import Messages
from producers.quotas.rates import Rates
from producers.store.connection import nodes_of
from producers.words import State

Eventually = Callable[..., Any]


@dataclass
class Deaf(Trap):
    """Ends each connection that subscribes to anything, while it is armed."""

    refused: int = 0

    def spring(self) -> None:
        """Kill nobody: the connection alone ends."""
        self.refused += 1


@pytest.fixture
def stage(stages: Stages) -> Stage:
    """Give a stage of four lanes that sends 200 a second, answered after 50 ms."""
    stage = stages(lanes=4, app={"rate_per_second": 200})
    stage.wechat.configure(latency={"fixed_ms": 50})
    return stage


def wait_until_deaf(stage: Stage, deaf: Deaf, eventually: Eventually) -> None:
    eventually(lambda: stage.lines("worker_started"), "the unit started")
    eventually(lambda: deaf.refused, "it tried to subscribe")


@pytest.mark.timeout(90)
def test_a_worker_whose_wake_ups_are_cut_off_stops_and_goes_on(
    stage: Stage, eventually: Eventually
) -> None:
    deaf = Deaf(b"SUBSCRIBE", "before", armed=False)
    stage.unit(deaf)
    stage.form_ids(1200)
    broadcast = stage.create()
    eventually(lambda: stage.accepted >= 100, "a hundred were accepted")

    stage.broadcasts.pause(broadcast)  # this one it hears
    eventually(lambda: stage.status(broadcast).in_flight == 0, "all that was in hand is settled")
    deaf.armed = True
    for node in nodes_of(stage.client).values():  # it listens at any one of them
        node.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    eventually(lambda: deaf.refused, "it may not subscribe again")
    posted = stage.accepted
    assert posted < 1200

    stage.broadcasts.resume(broadcast)  # and this one it does not
    resumed_at = time.monotonic()
    eventually(lambda: stage.accepted > posted, "it goes on", within_s=3)
    assert time.monotonic() - resumed_at < 2.5
    status = stage.wait(broadcast)
    assert status.outcomes == {"delivered": 1200}
    stage.assert_sound(broadcast, 1200)
    assert stage.stats["accepted"] == 1200


@pytest.mark.timeout(90)
def test_a_worker_that_never_hears_a_thing_obeys_a_pause_within_about_a_second(
    stage: Stage, eventually: Eventually
) -> None:
    deaf = Deaf(b"SUBSCRIBE", "before")
    stage.unit(deaf)
    wait_until_deaf(stage, deaf, eventually)
    stage.form_ids(1000)
    broadcast = stage.create()
    eventually(lambda: stage.accepted >= 100, "a hundred were accepted")

    stage.broadcasts.pause(broadcast)
    time.sleep(1.5)  # how long it may take
    paused = stage.accepted
    time.sleep(1.5)
    assert stage.accepted == paused < 1000
    assert stage.status(broadcast).state is State.PAUSED

    stage.broadcasts.resume(broadcast)
    eventually(lambda: stage.accepted > paused, "it goes on", within_s=3)
    assert stage.wait(broadcast).outcomes == {"delivered": 1000}
    stage.assert_sound(broadcast, 1000)


@pytest.mark.timeout(90)
def test_a_worker_that_never_hears_a_thing_finds_work_and_rates(
    stage: Stage, eventually: Eventually
) -> None:
    deaf = Deaf(b"SUBSCRIBE", "before")
    stage.unit(deaf)
    wait_until_deaf(stage, deaf, eventually)
    stage.accepts(20)
    stage.form_ids(20)

    small = stage.create()  # split by its creator
    eventually(lambda: stage.accepted == 20, "it found the broadcast", within_s=4)
    assert stage.wait(small, within_s=5).outcomes == {"delivered": 20}

    Messages(stage.client, stage.settings).post(
        app="shop",
        channel="subscribe",
        template_id=TEMPLATE,
        openid="o3",
        data=DATA["subscribe"],
    )
    eventually(lambda: stage.accepted == 21, "it found the message", within_s=4)

    stage.form_ids(20, each=2)
    slow = stage.create(rate=0.01)
    eventually(lambda: stage.accepted >= 22, "its first one was sent", within_s=5)
    stage.broadcasts.set_rate(slow, 50)
    assert stage.wait(slow, within_s=8).outcomes == {"delivered": 20}

    stage.form_ids(20, each=3)
    rates = Rates(stage.client, stage.settings)
    rates.set("shop", 0.01)
    held_back = stage.create()
    time.sleep(1.5)  # until it knows that it is held back
    rates.set("shop", 200)
    assert stage.wait(held_back, within_s=8).outcomes == {"delivered": 20}
