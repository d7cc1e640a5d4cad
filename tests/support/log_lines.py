"""What a process logs, read back line by line; the logging of the test run is left as it was."""

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import structlog

from producers.logs import lines as logs
from producers.logs.processors import Processor

Lines = list[dict[str, Any]]


@contextlib.contextmanager
def untouched_logging() -> Iterator[None]:
    """Undo what `logs.configure` does to this process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        logs.close()
        structlog.reset_defaults()
        logs._state.clear()
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.getLogger("aiohttp.access").setLevel(logging.NOTSET)


@contextlib.contextmanager
def recorded(
    directory: Path,
    process: str = "test",
    level: int = logging.INFO,
    processors: Iterable[Processor] = (),
) -> Iterator[Callable[[], Lines]]:
    """Log into a file; the given function flushes, ends the logging, and returns the lines."""
    path = directory / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def read() -> Lines:
        logs.close()
        return [json.loads(line) for line in path.read_bytes().splitlines()]

    try:
        with untouched_logging():
            logs.configure(process, descriptor=descriptor, level=level, processors=processors)
            yield read
    finally:
        os.close(descriptor)
