"""Audiences over HTTP: imported in any form, row errors told, paged, changed, deleted."""

from typing import Any
from urllib.parse import quote

import pytest
from web_house import Caller

from producers.web.routes import TABLE
from producers.web.routing.openapi import document

VIP = "/v1/apps/shop/audiences/vip"
FAULT = "no openid: 1-64 letters, digits, _ or -"


@pytest.mark.parametrize(
    ("media", "body", "bad"),
    [
        ("text/plain", b"oA\noB\nnot one\noC", [3]),
        ("text/csv", b"name,openid\nAnna,oA\nBert,oB\n,\nCleo,oC\n", [4]),
        ("text/csv; charset=UTF-8", b"\xef\xbb\xbfopenid\noA\noB\n?\noC\n", [4]),
        ("application/x-ndjson", b'"oA"\n{"openid":"oB"}\n{}\n"oC"\n', [3]),
        ("application/json", {"openids": ["oA", "oB", "not one", "oC"]}, [3]),
    ],
)
def test_it_is_imported_in_any_form(shop: Caller, media: str, body: Any, bad: list[int]) -> None:
    got = shop("PUT", VIP, body, media)
    assert got.status == 200
    listed = [{"row": row, "detail": FAULT} for row in bad]
    counts = {"rows": 4, "added": 3, "known": 0, "bad": 1, "removed": 0}
    assert got.json == {**counts, "listed": listed}
    assert shop.get(VIP).json == {"name": "vip", "members": 3}
    assert shop("PUT", VIP, body, media).json["known"] == 3


def test_put_replaces_and_post_adds(shop: Caller) -> None:
    shop("PUT", VIP, b"oA\noB", "text/plain")
    got = shop("PUT", VIP, b"oB\noC\noD", "text/plain").json
    assert (got["added"], got["known"], got["removed"]) == (2, 1, 1)
    assert shop.get(VIP).json["members"] == 3
    got = shop.post(f"{VIP}/members", {"openids": ["oA"]}).json
    assert (got["added"], got["removed"]) == (1, 0)
    assert shop.get(VIP).json["members"] == 4


@pytest.mark.parametrize(
    ("media", "body"),
    [("text/plain", b"<html>\nNot Found"), ("application/json", {"openids": ["?"]})],
)
def test_a_put_without_one_openid_empties_nothing(shop: Caller, media: str, body: Any) -> None:
    shop("PUT", VIP, b"oA\noB", "text/plain")
    got = shop("PUT", VIP, body, media)
    assert got.json["bad"] == got.json["rows"] > 0
    assert shop.get(VIP).json["members"] == 2


def test_json_holds_openids_and_nothing_that_only_looks_like_rows(shop: Caller) -> None:
    odd = ["openid", '"oA"', '{"openid":"oB"}', "oC,oD", "", " oE", "o\nF", "oGood"]
    got = shop("PUT", VIP, {"openids": odd})
    assert (got.json["added"], got.json["bad"]) == (2, 6)
    assert [row["row"] for row in got.json["listed"]] == [2, 3, 4, 5, 6, 7]
    assert shop.post(f"{VIP}/members/remove", {"openids": ["openid", "oGood"]}).json["removed"] == 2


def test_members_come_and_go(shop: Caller) -> None:
    shop("PUT", VIP, b"oA\noB", "text/plain")
    got = shop.post(f"{VIP}/members", {"openids": ["oB", "oC"]})
    assert (got.status, got.json["added"], got.json["known"]) == (200, 1, 1)
    got = shop.post(f"{VIP}/members/remove", b"oA\noZ\n?\n", "text/plain")
    assert got.json == {
        "rows": 3,
        "removed": 1,
        "unknown": 1,
        "bad": 1,
        "listed": [{"row": 3, "detail": FAULT}],
    }
    assert shop.get(VIP).json["members"] == 2


