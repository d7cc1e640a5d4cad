"""Logs: one JSON object a line, written in batches by one thread, never waited for.

`emit` writes an event of the catalogue; library lines pass through the same renderer as
``library_line``. Lines wait in a bounded buffer; when a slow reader fills it, lines are dropped
and the next line that is written says how many (``dropped_lines``), so the sending never stops.
"""

import atexit
import json
import logging
import os
import re
import select
import stat
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, MutableMapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import structlog

from producers import events
from producers.events import Event

Fields = MutableMapping[str, Any]

_BUFFER: Final = 50_000
"""Lines kept for a slow reader: about six seconds at full speed."""

_PIECE: Final = 1 << 20
"""Bytes written at once to a file or a socket."""

_SECRET: Final = re.compile(
    r"""((?:access_token|secret|appsecret|session_key)['"]?\s*[=:]\s*['"]?|://[^/@\s:]*:(?=[^/@\s]*@))[^&\s'",}@]+"""
)
"""What a URL or a JSON body calls a secret, and the password of a URL."""

_MESSAGE: Final = 2000
"""Characters of a library's message or traceback that are kept."""


class _Writer:
    """Takes rendered lines from any thread and writes them in batches to a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        # processes that share a pipe do not break each other's lines only below this
        is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
        self._most = select.PIPE_BUF if is_pipe else _PIECE
        self._lines: deque[bytes] = deque()
        self._dropped = 0
        self._counting = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def admit(self) -> bool:
        """Say whether there is room for a line, and count it as dropped when there is none."""
        if len(self._lines) < _BUFFER:
            return True
        with self._counting:
            self._dropped += 1
        return False

    def write(self, line: bytes) -> None:
        """Take one admitted line, without a newline."""
        self._lines.append(line)
        if not self._wake.is_set():
            self._wake.set()

    def take_dropped(self) -> int:
        """Return how many lines were dropped since the last call."""
        if not self._dropped:
            return 0
        with self._counting:
            dropped, self._dropped = self._dropped, 0
        return dropped

    def close(self, seconds: float = 2.0) -> None:
        """Write what is left, waiting at most so long."""
        self._closing = True
        self._wake.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        while not (self._closing and not self._lines):
            self._wake.wait(0.5)
            self._wake.clear()
            batch: list[bytes] = []
            while self._lines and len(batch) < 1000:
                batch.append(self._lines.popleft())
            if not batch:
                continue
            if self._lines:
                self._wake.set()
            try:
                for piece in _pieces(batch, self._most):
                    view = memoryview(piece)
                    while view:
                        view = view[os.write(self._descriptor, view) :]
            except OSError:
                self._dropped += len(batch)  # the reader is gone; nobody is left to tell


def _pieces(lines: list[bytes], most: int) -> Iterator[bytes]:
    """Join whole lines to pieces of at most so many bytes; a longer line is one of its own."""
    piece: list[bytes] = []
    size = 0
    for line in lines:
        if piece and size + len(line) + 1 > most:
            yield b"\n".join(piece) + b"\n"
            piece, size = [], 0
        piece.append(line)
        size += len(line) + 1
    if piece:
        yield b"\n".join(piece) + b"\n"


class _Clock:
    """Says the time as a line has it; the date and the second are put into words once each."""

    def __init__(self) -> None:
        self._second = (-1, "")

    def now(self) -> str:
        seconds, ns = divmod(time.time_ns(), 1_000_000_000)
        known, words = self._second
        if seconds != known:
            words = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._second = (seconds, words)
        return f"{words}.{ns // 1_000_000:03d}+00:00"


class _Lines:
    """What structlog calls with a rendered line."""

    def __init__(self, writer: _Writer) -> None:
        self._writer = writer

    def msg(self, line: bytes) -> None:
        self._writer.write(line)

    debug = info = warning = error = critical = msg


class _LibraryHandler(logging.Handler):
    """Turns the standard library's records into ``library_line`` events."""

    def emit(self, record: logging.LogRecord) -> None:
        failure = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
        level = record.levelname.lower()
        getattr(structlog.get_logger(), level if level in _LEVELS else "info")(
            events.LibraryLine.name(),
            logger=record.name,
            message=redacted(_message(record)[:_MESSAGE]),
            exception=redacted(failure[-_MESSAGE:]),
        )


