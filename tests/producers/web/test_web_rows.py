"""Broadcasts with rows over HTTP: a multipart body, read as it comes, wholly or not at all."""

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from web_house import BROADCASTS, HOST, TEMPLATE, Caller, House

from producers.store import keys

SPEC: dict[str, Any] = {
    "channel": "subscribe",
    "template_id": TEMPLATE,
    "data": {"thing1": "{name|thing}", "number2": "{days}"},
}
CSV = b"openid,name,days\r\noA,\xe5\xbc\xa0\xe4\xb8\x89,3\r\noB,b,12\r\n"
NDJSON = b'{"openid": "oA", "name": "a", "days": 3}\n{"openid": "oB", "name": "b", "days": 12}\n'


def form(*parts: tuple[str, bytes], boundary: str = "XYZ", end: bytes = b"--\r\n") -> bytes:
    made = b"".join(
        b'--%b\r\nContent-Disposition: form-data; name="%b"; filename="x"\r\n'
        b"Content-Type: text/csv\r\n\r\n%b\r\n" % (boundary.encode(), name.encode(), content)
        for name, content in parts
    )
    return made + b"--" + boundary.encode() + end


def post(
    shop: Caller, body: Any, path: str = BROADCASTS, boundary: str = "XYZ", **headers: str
) -> Any:
    return shop.post(path, body, f"multipart/form-data; boundary={boundary}", **headers)


def both(rows: bytes = CSV, boundary: str = "XYZ", **changes: Any) -> bytes:
    spec = json.dumps({**SPEC, **changes}).encode()
    return form(("spec", spec), ("rows", rows), boundary=boundary)


def left(house: House) -> list[str]:
    return list(house.client.scan_iter("*:rows:shop:*"))


@pytest.mark.parametrize("rows", [CSV, NDJSON, b"\xef\xbb\xbf" + CSV, CSV.rstrip()])
def test_a_broadcast_is_made_of_a_form(shop: Caller, house: House, rows: bytes) -> None:
    got = post(shop, both(rows))
    assert got.status == 201
    assert got.json["rows"] == {"rows": 2, "bad": 0, "rules": {}, "listed": []}
    assert shop.get(got.headers["location"]).json["total"] == 2
    (key,) = left(house)
    assert house.client.ttl(key) > 0


def test_a_form_comes_in_pieces_and_its_key_knows_it_by_what_it_says(shop: Caller) -> None:
    def pieces(boundary: str, size: int) -> Iterator[bytes]:
        body = both(boundary=boundary)
        yield from (body[start : start + size] for start in range(0, len(body), size))

    first = post(shop, pieces("----abc", 7), boundary="----abc", Idempotency_Key="k")
    again = post(shop, pieces("----other", 11), boundary="----other", Idempotency_Key="k")
    assert (first.status, again.status) == (201, 201)
    assert again.json["id"] == first.json["id"]
    assert again.headers["idempotent-replay"] == "true"
    other = post(shop, both(CSV + b"oC,c,1\r\n"), Idempotency_Key="k")
    assert (other.status, other.kind) == (422, "key-reused")


def test_bad_rows_are_told_and_make_nothing(shop: Caller, house: House) -> None:
    bad = CSV + b"oC,,x\r\noA,a,1\r\noD\r\n"
    got = post(shop, both(bad))
    assert (got.status, got.kind) == (422, "invalid")
    assert [fault["detail"].partition(":")[0] for fault in got.json["faults"]][1:] == [
        "row 4",
        "row 5",
        "row 6",
    ]
    assert left(house) == []
    made = post(shop, both(bad, skip_bad=True))
    assert (made.status, made.json["rows"]["bad"]) == (201, 3)
    assert made.json["rows"]["rules"] == {"thing1 empty": 1, "duplicate": 1, "columns": 1}


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (both(audience="all"), 422, "1 faults in the spec"),
        (both(data={"thing1": "{"}), 422, "lone {"),
        (both(b""), 422, "the file is empty"),
        (both(CSV.decode().encode("gbk")), 422, "looks like GBK"),
        (both(b"name,x\r\na,b\r\n"), 422, "no column openid"),
        (form(("rows", CSV), ("spec", b"{}")), 400, "the next part must be 'spec'"),
        (form(("spec", b"{")), 400, "spec is not JSON"),
        (form(("spec", b"1" * 70_000)), 413, "up to 65,536 bytes"),
        (form(("spec", json.dumps(SPEC).encode())), 400, "the next part must be 'rows'"),
        (both()[:-8], 400, "the body ended within the part rows"),
        (
            form(("spec", json.dumps(SPEC).encode()), ("rows", CSV), ("more", b"")),
            400,
            "no part may follow",
        ),
        (b"", 400, "the next part must be"),
        (b"--XYZ\r\n" + 20 * b"a: b\r\n", 400, "the next part must be"),
    ],
)
def test_what_is_no_such_form_is_told_and_makes_nothing(
    shop: Caller, house: House, body: bytes, status: int, says: str
) -> None:
    got = post(shop, body)
    assert (got.status, says in got.json["detail"]) == (status, True), got
    assert left(house) == []
    assert shop.get(BROADCASTS).json["broadcasts"] == []


def test_a_form_needs_a_boundary_and_other_routes_take_none(shop: Caller) -> None:
    for media in ("multipart/form-data", 'multipart/form-data; boundary="a\u00e4"'):
        got = shop.post(BROADCASTS, both(), media.encode("latin-1").decode("latin-1"))
        assert (got.status, got.kind) == (400, "bad-request")
    got = post(shop, both(), "/v1/apps/shop/messages")
    assert (got.status, got.kind) == (415, "unsupported-media-type")


def test_a_connection_that_is_lost_leaves_nothing_that_sends(
    shop: Caller, house: House, eventually: Callable[..., Any]
) -> None:
    body = both(b"openid,name,days\n" + b"".join(b"o%d,a,1\n" % n for n in range(20_000)))
    head = (
        f"POST {BROADCASTS} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {shop.token}\r\n"
        f"Content-Type: multipart/form-data; boundary=XYZ\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((HOST, shop.port)) as wire:
        wire.sendall(head.encode() + body[:150_000])
        drafts = keys.frozen("shop")
        eventually(lambda: house.client.zcard(drafts), "a draft to be begun")
    eventually(lambda: not house.client.zcard(drafts), "the draft to be discarded")
    eventually(lambda: left(house) == [], "the draft of a lost connection to be discarded")
    assert shop.get(BROADCASTS).json["broadcasts"] == []


def test_a_dry_run_tells_of_the_rows(shop: Caller, house: House) -> None:
    got = post(shop, both(CSV + b"oC,,x\r\n"), BROADCASTS + "/dry-run")
    assert (got.status, got.json["recipients"]) == (200, 2)
    assert [fault.partition(":")[0] for fault in got.json["faults"]][1:] == ["row 4"]
    assert left(house) == []
