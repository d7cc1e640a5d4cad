"""The clerk, against the sandbox: who reads what, how often, and what comes of all that fails."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from clerks import FORM_LIST, LIST, clerk_of
from log_lines import Lines, recorded

from producers.sandbox.calls.token_calls import STABLE_PATH
from producers.sandbox.thread import SandboxThread
from producers.settings import Settings
from producers.store import deadline, keys
from producers.templates import Templates

T1 = {"template_id": "T1", "title": "会议通知", "content": "地点:{{thing1.DATA}}\n"}
LONG = {"template_id": "L1", "type": 3, "content": "{{date2.DATA}}"}
FORM = [
    {"template_id": f"F{n:02}", "channel": "template", "content": "订单:{{keyword1.DATA}}\n"}
    for n in range(25)
]


@pytest.fixture(scope="module")
def wechat() -> Iterator[SandboxThread]:
    with SandboxThread() as thread:
        yield thread


Maker = Callable[..., Settings]


@pytest.fixture
def make(wechat: SandboxThread, client: "redis.Redis", make_settings: Maker) -> Maker:
    """Make settings of two apps whose WeChat is the sandbox, which forgot all but some templates.

    What is given is alias → another base URL of its WeChat.
    """
    wechat.reset()
    wechat.configure(templates=[T1, LONG, *FORM])

    def made(**urls: str) -> Settings:
        apps = {
            alias: {"appid": f"wx{alias}", "secret": "shop-secret", "wechat_url": url}
            for alias, url in {"shop": wechat.url, "club": wechat.url, **urls}.items()
        }
        return make_settings(post_timeout=2, apps=apps)

    return made


@pytest.fixture
def at(make: Maker) -> Settings:
    return make()


def named(lines: Lines, event: str) -> Lines:
    return [line for line in lines if line["event"] == event]


def asked(wechat: SandboxThread, path: str = LIST) -> int:
    return int(wechat.stats()["apis"].get(path, {}).get("requests", 0))


def pass_the_pause(client: "redis.Redis", app: str = "shop", channel: str = "subscribe") -> None:
    """Let the time be over in which WeChat is not asked again."""
    client.hset(keys.templates(app, channel), mapping={"next_ms": 0})
    client.zadd(keys.TEMPLATES_DUE, {f"{channel} {app}": 0}, xx=True)


def test_a_list_is_read_when_somebody_wants_it_and_kept_for_all(
    at: Settings, client: "redis.Redis", wechat: SandboxThread, tmp_path: Path
) -> None:
    with recorded(tmp_path) as read, clerk_of(at):
        found = Templates(client, at).show("shop")
        (line,) = named(read(), "templates_read")
    assert {one.template_id: one.kind for one in found.templates.values()} == {
        "T1": "one_off",
        "L1": "long_term",
    }
    assert (found.is_whole, found.trouble) == (True, "")
    assert Templates(client, at).show("shop").templates == found.templates  # nobody reads any more
    assert asked(wechat) == 1
    assert (line["app"], line["templates"], line["whole"]) == ("shop", 2, True)


def test_a_list_of_the_form_id_api_is_read_page_by_page(
    at: Settings, client: "redis.Redis", wechat: SandboxThread
) -> None:
    with clerk_of(at):
        found = Templates(client, at).show("shop", "template")
    assert len(found.templates) == 25
    assert found.templates["F00"].fields[0].label == "订单"
    assert asked(wechat, FORM_LIST) == 2


def test_without_a_wake_up_a_list_is_read_all_the_same(at: Settings, client: "redis.Redis") -> None:
    with clerk_of(at, hears=False):
        assert len(Templates(client, at).show("shop").templates) == 2


def test_for_a_list_that_is_due_later_nothing_is_asked_yet(
    at: Settings, client: "redis.Redis", wechat: SandboxThread
) -> None:
    client.zadd(keys.TEMPLATES_DUE, {"subscribe club": (time.time() + 3600) * 1000})
    client.expire(keys.TEMPLATES_DUE, 600)
    with clerk_of(at):
        assert len(Templates(client, at).show("shop").templates) == 2
        assert asked(wechat, STABLE_PATH) == 1  # the shop's alone


def test_several_workers_read_a_list_once(
    at: Settings, client: "redis.Redis", wechat: SandboxThread
) -> None:
    with ExitStack() as stack:
        for number in range(3):
            stack.enter_context(clerk_of(at, f"w{number}"))
        templates = Templates(client, at)
        assert len(templates.show("shop").templates) == 2
        pass_the_pause(client)
        again = templates.show("shop", refresh=True)
        assert (asked(wechat), again.trouble) == (2, "")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"action": "errcode", "errcode": 48001}, "48001 api unauthorized"),
        ({"action": "errcode", "errcode": 45009}, "45009 reach max api daily quota limit"),
        ({"action": "status", "status": 404}, "no list in the answer: HTTP 404"),
        ({"action": "garbage"}, "no list in the answer"),
        ({"action": "cut_before"}, "Disconnected"),
        ({"action": "hang", "ms": 4000}, "no answer in time"),
    ],
)
def test_a_failure_is_remembered_and_not_tried_again_at_once(
    at: Settings,
    client: "redis.Redis",
    wechat: SandboxThread,
    tmp_path: Path,
    rule: dict[str, Any],
    said: str,
) -> None:
    wechat.fail({"api": "gettemplate", **rule})
    templates = Templates(client, at)
    with recorded(tmp_path) as read, clerk_of(at):
        found = templates.show("shop")
        assert said in found.trouble
        assert (found.templates, found.read_at_ms) == ({}, 0)
        again = templates.show("shop", refresh=True)
        lines = read()
    assert said in again.trouble
    # aiohttp may repeat a GET whose kept connection was closed under it
    assert asked(wechat) in ({1, 2} if rule["action"] == "cut_before" else {1})
    (line,) = named(lines, "templates_failed")
    assert said in line["error"]
    assert 50_000 < line["wait_ms"] < 61_000
    assert "shop-secret" not in json.dumps(lines)


def test_what_was_known_stays_when_a_later_read_fails(
    at: Settings, client: "redis.Redis", wechat: SandboxThread
) -> None:
    templates = Templates(client, at)
    with clerk_of(at):
        before = templates.show("shop")
        wechat.fail({"api": "gettemplate", "action": "garbage"})
        pass_the_pause(client)
        found = templates.show("shop", refresh=True)
    assert (found.templates, found.read_at_ms) == (before.templates, before.read_at_ms)
    assert found.trouble


def test_a_token_that_wechat_refuses_is_renewed_and_the_list_read_after_all(
    at: Settings, client: "redis.Redis", wechat: SandboxThread
) -> None:
    templates = Templates(client, at)
    wechat.fail({"api": "gettemplate", "action": "errcode", "errcode": 40001, "count": 1})
    with clerk_of(at) as one:
        assert "40001" in templates.show("shop").trouble
        assert one.tokens["shop"].ready is None
        pass_the_pause(client)
        assert len(templates.show("shop", refresh=True).templates) == 2


def test_an_answer_of_ten_megabytes_is_not_read_to_its_end(
    at: Settings, client: "redis.Redis", wechat: SandboxThread
) -> None:
    many = [{"template_id": f"T{n}", "content": "长" * 100, "title": "x"} for n in range(10_000)]
    wechat.configure(templates=many)
    with clerk_of(at):
        found = Templates(client, at).show("shop")
    assert "more than 1,048,576 bytes" in found.trouble
    assert client.memory_usage(keys.templates("shop", "subscribe")) < 1000


def test_one_app_that_hangs_delays_no_other(make: Maker, client: "redis.Redis") -> None:
    with SandboxThread() as deaf:
        deaf.fail({"api": "gettemplate", "action": "hang", "ms": 20_000})
        settings = make(club=deaf.url)
        templates = Templates(client, settings)
        with clerk_of(settings):
            templates.need("club")
            started = time.monotonic()
            assert len(templates.show("shop").templates) == 2
            assert time.monotonic() - started < 1.5


def test_a_worker_without_a_connection_leaves_the_list_to_others(
    at: Settings, client: "redis.Redis"
) -> None:
    templates = Templates(client, at)
    with clerk_of(at, "w1") as cut_off:
        cut_off.connects = False
        with deadline.within(0.6):
            assert templates.show("shop").trouble == "no worker has answered yet"
        with clerk_of(at, "w2"):
            assert len(templates.show("shop").templates) == 2


def test_without_any_worker_nobody_waits(at: Settings, client: "redis.Redis") -> None:
    started = time.monotonic()
    found = Templates(client, at).show("shop")
    assert found.trouble == "no worker lives that could ask WeChat"
    assert time.monotonic() - started < 0.5