def redacted(text: str) -> str:
    """Return a library's text without what follows the name of a secret in a URL or a body."""
    return _SECRET.sub(r"\1…", text)


def _message(record: logging.LogRecord) -> str:
    """Return a record's text; a library's mistake in formatting it loses no line."""
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001  (whatever their arguments' __str__ raises)
        return str(record.msg)


_LEVELS: Final = frozenset({"debug", "info", "warning", "error", "critical"})
_state: dict[str, _Writer] = {}


def configure(process: str, *, descriptor: int = 1, level: int = logging.INFO) -> None:
    """Send all lines of this process to a file descriptor (1: stdout). Call once, at the entry.

    Args:
        process: who writes, for instance ``worker-1a2b``; every line carries it.
        descriptor: an open file descriptor. Dramatiq redirects ``sys.stdout`` of its workers into
            a pipe to its parent's stderr; writing to the descriptor goes past that.
        level: the lowest level of library lines that is written.
    """
    close()
    _state_logger.clear()
    writer = _state["writer"] = _Writer(descriptor)
    clock = _Clock()

    def head(_logger: Any, method: str, line: Fields) -> Fields:
        if not writer.admit():
            raise structlog.DropEvent
        return complete(method, line)

    def complete(method: str, line: Fields) -> Fields:
        line["level"] = method
        line["schema"] = events.SCHEMA
        line["process"] = process
        line["time"] = clock.now()
        dropped = writer.take_dropped()
        if dropped:
            line["dropped_lines"] = dropped
        return line

    def write(event: Event) -> None:  # what structlog would do, without its machinery
        if writer.admit():
            line = complete(event.LEVEL, {**vars(event), "event": event.name()})
            writer.write(_dumps(line))

    _state_logger["write"] = write
    structlog.configure(
        processors=[head, structlog.processors.JSONRenderer(serializer=_dumps)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=lambda *_: _Lines(writer),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_LibraryHandler()], level=level, force=True)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


def silence() -> None:
    """Write no line at all, of events and libraries alike: for commands at a terminal."""
    close()

    def drop(_logger: Any, _method: str, _line: Any) -> Any:
        raise structlog.DropEvent

    structlog.configure(
        processors=[drop],
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )
    _state_logger.clear()
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)


def _dumps(line: Fields, **_: Any) -> bytes:
    try:
        return orjson.dumps(line, default=str)
    except (TypeError, ValueError):  # a lone surrogate, or an integer beyond 64 bits
        return json.dumps(line, default=str).encode()


_state_logger: dict[str, Any] = {}
_foreign: Final = logging.getLogger("wxbroadcast")


def emit(event: Event) -> None:
    """Write one event of the catalogue.

    In a program of somebody else's that configured neither this module nor structlog, it is a
    record of the standard logger ``wxbroadcast``, its message the line's fields as JSON: nothing is
    printed that the program did not ask for.
    """
    write = _state_logger.get("write")
    if write is not None:
        write(event)
        return
    logger = _state_logger.get("logger")
    if logger is None:
        if not structlog.is_configured():
            level = logging.getLevelNamesMapping()[event.LEVEL.upper()]
            if _foreign.isEnabledFor(level):
                line = {"event": event.name(), **vars(event), "schema": events.SCHEMA}
                _foreign.log(level, "%s", _dumps(line).decode("utf-8", "replace"))
            return
        logger = _state_logger["logger"] = structlog.get_logger().bind()
    getattr(logger, event.LEVEL)(event.name(), **vars(event))


def close() -> None:
    """Write what is left; called at exit too."""
    writer = _state.pop("writer", None)
    if writer is not None:
        writer.close()


atexit.register(close)
