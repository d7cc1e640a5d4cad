"""Logs: one JSON object a line, written in batches by one thread, never waited for.

`emit` writes an event of the catalogue; library lines pass through the same renderer as
``library_line``. Lines wait in a buffer of 16 MiB at most. When a slow reader or a full disk fills
it, lines are dropped, and the next line that is written says how many (``dropped_lines``), so the
sending never stops. A line that was written in part is completed once there is room again.

On a terminal the same lines are words for people: time, level, process, event, field=value.
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
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import structlog

from producers import events
from producers.events import Event, LinesDropped
from producers.redaction import redacted

Fields = MutableMapping[str, Any]

_ROOM: Final = 16 << 20
"""Bytes that lines may wait in, for a slow reader: about five seconds at full speed."""

_BESIDE: Final = 64
"""Bytes that a line costs beside its own: an object's head, its place, the allocator's rounding."""

_PIECE: Final = 1 << 20
"""Bytes written at once to a file or a socket."""

_AGAIN_S: Final = 0.5
"""Until what could not be written is tried again."""

_TELL_S: Final = 1.0
"""A slow reader is told at most so often how much it missed."""

_MESSAGE: Final = 2000
"""Characters of a library's message or traceback that are kept."""


class _Writer:
    """Takes rendered lines from any thread and writes them in batches to a file descriptor.

    Args:
        descriptor: where to; it is not closed.
        told: makes the line that says that others were dropped, when no other line comes.
    """

    def __init__(self, descriptor: int, told: Callable[[], bytes]) -> None:
        self._descriptor = descriptor
        self._told = told
        # processes that share a pipe do not break each other's lines only below this
        kind = os.fstat(descriptor).st_mode
        self._most = select.PIPE_BUF if stat.S_ISFIFO(kind) else _PIECE
        self._is_file = stat.S_ISREG(kind)
        self._lines: deque[bytes] = deque()
        self._held = 0
        self._dropped = 0
        self._told_at = -_TELL_S
        self._piece = b""
        self._piece_held = 0
        self._written = 0  # bytes of the piece
        self._size = 0  # of the file, when the piece was written in part
        self._counting = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def admit(self) -> bool:
        """Say whether there is room for a line, and count it as dropped when there is none."""
        if self._held < _ROOM:
            return True
        with self._counting:
            self._dropped += 1
        return False

    def write(self, line: bytes) -> None:
        """Take one admitted line, without a newline."""
        line += b"\n"  # a copy of just its size: orjson's own keeps kilobytes behind a short line
        with self._counting:
            self._held += len(line) + _BESIDE
        self._lines.append(line)
        if not self._wake.is_set():
            self._wake.set()

    def close(self, seconds: float = 2.0) -> None:
        """Write what is left, waiting at most so long."""
        self._closing.set()
        self._wake.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            closing = self._closing.is_set()  # asked first: what came before it is written
            try:
                self._write_out()
            except BlockingIOError:  # somebody made the pipe that both use non-blocking
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll(_AGAIN_S * 1000)
            except OSError:  # the disk is full, or the reader is gone: either may change
                if closing:
                    return
                self._closing.wait(_AGAIN_S)
            else:
                if closing:
                    return
                self._wake.wait(_AGAIN_S)
                self._wake.clear()

    def _write_out(self) -> None:
        """Write until nothing waits.

        Raises:
            OSError: it cannot be written now; nothing of it is lost, the next call goes on.
        """
        self._begin_anew_if_others_wrote()
        while self._piece or self._take_piece():
            try:
                while self._written < len(self._piece):
                    rest = memoryview(self._piece)[self._written :]
                    self._written += os.write(self._descriptor, rest)
            except OSError:
                self._size = self._size_now()
                raise
            with self._counting:
                self._held -= self._piece_held
            self._piece, self._written, self._piece_held = b"", 0, 0

    def _take_piece(self) -> bool:
        """Join whole lines to a piece of at most so many bytes; a longer line is one of its own.

        The first one says how many were dropped before it. Should it be written in part only, it
        stays with its piece, so what was dropped is told exactly once.
        """
        dropped = self._take_dropped()
        if not dropped and not self._lines:
            return False
        lines = []
        if dropped:
            lines.append(_saying(self._pop() if self._lines else self._told() + b"\n", dropped))
        size = sum(map(len, lines))
        while self._lines and (not lines or size + len(self._lines[0]) <= self._most):
            lines.append(self._pop())
            size += len(lines[-1])
        self._piece = b"".join(lines)
        return True

    def _pop(self) -> bytes:
        line = self._lines.popleft()
        self._piece_held += len(line) + _BESIDE
        return line

    def _take_dropped(self) -> int:
        """Return how many lines were dropped and not told yet; 0 when it was just asked."""
        now = time.monotonic()
        if not self._dropped or (now - self._told_at < _TELL_S and not self._closing.is_set()):
            return 0
        self._told_at = now
        with self._counting:
            dropped, self._dropped = self._dropped, 0
        return dropped

    def _begin_anew_if_others_wrote(self) -> None:
        """Write a torn line of a file again, whole, when it can no longer be completed."""
        if not self._written or self._size_now() == self._size:
            return
        begin = self._piece.rfind(b"\n", 0, self._written) + 1
        torn = begin < self._written
        self._piece, self._written = b"\n" * torn + self._piece[begin:], 0

    def _size_now(self) -> int:
        """Return the size of a file; 0 of everything else."""
        return os.fstat(self._descriptor).st_size if self._is_file else 0


