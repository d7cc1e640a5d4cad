"""Sessions of the console: a cookie that no script reads; no change without the page's token."""

import json
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import pytest
from web_house import BROADCASTS, HOST, PERMITS, TEMPLATE, Caller, Got, House

from producers.access.api_keys import Scope
from producers.access.sessions import Sessions
from producers.web.routes import TABLE
from producers.web.routing.route import PARAMETERS
from producers.web.traffic.watch import OF_KEY

SESSION = "/console/session"


class Browser:
    """What a browser sends by itself: its cookie, and where the request comes from."""

    def __init__(self, house: House, caller: Caller) -> None:
        self._anybody = house.anybody
        got = house.anybody.post(SESSION, {"key": caller.token})
        assert got.status == 201
        self.cookie = got.headers["set-cookie"]
        self.csrf = got.json["csrf"]
        self.session = got.json

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Got:
        given = {"Cookie": self.cookie.partition(";")[0], **headers}
        return self._anybody(method, path, body, **given)


@pytest.fixture
def made(shop: Caller) -> str:
    shop.post(PERMITS, {"openid": "o1", "formIds": ["f1"]})
    spec = {"channel": "template", "template_id": TEMPLATE, "audience": "all", "data": "a,b"}
    return f"{BROADCASTS}/{shop.post(BROADCASTS, spec).json['id']}"


def test_a_session_is_a_cookie_that_no_script_reads(house: House, shop: Caller) -> None:
    browser = Browser(house, shop)
    assert "HttpOnly" in browser.cookie
    assert "SameSite=Strict" in browser.cookie
    assert browser.session["apps"] == ["shop"]
    assert browser("GET", SESSION).json == browser.session
    stored = [house.client.zrange(one, 0, -1) for one in house.client.scan_iter("*sessions*")]
    word = browser.cookie.partition("=")[2].partition(";")[0]
    assert stored
    assert word not in str(stored)
    assert shop.token not in str(stored)


def test_behind_a_proxy_it_goes_over_tls_alone(open_house: Any) -> None:
    house = open_house(web_proxies=1)
    assert "; Secure" in Browser(house, house.caller()).cookie


def test_a_change_needs_the_pages_token(house: House, shop: Caller, made: str) -> None:
    browser = Browser(house, shop)
    assert browser("GET", made).status == 200
    for headers in ({}, {"X_CSRF_Token": "x"}, {"X_CSRF_Token": Browser(house, shop).csrf}):
        got = browser("POST", f"{made}/pause", **headers)
        assert (got.status, got.kind) == (403, "forbidden")
    got = browser("POST", f"{made}/pause", X_CSRF_Token=browser.csrf, Sec_Fetch_Site="cross-site")
    assert got.status == 403
    assert shop.get(made).json["state"] == "running"
    assert browser("POST", f"{made}/pause", X_CSRF_Token=browser.csrf).status == 200
    assert shop.get(made).json["state"] == "paused"


def test_every_change_of_the_api_needs_it(house: House, shop: Caller) -> None:
    browser = Browser(house, house.master())
    changes = [one for one in TABLE if one.method != "GET" and isinstance(one.access, Scope)]
    assert len(changes) > 20
    values = {name: one.example for name, one in PARAMETERS.items()} | {"app": "shop"}
    for route in changes:
        got = browser(route.method, route.path.format_map(values))
        assert (got.status, got.kind) == (403, "forbidden"), route
        assert "X-CSRF-Token" in got.json["detail"]


def test_a_session_ends_with_its_sign_out_its_key_and_its_time(house: House, shop: Caller) -> None:
    first, second = Browser(house, shop), Browser(house, shop)
    assert first("DELETE", SESSION).status == 403
    assert first("DELETE", SESSION, X_CSRF_Token=first.csrf).status == 204
    assert first("GET", SESSION).status == 401
    assert second("GET", SESSION).status == 200
    (name,) = house.client.scan_iter("*sessions*")
    house.client.zadd(name, dict.fromkeys(house.client.zrange(name, 0, -1), 1))
    house.service.services.guard._open_at.clear()
    assert second("GET", SESSION).status == 401
    third = Browser(house, shop)
    house.keys.revoke(third.session["key"])
    house.service.services.guard._known.clear()
    assert third("GET", SESSION).status == 401


