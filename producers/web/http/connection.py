"""Connections: aiohttp's server protocol, bounded in number, answering malformed HTTP in kind.

One address has its share of the connections, and beyond it gives up its own oldest spare one for a
new one; when all are taken, the oldest spare one of all goes. Spare is a connection that waits for
its client: to ask, to send a body, or to take an answer; and one that asked for more before it had
its answer. So whoever opens connections and says nothing, or little, takes no place from anybody
else, and one that is at work is never closed for another. A body that comes makes its connection
young again with every 4 KiB.

An answer that is not taken ends its connection: of what waits to be sent, 1 KiB a second at least
must go. Until it has gone, nothing else of that connection is served, and little is read.

aiohttp itself closes a connection whose next request has not come whole within the keep-alive time,
so that nobody can hold one by sending its head byte by byte. Bytes of a body that are none, in the
extensions and headers of its chunks, may be as many as the body's own, and 16 KiB more.
"""

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final, cast

from aiohttp import StreamReader, web, web_protocol
from aiohttp.http import HttpRequestParser
from aiohttp.web_protocol import RequestHandler

from producers import logs
from producers.access import addresses
from producers.logs.events import RequestAnswered
from producers.logs.line_quota import LineQuota
from producers.web.http.answer import Answer
from producers.web.http.problem import ProblemError

_MAX_LINE: Final = 8190
"""Bytes of a request line, and of a header: what nginx and Apache take."""
_MAX_HEADERS: Final = 100
_LINGER_S: Final = 2.0
"""How long the rest of a refused body is read, so that the client sees the answer."""

_FRAMING: Final = 16_384
"""Bytes around the chunks of a body that are free; any more are counted against the body's own."""
_HEAD_END: Final = b"\r\n\r\n"

_AHEAD: Final = 4
"""Requests of a connection that are parsed before their turn; the next wait as bytes."""
_READ: Final = 65_536
"""Bytes of a body that wait for whoever reads it; aiohttp's own default."""
_UNSENT: Final = 16_384
"""Bytes of answers that may wait to be sent, before nothing else is answered."""
_TAKEN_S: Final = 5.0
"""How often we look whether a client takes its answer."""
_TAKEN: Final = 5_120
"""Bytes of it that must go in that time."""
_USED: Final = 4_096
"""Bytes of a body that count as use of its connection."""

_LINES: Final = LineQuota()
"""Of what is no request at all."""

_HEADERS: Final = {"Server": "wxbroadcast", "Cache-Control": "no-store"}


_Line = OrderedDict["Connection", None]
"""Connections, the one that was used longest ago first."""


