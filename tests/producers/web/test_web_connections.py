"""Connections: nobody's keep others out, and what comes on them means what it says."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from log_lines import recorded
from web_house import HOST, PERMITS, Caller, House, Wire

from producers.web.http import connection

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked"
BODY = b'{"openid":"oA","formId":"f1"}'


def head(shop: Caller, *more: str, media: str = "application/json") -> bytes:
    lines = (
        f"POST {PERMITS} HTTP/1.1",
        "Host: h",
        f"Authorization: Bearer {shop.token}",
        f"Content-Type: {media}",
        *more,
    )
    return "\r\n".join((*lines, "", "")).encode()


@contextmanager
def wires(house: House, count: int, address: str = HOST) -> Iterator[list[Wire]]:
    """Open bare connections from an address of this machine, one after another."""
    with ExitStack() as stack:
        opened = []
        for _ in range(count):
            made = socket.create_connection((HOST, house.port), 20, (address, 0))
            wire = stack.enter_context(contextlib.closing(Wire(made)))
            opened.append(wire)
        yield opened


def answers(wire: Wire) -> bool:
    """Whether a connection is still good for a request."""
    try:
        wire.send(HEALTH)
        return wire.answer().status == 200
    except (OSError, IndexError):  # closed, before or after the request was on its way
        return False


# -- how many -------------------------------------------------------------------------------------


def test_idle_connections_of_one_address_refuse_nobody_else(
    open_house: Callable[..., House],
) -> None:
    house = open_house(web_connections=64, web_connections_of_address=16)
    with wires(house, 10, "127.0.0.2") as others:
        assert all(map(answers, others))
        with wires(house, 128) as many:
            assert answers(many[-1])
            assert sum(map(answers, many)) == 16
            assert all(map(answers, many[-16:]))  # the oldest idle ones went
            assert all(map(answers, others))
            with wires(house, 1, "127.0.0.3") as late:
                assert answers(late[0])


def test_beyond_all_places_the_oldest_idle_connection_of_all_goes(
    open_house: Callable[..., House], eventually: Callable[..., Any]
) -> None:
    house = open_house(web_connections=8, web_connections_of_address=4)
    shop = house.caller()
    streamed = head(shop, "Content-Length: 29", media="application/x-ndjson")
    with (
        wires(house, 1, "127.0.0.4") as working,
        wires(house, 4, "127.0.0.2") as first,
        wires(house, 3, "127.0.0.3") as second,
    ):
        working[0].send(streamed + BODY[:9])
        eventually(lambda: len(house.service._server._all) == 8, "all have a place")
        eventually(lambda: house.service.entry.at_work == 1, "one is at work")
        assert answers(first[0])  # so it is no more the oldest
        with wires(house, 1, "127.0.0.5") as late:
            assert answers(late[0])
            assert [answers(wire) for wire in first] == [True, False, True, True]
            assert all(map(answers, second))
        working[0].send(BODY[9:])
        assert working[0].answer().status == 200  # what is at work is not cut


def test_where_all_connections_are_at_work_a_new_one_is_refused(
    open_house: Callable[..., House], eventually: Callable[..., Any]
) -> None:
    house = open_house(web_connections=3, web_connections_of_address=2)
    shop = house.caller()
    with wires(house, 2) as mine, wires(house, 1, "127.0.0.2") as other:
        for wire in (*mine, *other):
            wire.send(head(shop, "Content-Length: 29", media="application/x-ndjson"))
        eventually(lambda: house.service.entry.at_work == 3, "all are at work")
        for address in (HOST, "127.0.0.3"):
            with wires(house, 1, address) as late:
                assert late[0].is_closed()
        mine[0].send(BODY)
        assert mine[0].answer().status == 200
        with wires(house, 1) as late:
            assert answers(late[0])


def test_slow_bodies_of_an_address_take_no_place_from_its_honest_requests(
    open_house: Callable[..., House], eventually: Callable[..., Any]
) -> None:
    """They go, the oldest first; a body that comes in good pieces stays, however old."""
    house = open_house(web_connections=64, web_connections_of_address=16)
    shop = house.caller()
    large = b" " * 40_000 + BODY
    server = house.service._server
    with wires(house, 1) as honest, ExitStack() as slow:
        honest[0].send(head(shop, f"Content-Length: {len(large)}"))
        eventually(lambda: sum(one.waits for one in server._all) == 1, "it waits for its body")
        body = next(iter(server._all))._current_request.content
        for start in range(0, 40_000, 1000):
            wire = slow.enter_context(house.wire())
            wire.send(head(shop, "Content-Length: 500") + b"{")
            honest[0].send(large[start : start + 1000])
            eventually(lambda: body.total_bytes >= start + 1000, "it comes")  # noqa: B023 - now
        eventually(lambda: sum(one.waits for one in server._all) == 16, "the share is taken")
        for _ in range(20):
            assert shop.post(PERMITS, {"openid": "oA", "formId": "f"}).status == 200
        honest[0].send(large[40_000:])
        assert honest[0].answer().status == 200


def test_behind_proxies_an_address_is_no_client(open_house: Callable[..., House]) -> None:
    house = open_house(web_connections=32, web_connections_of_address=2, web_proxies=1)
    with wires(house, 20) as many:
        assert all(map(answers, many))


# -- what comes on them ---------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "tls"])
def test_a_request_behind_one_for_another_protocol_is_not_left_waiting(
    house: House, protocol: str
) -> None:
    """It is answered, or the connection ends at once, so that its client sends it again."""
    upgrade = f"Host: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}"
    with house.wire() as wire:
        wire.send(HEALTH.replace(b"Host: h", upgrade.encode()) + HEALTH)
        got = wire.answer()
        assert (got.status, got.headers["connection"]) == (200, "close")
        began = time.monotonic()
        assert wire.is_closed()
        assert time.monotonic() - began < 5


def test_asking_for_http_2_costs_no_connection(house: House, shop: Caller) -> None:
    """Java's client asks with every request, and sends the body after the head."""
    asks = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    with house.wire() as wire:
        for piece in (len(BODY), 9, 0):
            wire.send(head(shop, *asks, f"Content-Length: {len(BODY)}") + BODY[:piece])
            wire.send(BODY[piece:])
            got = wire.answer()
            assert (got.status, got.headers.get("connection")) == (200, None)
        wire.send(HEALTH.replace(b"Host: h", ("Host: h\r\n" + "\r\n".join(asks)).encode()))
        assert wire.answer().status == 200
        assert answers(wire)


