"""Limits: of time, of size, of places; whoever is over one is told, and holds up nobody else."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

from web_house import PERMITS, Caller, Got, House

NDJSON = "application/x-ndjson"


def head(shop: Caller, *more: str) -> bytes:
    lines = (f"POST {PERMITS} HTTP/1.1", "Host: h", f"Authorization: Bearer {shop.token}", *more)
    return "\r\n".join((*lines, "", "")).encode()


def test_a_body_that_does_not_come_is_not_waited_for(open_house: Callable[..., House]) -> None:
    house = open_house(web_read_timeout="0.2")
    shop = house.caller()
    with house.wire() as whole, house.wire() as streamed:
        for wire, media in ((whole, "application/json"), (streamed, NDJSON)):
            wire.send(head(shop, f"Content-Type: {media}", "Content-Length: 100") + b'{"open')
        for wire in (whole, streamed):
            got = wire.answer()
            assert (got.status, got.kind) == (408, "timeout")
        assert whole.is_closed()


def test_a_head_that_does_not_come_is_not_waited_for(open_house: Callable[..., House]) -> None:
    house = open_house(web_keepalive="0.3")
    for data in (b"", b"GET /healthz HTTP/1.1\r\nHos"):
        with house.wire() as wire:
            wire.send(data)
            assert wire.is_closed()


def test_a_slow_body_holds_no_place(open_house: Callable[..., House]) -> None:
    house = open_house(web_requests=1)
    shop = house.caller()
    with house.wire() as one, house.wire() as two:
        for wire in (one, two):
            wire.send(head(shop, "Content-Type: application/json", "Content-Length: 100") + b"{")
        assert shop.post(PERMITS, {"openid": "oA", "formId": "f"}).status == 200


def test_without_a_free_place_it_says_so(
    open_house: Callable[..., House], eventually: Callable[..., Any]
) -> None:
    house = open_house(web_requests=1)
    shop = house.caller()
    with held(house, shop, eventually, 1):
        got = shop.post(PERMITS, {"openid": "oA", "formId": "f"})
        assert (got.status, got.kind) == (503, "busy")
        assert int(got.headers["retry-after"]) >= 1
        assert house.anybody.get("/healthz").status == 200
        assert house.anybody.get("/readyz").status == 200
    assert shop.post(PERMITS, {"openid": "oA", "formId": "f"}).status == 200


def test_streams_are_few_and_hold_up_nothing_else(
    house: House, shop: Caller, eventually: Callable[..., Any]
) -> None:
    with held(house, shop, eventually, 4):
        got = shop.post(PERMITS, b'{"openid":"oA","formId":"f"}', NDJSON)
        assert (got.status, got.kind) == (503, "busy")
        assert shop.post(PERMITS, {"openid": "oA", "formId": "f"}).status == 200
    assert shop.post(PERMITS, b'{"openid":"oA","formId":"f"}', NDJSON).status == 200


def test_the_streams_of_one_app_take_no_place_of_another(
    house: House, shop: Caller, eventually: Callable[..., Any]
) -> None:
    cafe, line = house.caller(apps=("cafe",)), b'{"openid":"oA","formId":"f"}'
    with held(house, shop, eventually, 4):
        assert shop.post(PERMITS, line, NDJSON).kind == "busy"
        assert cafe.post(PERMITS.replace("shop", "cafe"), line, NDJSON).status == 200


def test_requests_of_one_connection_come_in_turn(house: House, shop: Caller) -> None:
    body = b'{"openid":"oA","formId":"f1"}'
    request = head(shop, "Content-Type: application/json", f"Content-Length: {len(body)}") + body
    with house.wire() as wire:
        wire.send(request * 3)
        assert [wire.answer().json["new"] for _ in range(3)] == [1, 0, 0]


class held:  # noqa: N801 - reads as a verb
    """Hold so many places by streams that do not end, and end them afterwards."""

    def __init__(
        self, house: House, shop: Caller, eventually: Callable[..., Any], count: int
    ) -> None:
        self._house, self._shop, self._eventually, self._count = house, shop, eventually, count
        self._on = threading.Event()
        self._got: list[Got] = []
        self._threads = [threading.Thread(target=self._call) for _ in range(count)]

    def _call(self) -> None:
        self._got.append(self._shop.post(PERMITS, self._lines(), NDJSON))

    def _lines(self) -> Iterator[bytes]:
        yield b'{"openid":"oH","formId":"h1"}\n'
        self._on.wait(20)
        yield b'{"openid":"oH","formId":"h2"}\n'

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()
        entry = self._house.service.entry
        self._eventually(lambda: entry.at_work == self._count, "the places are taken")

    def __exit__(self, *_: object) -> None:
        self._on.set()
        for thread in self._threads:
            thread.join()
        assert [got.status for got in self._got] == [200] * self._count
        assert self._house.uses("oH") == {"f:h1", "f:h2"}
