"""What people without a key can cause, measured: keys, bytes and time of Redis.

Each row of the table in the README of the web room that is about Redis stands here, or names
another test.
"""

import json
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import pytest
from web_house import APPS, TEMPLATE, Caller, House

from producers.access.door import Tickets
from producers.sandbox import Callback, SandboxConfig
from producers.sandbox.pushes.events import Event, write_push
from producers.sandbox.thread import SandboxThread

pytestmark = pytest.mark.timeout(60)

TOKEN, AES_KEY = "callbacktoken", "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
LOGIN, COLLECT = "/v1/apps/shop/login", "/v1/apps/shop/collect"
AUDIENCES, PLAN = "/v1/apps/shop/audiences", "/v1/apps/shop/permits/plan"
TIMES = 200


@dataclass
class Deed:
    """Something that somebody does again and again.

    Attributes:
        what: for people.
        do: does it, for the n-th time.
        keys: that may be in Redis afterwards and were not before.
        size: bytes that they may take together.
        us: microseconds of Redis per time, on the average.
    """

    what: str
    do: Callable[["Street", int], object] = field(repr=False)
    keys: int
    size: int
    us: int


class Street:
    """Where anybody can come by: the service, a phone's ticket, and pushes."""

    def __init__(self, house: House) -> None:
        self.house, self.anybody = house, house.anybody
        self.now_s = int(house.client.time()[0])
        self.phone = self.ticket("oEve")

    def ticket(self, openid: str, life_s: int = 600) -> Caller:
        token = Tickets(self.house.settings).sign("shop", openid, self.now_s + life_s)
        return Caller(self.house.port, token)

    def push(self, number: int, **change: Any) -> None:
        fields = {"token": TOKEN, "encoding_aes_key": AES_KEY, "mode": "secure", **change}
        callback = Callback(url="http://h/wechat/shop", format="json", **fields)
        items = ({"TemplateId": TEMPLATE, "SubscribeStatusString": "reject", "PopupScene": "0"},)
        event = Event(
            APPS["shop"]["appid"], "oEve", "subscribe_msg_popup_event", items, time.time()
        )
        made = write_push(callback, event, time.time(), random.Random(number))
        self.anybody.post(made.url.removeprefix("http://h"), made.body)


def junk(number: int) -> dict[str, Any]:
    """An upload of everything that is wrong, in kind or in number."""
    return {
        "formIds": [{"formId": f"x{number}-{n}", "expire": -1} for n in range(100)] + [7, None, ""],
        "prepayId": "\u0000" * 200,
        "subscriptions": {f"T{number}-{n}": "maybe" for n in range(40)},
        "id": str(number),
    }


def fresh(number: int) -> dict[str, Any]:
    return {"formIds": [f"{number}-{n}" for n in range(20)]}


def rejects(number: int) -> list[dict[str, Any]]:
    return [{"subscriptions": {TEMPLATE: "reject"}, "id": f"{number}-{n}"} for n in range(20)]


DEEDS = [
    Deed("no such path", lambda s, n: s.anybody.get(f"/{n}"), 0, 0, 20),
    Deed("asks for health", lambda s, _: s.anybody.get("/healthz"), 0, 0, 20),
    Deed("asks whether it is ready", lambda s, _: s.anybody.get("/readyz"), 0, 0, 20),
    Deed(
        "guesses keys",
        lambda s, n: Caller(s.house.port, f"wxb_{n:012x}_{'A' * 43}").get(
            "/v1/apps/shop/audiences"
        ),
        0,
        0,
        100,
    ),
    Deed(
        "guesses tickets",
        lambda s, n: Caller(s.house.port, f"v1.shop.o{n}.9999999999.{'A' * 43}").post(COLLECT, {}),
        0,
        0,
        20,
    ),
    Deed(
        "comes with a ticket that has expired",
        lambda s, _: s.ticket("oEve", -600).post(COLLECT, {}),
        20,
        4096,
        200,
    ),
    Deed(
        "guesses login codes",
        lambda s, n: s.anybody.post(LOGIN, {"code": f"g{n}"}),
        40,
        8192,
        300,
    ),
    Deed("uploads junk", lambda s, n: s.phone.post(COLLECT, junk(n)), 24, 65_536, 2000),
    Deed("files form-ids", lambda s, n: s.phone.post(COLLECT, fresh(n)), 24, 65_536, 2000),
    Deed("rejects", lambda s, n: s.phone.post(COLLECT, rejects(n)), 24, 65_536, 2000),
    Deed("asks for its plan", lambda s, _: s.phone.get(PLAN), 24, 8192, 500),
    Deed("forges pushes", lambda s, n: s.push(n, token="anothertoken"), 0, 0, 20),
    Deed("pushes in clear", lambda s, n: s.push(n, mode="plain"), 0, 0, 20),
]


