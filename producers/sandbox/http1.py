"""HTTP/1.1 requests read from a byte stream by httptools, without any I/O."""

from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

CONTROL_PREFIX: Final = "/_sandbox/"
"""Paths below it steer the sandbox; all others are WeChat's."""

_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding", b"expect"})
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
    """Bytes in, requests out; httptools calls its ``on_…`` methods back.

    Attributes:
        wants_continue: the client holds its body back until it hears ``100 Continue``.
    """

    __slots__ = (
        "_broken",
        "_framing",
        "_head_is_whole",
        "_parser",
        "_pieces",
        "_requests",
        "_size",
        "_target",
        "wants_continue",
    )

    def __init__(self) -> None:
        self._parser = HttpRequestParser(self)
        self._requests: deque[Request] = deque()
        self._broken = False
        self._begin()

    def feed(self, data: bytes) -> None:
        """Add bytes from the socket."""
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as offer:
            self._pass_over(data[offer.args[0] :])
        except HttpParserError:
            self._broken = True
        else:
            if self._target and not self._head_is_whole:
                self._size += len(data)
                self._broken = self._size > _MAX_HEAD

    def next(self) -> Request | None:
        """Take the next whole request.

        Returns:
            The request, or None when more bytes must come first.

        Raises:
            MalformedError: the bytes are no HTTP/1.1 request.
        """
        if self._requests:
            return self._requests.popleft()
        if self._broken:
            raise MalformedError
        return None

    def on_url(self, piece: bytes) -> None:
        """Take a piece of the target."""
        self._target += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep what says how the body comes."""
        name = name.lower()
        if name in _FRAMING:
            self._framing[name] = value

    def on_headers_complete(self) -> None:
        """Turn to the body."""
        self._head_is_whole = True
        self._size = 0
        self.wants_continue = self._framing.get(b"expect", b"").lower() == b"100-continue"

    def on_body(self, piece: bytes) -> None:
        """Take a piece of the body."""
        self._size += len(piece)
        if self._size > _MAX_BODY:
            raise MalformedError
        self._pieces.append(piece)

    def on_message_complete(self) -> None:
        """Put the pieces together."""
        parser, pieces = self._parser, self._pieces
        if parser.should_upgrade():
            return
        path, _, query = self._target.partition(b"?")
        self._requests.append(
            Request(
                parser.get_method().decode("latin-1"),
                path.decode("latin-1"),
                query,
                pieces[0] if len(pieces) == 1 else b"".join(pieces),
                parser.should_keep_alive(),
            )
        )
        self._begin()

    def _pass_over(self, rest: bytes) -> None:
        """Read a request that offers another protocol as if it did not: its body comes as always.

        Java's HttpClient makes the offer (h2c) with each first request, ``curl --http2`` too, and
        httptools reads nothing behind it.
        """
        method, target, framing = self._parser.get_method(), self._target, self._framing
        self._begin()
        if method == b"CONNECT":  # which is nothing else than an offer
            self._broken = True
            return
        headers = b"".join(b"%b: %b\r\n" % header for header in framing.items())
        self.feed(b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method, target, headers, rest))

    def _begin(self) -> None:
        self._target = b""
        self._framing: dict[bytes, bytes] = {}
        self._head_is_whole = False
        self._pieces: list[bytes] = []
        self._size = 0  # bytes of the head while it is not whole, then of the body
        self.wants_continue = False