def test_an_expression_is_counted_and_sent_to(shop: Caller) -> None:
    shop("PUT", VIP, b"oA\noB\noC", "text/plain")
    shop("PUT", "/v1/apps/shop/audiences/gone", b"oC\noD", "text/plain")
    got = shop.get(f"/v1/apps/shop/audience-size?of={quote('vip - gone')}")
    assert got.json == {"of": "vip - gone", "members": 2, "exact": True}
    got = shop.get(f"/v1/apps/shop/audience-size?of={quote('vip & gone | vip')}")
    assert (got.status, got.kind) == (422, "invalid")
    assert "two ways" in got.json["faults"][0]["detail"]
    assert shop.get(f"/v1/apps/shop/audience-size?of={quote('vip & no')}").status == 404
    asked = f"/v1/apps/shop/permits/forecast?channel=template&audience={quote('vip | gone')}"
    assert shop.get(asked).json["members"] == 4
    spec = {"channel": "template", "template_id": "T", "data": "a", "audience": "vip&gone"}
    made = shop.post("/v1/apps/shop/broadcasts", spec)
    assert made.status == 201
    status = shop.get(f"/v1/apps/shop/broadcasts/{made.json['id']}").json
    assert (status["audience"], status["expected"]) == ("vip & gone", 1)
    series = {**spec, "name": "evening", "every": "0 21 * * *"}
    assert shop.post("/v1/apps/shop/series", series).json["audience"] == "vip & gone"


def test_only_an_import_makes_an_audience(shop: Caller) -> None:
    for path in (f"{VIP}/members", f"{VIP}/members/remove"):
        got = shop.post(path, {"openids": ["oA"]})
        assert (got.status, got.kind) == (404, "not-found")
    assert shop.get(VIP).status == 404
    assert shop("DELETE", VIP).status == 404


def test_a_deleted_one_is_gone(shop: Caller) -> None:
    shop("PUT", VIP, b"oA\noB", "text/plain")
    assert shop("DELETE", VIP).json == {"members": 2}
    assert shop.get(VIP).status == 404
    assert shop("DELETE", VIP).status == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_all_is_not_anybodys_to_change(shop: Caller, method: str) -> None:
    body = b"oA" if method == "PUT" else None
    got = shop(method, "/v1/apps/shop/audiences/all", body, "text/plain")
    assert (got.status, got.kind) == (422, "invalid")


def test_they_are_listed_page_by_page(shop: Caller) -> None:
    for name in ("b", "a", "c"):
        shop("PUT", f"/v1/apps/shop/audiences/{name}", b"oA", "text/plain")
    found, cursor = [], ""
    for _ in range(4):
        got = shop.get(f"/v1/apps/shop/audiences?limit=1&cursor={cursor}")
        assert got.status == 200
        found += [(one["name"], one["members"]) for one in got.json["audiences"]]
        cursor = got.json["next_cursor"]
    assert (found, cursor) == ([("all", 0), ("a", 1), ("b", 1), ("c", 1)], "")


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=٣", "limit=1_0", "cursor=%2F", "cursor=AAAA", "x=1"]
)
def test_a_wrong_page_is_told(shop: Caller, query: str) -> None:
    got = shop.get(f"/v1/apps/shop/audiences?{quote(query, safe='=&%')}")
    assert (got.status, got.kind) == (422, "invalid")


@pytest.mark.parametrize("body", [{}, {"openids": []}, {"openids": [1]}, {"openids": "oA"}, []])
def test_a_wrong_body_is_told(shop: Caller, body: Any) -> None:
    got = shop("PUT", VIP, body)
    assert (got.status, got.kind) == (422, "invalid")
    assert got.json["faults"]


def test_everyone_is_no_audience_that_is_deleted(shop: Caller) -> None:
    got = shop("DELETE", "/v1/apps/shop/audiences/all")
    assert (got.status, got.kind) == (422, "invalid")
    documented = document(TABLE)["paths"]["/v1/apps/{app}/audiences/{name}"]["delete"]
    assert "422" in documented["responses"]