class Connection(RequestHandler):
    """One connection.

    Attributes:
        peer: whose share it counts against; '' for nobody's.
        waits: whether its request waits for its client, or for its turn before others of its own.
    """

    __slots__ = ("_body", "_came", "_owed", "_raw", "_unsent", "peer", "waits")

    def __init__(self, server: "Server", **kwargs: Any) -> None:
        super().__init__(server, **kwargs)
        self._max_msg_queue_size, self._msg_queue_resume_size = _AHEAD, _AHEAD // 2
        self._parser = HttpRequestParser(  # aiohttp's, which parses 32 ahead: 100 kB
            self,
            self._loop,
            _READ,
            max_line_size=_MAX_LINE,
            max_field_size=_MAX_LINE,
            max_headers=_MAX_HEADERS,
            payload_exception=web.RequestPayloadError,
            auto_decompress=False,
            max_msg_queue_size=_AHEAD,
        )
        self.peer = ""
        self.waits = False
        self._came = 0
        """Bytes of a body that came since the connection was last used."""
        self._unsent: asyncio.TimerHandle | None = None
        """The next look whether the client takes its answer."""
        self._body: StreamReader | None = None
        """The chunked body that is coming in."""
        self._raw = 0
        """Bytes that came for it, after those that came with its head."""
        self._owed = 0
        """Bytes to come of the body of a request that asks for another protocol."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection, if there is room or room can be made."""
        server = cast("Server", self._manager)
        address = transport.get_extra_info("peername")
        self.peer = addresses.network(str(address[0])) if isinstance(address, tuple) else ""
        if not server.admit(self):
            cast("asyncio.Transport", transport).abort()
            self._manager = None
            return
        cast("asyncio.Transport", transport).set_write_buffer_limits(_UNSENT)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give its place back."""
        if self._unsent is not None:
            self._unsent.cancel()
        if isinstance(self._manager, Server):
            self._manager.release(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, within the bounds."""
        known = len(self._messages)
        super().data_received(data)
        if self._owed:
            self._owed -= len(data)
            if self._owed < 0:
                self.close()  # there was more behind the body, and it is gone
                self._owed = 0
        if len(self._messages) > known:
            if isinstance(self._manager, Server):
                self._manager.touch(self)
            self._look_at_newest(data)
            return
        if self.waits:
            self._came += len(data)
            if self._came >= _USED and isinstance(self._manager, Server):
                self._manager.touch(self)
                self._came = 0
        if self._body is not None:
            self._bound_framing(len(data))

    def pause_writing(self) -> None:
        """The client does not take what is sent: look whether it does at all."""
        super().pause_writing()
        self._look_later()

    def resume_writing(self) -> None:
        """The client took it."""
        super().resume_writing()
        if self._unsent is not None:
            self._unsent.cancel()
            self._unsent = None

    def _look_later(self) -> None:
        if self.transport is not None:
            left = self.transport.get_write_buffer_size()
            self._unsent = self._loop.call_later(_TAKEN_S, self._look_whether_taken, left)

    def _look_whether_taken(self, before: int) -> None:
        """End a connection whose client takes no answer; a stream's handler has its own time."""
        self._unsent = None
        transport = self.transport
        if transport is None or self._current_request is not None:
            self._look_later()
        elif before - transport.get_write_buffer_size() < _TAKEN:
            self.end()
        else:
            self._look_later()

    def end(self) -> None:
        """Close the connection at once, whatever waits on it."""
        task = self._task_handler
        if self.transport is not None:
            self.transport.abort()  # closed, it would stay until the client took what is unsent
        self.force_close()
        if self.waits and task is not None:
            task.cancel()

    def _look_at_newest(self, data: bytes) -> None:
        """See what the newest request asks for."""
        message, payload = self._messages[-1]
        if isinstance(message, web_protocol._ErrInfo):  # noqa: SLF001 - its only name
            return
        self._body = payload if message.chunked and not payload.is_eof() else None
        self._raw = payload.total_bytes
        if message.upgrade and not self._keeps_all(message, data):
            self._messages[-1] = (message._replace(should_close=True), payload)

    def _keeps_all(self, message: Any, data: bytes) -> bool:
        """Say whether nothing came behind a request that asks for another protocol.

        We speak no other, and answer it as any request; but of the piece of the stream in which
        it ends, the parser drops what is behind it. Where that cannot be excluded the connection
        ends with the answer, so that the client sends the rest again. Clients that would rather
        speak HTTP/2 (Java's own asks with every request) keep their connection.
        """
        if message.headers.get("Upgrade", "").lower() != "h2c" or message.chunked:
            return False
        head, _, rest = data.partition(_HEAD_END)
        if not head.startswith(f"{message.method} ".encode()):
            return False
        length = message.headers.get("Content-Length", "0")
        owed = (int(length) if length.isdecimal() else 0) - len(rest)
        self._owed = max(0, owed)
        return owed >= 0

    def _bound_framing(self, more: int) -> None:
        """End a body whose chunks are mostly frame."""
        body = cast("StreamReader", self._body)
        self._raw += more
        if body.is_eof():
            self._body = None
        elif self._raw - body.total_bytes > _FRAMING + body.total_bytes:
            self._body = None
            body.set_exception(web.RequestPayloadError("more frame than body"))
            body.feed_eof()  # nothing is read after the answer
            self.close()

    @property
    def is_idle(self) -> bool:
        """Whether no request is here, neither at work nor waiting for its turn."""
        return not self._request_in_progress and not self._messages

    @property
    def is_spare(self) -> bool:
        """Whether it may go for another: nothing of it is at work."""
        if self.is_idle or self.waits:
            return True
        is_answered = self._request_in_progress and self._current_request is None
        return is_answered and self.writing_paused

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's own words may hold the request
    ) -> web.StreamResponse:
        """Answer what is no HTTP request at all, or what the entry itself let slip."""
        kind, detail = "bad-request", "this is not a request that HTTP/1.1 knows"
        if status >= 500:
            kind, detail = "internal", "tell the operator when it happened"
            logging.getLogger("aiohttp.server").error("unforeseen", exc_info=exc)
        elif type(exc).__name__ == "LineTooLong":
            kind, detail = "headers-too-large", f"take up to {_MAX_LINE:,} bytes a line"
        problem = ProblemError(kind, detail)
        answer = Answer.of_problem(problem, "")
        remote = request.remote or ""
        if _LINES.admits():
            left_out = _LINES.take_left_out()
            logs.emit(RequestAnswered("", "", "", answer.status, "", "", remote, 0, 0.0, left_out))
        response = web.Response(
            status=answer.status,
            body=answer.body,
            headers={**_HEADERS, "Content-Type": answer.media},
        )
        response.force_close()
        return response


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of the process connections may take.

    Attributes:
        connections: how many may be open.
        of_address: how many of one address, of IPv6 one /64; None: no share, as behind proxies.
        keepalive_s: how long one may be idle, or take to send the head of a request.
    """

    connections: int
    of_address: int | None
    keepalive_s: float


class Server(web.Server):
    """Makes connections.

    Args:
        handler: answers requests.
        bounds: of the connections.
    """

    def __init__(self, handler: Any, bounds: Bounds) -> None:
        super().__init__(handler)
        self._bounds = bounds
        self._all: _Line = OrderedDict()
        self._of: dict[str, _Line] = {}

    def admit(self, connection: Connection) -> bool:
        """Give a new connection a place; if need be, that of the oldest spare one."""
        share = self._bounds.of_address if connection.peer else None
        line = self._of.get(connection.peer)
        if line is not None and share is not None and len(line) >= share and not self._clear(line):
            return False
        if len(self._all) >= self._bounds.connections and not self._clear(self._all):
            return False
        self._all[connection] = None
        self._of.setdefault(connection.peer, OrderedDict())[connection] = None
        return True

    def touch(self, connection: Connection) -> None:
        """A request came, or much of its body: the connection is the one that was used last."""
        if connection in self._all:
            self._all.move_to_end(connection)
            self._of[connection.peer].move_to_end(connection)

    def release(self, connection: Connection) -> None:
        """Take a connection's place back, if it has one."""
        if self._all.pop(connection, connection) is None:
            line = self._of[connection.peer]
            del line[connection]
            if not line:
                del self._of[connection.peer]

    def _clear(self, line: "_Line") -> bool:
        """Close the oldest spare connection of a line; say whether there was one."""
        for _ in range(len(line)):
            oldest = next(iter(line))
            if oldest.is_spare:
                self.release(oldest)
                oldest.end()
                return True
            line.move_to_end(oldest)  # it is at work, so it is used now
        return False

    def close_idle(self) -> int:
        """Close the connections without a request; return how many have one.

        Those are left alone: aiohttp drops what comes on a closing connection, so a body that is
        still on its way would never end.
        """
        busy = 0
        for one in self.connections:
            if isinstance(one, Connection) and one.is_idle:
                one.force_close()  # `close` leaves the socket open until the runner's cleanup
            else:
                busy += 1
        return busy

    def __call__(self) -> RequestHandler:
        """Make the protocol of one connection."""
        return Connection(
            self,
            loop=self._loop,
            keepalive_timeout=self._bounds.keepalive_s,
            access_log=None,  # the entry logs
            lingering_time=_LINGER_S,
        )