@pytest.fixture
def street(open_house: Callable[..., House]) -> Iterator[Street]:
    apps = {app["appid"]: app["secret"] for app in APPS.values()}
    shop = {
        **APPS["shop"],
        "callback_token": TOKEN,
        "callback_aes_key": AES_KEY,
        "subscribe_templates": [TEMPLATE],
    }
    with SandboxThread(SandboxConfig(apps=apps)) as wechat:
        apps = {**APPS, "shop": shop}
        house = open_house(apps=apps, wechat_url=wechat.url, uploads_per_minute=60_000)
        yield Street(house)


@pytest.mark.parametrize("deed", DEEDS, ids=[deed.what for deed in DEEDS])
def test_what_anybody_can_do_is_bounded(street: Street, deed: Deed) -> None:
    client = street.house.client
    deed.do(street, 0)  # scripts are loaded, pools are open
    before, spent = set(client.scan_iter()), usec(client)
    for number in range(1, TIMES + 1):
        deed.do(street, number)
    spent = usec(client) - spent
    new = set(client.scan_iter()) - before
    size = sum(client.memory_usage(key, samples=0) or 0 for key in new | stored(before))
    measured = json.dumps({"keys": len(new), "bytes": size, "us": round(spent / TIMES)})
    assert len(new) <= deed.keys, (measured, new)
    assert size <= deed.size, measured
    assert spent / TIMES <= deed.us, measured


def test_whoever_asks_for_readiness_redis_is_asked_a_few_times_a_second(street: Street) -> None:
    client = street.house.client
    with street.house.wire() as wire:
        before, began = calls(client), time.monotonic()
        wire.send(b"GET /readyz HTTP/1.1\r\nHost: h\r\n\r\n" * 500)
        assert {wire.answer().status for _ in range(500)} == {200}
        seconds = time.monotonic() - began
    # and some of them are connections that say who they are
    assert calls(client) - before <= 10 * seconds + 50


def calls(client: Any) -> int:
    """Return how many commands Redis has seen so far, but for the looks of this test."""
    stats = client.info("commandstats")
    return sum(int(one["calls"]) for name, one in stats.items() if name != "cmdstat_info")


def stored(keys: set[str]) -> set[str]:
    """Those of them that what somebody does makes grow."""
    return {key for key in keys if any(part in key for part in (":flood:", "oEve", ":reply:"))}


def usec(client: Any) -> int:
    """Return the microseconds of Redis so far, but for the looks of this test."""
    ours = {"scan", "memory|usage", "info"}
    stats = client.info("commandstats")
    return sum(
        int(one["usec"])
        for name, one in stats.items()
        if name.removeprefix("cmdstat_").lower() not in ours
    )


def test_each_bound_of_the_readme_names_a_test() -> None:
    """That these tests are there is looked at with all READMEs (`test_readme`)."""
    text = (resources.files("producers") / "web" / "README.md").read_text()
    section = text[text.index("## What people outside can cause") : text.index("## Words")]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 15
    for row in rows:
        assert re.search(r"`test_\w+|`…::test_|the same", row.split("|")[3]), row
