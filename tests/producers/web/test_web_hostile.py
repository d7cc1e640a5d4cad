"""Hostile input: nothing of it is accepted, nothing of it is stored, and what was stored stays.

The table is the one in the README.
"""

import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from web_house import APPS, PERMITS, TEMPLATE, Caller, Got, House

from producers.access.door import Tickets
from producers.sandbox import Callback
from producers.sandbox.pushes.events import Event, write_push

CALLBACK_TOKEN = "callbacktoken"
AES_KEY = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
VIP = "/v1/apps/shop/audiences/vip"
NDJSON = "application/x-ndjson"


PASSING = (":reply:", ":limit", ":flood:", ":lane:", ":push:", ":inbox")
"""Parts of keys that say nothing of users and broadcasts."""


@dataclass
class Attack:
    """One hostile request.

    Attributes:
        what: for people.
        status: what it must get.
        send: sends it.
    """

    what: str
    status: int
    send: Callable[["Town"], Got] = field(repr=False)


class Town:
    """A service with something to lose: a user's permit, an audience, a broadcast."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.shop = house.caller()
        self.cafe = house.caller(apps=("cafe",))
        self.collector = house.caller("collect")
        self.nobody = house.anybody
        self.shop.post(PERMITS, {"openid": "oAnna", "formIds": ["f1"]})
        self.shop("PUT", VIP, b"oAnna", "text/plain")
        made = {"channel": "template", "template_id": TEMPLATE, "audience": "vip", "data": "a"}
        self.broadcast = self.shop.post("/v1/apps/shop/broadcasts", made).json["id"]
        self.shop.post(f"/v1/apps/shop/broadcasts/{self.broadcast}/pause")
        self.now_s = int(house.client.time()[0])

    def phone(self, openid: str = "oAnna", app: str = "shop", life_s: int = 600) -> Caller:
        """A caller with a ticket as login gives it."""
        token = Tickets(self.house.settings).sign(app, openid, self.now_s + life_s)
        return Caller(self.house.port, token)

    def push(self, app: str = "shop", **change: Any) -> tuple[str, bytes]:
        """Path and body of a push by somebody who knows what ``change`` does not change."""
        mode = "secure" if app == "cafe" else "plain"
        fields = {"token": CALLBACK_TOKEN, "encoding_aes_key": AES_KEY, "mode": mode, **change}
        appid = fields.pop("appid", APPS[app]["appid"])
        at_s = fields.pop("at_s", time.time())
        callback = Callback(url=f"http://h/wechat/{app}", format="json", **fields)
        items = ({"TemplateId": TEMPLATE, "SubscribeStatusString": "reject", "PopupScene": "0"},)
        event = Event(appid, "oAnna", "subscribe_msg_popup_event", items, at_s)
        written = write_push(callback, event, at_s, random.Random())
        return written.url.removeprefix("http://h"), written.body

    def state(self) -> dict[str, bytes]:
        """Everything in Redis that says something of users and broadcasts."""
        found = {}
        for key in self.house.client.scan_iter(count=1000):
            if any(part in key for part in PASSING):
                continue
            found[key] = self.house.client.execute_command("DUMP", key, NEVER_DECODE=True)
        return found


def deep(levels: int) -> bytes:
    return b'{"openid":"oX","formIds":' + b"[" * levels + b"]" * levels + b"}"


def endless(size: int) -> Iterator[bytes]:
    for _ in range(size // 65_536):
        yield b'{"openid":"?"}\n' * 4096


def replayed(town: Town) -> Got:
    """A genuine push was seen; its signature comes again with another body."""
    path, body = town.push()
    document = {**json.loads(body), "FromUserName": "oBert", "Event": "something_else"}
    first = town.nobody.post(path, json.dumps(document).encode())
    assert first.status == 200
    return town.nobody.post(path, body)


def form(openid: str = "oX") -> dict[str, Any]:
    return {"openid": openid, "formIds": ["stolen"]}


ATTACKS = [
    # too much
    Attack("a JSON body over its limit", 413, lambda t: t.shop.post(PERMITS, b" " * 1_048_577)),
    Attack(
        "a body that lies about its length, chunked",
        413,
        lambda t: t.shop.post(PERMITS, endless(2_000_000)),
    ),
    Attack(
        "a stream over its limit", 413, lambda t: t.shop.post(PERMITS, endless(6_000_000), NDJSON)
    ),
    Attack(
        "a gzip bomb", 415, lambda t: t.shop.post(PERMITS, b"\x1f\x8b\x08", Content_Encoding="gzip")
    ),
    Attack("JSON, 100,000 levels deep", 400, lambda t: t.shop.post(PERMITS, b"[" * 100_000)),
    Attack(
        "a login of 64 KiB and more",
        413,
        lambda t: t.nobody.post("/v1/apps/shop/login", {"code": "x" * 70_000}),
    ),
    Attack(
        "a phone's upload of 64 KiB and more",
        413,
        lambda t: t.phone().post("/v1/apps/shop/collect", {"formIds": ["x" * 70_000]}),
    ),
    Attack("a push of 64 KiB and more", 413, lambda t: t.nobody.post(t.push()[0], b"<" * 70_000)),
    Attack("a header of 16 KiB", 431, lambda t: t.nobody.get("/healthz", X="x" * 16_384)),
    Attack("51 query parameters", 400, lambda t: t.shop.get(f"{PERMITS}/plan?" + "a=1&" * 51)),
    # no text
    Attack(
        "bytes that are no UTF-8", 400, lambda t: t.shop.post(PERMITS, b'{"openid":"\xff\xfe"}')
    ),
    Attack("half a surrogate pair", 400, lambda t: t.shop.post(PERMITS, b'{"openid":"\\ud800"}')),
    Attack("UTF-16", 400, lambda t: t.shop.post(PERMITS, '{"openid":"oX"}'.encode("utf-16"))),
    Attack("a query that is no UTF-8", 400, lambda t: t.shop.get(f"{PERMITS}/plan?openid=%ff")),
    Attack("a NUL in a path", 404, lambda t: t.shop.get("/v1/apps/shop/users/oAnna%00")),
    # path tricks
    Attack("..", 404, lambda t: t.shop.get("/v1/apps/cafe/../shop/audiences/vip")),
    Attack("%2e%2e", 404, lambda t: t.shop.get("/v1/apps/cafe/%2e%2e/shop/audiences/vip")),
    Attack("%2F", 404, lambda t: t.shop.get("/v1/apps%2Fshop/audiences/vip")),
    Attack("//", 404, lambda t: t.shop.get("//v1/apps/shop/audiences/vip")),
    Attack("a slash at the end", 404, lambda t: t.shop.get(f"{VIP}/")),
    Attack("another spelling of an app", 404, lambda t: t.cafe.get("/v1/apps/SHOP/audiences")),
    Attack(
        "an app written in %xx", 403, lambda t: t.cafe.get("/v1/apps/%73%68%6f%70/audiences/vip")
    ),
    Attack("Redis's own characters", 404, lambda t: t.shop.get("/v1/apps/{shop}/audiences")),
    Attack("a proxy's absolute URL", 404, lambda t: t.shop.get("http://h/v1/apps/shop/audiences")),
    # other people's
    Attack("no key", 401, lambda t: t.nobody.post(PERMITS, form())),
    Attack("key of another app", 403, lambda t: t.cafe.post(PERMITS, form())),
    Attack(
        "key of another app: forget", 403, lambda t: t.cafe("DELETE", "/v1/apps/shop/users/oAnna")
    ),
    Attack(
        "broadcast of another app",
        404,
        lambda t: t.cafe.post(f"/v1/apps/cafe/broadcasts/{t.broadcast}/resume", {}),
    ),
    Attack("key without the scope", 403, lambda t: t.collector("DELETE", VIP)),
    Attack(
        "key with another secret",
        401,
        lambda t: Caller(t.house.port, t.shop.token[:-6] + "AAAAAA").post(PERMITS, form()),
    ),
    Attack(
        "foreign openid with a ticket",
        403,
        lambda t: t.phone("oEve").post("/v1/apps/shop/collect", form("oAnna")),
    ),
    Attack(
        "foreign openid inside a text",
        422,
        lambda t: t.phone("oEve").post("/v1/apps/shop/collect", [json.dumps(form("oAnna"))]),
    ),
    Attack(
        "ticket of another app",
        401,
        lambda t: t.phone("oEve", "cafe").post("/v1/apps/shop/collect", form("oEve")),
    ),
    Attack(
        "ticket that has expired",
        401,
        lambda t: t.phone("oEve", life_s=-1).post("/v1/apps/shop/collect", form("oEve")),
    ),
    Attack(
        "ticket with another openid written in",
        401,
        lambda t: Caller(t.house.port, t.phone("oEve").token.replace("oEve", "oAnn")).post(
            "/v1/apps/shop/collect", form("oAnn")
        ),
    ),
    Attack("ticket as a key", 401, lambda t: t.phone().post(PERMITS, form())),
    # WeChat's
    Attack(
        "push with a wrong signature",
        403,
        lambda t: t.nobody.post(*t.push(token="anothertoken")),
    ),
    Attack("push without one", 403, lambda t: t.nobody.post("/wechat/shop", t.push()[1])),
    Attack("push from an hour ago", 403, lambda t: t.nobody.post(*t.push(at_s=t.now_s - 3600))),
    Attack("push replayed with another body", 403, replayed),
    Attack(
        "push in clear where secure mode is set",
        403,
        lambda t: t.nobody.post(*t.push("cafe", mode="plain")),
    ),
    Attack(
        "push sealed with another key",
        403,
        lambda t: t.nobody.post(*t.push("cafe", encoding_aes_key=AES_KEY[::-1])),
    ),
    Attack(
        "push sealed for another appid",
        403,
        lambda t: t.nobody.post(*t.push("cafe", appid="wxother")),
    ),
    Attack(
        "XML with a bomb of entities",
        422,
        lambda t: t.nobody.post(
            t.push()[0], b'<!DOCTYPE x [<!ENTITY a "b"><!ENTITY c "&a;&a;">]><xml>&c;</xml>'
        ),
    ),
]


@pytest.fixture
def town(open_house: Callable[..., House]) -> Town:
    callback = {"callback_token": CALLBACK_TOKEN}
    apps = {
        "shop": {**APPS["shop"], **callback},
        "cafe": {**APPS["cafe"], **callback, "callback_aes_key": AES_KEY},
    }
    return Town(open_house(apps=apps, web_stream_limit=5_000_000))


def test_every_attack_is_refused_and_changes_nothing(town: Town) -> None:
    """One service meets them all, in any order, as it would."""
    attacks = random.sample(ATTACKS, len(ATTACKS))
    before = town.state()
    found = {}
    for attack in attacks:
        got = attack.send(town)
        if got.status != attack.status:
            found[attack.what] = (got.status, got.body[:300])
        assert got.kind
        assert town.state() == before, attack.what
    assert found == {}
    assert town.house.uses("oAnna") == {"f:f1"}
    assert town.shop.get(VIP).json["members"] == 1
    status = town.shop.get(f"/v1/apps/shop/broadcasts/{town.broadcast}").json
    assert (status["state"], status["total"]) == ("paused", 1)
    assert town.house.anybody.get("/healthz").status == 200


def test_a_deep_upload_is_one_refusal(town: Town) -> None:
    got = town.shop.post(PERMITS, deep(1000))
    assert (got.status, got.json["new"]) == (200, 0)
    assert sum(got.json["refused"].values()) == 1
    assert town.shop.post(PERMITS, deep(1000), NDJSON).json["new"] == 0


def test_a_push_that_is_replayed_as_it_was_is_answered_as_before(
    town: Town, eventually: Callable[..., Any]
) -> None:
    path, body = town.push()
    for _ in range(2):
        assert town.nobody.post(path, body).body == b"success"
    eventually(lambda: not town.house.client.llen("wxb:{app:shop}:inbox"), "the inbox is empty")
