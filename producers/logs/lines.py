"""Logs: one JSON object a line, written in batches by one thread, never waited for.

`emit` writes an event of the catalogue; library lines pass through the same processors and the same
renderer, as ``library_line``. All of it is structlog's: the application may add processors, or
configure structlog itself. Events without processors take a way of the same effect past structlog's
machinery, which costs as much again as the line.

`LogWriter` takes the lines: what a slow reader leaves no room for is dropped and counted, so the
sending never stops.

On a terminal the same lines are words for people: time, level, process, event, field=value.
"""

import atexit
import contextlib
import logging
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from producers.logs import events
from producers.logs.events import Event, LinesDropped, LogProcessorFailed
from producers.logs.processors import Processor, Processors
from producers.logs.redaction import redacted
from producers.logs.spoken import dumps, spoken
from producers.logs.writer import LogWriter

Fields = MutableMapping[str, Any]

_MESSAGE: Final = 2000
"""Characters of a library's message or traceback that are kept."""


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

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer

    def msg(self, line: bytes) -> None:
        self._writer.write(line)

    debug = info = warning = error = critical = msg


class _LibraryHandler(logging.Handler):
    """Turns the standard library's records into ``library_line`` events."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._emit(record)
        except Exception:  # noqa: BLE001  (of the application's own structlog; logging's contract)
            self.handleError(record)

    def _emit(self, record: logging.LogRecord) -> None:
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
_state: dict[str, Any] = {}
"""Of this process: its ``writer``, how it takes an event (``write``), structlog's ``chain``."""


def configure(
    process: str,
    *,
    descriptor: int = 1,
    level: int = logging.INFO,
    processors: Iterable[Processor] = (),
) -> None:
    """Send all lines of this process to a file descriptor (1: stdout). Call once, at the entry.

    Args:
        process: who writes, for instance ``worker-1a2b``; every line carries it.
        descriptor: an open file descriptor. Dramatiq redirects ``sys.stdout`` of its workers into
            a pipe to its parent's stderr; writing to the descriptor goes past that.
        level: the lowest level of library lines that is written.
        processors: structlog's, of the application: each is called as ``processor(None, level,
            line)`` with the whole line, and returns the line that the next one gets, or raises
            ``structlog.DropEvent``. See `Processors` for one that fails.
    """
    close()
    _state.clear()
    complete = _completer(process)
    render = _words if os.isatty(descriptor) else dumps
    own = tuple(processors)

    def head(_logger: Any, method: str, line: Fields) -> Fields:
        if not writer.admit():
            raise structlog.DropEvent
        return complete(method, line)

    def rendered(event: Event) -> bytes:  # what structlog would do, without its machinery
        return render(complete(event.LEVEL, _fields(event)))

    def write(event: Event) -> None:
        if writer.admit():
            writer.write(rendered(event))

    def write_processed(event: Event) -> None:
        if writer.admit():
            with contextlib.suppress(structlog.DropEvent):
                line = complete(event.LEVEL, _fields(event))
                writer.write(chain(None, event.LEVEL, line))

    def fail(failure: LogProcessorFailed | None) -> None:
        writer.drop()
        if failure is not None:
            write(failure)

    writer = LogWriter(descriptor, lambda: rendered(LinesDropped()))
    chain = Processors(own, render, fail)
    _state.update(writer=writer, write=write_processed if own else write, chain=[head, chain])
    structlog.configure(
        processors=_state["chain"],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=lambda *_: _Lines(writer),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_LibraryHandler()], level=level, force=True)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


def _completer(process: str) -> Callable[[str, Fields], Fields]:
    """Return what adds to a line who wrote it, and when."""
    clock = _Clock()

    def complete(method: str, line: Fields) -> Fields:
        line["level"] = method
        line["schema"] = events.SCHEMA
        line["process"] = process
        line["time"] = clock.now()
        return line

    return complete


def configure_unless_hosted(process: str, processors: Iterable[Processor] = ()) -> None:
    """Do as `configure`, unless the application that runs us has configured structlog itself.

    Then its configuration takes all our lines, and the standard library's logging is its own too.
    """
    if not structlog.is_configured() or structlog.get_config()["processors"] is _state.get("chain"):
        configure(process, processors=processors)


def silence() -> None:
    """Write no line at all, of events and libraries alike: for commands at a terminal."""
    close()

    def drop(_logger: Any, _method: str, _line: Any) -> Any:
        raise structlog.DropEvent

    _state.clear()
    _state["chain"] = [drop]
    structlog.configure(
        processors=_state["chain"],
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)


def _words(line: Fields) -> bytes:
    """Return a line for people."""
    return spoken(line).encode()


_FREE_TEXT: Final = ("errmsg", "error", "trace", "message", "exception")
"""Fields that hold what others said."""


def _fields(event: Event) -> dict[str, Any]:
    """Return what a line says of an event; what others said comes without their secrets."""
    line = {**vars(event), "event": event.name()}
    for name in _FREE_TEXT:
        if line.get(name):
            line[name] = redacted(line[name])
    return line


_foreign: Final = logging.getLogger("wxbroadcast")
_told: set[str] = set()
"""Events at which a foreign configuration of structlog failed, and somebody was told."""


_counts: dict[type[Event], int] = {}
"""Events of this process; threads that count at once may cost one."""


def told() -> Iterator[tuple[str, str, int]]:
    """Yield (event, level, how often) of what this process said since it started."""
    for model, count in list(_counts.items()):
        yield model.name(), model.LEVEL, count


def dropped() -> int:
    """Return how many lines of this process a slow reader cost."""
    writer = _state.get("writer")
    return writer.lost if writer is not None else 0


def emit(event: Event) -> None:
    """Write one event of the catalogue.

    In an application that configured structlog itself, and not this module, its configuration
    takes the event. In one that configured neither, it is a record of the standard logger
    ``wxbroadcast``, its message the line's fields as JSON: nothing is printed that the application
    did not ask for.
    """
    model = type(event)
    _counts[model] = _counts.get(model, 0) + 1
    write = _state.get("write")
    if write is not None:
        write(event)
    elif structlog.is_configured():
        _emit_to_host(event)
    else:
        level = logging.getLevelNamesMapping()[event.LEVEL.upper()]
        if _foreign.isEnabledFor(level):
            line = {**_fields(event), "schema": events.SCHEMA}
            _foreign.log(level, "%s", dumps(line).decode("utf-8", "replace"))


def _emit_to_host(event: Event) -> None:
    """Give an event to the application's structlog; should that fail, its caller goes on."""
    line = _fields(event)
    name = line.pop("event")
    try:
        getattr(structlog.get_logger(), event.LEVEL)(name, **line)
    except Exception:  # noqa: BLE001  (whatever it was, it must not stop the sending)
        if name not in _told:
            _told.add(name)
            _foreign.exception("structlog, as it is configured, fails at %s", name)


def close() -> None:
    """Write what is left; called at exit too."""
    writer = _state.pop("writer", None)
    if writer is not None:
        writer.close()


atexit.register(close)
