"""The file of a command: lines of a path or of stdin, in constant memory, with the position."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from producers.errors import InvalidInputError


class Source:
    """Lines of an open file.

    Args:
        file: the file.
        longest: bytes of a line beyond which its rest is skipped; one byte more than that is
            given, so that whoever reads it sees that it is too long.
        size: see the attributes.

    Attributes:
        size: bytes of the file; None when nobody knows (a pipe).
        position: bytes read so far.
    """

    def __init__(self, file: IO[bytes], longest: int, size: int | None) -> None:
        self._file = file
        self._longest = longest
        self.size = size
        self.position = 0

    def __iter__(self) -> Iterator[bytes]:
        while line := self._read():
            yield line
            while len(line) > self._longest and not line.endswith(b"\n"):
                line = self._read()

    def _read(self) -> bytes:
        piece = self._file.readline(self._longest + 1)
        self.position += len(piece)
        return piece


@contextlib.contextmanager
def source(name: str, longest: int) -> Iterator[Source]:
    """Open a path, or stdin for ``-``.

    Args:
        name: the path.
        longest: see `Source`.

    Raises:
        InvalidInputError: it cannot be read.
    """
    if name == "-":
        yield Source(sys.stdin.buffer, longest, None)
        return
    path = Path(name)
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidInputError([f"cannot read {name}: {error.strerror}"]) from error
    with file:
        yield Source(file, longest, path.stat().st_size if path.is_file() else None)
