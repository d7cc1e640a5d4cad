"""Load on an HTTP service: ready requests over connections that stay open, as cheap as Python can.

Full load: each connection sends its next request when the last is answered. Even load: requests
start at fixed moments, whether or not earlier ones are answered, and their latency counts from
the moment at which they should have started, so that a stall costs all who came meanwhile.
"""

import asyncio
import re
import time
from collections import deque
from collections.abc import Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

import uvloop

from .figures import must

_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: (\d+)\r\n")
_NEW: Final = re.compile(rb'"new":(\d+)')
_STANDSTILL_S: Final = 60.0
R = TypeVar("R")


@dataclass
class Load:
    """What came of it.

    Attributes:
        answers: of them.
        new: permits that were answered as new, all answers together.
        seconds: from the first request to the last answer.
        latencies: of each request, in seconds.
    """

    answers: int = 0
    new: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        """Return the latency in ms that a share of the requests did not exceed."""
        ordered = sorted(self.latencies)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class _Connection(asyncio.Protocol):
    """One connection: a request, its answer, the next one."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._read = bytearray()
        self._answer: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, found, body = self._read.partition(b"\r\n\r\n")
        if not found or self._answer is None:
            return
        length = _LENGTH.search(head + b"\r\n")
        if length is None or len(body) < int(length[1]):
            return
        answer, self._answer = self._answer, None
        self._read.clear()
        if head.startswith(b"HTTP/1.1 200"):
            answer.set_result(bytes(body))
        else:
            answer.set_exception(RuntimeError(bytes(head + body[:500])))

    def connection_lost(self, _exc: Exception | None) -> None:
        if self._answer is not None:
            self._answer.set_exception(ConnectionError("the service hung up"))

    async def ask(self, request: bytes) -> bytes:
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await asyncio.wait_for(self._answer, _STANDSTILL_S)

    def close(self) -> None:
        self._transport.close()


def request(path: str, body: bytes, token: str = "", media: str = "application/json") -> bytes:
    """Return a request as it goes out."""
    key = f"Authorization: Bearer {token}\r\n" if token else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\n{key}Content-Type: {media}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def full(port: int, requests: Iterable[bytes], connections: int) -> Load:
    """Send requests as fast as they are answered."""
    return _run(_full(port, iter(requests), connections))


def even(port: int, requests: Iterable[bytes], connections: int, rate: float) -> Load:
    """Send so many requests per second, evenly."""
    return _run(_even(port, iter(requests), connections, rate))


def _run(load: Coroutine[Any, Any, R]) -> R:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(load)


async def _open(port: int, connections: int) -> list[_Connection]:
    loop = asyncio.get_running_loop()
    return [
        (await loop.create_connection(_Connection, "127.0.0.1", port))[1]
        for _ in range(connections)
    ]


async def _one(load: Load, connection: _Connection, data: bytes, began: float) -> None:
    answer = await connection.ask(data)
    load.latencies.append(time.perf_counter() - began)
    load.answers += 1
    found = _NEW.search(answer)
    load.new += int(found[1]) if found else 0


async def _full(port: int, requests: Iterator[bytes], connections: int) -> Load:
    load = Load()
    opened = await _open(port, connections)

    async def keep(connection: _Connection) -> None:
        for data in requests:
            await _one(load, connection, data, time.perf_counter())

    began = time.perf_counter()
    await asyncio.gather(*map(keep, opened))
    load.seconds = time.perf_counter() - began
    for connection in opened:
        connection.close()
    return load


async def _even(port: int, requests: Iterator[bytes], connections: int, rate: float) -> Load:
    load = Load()
    free = deque(await _open(port, connections))
    running: set[asyncio.Task[None]] = set()
    failed: list[BaseException] = []

    async def send(connection: _Connection, data: bytes, at: float) -> None:
        await _one(load, connection, data, at)
        free.append(connection)

    def ended(task: "asyncio.Task[None]") -> None:
        running.discard(task)
        if error := task.exception():
            failed.append(error)

    began = time.perf_counter()
    for number, data in enumerate(requests):
        at = began + number / rate
        while (wait_s := at - time.perf_counter()) > 0 or not free:
            must(not failed, f"{failed}")
            await asyncio.sleep(max(0.0005, wait_s))
        task = asyncio.ensure_future(send(free.popleft(), data, at))
        running.add(task)
        task.add_done_callback(ended)
    while running:
        await asyncio.wait(running)
    must(not failed, f"{failed}")
    load.seconds = time.perf_counter() - began
    for connection in free:
        connection.close()
    return load
