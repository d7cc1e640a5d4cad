"""The log writer: rendered lines written in batches by one thread, never waited for.

Lines wait in a buffer of 16 MiB at most. When a slow reader or a full disk fills it, lines are
dropped, and the next line that is written says how many (``dropped_lines``), so the sending never
stops. A line that was written in part is completed once there is room again.

No library's writer does it: the standard library's QueueHandler drops without a count and its
listener writes a line at a time; structlog's loggers write where they are called.
"""

import os
import select
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

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


class LogWriter:
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
        self.lost = 0
        """Lines that were dropped since the start."""
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
        self.drop()
        return False

    def drop(self) -> None:
        """Count a line as dropped."""
        with self._counting:
            self._dropped += 1
            self.lost += 1

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
