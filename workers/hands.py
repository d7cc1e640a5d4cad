"""What a worker has in its hands: claims not yet settled, counted and bounded.

The pump's thread fills them, the event loop empties them; the condition lets the pump sleep until
there is room or work.
"""

import threading
from collections import deque

from workers.claim import Claim


class Hands:
    """A bounded count of claims, and the swapped ones that wait for a slot."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._woken = False
        self._changed = threading.Condition()
        self.swapped: deque[Claim] = deque()
        self.closing = False

    @property
    def held(self) -> int:
        """Claims in hand."""
        return self._held

    @property
    def room(self) -> int:
        """Claims that may still be taken."""
        return max(0, self._most - self._held)

    def take(self, claims: int) -> None:
        """Count claims in."""
        with self._changed:
            self._held += claims

    def drop(self, claims: int) -> None:
        """Count settled claims out, and wake whoever waits for room."""
        with self._changed:
            was_full = self._held >= self._most
            self._held -= claims
            if was_full or self._held == 0:
                self._woken = True
                self._changed.notify_all()

    def wake(self) -> None:
        """There may be something to do."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing more is taken."""
        self.closing = True
        self.wake()

    def wait(self, seconds: float) -> None:
        """Sleep until woken, at most so long."""
        with self._changed:
            if not self._woken:
                self._changed.wait(seconds)
            self._woken = False

    def wait_empty(self, seconds: float) -> bool:
        """Wait until nothing is in hand; returns whether that came true in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._held <= 0, seconds)