def test_what_comes_behind_the_late_body_of_such_a_request_ends_the_connection(
    house: House, shop: Caller
) -> None:
    asks = ("Connection: Upgrade", "Upgrade: h2c", f"Content-Length: {len(BODY)}")
    with house.wire() as wire:
        wire.send(head(shop, *asks))
        time.sleep(0.05)  # two pieces of the stream
        wire.send(BODY + HEALTH)
        assert wire.answer().status == 200
        assert wire.is_closed()


@pytest.mark.parametrize(
    "coding",
    [
        "gzip",
        "gzip, chunked",
        "identity, chunked",
        "chunked, gzip",
        "xchunked",
        "gzip\r\nTransfer-Encoding: chunked",
        "chunked\r\nContent-Length: 5",
    ],
)
def test_a_body_in_other_codings_is_refused(house: House, shop: Caller, coding: str) -> None:
    with house.wire() as wire:
        wire.send(head(shop, f"Transfer-Encoding: {coding}"))
        wire.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY))
        got = wire.answer()
        assert (got.status, got.kind) == (400, "bad-request")
        assert wire.is_closed()
    assert house.uses("oA") == set()


def test_http_1_0_knows_no_chunks(house: House, shop: Caller) -> None:
    with house.wire() as wire:
        wire.send(head(shop, CHUNKED).replace(b"HTTP/1.1", b"HTTP/1.0"))
        wire.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY))
        assert wire.answer().status == 400
        assert wire.is_closed()
    assert house.uses("oA") == set()


