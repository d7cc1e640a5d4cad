"""The socket: HTTP as clients speak it, and the sandbox as a process."""

import asyncio
import json
import signal
import sys
import urllib.request

import pytest
from sandbox_client import APPID, Opener, WeChat

from producers.sandbox import Sandbox, http1
from producers.sandbox.http1 import MalformedError, RequestReader

POST = b"POST /a?b=c HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"


def test_a_request_may_arrive_byte_by_byte() -> None:
    reader = RequestReader()
    for byte in POST[:-1]:
        reader.feed(bytes([byte]))
        assert reader.next() is None
    reader.feed(POST[-1:])
    request = reader.next()
    assert request is not None
    assert request == ("POST", "/a", b"b=c", b"hello", True)
    assert reader.next() is None


def test_requests_may_arrive_together() -> None:
    reader = RequestReader()
    reader.feed(POST + POST + POST[:20])
    assert [request.body for request in (reader.next(), reader.next()) if request] == [b"hello"] * 2
    assert reader.next() is None
    reader.feed(POST[20:])
    assert reader.next() is not None


def test_a_body_may_be_chunked() -> None:
    whole = (
        b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nTrailer: t\r\n\r\n"
    )
    for cut in range(1, len(whole)):
        reader = RequestReader()
        reader.feed(whole[:cut])
        assert reader.next() is None
        reader.feed(whole[cut:])
        request = reader.next()
        assert request is not None
        assert request.body == b"hello"


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"x" * 70_000,
    ],
)
def test_what_is_no_http_is_refused(data: bytes) -> None:
    reader = RequestReader()
    reader.feed(data)
    with pytest.raises(MalformedError):
        reader.next()


def test_a_head_that_never_ends_is_refused() -> None:
    reader = RequestReader()
    reader.feed(b"GET / HTTP/1.1\r\n")
    for n in range(70):
        reader.feed(b"X-%d: %b\r\n" % (n, b"x" * 1000))
    with pytest.raises(MalformedError):
        reader.next()


def test_a_body_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "_MAX_BODY", 1000)
    reader = RequestReader()
    reader.feed(b"POST / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n")
    for _ in range(2):
        reader.feed(b"x" * 500)
    assert reader.next() is None
    reader.feed(b"x")
    with pytest.raises(MalformedError):
        reader.next()


def test_what_came_before_nonsense_is_read() -> None:
    reader = RequestReader()
    reader.feed(POST + b"nonsense\r\n\r\n")
    assert reader.next() is not None
    with pytest.raises(MalformedError):
        reader.next()


@pytest.mark.parametrize(
    ("line", "header", "keep_alive"),
    [
        ("HTTP/1.1", "X: y", True),
        ("HTTP/1.1", "Connection: close", False),
        ("HTTP/1.1", "cONNECTION: Close", False),
        ("HTTP/1.0", "X: y", False),
    ],
)
def test_a_client_says_whether_it_stays(line: str, header: str, keep_alive: bool) -> None:
    reader = RequestReader()
    reader.feed(f"GET /a {line}\r\n{header}\r\n\r\n".encode())
    assert reader.next() == ("GET", "/a", b"", b"", keep_alive)


@pytest.mark.parametrize("body", [b"", b"hello"])
def test_an_offer_to_upgrade_is_passed_over(body: bytes) -> None:
    request = (
        b"POST /a HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    for cut in range(len(request)):
        reader = RequestReader()
        reader.feed(request[:cut])
        reader.feed(request[cut:] + POST)
        assert reader.next() == ("POST", "/a", b"", body, True)
        assert reader.next() == ("POST", "/a", b"b=c", b"hello", True)


def test_what_is_nothing_but_an_offer_is_refused() -> None:
    reader = RequestReader()
    reader.feed(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n")
    with pytest.raises(MalformedError):
        reader.next()


def test_a_held_back_body_is_noticed_once_its_head_is_whole() -> None:
    head = b"POST /a HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\n"
    reader = RequestReader()
    for byte in head:
        assert not reader.wants_continue
        reader.feed(bytes([byte]))
    assert reader.wants_continue
    reader.feed(b"hello")
    assert not reader.wants_continue
    assert reader.next() == ("POST", "/a", b"", b"hello", True)


async def talk(sandbox: Sandbox, data: bytes) -> bytes:
    """Send bytes, and read until the sandbox closes."""
    host, port = sandbox.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_a_malformed_request_is_400_and_the_end(wechat: WeChat) -> None:
    answer = await talk(wechat.sandbox, b"nonsense\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")


async def test_a_client_may_close_after_one_request(wechat: WeChat) -> None:
    request = b"GET /_sandbox/faults HTTP/1.1\r\nConnection: close\r\n\r\n"
    answer = await talk(wechat.sandbox, request)
    assert b"Connection: close" in answer
    assert answer.endswith(b"\r\n\r\n[]")


async def test_pipelined_requests_are_answered_in_order(open_wechat: Opener) -> None:
    wechat = await open_wechat(latency={"fixed_ms": 5})
    path = f"/cgi-bin/token?grant_type=client_credential&appid={APPID}&secret=s"
    token = f"GET {path} HTTP/1.1\r\n\r\n".encode()
    last = b"GET /_sandbox/faults HTTP/1.1\r\nConnection: close\r\n\r\n"
    answer = await talk(wechat.sandbox, token + token + last)
    assert answer.count(b"access_token") == 2
    assert answer.endswith(b"[]")


async def test_a_held_back_body_is_asked_for(wechat: WeChat) -> None:
    host, port = wechat.sandbox.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = "POST /_sandbox/faults HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    writer.write(head.encode())
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"[]")
    assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
    writer.close()
    await writer.wait_closed()


async def test_a_stopped_sandbox_closes_its_connections(wechat: WeChat) -> None:
    await wechat.ask("faults")
    await wechat.sandbox.stop()
    assert wechat.sandbox.connections == set()
    with pytest.raises(OSError, match="Connect"):
        await wechat.ask("faults")


async def test_it_runs_as_a_process_and_says_where() -> None:
    code = "from producers.sandbox import *; run('127.0.0.1', 0, SandboxConfig())"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    line = json.loads(await process.stdout.readline())
    assert line["event"] == "sandbox_started"

    def ask() -> bytes:
        with urllib.request.urlopen(line["url"] + "/_sandbox/faults") as response:  # noqa: S310
            return response.read()

    assert await asyncio.to_thread(ask) == b"[]"
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
    assert await process.stdout.read() == b""
