"""Crash points: a way that kills whoever comes along it, at one step exactly.

A `Way` is a TCP proxy between a unit and Valkey, or between a unit and WeChat. Its `Trap` knows the
step by what the request holds: the digest of a script, or a path. *Before*: the unit is killed and
the request goes nowhere. *After*: the request is carried out, the unit is killed, and the answer
goes nowhere. Nothing in the product knows of it. Of a cluster each node has a way of its own, with
the same trap, and is named by it.
"""

import asyncio
import contextlib
import hashlib
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cluster import led, names_nodes

from producers.store import scripts
from producers.store.cluster.slots import whole
from producers.store.lanes.fence import guarded

Result = TypeVar("Result")
POST = b"POST /cgi-bin/message/"


def script(package: str, name: str) -> bytes:
    """Return what every EVALSHA of a script begins with, on a server and on a cluster.

    To ask whether it is known is none.
    """
    text = scripts.source(package, name)
    digests = (hashlib.sha1(one.encode()).hexdigest() for one in (guarded(text), whole(text)))  # noqa: S324
    return rf"EVALSHA\r\n\$40\r\n(?:{'|'.join(digests)})".encode()


def _always(_: bytes) -> bool:
    return True


@dataclass
class Trap:
    """Kills a process group at one step.

    Attributes:
        word: what the request of the step holds; a pattern.
        when: before or after.
        if_request, if_reply: further conditions; the second one counts for `after` alone.
        process: who is killed.
        sprung: set once it was.
        armed: False lets everybody pass.
    """

    word: bytes
    when: str
    if_request: Callable[[bytes], bool] = _always
    if_reply: Callable[[bytes], bool] = _always
    process: "subprocess.Popen[bytes] | None" = None
    sprung: threading.Event = field(default_factory=threading.Event)
    armed: bool = True

    def spring(self) -> None:
        """Kill."""
        assert self.process
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.sprung.set()


async def cancel_the_rest() -> None:
    """Cancel every other task of this loop, and wait for their ends."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Backstage:
    """An event loop on a thread: the ways and the sandboxes of a test run there."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="backstage")
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine there, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def call(self, work: Callable[..., Result], *args: Any) -> Result:
        """Call a function there, and wait for it."""

        async def called() -> Result:
            return work(*args)

        return self.run(called())

    def close(self) -> None:
        """End the loop and its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.run_until_complete(cancel_the_rest())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


@dataclass
class _Line:
    """One connection: whether the step's answer is yet to come, and the next one names nodes."""

    due: bool = False
    names: bool = False


class Way:
    """The proxy; see the module. It belongs to a backstage's loop.

    Args:
        host, port: where it leads.
        trap: what lies on it.
        ports: of each node's port the one of the way to it; they may be put in later.
    """

    def __init__(
        self, host: str, port: int, trap: Trap, ports: Mapping[int, int] | None = None
    ) -> None:
        self._target = (host, port)
        self._trap = trap
        self._ports = {} if ports is None else ports
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, port: int = 0) -> int:
        """Listen at a port, 0: a free one; returns it."""
        self._server = await asyncio.start_server(self._come, "127.0.0.1", port)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Cut every connection, and listen no more."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        writers = [writer]
        try:
            there, back = await asyncio.open_connection(*self._target)
            writers.append(back)
            line = _Line()
            carriers = [
                asyncio.ensure_future(self._carry_requests(reader, back, line)),
                asyncio.ensure_future(self._carry_replies(there, writer, line)),
            ]
            try:
                await asyncio.wait(carriers, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for carrier in carriers:
                    carrier.cancel()
                await asyncio.gather(*carriers, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            for one in writers:
                one.transport.abort()

    async def _carry_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: _Line
    ) -> None:
        trap, tail = self._trap, b""
        while chunk := await reader.read(1 << 20):
            if trap.sprung.is_set():
                return
            if re.search(trap.word, tail + chunk):
                tail = b""
                if trap.armed and trap.if_request(chunk):
                    if trap.when == "before":
                        trap.spring()
                        return
                    line.due = True
            else:
                tail = chunk[-len(trap.word) :]
            line.names = names_nodes(chunk)
            writer.write(chunk)
            await writer.drain()

    async def _carry_replies(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: _Line
    ) -> None:
        trap = self._trap
        while chunk := await reader.read(1 << 20):
            if trap.sprung.is_set():
                return
            if line.due:
                if chunk.startswith(b"-NOSCRIPT"):  # what it does not know it has not done
                    line.due = False
                elif trap.armed and trap.if_reply(chunk):  # else another one of the same trip
                    trap.spring()
                    return
            writer.write(led(chunk, self._ports, named=line.names))
            await writer.drain()
