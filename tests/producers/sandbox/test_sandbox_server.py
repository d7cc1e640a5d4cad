"""The socket: HTTP as clients speak it, and the sandbox as a process."""

import asyncio
import json
import signal
import sys
import urllib.request

import pytest
from sandbox_client import APPID, Opener, WeChat

from producers.sandbox import Sandbox
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
