"""Bodies: read whole or line by line, never more than their limit, never longer than their time.

JSON is parsed by orjson, which takes valid UTF-8 only, no NaN, no lone surrogates, and at most 1024
levels; what its shape is, the route's model says. Compressed bodies are not taken: a small one can
be huge inside.

Own code, because aiohttp's reader has one limit for all routes and no time, and refuses a large
body only after it has taken that much of it: here Content-Length is enough for a 413, before the
client is asked for the body (100-continue) and before anything of it is read.
"""

import asyncio
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, cast

import orjson
from aiohttp import web
from aiohttp.client_exceptions import ClientPayloadError
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import ValidationError

from producers.permits.uploads import MAX_LINE_BYTES
from producers.web.call import Call
from producers.web.http.media import FORM, JSON
from producers.web.http.problem import ProblemError, of_validation
from producers.web.routing.multipart import boundary_of
from producers.web.routing.route import Body, Route

if TYPE_CHECKING:
    from producers.web.http.connection import Connection

_BLOCK: Final = 65_536
"""Bytes of a streamed body that must come within the read timeout."""


class Reader:
    """Reads the body of one call.

    Attributes:
        digest: SHA-256 over what was read so far, without the boundary of its parts.
    """

    def __init__(self, call: Call, limit: int, boundary: bytes = b"") -> None:
        self._call = call
        self._content = call.request.content
        self._limit = limit
        self._wait_s = call.services.settings.web_read_timeout.total_seconds()
        self.digest = hashlib.sha256(call.request.content_type.encode())
        self._boundary = boundary  # each request has another one, and is the same for all that
        self._undigested = b""

    async def whole(self) -> bytes:
        """Return the body.

        Raises:
            ProblemError: too large, too slow, or cut off.
        """
        content = self._content
        if content.is_eof() and content.total_bytes <= self._limit and not content.exception():
            body = content.read_nowait()  # most bodies came with their head
            self._count(body)
            return body
        parts = []
        connection = cast("Connection", self._call.request.protocol)
        connection.waits = True
        try:
            async with asyncio.timeout(self._wait_s):
                while part := await self._some():
                    parts.append(part)
        except TimeoutError:
            raise self._slow() from None
        finally:
            connection.waits = False
        return b"".join(parts)

    async def block(self) -> bytes:
        """Return the next 64 KiB or so of a streamed body, b'' at its end; raises as `whole`."""
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._wait_s):
                while size < _BLOCK and (part := await self._some()):
                    parts.append(part)
                    size += len(part)
        except TimeoutError:
            raise self._slow() from None
        return b"".join(parts)

    async def rest(self) -> str:
        """Read to the end, and return the digest of all of it."""
        while await self.block():
            pass
        self.digest.update(self._undigested)
        self._undigested = b""
        return self.digest.hexdigest()

    async def _some(self) -> bytes:
        try:
            part = await self._content.readany()
        except (
            web.RequestPayloadError,
            ClientPayloadError,
            HttpProcessingError,
            ConnectionError,
        ):
            raise ProblemError("bad-request", "the body ended early", close=True) from None
        self._count(part)
        return part

    def _count(self, part: bytes) -> None:
        self._call.bytes_in += len(part)
        if self._call.bytes_in > self._limit:
            raise too_large(self._limit)
        if self._boundary:
            part = (self._undigested + part).replace(self._boundary, b"")
            end = max(0, len(part) - len(self._boundary) + 1)  # what follows may be one's beginning
            part, self._undigested = part[:end], part[end:]
        self.digest.update(part)

    def _slow(self) -> ProblemError:
        return ProblemError(
            "timeout", f"the body did not come within {self._wait_s:g} s", close=True
        )


