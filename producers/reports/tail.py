"""Tail: the lines of log files one by one, and those that come.

A file that is followed may be rotated (another one has its name), or emptied: it is read from its
beginning again. What was not ended by a line feed is not a line yet.
"""

import gzip
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from producers.errors import InvalidInputError
from producers.reports.lines import files_of

_LONGEST: Final = 4 * 1024 * 1024
"""Bytes that are kept of a line."""
_BLOCK: Final = 1 << 16
_EVERY_S: Final = 0.2


def lines_of(logs: Sequence[str]) -> Iterator[bytes]:
    """Yield the lines of files, one file after the other.

    Args:
        logs: paths, patterns, or ``-`` for the standard input; ``.gz`` is unpacked.

    Raises:
        InvalidInputError: no such file, or one that cannot be read.
    """
    for name in files_of(logs):
        if name.endswith(".zst"):
            raise InvalidInputError(
                [f"{name}: unpack it first: zstd -dc {name} | wxbroadcast logs"]
            )
        try:
            with _opened(name) as file:
                while line := file.readline(_LONGEST):
                    yield line.rstrip(b"\r\n")
        except (OSError, EOFError) as error:
            raise InvalidInputError([f"{name}: {error}"]) from error


def followed(logs: Sequence[str], *, goes_on: Callable[[], bool] = lambda: True) -> Iterator[bytes]:
    """Yield the lines of files as they come, those that are there first; it never ends by itself.

    Args:
        logs: paths or patterns of files that are not packed; ``-`` ends with the standard input.
        goes_on: asked before each look.

    Raises:
        InvalidInputError: no such file.
    """
    if list(logs) == ["-"]:
        yield from lines_of(logs)
        return
    tails = [_Tail(Path(name)) for name in files_of(logs)]
    try:
        while goes_on():
            lines = [line for one in tails for line in one.read()]
            yield from lines
            if not lines:
                time.sleep(_EVERY_S)
    finally:
        for one in tails:
            one.close()


class _Tail:
    """One file that is followed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._inode = 0
        self._rest = b""

    def read(self) -> list[bytes]:
        """Return the lines that came, of one block."""
        try:
            found = self._path.stat()
            if self._file is None:
                self._file, self._inode = self._path.open("rb"), found.st_ino
            block = self._file.read(_BLOCK)
            if not block and (found.st_ino != self._inode or found.st_size < self._file.tell()):
                self.close()
                return []
        except OSError:  # between two of its name
            return []
        *lines, rest = (self._rest + block).split(b"\n")
        self._rest = rest[-_LONGEST:]
        return lines

    def close(self) -> None:
        """Begin anew at the next look."""
        if self._file is not None:
            self._file.close()
        self._file, self._rest = None, b""


def _opened(name: str) -> BinaryIO:
    if name == "/dev/stdin":
        return sys.stdin.buffer
    return gzip.open(name) if name.endswith(".gz") else Path(name).open("rb")  # type: ignore[return-value]
