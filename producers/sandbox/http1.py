"""HTTP/1.1 requests read from a byte stream, without any I/O.

A send arrives in one piece nearly always, and is then cut by a few searches; this costs a tenth of
a general server's parser, and the sandbox must not be what a benchmark measures. Bodies come by
Content-Length or chunked; ``Expect: 100-continue`` is noted; nothing else of HTTP is needed.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

CONTROL_PREFIX: Final = "/_sandbox/"
"""Paths below it steer the sandbox; all others are WeChat's."""

_MAX_HEAD: Final = 65_536
_MAX_BODY: Final = 268_435_456  # a bulk hand-out of a million permits is about 100 MB


class Request(NamedTuple):
    """One request: its target cut at the question mark, its body whole."""

    method: str
    path: str
    query: bytes
    body: bytes
    keep_alive: bool


class Sheet(NamedTuple):
    """What the control API answers: a body, or pieces to be streamed."""

    status: int
    content_type: bytes
    body: bytes | Iterator[bytes]


class MalformedError(Exception):
    """The bytes are no HTTP/1.1 request: answer 400 and close."""


class RequestReader:
    """Bytes in, requests out.

    Attributes:
        wants_continue: the client holds its body back until it hears ``100 Continue``.
    """

    __slots__ = ("_buffer", "_needed", "wants_continue")

    def __init__(self) -> None:
        self._buffer: bytes | bytearray = b""
        self._needed = 0
        self.wants_continue = False

    def feed(self, data: bytes) -> None:
        """Add bytes from the socket."""
        if not self._buffer:
            self._buffer = data
        elif isinstance(self._buffer, bytearray):
            self._buffer += data
        else:
            self._buffer = bytearray(self._buffer) + data

    def next(self) -> Request | None:
        """Cut the next whole request off the stream.

        Returns:
            The request, or None when more bytes must come first.

        Raises:
            MalformedError: the bytes are no HTTP/1.1 request.
        """
        buffer = self._buffer
        if not buffer or len(buffer) < self._needed:
            return None
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(buffer) > _MAX_HEAD:
                raise MalformedError
            return None
        head = bytes(buffer[:end])
        line, _, _ = head.partition(b"\r\n")
        try:
            method, target, version = line.split(b" ")
        except ValueError as error:
            raise MalformedError from error
        lower = head.lower()
        start = end + 4
        if b"\r\ntransfer-encoding:" in lower:
            unchunked = _unchunk(buffer, start)
            if unchunked is None:
                self.wants_continue = b"100-continue" in lower
                return None
            body, stop = unchunked
        else:
            stop = start + _content_length(lower)
            if len(buffer) < stop:
                self._needed = stop
                self.wants_continue = b"100-continue" in lower
                return None
            body = bytes(buffer[start:stop])
        self._buffer = buffer[stop:]
        self._needed = 0
        self.wants_continue = False
        path, _, query = target.partition(b"?")
        keep_alive = version != b"HTTP/1.0" and b"\r\nconnection: close" not in lower
        return Request(method.decode("latin-1"), path.decode("latin-1"), query, body, keep_alive)


def _content_length(lower: bytes) -> int:
    at = lower.find(b"\r\ncontent-length:")
    if at < 0:
        return 0
    end = lower.find(b"\r\n", at + 17)
    value = lower[at + 17 :] if end < 0 else lower[at + 17 : end]
    try:
        length = int(value)
    except ValueError as error:
        raise MalformedError from error
    if not 0 <= length <= _MAX_BODY:
        raise MalformedError
    return length


def _unchunk(buffer: bytes | bytearray, start: int) -> tuple[bytes, int] | None:
    """Join the chunks from ``start``; None when the last one has not come."""
    pieces = []
    at = start
    while True:
        end = buffer.find(b"\r\n", at)
        if end < 0:
            return None
        try:
            size = int(bytes(buffer[at:end]).partition(b";")[0], 16)
        except ValueError as error:
            raise MalformedError from error
        at = end + 2
        if size == 0:
            break
        if len(buffer) < at + size + 2:
            return None
        pieces.append(bytes(buffer[at : at + size]))
        at += size + 2
    while True:  # trailers, then an empty line
        end = buffer.find(b"\r\n", at)
        if end < 0:
            return None
        if end == at:
            return b"".join(pieces), at + 2
        at = end + 2
