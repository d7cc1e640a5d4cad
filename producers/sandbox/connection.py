"""One keep-alive connection: bytes to requests, answers to bytes, in order.

Answers leave one after another; a pipelined request waits for the answer before it. When the client
goes, what it waited for is dropped; what it asked for has been done.
"""

import asyncio
import math
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final, Protocol

from producers.sandbox.dispatch import Answer, Manner, respond
from producers.sandbox.http1 import CONTROL_PREFIX, MalformedError, Request, RequestReader, Sheet
from producers.sandbox.pushes.events import Event
from producers.sandbox.state import State

_STEPS_A_SECOND: Final = 50  # of a drip


class Hub(Protocol):
    """What connections need of their sandbox."""

    state: State
    connections: set["Connection"]

    def control(self, request: Request) -> Sheet:
        """Answer a control request."""

    def announce(self, event: Event) -> None:
        """Push an event in the background."""

    async def announce_first(self, event: Event) -> None:
        """Push an event and wait for its answer."""


def _head(status: int, content_type: bytes, keep_alive: bool, framing: bytes) -> bytes:
    return b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nConnection: %b\r\n%b\r\n\r\n" % (
        status,
        HTTPStatus(status).phrase.encode(),
        content_type,
        b"keep-alive" if keep_alive else b"close",
        framing,
    )


class Connection(asyncio.Protocol):
    """One connection.

    Attributes:
        closed: done once the connection is.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._reader = RequestReader()
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._transport: Any = None
        self._waiting = False
        self._keep_alive = True
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._busy: tuple[str, str] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = transport
        self._hub.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Drop what the client waited for."""
        self._hub.connections.discard(self)
        self.closed.set_result(None)
        self._release()
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        """Hold a stream back."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let a stream go on."""
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Take bytes, and serve what is whole."""
        self._reader.feed(data)
        if not self._waiting:
            self._serve()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _serve(self) -> None:
        reader = self._reader
        while not self._waiting:
            try:
                request = reader.next()
            except MalformedError:
                self._keep_alive = False
                self._write(Answer(b"bad request", b"text/plain", 400))
                return
            if request is None:
                if reader.wants_continue:
                    reader.wants_continue = False
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            self._keep_alive = request.keep_alive
            if request.path.startswith(CONTROL_PREFIX):
                self._show(self._hub.control(request))
            else:
                self._answer(respond(self._hub.state, request))

    def _answer(self, answer: Answer) -> None:
        callback = self._hub.state.config.callback if answer.event is not None else None
        first = callback is not None and callback.before_reply
        if not answer.delay_ms and not first:
            self._leave(answer)
            return
        self._waiting = True
        if answer.busy is not None:
            self._busy = answer.busy
            self._hub.state.sending.add(answer.busy)
        if first:
            self._run(self._announce_first(answer))
        else:
            self._timer = self._loop.call_later(answer.delay_ms / 1000, self._leave, answer)

    def _leave(self, answer: Answer) -> None:
        waited = self._waiting
        self._waiting = False
        self._release()
        match answer.manner:
            case Manner.WHOLE:
                self._write(answer)
            case Manner.CUT:
                self._close()
            case Manner.DRIP:
                self._run(self._drip(answer))
        if answer.event is not None:
            self._hub.announce(answer.event)
        if waited:
            self._serve()

    def _write(self, answer: Answer) -> None:
        body = answer.body
        if answer.status == 200 and self._keep_alive:
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nConnection: keep-alive\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (answer.content_type, len(body), body)
            )
            return
        framing = b"Content-Length: %d" % len(body)
        head = _head(answer.status, answer.content_type, self._keep_alive, framing)
        self._transport.write(head + body)
        if not self._keep_alive:
            self._close()

    def _show(self, sheet: Sheet) -> None:
        if isinstance(sheet.body, bytes):
            self._write(Answer(sheet.body, sheet.content_type, sheet.status))
        else:
            self._run(self._stream(sheet, sheet.body))

    def _run(self, work: Any) -> None:
        self._waiting = True
        self._task = self._loop.create_task(work)

    def _close(self) -> None:
        self._waiting = True  # what was pipelined behind is not served
        self._transport.close()

    def _release(self) -> None:
        if self._busy is not None:
            self._hub.state.sending.discard(self._busy)
            self._busy = None

    async def _announce_first(self, answer: Answer) -> None:
        if answer.event is not None:
            await self._hub.announce_first(answer.event)
        await asyncio.sleep(answer.delay_ms / 1000)
        self._leave(answer._replace(event=None))

    async def _drip(self, answer: Answer) -> None:
        head = _head(200, answer.content_type, keep_alive=False, framing=b"X-Drip: 1")
        whole = head + answer.body
        steps = max(1, math.ceil(answer.spread_ms / 1000 * _STEPS_A_SECOND))
        size = max(1, math.ceil(len(whole) / steps))
        for start in range(0, len(whole), size):
            self._transport.write(whole[start : start + size])
            await asyncio.sleep(answer.spread_ms / 1000 * size / len(whole))
        self._close()

    async def _stream(self, sheet: Sheet, pieces: Iterator[bytes]) -> None:
        framing = b"Transfer-Encoding: chunked"
        self._transport.write(_head(sheet.status, sheet.content_type, self._keep_alive, framing))
        for piece in pieces:
            await self._writable.wait()
            self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self._transport.write(b"0\r\n\r\n")
        self._waiting = False
        if not self._keep_alive:
            self._close()
        self._serve()
