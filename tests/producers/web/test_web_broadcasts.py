"""Broadcasts over HTTP: created once, listed, moved, and their recipients read or exported."""

import csv
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from log_lines import recorded
from web_house import BROADCASTS, PERMITS, TEMPLATE, Caller, House

from producers.broadcasts import Broadcasts
from producers.store import keys

SPEC: dict[str, Any] = {
    "channel": "template",
    "template_id": TEMPLATE,
    "audience": "vip",
    "data": {"keyword1": "a", "keyword2": {"value": "b"}},
}


def invite(shop: Caller, *openids: str) -> None:
    rows = "\n".join(openids).encode()
    assert shop("PUT", "/v1/apps/shop/audiences/vip", rows, "text/plain").status == 200


@pytest.fixture
def made(shop: Caller) -> str:
    """A broadcast to two users, who wait."""
    invite(shop, "oA", "oB")
    shop.post(PERMITS, {"openid": "oA", "formIds": ["f1"]})
    return str(shop.post(BROADCASTS, SPEC).json["id"])


def test_one_is_created_and_can_be_watched(shop: Caller) -> None:
    invite(shop, "oA", "oB")
    got = shop.post(BROADCASTS, SPEC)
    assert got.status == 201
    assert got.json["known"] is False
    assert got.headers["location"] == f"{BROADCASTS}/{got.json['id']}"
    status = shop.get(got.headers["location"])
    assert status.status == 200
    assert status.json["id"] == got.json["id"]
    assert (status.json["state"], status.json["app"], status.json["total"]) == (
        "running",
        "shop",
        2,
    )


@pytest.mark.parametrize(
    ("wrong", "status", "where"),
    [
        ({"channel": "fax"}, 422, "body.channel"),
        ({"data": {"thing1": "x" * 21}, "channel": "subscribe"}, 422, ""),
        ({"data": 7}, 422, "body.data"),
        ({"rate": "fast"}, 422, "body.rate"),
        ({"rate": True}, 422, "body.rate"),
        ({"expires_in_s": 604_801}, 422, "body.expires_in_s"),
        ({"expires_in_s": 60.5}, 422, "body.expires_in_s"),
        ({"template_id": ""}, 422, "body.template_id"),
        ({"to": "everybody"}, 422, "body.to"),
        ({"at": "2020-12-01 21:00"}, 422, ""),
        ({"at": "2999-12-01 21:00"}, 422, ""),
        ({"at": "2026-12-01 21:00", "zone": "Mars"}, 422, ""),
        ({"until": "soon"}, 422, ""),
        ({"at": 7}, 422, "body.at"),
        ({"audience": "nobody"}, 404, None),
        ({"audience": "../vip"}, 422, "body.audience"),
    ],
)
def test_a_wrong_spec_is_told_and_makes_nothing(
    shop: Caller, wrong: dict[str, Any], status: int, where: str | None
) -> None:
    invite(shop, "oA")
    got = shop.post(BROADCASTS, {**SPEC, **wrong})
    assert got.status == status
    assert got.kind == ("not-found" if status == 404 else "invalid")
    if where is not None:
        assert any(fault["where"].startswith(where) for fault in got.json["faults"])
    assert shop.get(BROADCASTS).json["broadcasts"] == []


def test_a_whole_number_may_be_written_with_a_point(shop: Caller) -> None:
    """To JSON Schema 60.0 is an integer, and some clients write it so."""
    invite(shop, "oA")
    got = shop.post(BROADCASTS, {**SPEC, "expires_in_s": 60.0})
    assert got.status == 201


def test_they_are_listed_the_newest_first(shop: Caller, house: House) -> None:
    invite(shop, "oA")
    made = [shop.post(BROADCASTS, SPEC).json["id"] for _ in range(5)]
    found, cursor = [], ""
    for _ in range(3):
        got = shop.get(f"{BROADCASTS}?limit=2&cursor={cursor}")
        assert got.status == 200
        found += [one["id"] for one in got.json["broadcasts"]]
        cursor = got.json["next_cursor"]
    assert (found, cursor) == (made[::-1], "")
    assert house.caller(apps=("cafe",)).get("/v1/apps/cafe/broadcasts").json == {
        "broadcasts": [],
        "next_cursor": "",
    }