def framed(kind: str) -> Iterator[bytes]:
    """Yield the pieces of a small body in too much frame, or of one in a usual one."""
    if kind == "extensions":
        yield b"1d;"
        for _ in range(64):
            yield b"a" * 8192
        yield b"\r\n" + BODY + b"\r\n0\r\n\r\n"
    elif kind == "trailers":
        yield b"1d\r\n" + BODY + b"\r\n0\r\n"
        for number in range(64):
            yield b"X-%d: %s\r\n" % (number, b"a" * 8000)
        yield b"\r\n"
    else:
        size = 1 if kind == "bytes" else 64
        body = b" " * 200_000 + BODY
        for start in range(0, len(body), 6400):
            some = body[start : start + 6400]
            parts = (some[at : at + size] for at in range(0, len(some), size))
            yield b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
        yield b"0\r\n\r\n"


@pytest.mark.parametrize("kind", ["extensions", "trailers", "bytes"])
def test_a_body_that_is_mostly_frame_is_refused(
    house: House, shop: Caller, kind: str, tmp_path: Path
) -> None:
    with recorded(tmp_path) as lines, house.wire() as wire:
        wire.send(head(shop, CHUNKED))
        with contextlib.suppress(ConnectionError):  # it is closed under way
            for piece in framed(kind):
                wire.send(piece)
                time.sleep(0.001)  # a stream of many pieces, as from afar
        assert wire.answer().status == 400
        assert wire.is_closed()
        assert [line for line in lines() if line["event"] != "request_answered"] == []
    assert house.uses("oA") == set()


def test_a_body_in_usual_chunks_is_taken(house: House, shop: Caller) -> None:
    with house.wire() as wire:
        wire.send(head(shop, CHUNKED))
        for piece in framed("chunks"):
            wire.send(piece)
        assert wire.answer().status == 200
    assert house.uses("oA") == {"f:f1"}


def test_a_flood_on_one_connection_is_served_in_turn_with_others(
    house: House, shop: Caller
) -> None:
    """While thousands of requests wait on one connection, another's is answered among the first."""
    count = 5000  # on Python 3.12+ tasks run at once: nearly all of them would come before it
    with house.wire() as flood, house.wire() as honest:
        assert answers(honest)
        sender = threading.Thread(target=flood.send, args=(HEALTH * count,))
        sender.start()
        assert flood.answer().status == 200
        served = house.service._server.requests_count
        honest.send(HEALTH)
        assert honest.answer().status == 200
        before_it = house.service._server.requests_count - served
        for _ in range(count - 1):
            assert flood.answer().status == 200
        sender.join()
    assert before_it < 100


def pipelined(stack: ExitStack, house: House, connections: int, requests: bytes) -> None:
    """Send many requests on each of many connections, and read no answer."""
    for _ in range(connections):
        made = stack.enter_context(socket.socket())
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        made.connect((HOST, house.port))
        made.send(requests)


@pytest.mark.parametrize("address", [HOST, "127.0.0.2"])
def test_a_flood_on_many_connections_is_served_in_turn_with_others(
    open_house: Callable[..., House], address: str
) -> None:
    """A new connection waits for a few of what waits on the others, not for nearly all."""
    connections = 200
    house = open_house(web_connections_of_address=connections)
    server = house.service._server
    with ExitStack() as stack:
        pipelined(stack, house, connections, HEALTH * 100)
        served = server.requests_count
        with wires(house, 1, address) as fresh:
            assert answers(fresh[0])
        assert server.requests_count - served < 3 * connections


def test_an_answer_that_is_not_taken_ends_its_connection(
    house: House, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_TAKEN_S", 0.3)
    server = house.service._server
    with ExitStack() as stack, house.wire() as honest:
        assert answers(honest)
        pipelined(stack, house, 20, b"GET /openapi.json HTTP/1.1\r\nHost: h\r\n\r\n" * 100)
        eventually(lambda: server.requests_count > 20, "they are served")
        eventually(lambda: len(server._all) == 1, "they are closed")
        assert answers(honest)


def test_an_answer_that_is_taken_slowly_comes_whole(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_TAKEN_S", 0.05)
    monkeypatch.setattr(connection, "_TAKEN", 1)
    request = b"GET /openapi.json HTTP/1.1\r\nHost: h\r\n\r\n"
    size = len(house.anybody.get("/openapi.json").body)
    with house.wire() as wire:
        wire.send(request * 100)
        for _ in range(100):
            assert len(wire.answer().body) == size