def _saying(line: bytes, dropped: int) -> bytes:
    """Add to a line how many were dropped before it."""
    if line.endswith(b"}\n"):
        return line[:-2] + b',"dropped_lines":%d}\n' % dropped
    return line[:-1] + b" dropped_lines=%d\n" % dropped


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
            message=redacted(_message(record))[:_MESSAGE],
            exception=redacted(failure)[-_MESSAGE:],
        )


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
    render = _words if os.isatty(descriptor) else _dumps
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
        return line

    def rendered(event: Event) -> bytes:  # what structlog would do, without its machinery
        return render(complete(event.LEVEL, _fields(event)))

    def write(event: Event) -> None:
        if writer.admit():
            writer.write(rendered(event))

    writer = _state["writer"] = _Writer(descriptor, lambda: rendered(LinesDropped()))
    _state_logger["write"] = write
    structlog.configure(
        processors=[head, lambda _logger, _method, line: render(line)],
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


def _dumps(line: Fields | list[Any]) -> bytes:
    try:
        return orjson.dumps(line, default=str)
    except (TypeError, ValueError):  # a lone surrogate, or an integer beyond 64 bits
        return json.dumps(line, default=str).encode()


_PLAIN: Final = re.compile(r"[^\s\"=]+")
"""A value that is a word."""


def _words(line: Fields) -> bytes:
    """Return a line for people."""
    heads = ("time", "level", "process", "event")
    said = " ".join(
        f"{name}={value if _PLAIN.fullmatch(str(value)) else _dumps([value])[1:-1].decode()}"
        for name, value in line.items()
        if name not in (*heads, "schema") and str(value)
    )
    at = str(line["time"])[11:23]
    return f"{at} {line['level']:7} {line['process']} {line['event']} {said}".rstrip().encode()


_FREE_TEXT: Final = ("errmsg", "error", "trace", "message", "exception")
"""Fields that hold what others said."""


def _fields(event: Event) -> dict[str, Any]:
    """Return what a line says of an event; what others said comes without their secrets."""
    line = {**vars(event), "event": event.name()}
    for name in _FREE_TEXT:
        if line.get(name):
            line[name] = redacted(line[name])
    return line


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
                line = {**_fields(event), "schema": events.SCHEMA}
                _foreign.log(level, "%s", _dumps(line).decode("utf-8", "replace"))
            return
        logger = _state_logger["logger"] = structlog.get_logger().bind()
    line = _fields(event)
    getattr(logger, event.LEVEL)(line.pop("event"), **line)


def close() -> None:
    """Write what is left; called at exit too."""
    writer = _state.pop("writer", None)
    if writer is not None:
        writer.close()


atexit.register(close)