def test_it_is_paused_resumed_and_cancelled(shop: Caller, made: str) -> None:
    path = f"{BROADCASTS}/{made}"
    assert shop.post(f"{path}/pause", {"reason": "lunch"}).json == {"id": made, "state": "paused"}
    assert shop.get(path).json["reason"] == "lunch"
    assert shop.post(f"{path}/resume").json["state"] == "running"
    assert shop.post(f"{path}/pause").json["state"] == "paused"
    assert shop.post(f"{path}/cancel").json["state"] == "cancelled"
    for move in ("pause", "resume"):
        got = shop.post(f"{path}/{move}")
        assert (got.status, got.kind) == (409, "conflict")
    assert shop.post(f"{path}/cancel").status in {200, 409}


@pytest.mark.parametrize(
    ("method", "below", "body"),
    [
        ("GET", "", None),
        ("GET", "/recipients", None),
        ("GET", "/recipients?format=csv", None),
        ("POST", "/pause", {}),
        ("POST", "/resume", {}),
        ("POST", "/cancel", None),
    ],
)
def test_anothers_broadcast_is_not_found(
    house: House, made: str, method: str, below: str, body: Any
) -> None:
    """The id is known, the key is good, for another app."""
    cafe = house.caller(apps=("cafe",))
    foreign = cafe(method, f"/v1/apps/cafe/broadcasts/{made}{below}", body)
    unknown = cafe(method, f"/v1/apps/cafe/broadcasts/{'0' * 21}{below}", body)
    assert (foreign.status, foreign.kind) == (unknown.status, unknown.kind) == (404, "not-found")
    assert house.service.services.broadcasts.status(made).state == "running"


def test_recipients_come_page_by_page(shop: Caller) -> None:
    everybody = sorted(f"o{number}" for number in range(25))
    invite(shop, *everybody)
    made = shop.post(BROADCASTS, SPEC).json["id"]
    found, cursor = [], ""
    for _ in range(200):
        path = f"{BROADCASTS}/{made}/recipients?outcome=queued&limit=10&cursor={cursor}"
        got = shop.get(path)
        assert got.status == 200
        assert len(got.json["recipients"]) <= 10
        found += [one["openid"] for one in got.json["recipients"]]
        cursor = got.json["next_cursor"]
        if not cursor:
            break
    assert sorted(found) == everybody


def test_recipients_are_exported_whole(shop: Caller, house: House) -> None:
    everybody = sorted(f"o{number}" for number in range(2500))
    invite(shop, *everybody)
    made = shop.post(BROADCASTS, SPEC).json["id"]
    path = f"{BROADCASTS}/{made}/recipients?outcome=queued&format="
    got = shop.get(path + "csv")
    assert got.headers["content-type"] == "text/csv; charset=utf-8"
    assert got.headers["content-disposition"] == f'attachment; filename="{made}.csv"'
    rows = list(csv.DictReader(io.StringIO(got.body.decode())))
    queued = len(rows)
    assert {row["openid"] for row in rows} <= set(everybody)
    assert {row["outcome"] for row in rows} == {"queued"}
    got = shop.get(path + "ndjson")
    assert got.headers["content-type"] == "application/x-ndjson; charset=utf-8"
    lines = [json.loads(line) for line in got.body.splitlines()]
    assert len(lines) == queued > 0
    assert set(lines[0]) == {"openid", "outcome", "errcode", "msgid", "settled_by"}
    assert house.service.services.streams.in_use == 0


def test_an_export_of_nobody_is_empty(shop: Caller, made: str) -> None:
    path = f"{BROADCASTS}/{made}/recipients?outcome=failed&format="
    assert shop.get(path + "ndjson").body == b""
    assert shop.get(path + "csv").body == b"openid,outcome,errcode,msgid,settled_by\r\n"


def test_exports_that_nobody_reads_give_their_places_back(
    house: House, made: str, eventually: Callable[..., Any], tmp_path: Path
) -> None:
    token = house.caller().token
    path = f"{BROADCASTS}/{made}/recipients?format=csv"
    request = f"GET {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n"
    with recorded(tmp_path) as read:
        for _ in range(12):
            with house.wire() as wire:
                wire.send(request.encode())
        caller = Caller(house.port, token)
        eventually(lambda: caller.get(path).status == 200, "there is a place again")
        lines = read()
    assert {line["level"] for line in lines} == {"info"}, lines


