"""The quota of log lines that anybody can cause, without a key or a ticket.

Whoever knows the address could fill the disk, 300 bytes at a time. Beyond so many a second the
lines are left out, and the next one that is written says how many were.
"""

import time
from typing import Final

MOST: Final = 100
"""Lines a second, of one process: about 3 GB a day at the most."""


class LineQuota:
    """Counts such lines of one kind; two threads at once may write one too many."""

    def __init__(self) -> None:
        self._left = float(MOST)
        self._at = time.monotonic()
        self._left_out = 0

    def admits(self) -> bool:
        """Say whether one more line may be written now."""
        now = time.monotonic()
        self._left = min(float(MOST), self._left + (now - self._at) * MOST)
        self._at = now
        if self._left < 1:
            self._left_out += 1
            return False
        self._left -= 1
        return True

    def take_left_out(self) -> int:
        """Return how many lines were left out since the last answer."""
        left_out, self._left_out = self._left_out, 0
        return left_out