@pytest.mark.parametrize("cookie", ["", "wxs_", "wxs_0123456789ab_" + "A" * 43, "x" * 4000])
def test_what_is_no_session_is_none(house: House, cookie: str) -> None:
    got = house.anybody.get(SESSION, Cookie=f"a=b; wxb_session={cookie}")
    assert got.status == 401


def test_a_key_has_a_bounded_number_of_sessions(house: House, shop: Caller) -> None:
    sessions = Sessions(house.client)
    opened = [sessions.open("0123456789ab") for _ in range(105)]
    assert sum(map(sessions.is_open, opened)) == 100


def test_a_wrong_key_opens_nothing(house: House) -> None:
    got = house.anybody.post(SESSION, {"key": "wxb_0123456789ab_" + "A" * 43})
    assert (got.status, got.kind) == (401, "unauthorized")
    assert "set-cookie" not in got.headers


def events(house: House, browser: Browser) -> tuple[HTTPConnection, Any]:
    connection = HTTPConnection(HOST, house.port, timeout=20)
    connection.request(
        "GET", "/console/events", headers={"Cookie": browser.cookie.partition(";")[0]}
    )
    return connection, connection.getresponse()


def board_of(answer: Any) -> dict[str, Any]:
    while True:
        line = answer.readline()
        assert line, "it ended"
        if line.startswith(b"data: "):
            return json.loads(line[6:])  # type: ignore[no-any-return]


def test_events_are_of_the_keys_apps_alone_and_one_reader_serves_all(
    house: House, shop: Caller, made: str
) -> None:
    browser = Browser(house, shop)
    cafe = Browser(house, house.caller("read", apps=("cafe",)))
    watch = house.service.services.watch
    opened = [events(house, browser) for _ in range(20)]
    for _, answer in opened:
        board = board_of(answer)
        assert [one["app"] for one in board["apps"]] == ["shop"]
        assert [one["app"] for one in board["broadcasts"]] == ["shop"]
    connection, answer = events(house, cafe)
    assert board_of(answer)["broadcasts"] == []
    looks = watch._number
    assert browser("POST", f"{made}/pause", X_CSRF_Token=browser.csrf).status == 200
    for _, answer in opened:
        assert board_of(answer)["broadcasts"][0]["state"] == "paused"
    assert watch._number - looks <= 5  # however many watch
    for one, _ in [*opened, (connection, None)]:
        one.close()


def test_who_watches_sees_no_more_once_the_key_is_revoked_or_the_session_ended(
    house: House, shop: Caller
) -> None:
    left, revoked = Browser(house, shop), Browser(house, house.caller("read"))
    opened = [events(house, one) for one in (left, revoked)]
    for _, answer in opened:
        assert board_of(answer)["apps"]
    assert left("DELETE", SESSION, X_CSRF_Token=left.csrf).status == 204
    house.keys.revoke(revoked.session["key"])
    for connection, answer in opened:
        answer.read()  # until it ends
        connection.close()
    assert house.service.services.watch._watchers == {}


def test_who_watches_is_bounded(house: House, shop: Caller) -> None:
    browser = Browser(house, shop)
    opened = [events(house, browser) for _ in range(OF_KEY)]
    assert browser("GET", "/console/events").status == 503
    assert shop.get("/v1/apps/shop/broadcasts").status == 200  # and hinders nobody else
    with closing(opened[0][0]):
        assert board_of(opened[0][1])["apps"]
    for one, _ in opened:
        one.close()


def test_where_nothing_happens_nothing_is_written(
    house: House, shop: Caller, made: str, eventually: Any
) -> None:
    browser = Browser(house, shop)
    connection, answer = events(house, browser)
    assert board_of(answer)["broadcasts"]
    watch, key = house.service.services.watch, house.keys.find(browser.session["key"])
    before, looks = watch._made(key), watch._number
    eventually(lambda: watch._number >= looks + 2, "it was looked at again")
    assert watch._made(key) == before
    connection.close()
