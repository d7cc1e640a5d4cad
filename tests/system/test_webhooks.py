"""Webhooks by real units: an app's own service is told what happens, and no other app waits."""

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest
from stage import TEMPLATE, Stages
from webhook_end import HERE, SECRET, End, of_app

from producers.broadcasts.messages import Messages
from producers.store import keys

EVENTS = ["broadcast.finished", "broadcast.paused", "message.settled"]


@pytest.fixture
def ends() -> Iterator[tuple[End, End]]:
    """Give one service that takes what it is told, and one that never answers."""
    good, stuck = End(), End(answer=lambda _: asyncio.sleep(60, 200))
    with good.open(), stuck.open():
        yield good, stuck


def until(true: Callable[[], object], that: str, within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, f"never came true: {that}"
        time.sleep(0.02)


@pytest.mark.timeout(90)
def test_what_happens_is_told_while_another_apps_service_hangs(
    stages: Stages, ends: tuple[End, End]
) -> None:
    good, stuck = ends
    stage = stages(
        app=of_app(good.url, webhook_events=EVENTS),
        others={"club": of_app(stuck.url, webhook_events=EVENTS, webhook_in_flight=3)},
        webhook_networks=[HERE],
        lanes=2,
    )
    units = [stage.unit(), stage.unit()]
    until(lambda: stage.client.hlen(keys.hooks(1)) == 2, "the units told what is wanted")
    stage.form_ids(20, each=2)
    for _ in range(8):  # more than the places of an app
        stage.broadcasts.pause(stage.create(app="club"))
    until(lambda: len(stuck.came) >= 3, "the other service is asked")

    broadcast = stage.create()
    stage.wait(broadcast)
    message = Messages(stage.client, stage.settings).post(
        app="shop",
        channel="template",
        template_id=TEMPLATE,
        openid="o1",
        data="a,b",
    )
    started = time.monotonic()
    until(lambda: len(good.came) == 2, "both were told")
    assert time.monotonic() - started < 10
    told = {body["type"]: body["data"] for _, body in good.came}
    assert told["broadcast.finished"]["broadcast"] == broadcast
    assert told["broadcast.finished"]["outcomes"] == {"delivered": 20}
    assert told["message.settled"]["message"] == message.id
    assert told["message.settled"]["outcome"] == "delivered"
    assert len(stuck.came) <= 2 * 3  # of each lane

    until(lambda: len(stage.lines("webhook_delivered")) == 2, "both answers were noted")
    for unit in units:  # it hangs in the other service's answers, and ends in time all the same
        unit.terminate()
    started = time.monotonic()
    assert [unit.wait(15) for unit in units] == [0, 0]
    assert time.monotonic() - started < 10
    written = b"".join(log.read_bytes() for log in stage.logs)
    assert SECRET.encode() not in written
    assert good.url.encode() not in written


@pytest.mark.timeout(90)
def test_an_event_in_the_hand_of_a_killed_worker_is_told_by_another(stages: Stages) -> None:
    """Stored first, leased then: kill -9 between the two posts costs a lease, and no event."""
    with End(answer=lambda number: 204 if number else asyncio.sleep(60, 200)).open() as end:
        stage = stages(
            app=of_app(end.url, webhook_events=EVENTS),
            webhook_networks=[HERE],
            webhook_timeout=3,  # until the kill: else it would say itself that no answer came
        )
        unit = stage.unit()
        until(lambda: stage.client.hlen(keys.hooks(0)) == 1, "the unit told what is wanted")
        stage.broadcasts.pause(broadcast := stage.create())
        until(lambda: len(end.came) == 1, "the event is in hand")
        stage.kill(unit)  # its whole group: the process that posts is a child of the unit's
        stage.unit()
        until(lambda: len(end.came) == 2, "another worker told it", within_s=30)
        (first, body), (again, same) = end.came
        assert (again, same) == (first, body)
        assert body["data"]["broadcast"] == broadcast
        until(lambda: stage.lines("webhook_delivered"), "it says so")
        _, other = [line["process"] for line in stage.lines("worker_started")]
        assert [line["process"] for line in stage.lines("webhook_delivered")] == [other]