@pytest.mark.parametrize("query", ["outcome=lost", "limit=0", "format=xml", "cursor=AAAA"])
def test_a_wrong_question_is_told(shop: Caller, made: str, query: str) -> None:
    got = shop.get(f"{BROADCASTS}/{made}/recipients?{query}")
    assert (got.status, got.kind) == (422, "invalid")


def test_a_user_has_a_card_and_can_be_forgotten(shop: Caller, house: House, made: str) -> None:
    path = "/v1/apps/shop/users/oA"
    card = shop.get(path)
    assert card.status == 200
    assert card.json["usable"]["form_id"] == 1
    assert [send["broadcast"] for send in card.json["sends"]] == [made]
    assert card.json["audiences"] == ["all", "vip"]
    gone = shop("DELETE", path)
    assert gone.status == 200
    assert (gone.json["uses"], gone.json["audiences"]) == (1, 2)
    assert house.uses("oA") == set()
    assert shop.get(path).json["sends"] == []
    assert shop("DELETE", path).json["uses"] == 0


def test_what_a_day_cannot_carry_is_in_the_answer(shop: Caller, house: House) -> None:
    limiter, quotas = keys.limiter("shop"), keys.quotas("shop")
    end_ms = shop.get("/v1/apps/shop/limits").json["resets_at_ms"]
    house.client.hset(limiter, "quota:template", f"1 {end_ms}")
    house.client.hset(quotas, "template", "100 99 1 0 0 1")
    house.client.expire(limiter, 60)
    house.client.expire(quotas, 60)
    invite(shop, "oA", "oB")
    got = shop.post(BROADCASTS, {**SPEC, "carry_over": True})
    assert got.status == 201
    assert got.json["note"].startswith("WeChat's quota of today carries 1 of 2; the rest goes on")
    assert shop.get(f"{BROADCASTS}/{got.json['id']}").json["carry_over"]
    assert shop.get("/v1/apps/shop/limits").json["quotas"]["template"]["left"] == 1


def test_its_rate_is_changed_while_it_runs(shop: Caller, made: str) -> None:
    path = f"{BROADCASTS}/{made}"
    got = shop("PATCH", path, {"rate": 12.5})
    assert (got.status, got.json) == (200, {"id": made, "state": "running"})
    for wrong in ({}, {"rate": -1}, {"rate": "9"}, {"rate": 1, "page": "x"}, {"rate": None}):
        assert shop("PATCH", path, wrong).kind == "invalid"
    assert shop("PATCH", path, {"weight": 3, "rate": 2}).status == 200
    assert shop.get(path).json["weight"] == 3
    for weight in (0, 101, 1.5, None):
        assert shop("PATCH", path, {"weight": weight, "rate": 9}).kind == "invalid"
    shop.post(f"{path}/cancel")
    got = shop("PATCH", path, {"rate": 1})
    assert (got.status, got.kind) == (409, "conflict")


def test_one_message_is_sent_to_one_user(shop: Caller, house: House) -> None:
    message = {key: SPEC[key] for key in ("channel", "template_id", "data")} | {"openid": "oA"}
    got = shop.post("/v1/apps/shop/messages", message, Idempotency_Key="k1")
    assert got.status == 201
    path = got.headers["location"]
    assert path == f"/v1/apps/shop/messages/{got.json['id']}"
    status = shop.get(path)
    assert (status.json["openid"], status.json["state"]) == ("oA", "waiting")
    again = shop.post("/v1/apps/shop/messages", message, Idempotency_Key="k1")
    assert again.body == got.body
    second = shop.post("/v1/apps/shop/messages", message)
    assert second.json["id"] != got.json["id"]
    cafe = house.caller(apps=("cafe",))
    assert cafe.get(path.replace("/shop/", "/cafe/")).kind == "not-found"
    for wrong in ({"openid": "?"}, {"expires_in_s": 86_401}, {"audience": "all"}, {"data": 1}):
        assert shop.post("/v1/apps/shop/messages", {**message, **wrong}).kind == "invalid"


