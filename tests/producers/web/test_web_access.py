"""Who may do what: every route, with no key, a wrong one, and one for something else."""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from web_house import BROADCASTS, PERMITS, Caller, House

from producers.access.api_keys import Scope
from producers.web.routes import TABLE
from producers.web.routing.route import PARAMETERS, Open, Route

ENDLESS = {"/console/events"}  # see test_web_sessions
KEYED = [one for one in TABLE if isinstance(one.access, Scope) and one.path not in ENDLESS]
OPEN = [route for route in TABLE if isinstance(route.access, Open)]


def path_of(route: Route, app: str = "shop") -> str:
    values = {name: one.example for name, one in PARAMETERS.items()} | {"app": app}
    return re.sub(r"{(\w+)}", lambda found: values[found[1]], route.path)


def name_of(route: Route) -> str:
    return route.name


@pytest.mark.parametrize("route", KEYED, ids=name_of)
def test_a_key_must_be_one_and_be_for_this_app_and_this_verb(house: House, route: Route) -> None:
    assert isinstance(route.access, Scope)
    method, path = route.method, path_of(route)
    got = house.anybody(method, path)
    assert (got.status, got.kind) == (401, "unauthorized")
    assert got.headers["www-authenticate"].startswith("Bearer ")
    others = [scope for scope in Scope if scope is not route.access]
    got = house.caller(*others)(method, path)
    assert (got.status, got.kind) == (403, "forbidden")
    assert route.access.value in got.json["detail"]
    got = house.caller(route.access, apps=("cafe",))(method, path)
    if "{app}" in route.path:
        assert (got.status, got.kind) == (403, "forbidden")
    else:  # of all apps that the key is for
        assert b"shop" not in got.body
    got = house.caller(route.access)(method, path)
    assert got.status not in {401, 403}


@pytest.mark.parametrize("route", OPEN, ids=name_of)
def test_what_is_open_is_what_the_design_says(house: House, route: Route) -> None:
    """Health and documents; the login; callbacks, if signed; the phone's own, with a ticket."""
    got = house.anybody(route.method, path_of(route))
    if route.access is Open.ALL:
        assert route.path in {
            "/healthz",
            "/readyz",
            "/openapi.json",
            "/docs",
            "/",
            "/console/composer.js",
            "/console/console.css",
            "/console/console.js",
            "/console/files.js",
            "/console/looks.js",
            "/console/parts.js",
            "/console/trouble.js",
            "/console/words.js",
        }
        assert got.status == 200
    else:
        assert got.status >= 400
        assert route.path in {
            "/console/session",
            "/v1/apps/{app}/login",
            "/v1/apps/{app}/collect",
            "/v1/apps/{app}/opt-in",
            "/wechat/{app}",
        }


def test_a_key_for_every_app_is_for_every_app(house: House) -> None:
    master = house.master()
    assert master.get("/v1/apps/cafe/broadcasts").status == 200
    got = master.get("/v1/apps/nobodys/broadcasts")
    assert (got.status, got.kind) == (404, "not-found")


@pytest.mark.parametrize("header", ["", "Basic {0}", "Bearer", "Bearer x{0}", "Bearer {0}x", "{0}"])
def test_what_is_no_key_opens_nothing(house: House, shop: Caller, header: str) -> None:
    got = house.anybody.get(BROADCASTS, Authorization=header.format(shop.token))
    assert (got.status, got.kind) == (401, "unauthorized")


def test_the_right_id_with_another_secret_opens_nothing(house: House, shop: Caller) -> None:
    assert shop.get(BROADCASTS).status == 200
    last = "A" if shop.token[-2] != "A" else "B"
    forged = Caller(house.port, shop.token[:-2] + last + shop.token[-1])
    assert forged.get(BROADCASTS).status == 401


def test_a_revoked_key_opens_nothing_any_more(
    house: House, shop: Caller, eventually: Callable[..., Any]
) -> None:
    assert shop.get(BROADCASTS).status == 200
    house.keys.revoke(shop.token.split("_")[1])
    eventually(lambda: shop.get(BROADCASTS).status == 401, "the key is refused", within_s=5)


def test_the_key_lies_nowhere_in_redis(house: House, shop: Caller) -> None:
    shop.post(PERMITS, {"openid": "oA", "formId": "f"}, Idempotency_Key="once")
    secret = shop.token.split("_", 2)[2].encode()
    house.client.rpush("a list", "its", secret)  # the look would see it anywhere
    house.client.zadd("a zset", {secret: 1})
    assert _holders(house, secret) == {"a list", "a zset"}
    house.client.delete("a list", "a zset")
    assert _holders(house, secret) == set()


def _holders(house: House, secret: bytes) -> set[str]:
    """Return the keys that hold a text, in their name or in their content, of whatever type."""
    reads: dict[str, Callable[[str], object]] = {
        "string": lambda key: house.client.execute_command("GET", key, NEVER_DECODE=True),
        "hash": house.client.hgetall,
        "list": lambda key: house.client.lrange(key, 0, -1),
        "set": house.client.smembers,
        "zset": lambda key: house.client.zrange(key, 0, -1, withscores=True),
        "stream": house.client.xrange,
    }
    return {
        key
        for key in house.client.scan_iter()
        if secret.decode() in f"{key} {reads[house.client.type(key)](key)!r}"
    }


def test_more_than_its_rate_is_refused_and_told_when_again(house: House) -> None:
    began = time.monotonic()
    slow = house.caller(rate=1)
    answers = [slow.get(BROADCASTS) for _ in range(5)]
    assert answers[0].status == 200
    refused = [got for got in answers if got.status == 429]
    assert len(refused) >= 4 - (time.monotonic() - began)
    for got in refused:
        assert got.kind == "too-many-requests"
        assert int(got.headers["retry-after"]) == 1
    assert house.caller().get(BROADCASTS).status == 200


def test_a_fast_key_has_all_of_its_rate(house: House) -> None:
    fast = house.caller(rate=100)
    answers = [fast.get(BROADCASTS).status for _ in range(100)]
    assert answers == [200] * 100
