"""What is asked for while workers send: a message of its own, another rate; by real units."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from stage import Stage

from producers.broadcasts.messages import Messages
from producers.broadcasts.spec import Spec
from producers.care.audit import Auditor
from producers.errors import MessagesStoppedError
from producers.quotas.rates import Rates
from producers.store import keys

TEMPLATE = "T" * 43


def spec(**changes: Any) -> Spec:
    fields = {
        "app": "shop",
        "channel": "template",
        "template_id": TEMPLATE,
        "data": "a,b,c",
        "audience": "all",
    }
    return Spec.checked(**{**fields, **changes})


def until(true: Callable[[], bool], within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


@pytest.fixture
def messages(stage: Stage) -> Messages:
    return Messages(stage.client, stage.settings)


@pytest.fixture
def rates(stage: Stage) -> Rates:
    return Rates(stage.client, stage.settings)


def posted(messages: Messages, openid: str, text: str) -> str:
    return messages.post(
        app="shop",
        channel="template",
        template_id=TEMPLATE,
        openid=openid,
        data={"keyword1": text},
        page=f"pages/{text}/index",
    ).id


@pytest.mark.cluster
@pytest.mark.parametrize("lanes", [1, 4])
def test_messages_go_before_a_running_broadcast_each_with_its_own_content(
    stage: Stage, messages, rates
) -> None:
    stage.form_ids(600, each=2)
    rates.set("shop", 100)
    stage.unit()
    broadcast = stage.broadcasts.create(spec()).id
    until(lambda: stage.status(broadcast).settled > 20)

    sent = {f"o{user}": posted(messages, f"o{user}", f"text{user}") for user in range(20)}
    until(lambda: all(messages.show(one).state == "ended" for one in sent.values()))

    assert {messages.show(one).outcome for one in sent.values()} == {"delivered"}
    assert stage.status(broadcast).state == "running"
    for user in range(20):
        contents = [
            (message["data"]["keyword1"]["value"], message["page"])
            for message in stage.wechat.received(f"o{user}")
            if "keyword2" not in message["data"]
        ]
        assert contents == [(f"text{user}", f"pages/text{user}/index")]
    rates.set("shop", 0)
    assert stage.wait(broadcast).outcomes == {"delivered": 600}
    assert stage.stats["duplicates"] == 0
    assert Auditor(stage.client, stage.settings).run().wrong == []


@pytest.mark.cluster
def test_messages_survive_the_worker_that_had_them(stage: Stage, messages) -> None:
    stage.form_ids(200)
    stage.wechat.configure(latency={"fixed_ms": 300})
    unit = stage.unit()
    sent = [posted(messages, f"o{user}", f"text{user}") for user in range(200)]
    until(lambda: stage.accepted > 0)
    stage.kill(unit)
    stage.unit()
    until(lambda: all(messages.show(one).state == "ended" for one in sent), 40)
    assert {messages.show(one).outcome for one in sent} == {"delivered"}
    assert stage.stats["duplicates"] == 0
    assert stage.accepted == 200


@pytest.mark.timeout(90)
def test_messages_of_an_unknown_template_are_stopped_and_hold_nobody_up(slow_stage: Stage) -> None:
    stage = slow_stage  # 300 sends a second
    stage.form_ids(3000, each=3)
    stage.audiences.import_rows("shop", "some", [f"o{user}".encode() for user in range(300)])
    messages = Messages(stage.client, stage.settings)
    stage.wechat.configure(templates=[{"template_id": TEMPLATE, "channel": "template"}])
    # whoever can read the list refuses these before they are sent (producers/templates)
    stage.wechat.fail({"api": "wxopen/template/list", "action": "errcode", "errcode": 48001})
    stage.unit()
    until(lambda: stage.lines("worker_started"))

    def duration_s() -> float:
        started = time.monotonic()
        broadcast = stage.broadcasts.create(spec(audience="some")).id
        assert stage.wait(broadcast, 80).outcomes == {"delivered": 300}
        return time.monotonic() - started

    alone_s = duration_s()
    refused = 0
    for user in range(3000):
        try:
            messages.post(
                app="shop",
                channel="template",
                template_id="unknown",
                openid=f"o{user}",
                data={"keyword1": "a"},
            )
        except MessagesStoppedError as error:
            refused += error.errcode == 40037
    beside_s = duration_s()

    counts = stage.stats["apis"]["/cgi-bin/message/wxopen/template/send"]["by_errcode"]
    assert counts["40037"] <= 10
    assert refused > 0
    assert beside_s <= 1.5 * alone_s + 0.2
    assert Auditor(stage.client, stage.settings).run().wrong == []


@pytest.mark.cluster
def test_workers_follow_an_apps_rate(stage: Stage, rates) -> None:
    stage.form_ids(400)
    rates.set("shop", 0.2)  # the next slot lies five seconds ahead
    stage.unit()
    stage.unit()
    broadcast = stage.broadcasts.create(spec()).id
    until(lambda: stage.status(broadcast).settled >= 1)
    rates.set("shop", 400)
    assert stage.wait(broadcast).outcomes == {"delivered": 400}


def test_workers_follow_a_broadcasts_rate(stage: Stage) -> None:
    stage.form_ids(300)
    stage.unit()
    broadcast = stage.broadcasts.create(spec(rate=0.2)).id
    until(lambda: stage.status(broadcast).settled >= 1)
    stage.broadcasts.set_rate(broadcast, 0)
    assert stage.wait(broadcast).outcomes == {"delivered": 300}


def test_a_broadcast_has_its_own_rate_beside_another(stage: Stage, rates) -> None:
    stage.form_ids(600)
    rates.set("shop", 50)
    for name, first in (("even", 0), ("odd", 300)):
        openids = [f"o{number}" for number in range(first, first + 300)]
        stage.audiences.import_rows("shop", name, openids)
    capped = stage.broadcasts.create(spec(audience="even", rate=20)).id
    other = stage.broadcasts.create(spec(audience="odd")).id
    stage.unit()

    def settled() -> tuple[int, int]:
        return stage.status(capped).settled, stage.status(other).settled

    until(lambda: min(settled()) >= 12)  # both are past their canary
    before = settled()
    until(lambda: sum(settled()) >= sum(before) + 150)
    after = settled()
    more = after[0] - before[0], after[1] - before[1]
    assert more[0] / sum(more) == pytest.approx(0.4, abs=0.08)
    for broadcast in (capped, other):
        stage.broadcasts.cancel(broadcast)


@pytest.mark.timeout(90)
def test_two_broadcasts_share_a_rate_by_their_weights(stage: Stage, rates) -> None:
    stage.form_ids(3000)
    rates.set("shop", 300)
    for name, first in (("even", 0), ("odd", 1500)):
        openids = [f"o{number}" for number in range(first, first + 1500)]
        stage.audiences.import_rows("shop", name, openids)
    heavy = stage.broadcasts.create(spec(audience="even", weight=3)).id
    light = stage.broadcasts.create(spec(audience="odd")).id
    stage.unit()
    stage.unit()

    def settled() -> tuple[int, int]:  # of one moment, or nearly
        pipeline = stage.client.pipeline(transaction=False)
        for broadcast in (heavy, light):
            for lane in stage.settings.layout.lanes:
                pipeline.hget(keys.lane_broadcast(lane, broadcast), "done")
        done = [int(one or 0) for one in pipeline.execute()]
        return sum(done[: stage.settings.lanes]), sum(done[stage.settings.lanes :])

    def share_of(sends: int) -> float:
        """Return what of the next so many the heavy one had."""
        before = settled()
        until(lambda: sum(settled()) >= sum(before) + sends)
        after = settled()
        return (after[0] - before[0]) / (sum(after) - sum(before))

    until(lambda: min(settled()) >= 20)  # both are past their canary
    assert share_of(800) == pytest.approx(0.75, abs=0.04)
    stage.broadcasts.set_weight(light, 3)
    share_of(300)  # what was taken by the old one
    assert share_of(600) == pytest.approx(0.5, abs=0.06)
    for broadcast in (heavy, light):
        assert stage.wait(broadcast).outcomes == {"delivered": 1500}
