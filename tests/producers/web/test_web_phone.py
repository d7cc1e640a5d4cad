"""The mini-program's door and WeChat's callbacks over HTTP."""

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from log_lines import recorded
from web_house import APPS, TEMPLATE, Caller, House

from producers.sandbox import Callback, SandboxConfig
from producers.sandbox.pushes.events import Event, write_push
from producers.sandbox.thread import SandboxThread
from producers.store import keys

LOGIN = "/v1/apps/shop/login"
COLLECT = "/v1/apps/shop/collect"
TOKEN = "callbacktoken"
PLAN = "/v1/apps/shop/permits/plan"


@pytest.fixture
def wechat() -> Iterator[SandboxThread]:
    apps = {app["appid"]: app["secret"] for app in APPS.values()}
    with SandboxThread(SandboxConfig(apps=apps)) as sandbox:
        sandbox.give_code("code-anna", "oAnna")
        yield sandbox


@pytest.fixture
def house(open_house: Callable[..., House], wechat: SandboxThread) -> House:
    callback = {"callback_token": TOKEN, "subscription_source": "events"}
    return open_house(wechat_url=wechat.url, apps={**APPS, "cafe": {**APPS["cafe"], **callback}})


@pytest.fixture
def phone(house: House) -> Caller:
    """Anna's phone, logged in."""
    got = house.anybody.post(LOGIN, {"code": "code-anna"})
    assert (got.status, set(got.json)) == (200, {"token", "expires_in_s"})
    return Caller(house.port, got.json["token"])


def test_a_phone_files_permits_for_its_own_user(phone: Caller, house: House) -> None:
    got = phone.post(COLLECT, [{"formIds": ["f1"]}, {"openid": "oAnna", "formIds": ["f2"]}])
    assert (got.status, got.json["new"]) == (200, 2)
    assert house.uses("oAnna") == {"f:f1", "f:f2"}
    got = phone.post(COLLECT, {"subscriptions": {TEMPLATE: "accept"}})
    assert got.json["refused"] == {"bad_source_id": 1}
    got = phone.post(COLLECT, {"subscriptions": {TEMPLATE: "accept"}, "id": "1"})
    assert got.json["new"] == 1


def test_and_for_nobody_else(phone: Caller, house: House) -> None:
    got = phone.post(COLLECT, [{"formIds": ["f1"]}, {"openid": "oBert", "formIds": ["f2"]}])
    assert (got.status, got.kind) == (403, "forbidden")
    assert house.uses("oBert") == house.uses("oAnna") == set()


def test_a_ticket_is_no_key_and_is_good_for_one_app(phone: Caller, house: House) -> None:
    for method, path in [
        ("POST", "/v1/apps/shop/permits"),
        ("GET", "/v1/apps/shop/users/oAnna"),
        ("GET", "/v1/apps/shop/broadcasts"),
        ("POST", "/v1/apps/cafe/collect"),
    ]:
        body = {"openid": "oAnna", "formIds": ["f1"]} if method == "POST" else None
        got = phone(method, path, body)
        assert (got.status, got.kind) == (401, "unauthorized"), path
    assert house.uses("oAnna") == house.uses("oAnna", "cafe") == set()


def test_a_key_is_no_ticket(house: House) -> None:
    got = house.master().post(COLLECT, {"openid": "oAnna", "formIds": ["f1"]})
    assert (got.status, got.kind) == (401, "unauthorized")
    assert got.headers["www-authenticate"].startswith("Bearer ")


def test_a_phone_may_ask_what_to_ask_its_own_user_for(phone: Caller, house: House) -> None:
    assert phone.get(PLAN).json == {"app": "shop", "openid": "oAnna", "templates": [], "skip": []}
    assert phone.get(f"{PLAN}?openid=oAnna").status == 200
    assert phone.get(f"{PLAN}?openid=oBert").status == 422
    assert phone.get(PLAN.replace("shop", "cafe")).status == 401
    assert Caller(house.port, "v1.shop.oAnna.9999999999." + "A" * 43).get(PLAN).status == 401


def test_a_code_works_once(phone: Caller, house: House) -> None:
    got = house.anybody.post(LOGIN, {"code": "code-anna"})
    assert (got.status, got.kind) == (422, "invalid")
    assert "wx.login" in got.json["detail"]


def test_the_session_key_stays_inside(house: House, wechat: SandboxThread) -> None:
    got = house.anybody.post(LOGIN, {"code": "code-anna"})
    assert "session" not in got.body.decode()
    assert not got.headers.keys() & {"set-cookie", "access-control-allow-origin"}


def test_without_wechat_there_is_no_login_now(open_house: Callable[..., House]) -> None:
    house = open_house(wechat_url="http://127.0.0.1:1")
    got = house.anybody.post(LOGIN, {"code": "code-anna"})
    assert (got.status, got.kind) == (503, "unavailable")
    assert int(got.headers["retry-after"]) >= 1


