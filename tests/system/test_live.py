"""What is asked for while workers send: a message of its own, another rate; by real units."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from producers.broadcasts.messages import Messages
from producers.broadcasts.rates import Rates
from producers.broadcasts.spec import Spec
from producers.care.audit import Auditor
from producers.errors import MessagesStoppedError

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
def messages(shop: Any) -> Messages:
    return Messages(shop.broadcasts._client, shop.settings)


@pytest.fixture
def rates(shop: Any) -> Rates:
    return Rates(shop.broadcasts._client, shop.settings)


def posted(messages: Messages, openid: str, text: str) -> str:
    return messages.post(
        app="shop",
        channel="template",
        template_id=TEMPLATE,
        openid=openid,
        data={"keyword1": text},
        page=f"pages/{text}/index",
    ).id


@pytest.mark.parametrize("lanes", [1, 4])
def test_messages_go_before_a_running_broadcast_each_with_its_own_content(
    shop, wechat, units, messages, rates
) -> None:
    shop.collect_form_ids(600, each=2)
    rates.set("shop", 100)
    units.start(shop.settings, wechat)
    broadcast = shop.broadcasts.create(spec()).id
    until(lambda: shop.broadcasts.status(broadcast).settled > 20)

    sent = {f"o{user}": posted(messages, f"o{user}", f"text{user}") for user in range(20)}
    until(lambda: all(messages.show(one).state == "ended" for one in sent.values()))

    assert {messages.show(one).outcome for one in sent.values()} == {"delivered"}
    assert shop.broadcasts.status(broadcast).state == "running"
    for user in range(20):
        contents = [
            (message["data"]["keyword1"]["value"], message["page"])
            for message in wechat.ask(f"received?openid=o{user}")
            if "keyword2" not in message["data"]
        ]
        assert contents == [(f"text{user}", f"pages/text{user}/index")]
    rates.set("shop", 0)
    assert shop.wait(broadcast).outcomes == {"delivered": 600}
    assert wechat.stats["duplicates"] == 0
    assert Auditor(shop.broadcasts._client, shop.settings).run().wrong == []


def test_messages_survive_the_worker_that_had_them(shop, wechat, units, messages) -> None:
    shop.collect_form_ids(200)
    wechat.ask("config", {"latency": {"fixed_ms": 300}})
    unit = units.start(shop.settings, wechat)
    sent = [posted(messages, f"o{user}", f"text{user}") for user in range(200)]
    until(lambda: wechat.stats["accepted"] > 0)
    units.kill(unit)
    units.start(shop.settings, wechat)
    until(lambda: all(messages.show(one).state == "ended" for one in sent), 40)
    assert {messages.show(one).outcome for one in sent} == {"delivered"}
    assert wechat.stats["duplicates"] == 0
    assert wechat.stats["accepted"] == 200


@pytest.mark.timeout(90)
def test_messages_of_an_unknown_template_are_stopped_and_hold_nobody_up(
    slow_shop, wechat, units
) -> None:
    shop = slow_shop  # 300 sends a second
    shop.collect_form_ids(3000, each=3)
    shop.audiences.import_rows("shop", "some", [f"o{user}".encode() for user in range(300)])
    messages = Messages(shop.broadcasts._client, shop.settings)
    wechat.ask("config", {"templates": [{"template_id": TEMPLATE, "channel": "template"}]})
    units.start(shop.settings, wechat)
    until(lambda: units.lines("worker_started"))

    def duration_s() -> float:
        started = time.monotonic()
        broadcast = shop.broadcasts.create(spec(audience="some")).id
        assert shop.wait(broadcast, 80).outcomes == {"delivered": 300}
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

    counts = wechat.stats["apis"]["/cgi-bin/message/wxopen/template/send"]["by_errcode"]
    assert counts["40037"] <= 10
    assert refused > 0
    assert beside_s <= 1.5 * alone_s + 0.2
    assert Auditor(shop.broadcasts._client, shop.settings).run().wrong == []


def test_workers_follow_an_apps_rate(shop, wechat, units, rates) -> None:
    shop.collect_form_ids(400)
    rates.set("shop", 0.2)  # the next slot lies five seconds ahead
    units.start(shop.settings, wechat)
    units.start(shop.settings, wechat)
    broadcast = shop.broadcasts.create(spec()).id
    until(lambda: shop.broadcasts.status(broadcast).settled >= 1)
    rates.set("shop", 400)
    assert shop.wait(broadcast).outcomes == {"delivered": 400}


def test_workers_follow_a_broadcasts_rate(shop, wechat, units) -> None:
    shop.collect_form_ids(300)
    units.start(shop.settings, wechat)
    broadcast = shop.broadcasts.create(spec(rate=0.2)).id
    until(lambda: shop.broadcasts.status(broadcast).settled >= 1)
    shop.broadcasts.set_rate(broadcast, 0)
    assert shop.wait(broadcast).outcomes == {"delivered": 300}
