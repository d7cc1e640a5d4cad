"""The entry: what every request passes, in this order, and how each ends in one answer.

Request id, its turn, route (404, 405), key (401), app and scope (403), the key's rate (429), query,
content type and body (408, 413, 415, 400, 422), a free place (503), Idempotency-Key, the handler.
What is cheap to refuse is refused first, and a slow body holds no place. Each answer leaves one log
line.
"""

import asyncio
import contextlib
import re
import time
import traceback
from http import HTTPStatus
from typing import Final, cast
from urllib.parse import parse_qsl

from aiohttp import web
from aiohttp.http import StreamWriter
from pydantic import ValidationError

from producers import logs
from producers.access.api_keys import ApiKey, Scope
from producers.access.sessions import is_csrf
from producers.logs.events import RequestAnswered, RequestFailed
from producers.logs.line_quota import LineQuota
from producers.logs.redaction import redacted
from producers.web.call import Call
from producers.web.http.answer import Answer
from producers.web.http.connection import Connection
from producers.web.http.problem import (
    ProblemError,
    invalid,
    of_error,
    of_ticket,
    of_validation,
    retry_after,
)
from producers.web.routing import body
from producers.web.routing.route import Open, Route
from producers.web.routing.router import Router
from producers.web.services import Services
from producers.web.traffic.turns import Turns

