"""Dead letters at every door: the command line, HTTP and Python do the same."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from cli_runs import run
from log_lines import recorded
from shop import Shop
from web_house import APPS, opened
from webhook_end import SECRET, kill, of_app

from producers import Producer, store
from producers.care.webhooks import examine
from producers.errors import InvalidInputError, UnknownAppError
from producers.settings import Settings
from producers.store import keys
from producers.webhooks import DeadLetters
from producers.webhooks.events import Event
from producers.webhooks.wishes import Wishes

HOOKED = of_app("https://hooks.example/")


@pytest.fixture(params=[1, 4])
def hooked(request: Any, client: Any, make_settings: Callable[..., Settings]) -> Settings:
    """Give settings of an app that wants webhooks, with three dead letters."""
    client.flushall()
    apps = {**APPS, "shop": {**APPS["shop"], **HOOKED}}
    settings = make_settings(apps=apps, lanes=request.param)
    mine = store.connect(settings)
    store.check_layout(mine, settings)
    Wishes(mine, settings).tell()
    shop = Shop(mine, settings)
    shop.give("o1", formId="f1")
    for _ in range(3):
        shop.broadcasts.pause(shop.broadcast())
    asyncio.run(kill(settings))
    mine.close()
    mine.connection_pool.disconnect()
    return settings


def test_the_command_line_lists_and_replays(hooked: Settings) -> None:
    first = run(hooked, "webhooks", "list", "--app", "shop", "--limit", "2", "--json").json
    assert (first["box"]["dead"], len(first["letters"])) == (3, 2)
    cursor = first["cursor"]
    rest = run(hooked, "webhooks", "list", "--app", "shop", "--cursor", cursor, "--json").json
    ids = [one["id"] for one in (*first["letters"], *rest["letters"])]
    assert len(set(ids)) == 3
    shown = run(hooked, "webhooks", "list", "--app", "shop")
    assert ids[0] in shown.out
    assert "0 wait, 3 dead letters" in shown.err
    done = run(hooked, "webhooks", "replay", "--app", "shop", ids[0], ids[0], "--json")
    assert done.json == {"app": "shop", "replayed": 1}
    done = run(hooked, "webhooks", "replay", "--app", "shop", "--all", "--json")
    assert done.json == {"app": "shop", "replayed": 2}
    shown = run(hooked, "webhooks", "list", "--app", "shop")
    assert "3 wait, 0 dead letters" in shown.err


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("replay", "--app", "shop"), "name the ids, or --all"),
        (("replay", "--app", "shop", "evt_x"), "no event's id"),
        (("replay", "--app", "other", "--all"), "no app 'other'"),
        (("list", "--app", "shop", "--cursor", "9.9.9"), "cursor"),
        (("list", "--app", "shop", "--limit", "0"), "limit 0"),
    ],
)
def test_what_is_wrong_is_said(hooked: Settings, args: tuple[str, ...], says: str) -> None:
    ran = run(hooked, "webhooks", *args, "--json")
    assert ran.code == 2
    assert says in ran.json["error"]


def test_http_lists_and_replays(hooked: Settings, tmp_path: Any) -> None:
    with recorded(tmp_path) as read, opened(hooked) as house:
        caller, reader = house.caller(), house.caller("read")
        first = caller.get("/v1/apps/shop/webhooks?limit=2").json
        rest = caller.get(f"/v1/apps/shop/webhooks?cursor={first['next_cursor']}").json
        assert (len(first["letters"]), len(rest["letters"]), rest["next_cursor"]) == (2, 1, "")
        letter = first["letters"][0]
        assert (letter["type"], letter["attempts"], letter["why"]) == (
            "broadcast.paused",
            1,
            "HTTP 500",
        )
        replay = "/v1/apps/shop/webhooks/replay"
        assert reader.post(replay, {}).status == 403
        assert caller.post(replay, {"ids": ["nothing"]}).status == 422
        assert caller.post(replay, {"ids": [letter["id"]]}).json == {"replayed": 1}
        assert caller.post(replay, {}).json == {"replayed": 2}
        assert caller.get("/v1/apps/cafe/webhooks").status == 403
        lines = [line for line in read() if line["event"] == "webhooks_replayed"]
    assert [(line["app"], line["webhooks"]) for line in lines] == [("shop", 1), ("shop", 2)]


def test_python_lists_and_replays(hooked: Settings) -> None:
    with Producer(hooked) as producer:
        page = producer.webhooks("shop")
        assert page.box.dead == 3
        assert producer.replay_webhooks("shop", [page.letters[0].id]) == 1
        assert producer.replay_webhooks("shop") == 2
        with pytest.raises(UnknownAppError):
            producer.webhooks("other")
        with pytest.raises(InvalidInputError, match="at most"):
            producer.replay_webhooks("shop", [page.letters[0].id] * 1001)


def test_the_doctor_says_when_dead_letters_grow(hooked: Settings) -> None:
    client = store.connect(hooked)
    (check,) = examine(client, hooked)
    assert (check.health, check.name) == ("warn", "app shop: webhooks")
    assert "3 dead letters (3 in the last day)" in check.found
    assert "webhooks list --app shop" in check.advice
    for lane in range(hooked.lanes):
        dead = keys.hook_dead(lane, "shop")
        for name in client.zrange(dead, 0, -1):
            client.zadd(dead, {name: 1})  # long ago
    assert [one.health for one in examine(client, hooked)] == ["ok"]
    client.delete(keys.hooks(0))
    (check,) = examine(client, hooked)
    assert "start one anew" in check.advice
    client.close()
    client.connection_pool.disconnect()


def test_a_body_is_what_the_specification_wants() -> None:
    event = Event.read("shop", 0, 0, "b1 0000000000000007", "broadcast.paused 1700000000000\n{}")
    assert json.loads(event.body()) == {
        "type": "broadcast.paused",
        "timestamp": "2023-11-14T22:13:20.000Z",
        "data": {"app": "shop", "broadcast": "b1"},
    }
    assert event.id == "evt_b1_0000000000000007_0"


@pytest.mark.parametrize("text", ["", "x", "x y\n{", "x 1\n[]", 'x 1\n{"state": 1}'])
def test_what_somebody_spoiled_is_told_without_details(text: str) -> None:
    assert Event.read("shop", 0, 0, "b1 7", text).details == {}


def test_no_secret_is_in_what_lies_in_redis(hooked: Settings) -> None:
    client = store.connect(hooked)
    everything = str(Shop(client, hooked).everything())
    assert SECRET not in everything
    assert "hooks.example" not in everything
    assert DeadLetters(client, hooked).box("shop").bytes > 0
    client.close()
    client.connection_pool.disconnect()
