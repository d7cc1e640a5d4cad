"""Every error is a problem of a known kind, with the request's id and nothing from inside."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from log_lines import recorded
from web_house import BROADCASTS, PERMITS, TEMPLATE, Caller, House, opened

from producers.local.link import opened as link_to
from producers.settings import Settings
from producers.store import keys

VIP = "/v1/apps/shop/audiences/vip"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", PERMITS, "POST"),
        ("POST", VIP, "DELETE, GET, PUT"),
        ("OPTIONS", "/v1/apps/shop/collect", "POST"),
        ("HEAD", "/healthz", "GET"),
        ("TRACE", "/healthz", "GET"),
    ],
)
def test_another_method_is_told_which_to_take(
    shop: Caller, method: str, path: str, allow: str
) -> None:
    got = shop(method, path)
    assert got.status == 405
    assert method == "HEAD" or got.kind == "method-not-allowed"
    assert got.headers["allow"] == allow
    assert "access-control-allow-origin" not in got.headers


@pytest.mark.parametrize(
    ("body", "media", "status", "kind"),
    [
        (b"", "application/json", 400, "bad-request"),
        (b"{", "application/json", 400, "bad-request"),
        (b'{"openid": NaN}', "application/json", 400, "bad-request"),
        (b'"\xff"', "application/json", 400, "bad-request"),
        (b'"\\ud800"', "application/json", 400, "bad-request"),
        (b"[" * 100_000, "application/json", 400, "bad-request"),
        (b"17", "application/json", 422, "invalid"),
        (b"null", "application/json", 422, "invalid"),
        (b"{}", "text/html", 415, "unsupported-media-type"),
        (b"{}", "application/json; charset=utf-16", 415, "unsupported-media-type"),
        (b"{}", "application/x-www-form-urlencoded", 415, "unsupported-media-type"),
        (b'"' + b"x" * 1_048_576 + b'"', "application/json", 413, "too-large"),
    ],
)
def test_a_body_that_is_none(shop: Caller, body: bytes, media: str, status: int, kind: str) -> None:
    got = shop.post(PERMITS, body, media)
    assert (got.status, got.kind) == (status, kind)


def test_a_body_without_a_type_is_not_guessed(house: House, shop: Caller) -> None:
    with house.wire() as wire:
        wire.send(
            f"POST {PERMITS} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {shop.token}\r\n"
            "Content-Length: 2\r\n\r\n{}".encode()
        )
        got = wire.answer()
    assert (got.status, got.kind) == (415, "unsupported-media-type")


def test_compressed_bodies_are_not_taken(shop: Caller) -> None:
    got = shop.post(PERMITS, b"\x1f\x8b" + bytes(100), Content_Encoding="gzip")
    assert (got.status, got.kind) == (415, "unsupported-media-type")


def test_the_client_may_ask_first(house: House, shop: Caller) -> None:
    head = (
        f"POST {PERMITS} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {shop.token}\r\n"
        "Content-Type: application/json\r\n"
    )
    body = b'{"openid":"oA","formId":"f"}'
    with house.wire() as wire:
        wire.send(f"{head}Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n".encode())
        assert wire.line() == b"HTTP/1.1 100 Continue\r\n"
        assert wire.line() == b"\r\n"
        wire.send(body)
        assert wire.answer().json["new"] == 1
    with house.wire() as wire:
        wire.send(f"{head}Content-Length: 9999999\r\nExpect: 100-continue\r\n\r\n".encode())
        assert wire.answer().kind == "too-large"
    with house.wire() as wire:
        wire.send(f"{head}Content-Length: 1\r\nExpect: a-miracle\r\n\r\n".encode())
        assert wire.answer().kind == "expectation-failed"


@pytest.mark.parametrize(
    ("data", "status", "kind"),
    [
        (b"\r\n\r\nhello\r\n\r\n", 400, "bad-request"),
        (b"BREW /healthz HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad-request"),
        (b"GET / HTTP/9.9\r\nHost: h\r\n\r\n", 400, "bad-request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400, "bad-request"),
        (b"GET /healthz HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n", 400, "bad-request"),
        (
            (
                b"POST /v1/apps/shop/login HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            400,
            "bad-request",
        ),
        (
            (
                b"POST /v1/apps/shop/login HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n"
                b"Content-Length: 2\r\n\r\n{}"
            ),
            400,
            "bad-request",
        ),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 431, "headers-too-large"),
        (
            b"GET /healthz HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 9000 + b"\r\n\r\n",
            431,
            "headers-too-large",
        ),
    ],
)
def test_what_is_no_request_is_told_and_the_connection_closed(
    house: House, data: bytes, status: int, kind: str
) -> None:
    with house.wire() as wire:
        wire.send(data)
        got = wire.answer()
        assert (got.status, got.kind) == (status, kind)
        assert wire.is_closed()
    assert house.anybody.get("/healthz").status == 200


def test_a_request_id_of_the_callers_is_kept_if_it_is_sane(house: House) -> None:
    for given, kept in (("req-1.a_B", True), ("x" * 64, True), ("x" * 65, False), ("a b", False)):
        got = house.anybody.get("/nothing", X_Request_Id=given)
        assert (got.headers["x-request-id"] == given) is kept
        assert got.kind == "not-found"


def test_an_error_that_nobody_foresaw_shows_nothing_from_inside(
    house: House, shop: Caller, tmp_path: Path
) -> None:
    lane = house.service.services.broadcasts.home_lane("b1")
    home = keys.home(lane, "b1")
    house.client.hset(home, mapping={"app": "shop", "spec": "secret stuff", "state": "running"})
    house.client.expire(home, 60)
    with recorded(tmp_path) as read:
        got = shop.get(f"{BROADCASTS}/b1")
        lines = read()
    assert (got.status, got.kind) == (500, "internal")
    assert got.json["detail"] == "tell the operator the request_id"
    [failed] = [line for line in lines if line["event"] == "request_failed"]
    assert failed["request_id"] == got.json["request_id"]
    assert failed["route"] == "/v1/apps/{app}/broadcasts/{id}"
    assert "test_web" not in got.body.decode()
    assert shop.get(BROADCASTS).status == 200


def test_every_request_leaves_one_line_that_says_which_key_did_what(
    house: House, shop: Caller, tmp_path: Path
) -> None:
    with recorded(tmp_path) as read:
        shop.post(PERMITS, {"openid": "oA", "formId": "f1"}, X_Request_Id="mine")
        house.anybody.get("/v1/apps/shop/users/oSecret?x=oSecret")
        house.anybody.get("/none")
        text = json.dumps(lines := read())
    answered = [line for line in lines if line["event"] == "request_answered"]
    key = shop.token.split("_")[1]
    first, second, third = answered
    assert (first["request_id"], first["key"], first["app"]) == ("mine", key, "shop")
    assert (first["method"], first["route"]) == ("POST", "/v1/apps/{app}/permits")
    assert (first["status"], first["bytes_in"], first["remote"]) == (200, 32, "127.0.0.1")
    assert (second["status"], second["key"]) == (401, "")
    assert second["route"] == "/v1/apps/{app}/users/{openid}"
    assert (third["status"], third["route"]) == (404, "")
    assert shop.token not in text
    assert "oSecret" not in text


def test_without_redis_it_is_alive_not_ready_and_loses_nothing(
    client: Any,
    make_settings: Callable[..., Settings],
    eventually: Callable[..., Any],
) -> None:
    port = client.connection_pool.connection_kwargs["port"]
    with link_to(port) as link, opened(make_settings(redis_url=link.url)) as house:
        shop = house.caller()
        assert house.anybody.get("/readyz").json == {"status": "ok", "faults": []}
        assert shop.post(PERMITS, {"openid": "oA", "formId": "f1"}).json["new"] == 1
        link.cut()
        eventually(lambda: house.anybody.get("/readyz").status == 503, "it says that it is not")
        got = house.anybody.get("/readyz")
        assert (got.status, got.json["status"]) == (503, "not_ready")
        assert "Redis" in got.json["faults"][0]
        assert house.anybody.get("/healthz").status == 200
        got = shop.post(PERMITS, {"openid": "oB", "formId": "f2"})
        assert (got.status, got.kind) == (503, "unavailable")
        assert int(got.headers["retry-after"]) >= 1
        link.heal()
        eventually(lambda: house.anybody.get("/readyz").status == 200, "it is ready again")
        assert shop.post(PERMITS, {"openid": "oB", "formId": "f2"}).status == 200
        assert house.uses("oA") == {"f:f1"}
        assert house.uses("oB") == {"f:f2"}


def test_a_store_born_otherwise_is_not_ready(
    client: Any, make_settings: Callable[..., Settings]
) -> None:
    with opened(make_settings(buckets=512)) as house:
        got = house.anybody.get("/readyz")
    assert (got.status, got.json["status"]) == (503, "not_ready")
    assert "512" in got.json["faults"][0]


def test_a_broken_store_is_not_an_error_that_nobody_foresaw(house: House, shop: Caller) -> None:
    house.client.set(keys.audiences("shop"), "what nobody put there")
    got = shop.get("/v1/apps/shop/audiences")
    assert (got.status, got.kind) == (503, "unavailable")
    assert TEMPLATE not in got.body.decode()