def test_a_stopped_template_answers_409_until_somebody_resumes(shop: Caller, house: House) -> None:
    message = {key: SPEC[key] for key in ("channel", "template_id", "data")} | {"openid": "oA"}
    first = shop.post("/v1/apps/shop/messages", message)
    carrier = first.json["id"].partition(".")[0]
    reason = "WeChat refuses this message for everybody"
    Broadcasts(house.client, house.settings).move(carrier, "pause", reason, 40037)
    got = shop.post("/v1/apps/shop/messages", {**message, "openid": "oB"}, Idempotency_Key="k1")
    assert (got.status, got.kind) == (409, "conflict")
    for word in ("40037", "WeChat refuses this message", carrier):
        assert word in got.json["detail"]
    assert shop.post(f"{BROADCASTS}/{carrier}/resume").status == 200
    again = shop.post("/v1/apps/shop/messages", {**message, "openid": "oB"}, Idempotency_Key="k1")
    assert again.status == 201


def test_one_is_retried_once_for_each_key(shop: Caller, made: str) -> None:
    where = f"{BROADCASTS}/{made}"
    body = {"outcomes": ["cancelled", "failed"], "data": {"keyword1": {"value": "c"}}, "rate": 5}
    assert shop.post(f"{where}/retry", body).status == 409
    shop.post(f"{where}/cancel", {})
    got = shop.post(f"{where}/retry", body, Idempotency_Key="again")
    assert (got.status, got.json["recipients"], got.json["known"]) == (201, 2, False)
    assert got.headers["location"] == f"{BROADCASTS}/{got.json['id']}"
    assert shop.post(f"{where}/retry", body, Idempotency_Key="again").json == got.json
    status = shop.get(got.headers["location"]).json
    assert (status["retry_of"], status["family"]) == (made, [made, got.json["id"]])
    for wrong in ({"outcomes": []}, {"outcomes": ["delivered"]}, {"outcomes": ["in_doubt"]}):
        assert shop.post(f"{where}/retry", wrong).status == 422
    assert shop.post(f"{BROADCASTS}/nothing/retry", body).status == 404


def test_one_is_scheduled_and_moved_until_it_starts(shop: Caller) -> None:
    invite(shop, "oA")
    now = datetime.now(UTC)
    soon, later = ((now + timedelta(days=days)).isoformat() for days in (1, 2))
    got = shop.post(BROADCASTS, {**SPEC, "at": soon, "zone": "Asia/Shanghai"})
    assert got.status == 201
    where = got.headers["location"]
    status = shop.get(where).json
    assert status["state"] == "scheduled"
    assert status["waiting"].startswith("waiting for its time, ")
    moved = shop.post(f"{where}/reschedule", {"at": later})
    assert (moved.status, moved.json["state"]) == (200, "scheduled")
    assert shop.get(where).json["starts_at_ms"] - status["starts_at_ms"] == 86_400_000
    assert shop.post(f"{where}/reschedule", {"at": "2020-12-01 21:00"}).status == 422
    assert shop.post(f"{where}/reschedule", {}).status == 422
    assert shop.post(f"{where}/cancel").json["state"] == "cancelled"
    assert shop.post(f"{where}/reschedule", {"at": later}).status == 409


def test_a_series_is_made_seen_moved_and_deleted(shop: Caller) -> None:
    invite(shop, "oA")
    where = "/v1/apps/shop/series"
    body = {**SPEC, "name": "evening", "every": "0 21 * * *", "missed": "run"}
    made = shop.post(where, body)
    assert (made.status, made.headers["location"]) == (201, f"{where}/evening")
    assert shop.post(where, body).json == made.json
    assert shop.post(where, {**body, "every": "0 22 * * *"}).status == 422
    for wrong in ({"every": "x"}, {"missed": "twice"}, {"name": "../x"}, {"zone": "Mars"}):
        assert shop.post(where, {**body, **wrong}).status == 422
    assert shop.post(where, {**body, "name": "b", "audience": "nobody"}).status == 404
    assert shop.get(where).json == {"series": [made.json]}
    assert shop.get(f"{where}/evening").json == made.json
    assert shop.post(f"{where}/evening/pause").json["state"] == "paused"
    assert shop.post(f"{where}/evening/resume").json["state"] == "active"
    assert shop("DELETE", f"{where}/evening").status == 200
    assert shop("DELETE", f"{where}/evening").status == 404