def test_an_address_is_taken_from_where_it_can_be_trusted(
    open_house: Callable[..., House], wechat: SandboxThread
) -> None:
    """One client writes what it likes; what our own proxy adds last is counted."""
    house = open_house(wechat_url=wechat.url, web_proxies=1, logins_per_minute=2)
    statuses = [
        house.anybody.post(
            LOGIN, {"code": f"x{number}"}, X_Forwarded_For=f"10.0.0.{number}, 203.0.113.9"
        ).status
        for number in range(4)
    ]
    assert statuses[:2] == [422, 422]
    assert 429 in statuses[2:]
    got = house.anybody.post(LOGIN, {"code": "y"}, X_Forwarded_For="203.0.113.8")
    assert got.status == 422


@pytest.mark.parametrize(
    ("proxies", "headers", "remote"),
    [
        (0, {"X_Forwarded_For": "203.0.113.9"}, "127.0.0.1"),
        (1, {"X_Forwarded_For": "203.0.113.9"}, "203.0.113.9"),
        (1, {"X_Forwarded_For": "10.0.0.1, 203.0.113.9:4711"}, "203.0.113.9"),
        (1, {"X_Forwarded_For": "[2001:db8::1]:443"}, "2001:db8::1"),
        (1, {"X_Forwarded_For": "fe80::1%eth0"}, "fe80::1"),
        (1, {}, "127.0.0.1"),
        (1, {"X_Forwarded_For": ""}, "127.0.0.1"),
        (1, {"X_Forwarded_For": "203.0.113.9,"}, "127.0.0.1"),
        (1, {"X_Forwarded_For": "203.0.113.9, unknown"}, "127.0.0.1"),
        (2, {"X_Forwarded_For": "203.0.113.9"}, "127.0.0.1"),
        (2, {"X_Forwarded_For": "8.8.8.8, 203.0.113.9, 10.0.0.1"}, "203.0.113.9"),
    ],
)
def test_a_request_past_the_proxies_counts_as_its_own_peer(
    open_house: Callable[..., House],
    tmp_path: Path,
    proxies: int,
    headers: dict[str, str],
    remote: str,
) -> None:
    """Too few addresses, or what is none: nobody goes uncounted."""
    with recorded(tmp_path) as lines:
        house = open_house(web_proxies=proxies)
        assert house.anybody.get("/healthz", **headers).status == 200
        found = [line["remote"] for line in lines() if line["event"] == "request_answered"]
    assert found == [remote]


# -- callbacks ------------------------------------------------------------------------------------


def pushed(name: str = "subscribe_msg_popup_event", openid: str = "oAnna") -> tuple[str, bytes]:
    """Return path and body of a push, as the sandbox writes it."""
    callback = Callback(url="http://h/wechat/cafe", token=TOKEN, mode="plain", format="json")
    items = ({"TemplateId": TEMPLATE, "SubscribeStatusString": "accept", "PopupScene": "0"},)
    event = Event(APPS["cafe"]["appid"], openid, name, items, time.time())
    written = write_push(callback, event, time.time(), random.Random())
    return written.url.removeprefix("http://h"), written.body


def test_the_consoles_check_of_the_url_is_answered(house: House) -> None:
    path, _ = pushed()
    query = path.partition("?")[2]
    got = house.anybody.get(f"/wechat/cafe?{query}&echostr=hello")
    assert (got.status, got.body) == (200, b"hello")
    assert got.headers["content-type"] == "text/plain; charset=utf-8"
    got = house.anybody.get(f"/wechat/cafe?{query.replace('nonce=', 'nonce=1')}&echostr=hello")
    assert (got.status, got.kind) == (403, "forbidden")
    assert b"hello" not in got.body


def test_a_push_is_answered_success_and_acted_on_afterwards(
    house: House, eventually: Callable[..., Any]
) -> None:
    path, body = pushed()
    for _ in range(3):
        got = house.anybody.post(path, body, "text/xml")
        assert (got.status, got.body) == (200, b"success")
    lane, _, _ = keys.place_of("oAnna", house.settings)
    subs = keys.subscriptions(0, "cafe", "oAnna")
    assert lane == 0
    eventually(lambda: house.client.hget(subs, TEMPLATE), "the accept is counted")
    eventually(lambda: not house.client.llen(keys.inbox("cafe")), "the duplicates are acted on")
    assert house.client.hget(subs, TEMPLATE) == "1"


def test_a_replay_with_another_body_is_a_forgery(house: House) -> None:
    path, body = pushed()
    assert house.anybody.post(path, body).status == 200
    other = json.loads(body)
    other["FromUserName"] = "oBert"
    got = house.anybody.post(path, json.dumps(other).encode())
    assert (got.status, got.kind) == (403, "forbidden")


def test_an_app_without_a_token_takes_no_callbacks(house: House) -> None:
    path, body = pushed()
    got = house.anybody.post(path.replace("cafe", "shop"), body)
    assert (got.status, got.kind) == (422, "invalid")
    query = urlencode({"signature": "x", "timestamp": "1", "nonce": "2"})
    assert house.anybody.post(f"/wechat/nobody?{query}", body).kind == "not-found"
