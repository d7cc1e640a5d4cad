"""Permits over HTTP: what is answered as stored is stored, and each bad item is told."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from web_house import PERMITS, TEMPLATE, Caller, Got, House

NDJSON = "application/x-ndjson"


def upload(number: int) -> dict[str, Any]:
    return {"openid": f"o{number}", "formIds": [f"f{number}"]}


def test_one_upload_is_stored(shop: Caller, house: House) -> None:
    got = shop.post(PERMITS, {"openid": "oAnna", "formIds": ["f1", "f2"], "prepayId": "p1"})
    assert got.status == 200
    assert got.json == {"lines": 1, "new": 3, "known": 0, "refused": {}, "listed": []}
    assert house.uses("oAnna") == {"f:f1", "f:f2", "p:p1:1", "p:p1:2", "p:p1:3"}


def test_the_same_upload_again_is_known(shop: Caller, house: House) -> None:
    shop.post(PERMITS, upload(1))
    assert shop.post(PERMITS, upload(1)).json["known"] == 1
    assert house.uses("o1") == {"f:f1"}


@pytest.mark.parametrize("count", [3, 20, 21, 700])
def test_a_bad_upload_costs_the_others_nothing(shop: Caller, house: House, count: int) -> None:
    uploads: list[Any] = [upload(number) for number in range(count)]
    uploads[1] = {"openid": "not an openid", "formIds": ["f"]}
    uploads[2] = 17
    got = shop.post(PERMITS, uploads)
    assert got.json["new"] == count - 2
    assert got.json["refused"] == {"bad_openid": 1, "bad_shape": 1}
    assert [(row["line"], row["reason"]) for row in got.json["listed"]] == [
        (2, "bad_openid"),
        (3, "bad_shape"),
    ]
    assert house.uses("o0") == {"f:f0"}
    assert house.uses(f"o{count - 1}") == ({"f:f" + str(count - 1)} if count > 3 else set())


def test_requests_of_one_moment_share_a_trip_and_nothing_else(shop: Caller, house: House) -> None:
    got: dict[int, Got] = {}

    def call(number: int) -> None:
        body = upload(number) if number % 3 else {"openid": "?", "formIds": [f"f{number}"]}
        got[number] = shop.post(PERMITS, body)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, answer in got.items():
        good = bool(number % 3)
        assert answer.json["new"] == good
        assert answer.json["refused"] == ({} if good else {"bad_openid": 1})
        assert house.uses(f"o{number}") == ({f"f:f{number}"} if good else set())


def test_a_stream_is_stored_as_it_comes(shop: Caller, house: House) -> None:
    def lines() -> Iterator[bytes]:
        for number in range(3000):
            yield json.dumps(upload(number)).encode() + b"\n"
        yield b"\n{broken\n" + b"x" * 5_000_000 + b"\n"
        yield json.dumps(upload(3000)).encode()  # without an end of line

    got = shop.post(PERMITS, lines(), NDJSON)
    assert got.status == 200
    assert got.json["new"] == 3001
    assert got.json["refused"] == {"not_json": 1, "line_too_long": 1}
    assert [row["line"] for row in got.json["listed"]] == [3002, 3003]
    assert house.uses("o2999") == {"f:f2999"}
    assert house.uses("o3000") == {"f:f3000"}


def test_a_stream_may_not_grow_for_ever(open_house: Callable[..., House]) -> None:
    house = open_house(web_stream_limit=100_000)
    lines = (json.dumps(upload(number)).encode() + b"\n" for number in range(10_000))
    got = house.caller().post(PERMITS, lines, NDJSON)
    assert (got.status, got.kind) == (413, "too-large")


def test_a_stream_that_breaks_off_loses_nothing_of_others(
    shop: Caller, house: House, eventually: Callable[..., Any]
) -> None:
    with house.wire() as wire:
        wire.send(
            f"POST {PERMITS} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {shop.token}\r\n"
            f"Content-Type: {NDJSON}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        for number in range(1000):
            line = json.dumps(upload(number)).encode() + b"\n"
            wire.send(b"%x\r\n%b\r\n" % (len(line), line))
    eventually(lambda: not house.service.entry.at_work, "the broken stream is given up")
    assert shop.post(PERMITS, upload(1)).status == 200
    assert shop.post(PERMITS, (line for line in [b'{"openid":"oZ","formId":"z"}']), NDJSON).json[
        "new"
    ]


def test_a_forecast_says_who_can_be_reached(shop: Caller) -> None:
    shop.post(PERMITS, [upload(number) for number in range(5)])
    got = shop.get(f"{PERMITS}/forecast?channel=template&rate=0.5")
    assert got.status == 200
    assert [horizon["users"] for horizon in got.json["horizons"]][:3] == [5, 5, 5]
    assert (got.json["rate"], got.json["audience"]) == (0.5, "all")


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?channel=fax",
        "?channel=template&rate=-1",
        "?channel=template&rate=1e9",
        "?channel=template&x=1",
        "?channel=template&channel=template",
        "?channel=template&rate=nan",
    ],
)
def test_a_wrong_question_is_told(shop: Caller, query: str) -> None:
    got = shop.get(f"{PERMITS}/forecast{query}")
    assert (got.status, got.kind) == (422, "invalid")


def test_a_plan_needs_a_user(shop: Caller) -> None:
    assert shop.get(f"{PERMITS}/plan").status == 422
    shop.post(PERMITS, {"openid": "oAnna", "subscriptions": {TEMPLATE: "accept"}, "id": "1"})
    body = {
        "channel": "subscribe",
        "template_id": TEMPLATE,
        "audience": "all",
        "data": {"thing1": "a"},
    }
    assert shop.post("/v1/apps/shop/broadcasts", body).status == 201
    got = shop.get(f"{PERMITS}/plan?openid=oAnna")
    assert got.status == 200
    assert got.json["openid"] == "oAnna"