class Lines:
    """The lines of a streamed body, for library code on a thread, in constant memory.

    A line longer than any upload may be is cut, so that it is refused as too long.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._loop = asyncio.get_running_loop()

    def __iter__(self) -> Iterator[bytes]:
        """Yield the lines without their ends; raises as `Reader.block`."""
        tail = b""
        is_cut = False
        while block := asyncio.run_coroutine_threadsafe(self._reader.block(), self._loop).result():
            first, *more = block.split(b"\n")
            if is_cut:
                first, tail = b"", tail[: MAX_LINE_BYTES + 1]
            tail += first
            if not more and len(tail) > MAX_LINE_BYTES:
                tail, is_cut = tail[: MAX_LINE_BYTES + 1], True
                continue
            if not more:
                continue
            yield tail
            is_cut = False
            tail = more.pop()
            yield from more
        if tail:
            yield tail


async def read(call: Call, route: Route) -> Reader | None:
    """Read and check the body of a call as its route says; streamed ones are only prepared.

    Raises:
        ProblemError: it is not what the route takes.
    """
    wants = route.body
    if wants is None:
        return None
    call.streams = _check_type(call, wants)
    settings = call.services.settings
    limit = settings.web_stream_limit if call.streams else settings.web_body_limit
    if wants.limit is not None and not call.streams:
        limit = min(limit, wants.limit)
    length = call.request.content_length
    if length is not None and length > limit:
        raise too_large(limit)
    is_form = call.request.content_type == FORM
    boundary = boundary_of(call.request.headers["Content-Type"]) if is_form else b""
    await _continue(call)
    reader = Reader(call, limit, boundary)
    if call.streams:
        return reader
    data = await reader.whole()
    call.body = data if wants.raw else _parsed(data, wants)
    return reader


def too_large(limit: int) -> ProblemError:
    """Return the problem of a body beyond its limit."""
    return ProblemError("too-large", f"the body may have up to {limit:,} bytes", close=True)


def _check_type(call: Call, wants: Body) -> bool:
    """Check the content type; return whether the body is streamed."""
    headers = call.request.headers
    encoding = headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise ProblemError("unsupported-media-type", "send the body uncompressed", close=True)
    if wants.raw or (not wants.required and not call.request.can_read_body):
        return False
    media = call.request.content_type if "Content-Type" in headers else ""
    charset = (call.request.charset or "utf-8").lower()
    if charset in {"utf-8", "utf8", "us-ascii"}:
        if media in wants.streams or (media == FORM and wants.form is not None):
            return True
        if media == JSON and wants.model is not None:
            return False
    taken = [*([JSON] if wants.model is not None else []), *wants.streams]
    taken += [FORM] if wants.form is not None else []
    raise ProblemError(
        "unsupported-media-type", f"Content-Type: take {' or '.join(taken)}, in UTF-8", close=True
    )


async def _continue(call: Call) -> None:
    """Ask for the body, where the client waits for that."""
    expects = call.request.headers.get("Expect", "")
    if not expects:
        return
    if expects.lower() != "100-continue":
        raise ProblemError("expectation-failed", "Expect: take 100-continue", close=True)
    await call.request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    call.request.writer.output_size = 0  # the answer has not begun


def _whole(value: Any) -> Any:
    """Return a document with 3.0 as 3: to JSON Schema that is an integer."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, dict):
        return {name: _whole(one) for name, one in value.items()}
    return [_whole(one) for one in value] if isinstance(value, list) else value


def _parsed(data: bytes, wants: Body) -> Any:
    """Return what a JSON body holds, as the model makes it."""
    if not data and not wants.required:
        data = b"{}"
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ProblemError("bad-request", f"the body is not JSON: {error}"[:300]) from None
    if wants.model is None:
        return document
    try:
        try:
            return wants.model.validate_python(document, strict=True)
        except ValidationError:
            return wants.model.validate_python(_whole(document), strict=True)
    except ValidationError as error:
        raise of_validation(error, "body") from None
    except RecursionError:
        raise ProblemError("bad-request", "the body is nested too deeply") from None