_HEADERS: Final = {
    "Server": "wxbroadcast",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
_DRY_RUN: Final = re.compile(r"(^|&)dry[-_]?run(=|&|$)", re.IGNORECASE)
_TRACE: Final = 4000
"""Characters of a traceback that the log keeps."""
_LARGE: Final = 16_384
"""Bytes of a body that is not copied for each who reads it slowly."""
_FREE: Final = frozenset({Open.ALL})
"""Health and documents need no place: they answer while all hands are full."""


class Entry:
    """Answers requests. Belongs to one event loop.

    Attributes:
        at_work: requests that have a place now.
    """

    def __init__(self, services: Services, router: Router) -> None:
        self._services = services
        self._router = router
        self._places = services.settings.web_requests
        self._timeout_s = services.settings.web_timeout.total_seconds()
        self._lines = LineQuota()
        self._turns = Turns()
        self.at_work = 0

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; what aiohttp's server calls."""
        call = Call(request, self._services)
        try:
            behind = bool(request.protocol._messages)  # noqa: SLF001 - nothing else tells of them
            if behind or not self._turns.begins():
                await self._turn(cast("Connection", request.protocol), behind)
            answer = await self._answer(call)
        except asyncio.CancelledError:
            raise
        except ProblemError as problem:
            answer = Answer.of_problem(problem, call.id)
        except Exception as error:  # noqa: BLE001 - nothing from inside reaches the client
            answer = self._unforeseen(call, error)
        try:
            return await self._respond(call, answer)
        finally:
            self._log(call, answer)

    async def _turn(self, connection: Connection, behind: bool) -> None:
        """Wait for a request's turn; whoever sent more behind it may lose the connection."""
        connection.waits = behind
        try:
            await self._turns.wait(connection)
        finally:
            connection.waits = False

    async def _answer(self, call: Call) -> Answer:
        request = call.request
        _check_framing(request)
        raw_path, _, query = request.raw_path.partition("?")
        route, call.path = self._router.find(request.method, raw_path)
        call.template = route.path
        await self._let_in(call, route)
        if route.query is not None or query:
            call.query = _query(route, query)
        reader = await body.read(call, route)
        if route.access in _FREE:
            return await route.handler(call)
        if self._services.stopping or self.at_work >= self._places:
            raise ProblemError(
                "busy", "no place is free at this moment", headers=retry_after(1000), close=True
            )
        self.at_work += 1
        try:
            return await self._work(call, route, reader)
        finally:
            self.at_work -= 1

    async def _let_in(self, call: Call, route: Route) -> None:
        """Check who asks."""
        if not isinstance(route.access, Scope):
            if route.access is Open.TICKET:
                if not call.bearer:
                    raise of_ticket("send the ticket of a login: Authorization: Bearer v1.…")
                call.actor = "ticket"
            elif route.access is Open.SESSION and call.changes:
                _check_page(call)
            return
        if route.or_ticket and call.bearer.startswith("v1."):
            call.actor = "ticket"
            return
        key = call.key = await self._identify(call)
        call.actor = key.id
        await self._services.guard.admit(key)
        if call.app and not key.is_for(call.app):
            raise ProblemError("forbidden", f"this key is not for app {call.app!r}")
        if route.access not in key.scopes:
            raise ProblemError("forbidden", f"this key has no scope {route.access.value!r}")
        if call.app:
            self._services.settings.app(call.app)

    async def _identify(self, call: Call) -> ApiKey:
        """Return the key that asks: as bearer, or the one that opened the console's session."""
        if call.bearer or not call.session:
            return await self._services.guard.identify(call.bearer)
        if call.changes:
            _check_page(call)
        return await self._services.guard.identify_session(call.session)

    async def _work(self, call: Call, route: Route, reader: body.Reader | None) -> Answer:
        if call.streams and reader is not None:
            call.body = body.Lines(reader)
        if not route.creates or reader is None:
            return await self._handle(call, route)
        return await self._services.idempotency.answer(
            call.request.headers,
            call.app,
            call.scope,
            reader.rest,
            lambda: self._handle(call, route),
        )

    async def _handle(self, call: Call, route: Route) -> Answer:
        """Run the handler, within its time; a streamed body has a time of its own."""
        if call.streams:
            return await route.handler(call)
        async with asyncio.timeout(self._timeout_s):
            return await route.handler(call)

    def _unforeseen(self, call: Call, error: Exception) -> Answer:
        problem = of_error(error)
        if problem is None:
            text = redacted("".join(traceback.format_exception(error)))[-_TRACE:]
            logs.emit(RequestFailed(call.id, call.template, type(error).__name__, text))
            problem = ProblemError("internal", "tell the operator the request_id", close=True)
        return Answer.of_problem(problem, call.id)

    async def _respond(self, call: Call, answer: Answer) -> web.StreamResponse:
        headers = {**_HEADERS, "X-Request-Id": call.id, **answer.headers}
        if answer.parts is None:
            headers["Content-Type"] = answer.media
            response = web.Response(status=answer.status, body=answer.body, headers=headers)
            if answer.close or self._services.stopping:
                response.force_close()
            if len(answer.body) > _LARGE:
                with contextlib.suppress(ConnectionError):  # aiohttp meets it again
                    await response.prepare(call.request)
                    cast("StreamWriter", call.request.writer).send_headers()  # or it is copied
            return response
        headers["Content-Type"] = answer.media
        stream = web.StreamResponse(status=answer.status, headers=headers)
        if self._services.stopping:
            stream.force_close()
        try:
            async with contextlib.aclosing(answer.parts) as parts:
                await stream.prepare(call.request)
                async for part in parts:
                    async with asyncio.timeout(self._timeout_s):  # a client that does not read
                        await stream.write(part)
            await stream.write_eof()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - the head is gone: only a cut can tell
            if not isinstance(error, ConnectionError | TimeoutError):
                self._unforeseen(call, error)
            if call.request.transport is not None:
                call.request.transport.abort()
        return stream

    def _log(self, call: Call, answer: Answer) -> None:
        if not call.actor and not self._lines.admits():
            return
        logs.emit(
            RequestAnswered(
                call.id,
                call.request.method[:16],
                call.template,
                answer.status,
                call.actor,
                call.app,
                call.remote,
                call.bytes_in,
                round((time.monotonic() - call.started) * 1000, 3),
                self._lines.take_left_out(),
            )
        )


def _check_page(call: Call) -> None:
    """Refuse a change that our own page did not ask for.

    A foreign page can neither read the CSRF token nor send it. Who signs in has none yet: then the
    browser must say that it was our page (Fetch Metadata), or say nothing, as what is no browser.

    Raises:
        ProblemError: forbidden.
    """
    site = call.request.headers.get("Sec-Fetch-Site", "same-origin")
    if site not in {"same-origin", "none"}:
        raise ProblemError("forbidden", "this comes from another site")
    signs_in = (call.request.method, call.template) == ("POST", "/console/session")
    token = call.request.headers.get("X-CSRF-Token", "")
    if call.session and not signs_in and not is_csrf(call.session, token):
        raise ProblemError("forbidden", "X-CSRF-Token: send the one of GET /console/session")


def _check_framing(request: web.BaseRequest) -> None:
    """Refuse a body in codings that nobody here undoes, or that HTTP/1.0 did not know.

    RFC 9112, 6.1 and 6.3: what a proxy before us takes for its end may be another one.
    """
    if "Transfer-Encoding" not in request.headers:
        return
    codings = [coding.lower() for coding in request.headers.getall("Transfer-Encoding")]
    if codings != ["chunked"] or request.version < (1, 1):
        detail = "Transfer-Encoding: take chunked alone, in HTTP/1.1"
        raise ProblemError("bad-request", detail, close=True)


def _query(route: Route, text: str) -> object:
    """Return the query as the route's model makes it; each name once.

    Where a route takes none it is not read, but for a wish that nothing may happen.
    """
    if route.query is None:
        if text and _DRY_RUN.search(text) and HTTPStatus.UNPROCESSABLE_ENTITY in route.statuses:
            raise invalid(
                "query",
                "nothing here is tried dry by a parameter, so nothing was done; POST "
                "…/broadcasts/dry-run says what a broadcast would do",
            )
        return None
    try:
        text.encode()  # not, where a raw byte was no UTF-8
        pairs = parse_qsl(
            text,
            keep_blank_values=True,
            strict_parsing=bool(text),
            errors="strict",
            max_num_fields=50,
        )
    except ValueError:  # also a UnicodeError
        raise ProblemError("bad-request", "the query is malformed") from None
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise invalid("query", "a name stands twice in the query")
    try:
        return route.query.model_validate(fields)
    except ValidationError as error:
        raise of_validation(error, "query") from None
