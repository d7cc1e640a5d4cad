"""Test sends with a real worker and a WeChat that answers: the command, the service, Python."""

import json
from collections.abc import Callable
from typing import Any

from cli_runs import run
from stage import DATA, TEMPLATE, Stage
from web_house import BROADCASTS, opened

from producers import AsyncProducer, Producer

SPEC: dict[str, Any] = {
    "channel": "subscribe",
    "template_id": TEMPLATE,
    "data": DATA["subscribe"],
}
TEST = (
    *("broadcast", "-a", "shop", "--channel", "subscribe", "--template-id", TEMPLATE),
    *("--audience", "all", "--data", json.dumps(DATA["subscribe"])),
)


async def test_a_few_get_it_first_and_each_answer_is_told(
    stage: Stage, eventually: Callable[..., Any]
) -> None:
    stage.accepts(6)
    stage.wechat.give(unsubscriptions=[{"openid": "o1", "template_id": TEMPLATE}])
    alone = run(stage.settings, *TEST, "--test", "o0", "--json")
    assert (alone.code, "no worker alive" in alone.json["error"]) == (2, True)
    stage.unit()
    eventually(lambda: stage.client.zcard("wxb:workers"), "the worker beats")

    ran = run(stage.settings, *TEST, "--test", "o0,o1,o9", "--test-state", "trial", "--json")
    assert ran.code == 1
    assert [(one["openid"], one["outcome"], one["errcode"]) for one in ran.json["trials"]] == [
        ("o0", "delivered", 0),
        ("o1", "refused", 43101),
        ("o9", "no_permit", 0),
    ]
    [taken] = stage.wechat.received("o0")
    assert taken["miniprogram_state"] == "trial"
    assert "nothing else was created" in ran.err
    table = run(stage.settings, *TEST, "--test", "o9")
    assert table.code == 1
    assert "the user has no permit for it" in table.out

    # then it goes out to the rest, and only then
    assert stage.accepted == 1
    went = run(stage.settings, *TEST, "--test", "o2", "--then", "--json")
    assert went.code == 0
    tested, made = map(json.loads, went.out.splitlines())
    assert tested["delivered"]
    assert stage.wait(made["id"]).outcomes == {"delivered": 3, "no_permit": 3}
    stopped = run(stage.settings, *TEST, "--test", "o9", "--then")
    assert stopped.code == 1
    assert sum(bool(one.audience) for one in stage.broadcasts.page("shop").broadcasts) == 1

    # by the other doors
    stage.accepts(9)
    with opened(stage.settings) as house:
        got = house.caller().post(f"{BROADCASTS}/test-send", {**SPEC, "openids": ["o6", "o7"]})
        assert (got.status, got.json["delivered"], got.json["ended"]) == (200, True, True)
    with Producer(stage.settings) as producer:
        assert producer.test_send(["o3"], app="shop", **SPEC).delivered

    # what is wrong for all is said while it is tried again
    stage.wechat.configure(pages=["pages/released"])
    async with AsyncProducer(stage.settings) as awaited:
        tried = await awaited.test_send(["o4"], wait=4, app="shop", page="pages/new", **SPEC)
    assert not tried.ended
    assert "41030 (the page is not in the released version)" in tried.waits
