"""Connections: aiohttp's server protocol, bounded in number, answering malformed HTTP in kind.

aiohttp itself closes a connection whose next request has not come whole within the keep-alive time,
so that nobody can hold one by sending its head byte by byte.
"""

import asyncio
import logging
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from producers import logs
from producers.events import RequestAnswered
from producers.web.call import Answer
from producers.web.problem import ProblemError

_MAX_LINE: Final = 8190
"""Bytes of a request line, and of a header: what nginx and Apache take."""
_MAX_HEADERS: Final = 100
_LINGER_S: Final = 2.0
"""How long the rest of a refused body is read, so that the client sees the answer."""

_HEADERS: Final = {"Server": "wxbroadcast", "Cache-Control": "no-store"}


class Connection(RequestHandler):
    """One connection."""

    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection, unless there are too many."""
        manager = self._manager
        if isinstance(manager, Server) and manager.is_full:
            cast("asyncio.Transport", transport).abort()
            self._manager = None
            return
        super().connection_made(transport)

    @property
    def is_idle(self) -> bool:
        """Whether no request is here, neither at work nor waiting for its turn."""
        return not self._request_in_progress and not self._messages

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
        logs.emit(RequestAnswered("", "", "", answer.status, "", "", remote, 0, 0.0))
        response = web.Response(
            status=answer.status,
            body=answer.body,
            headers={**_HEADERS, "Content-Type": answer.media},
        )
        response.force_close()
        return response


class Server(web.Server):
    """Makes connections.

    Args:
        handler: answers requests.
        connections: how many may be open.
        keepalive_s: how long one may be idle, or take to send the head of a request.
    """

    def __init__(self, handler: Any, connections: int, keepalive_s: float) -> None:
        super().__init__(handler)
        self._most = connections
        self._keepalive_s = keepalive_s

    @property
    def is_full(self) -> bool:
        """Whether no further connection is taken."""
        return len(self._connections) >= self._most

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
            keepalive_timeout=self._keepalive_s,
            access_log=None,  # type: ignore[arg-type]  # the entry logs
            max_line_size=_MAX_LINE,
            max_field_size=_MAX_LINE,
            max_headers=_MAX_HEADERS,
            lingering_time=_LINGER_S,
            auto_decompress=False,
        )
