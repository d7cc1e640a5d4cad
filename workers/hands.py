"""What a worker has in its hands: claims not yet settled, counted and bounded.

The pump's thread fills them, the event loop empties them; the condition lets the pump sleep until
there is room or work.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Collection
from typing import Final

from workers.claim import Claim

_SPARE: Final = 768
_ENOUGH: Final = 128
"""A take and a reserve cost as much for one message as for so many."""


def room_for(posts: int) -> int:
    """Return how many claims keep so many POSTs unanswered at a time.

    Some are on their way to one, and some are answered and being settled; without these the POSTs
    would wait for the settling.
    """
    return posts + min(posts, _SPARE)


class Hands:
    """The claims in hand, a bounded number, and the swapped ones that wait for a slot."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._enough = max(1, min(_ENOUGH, most // 8))
        self._claims: set[tuple[int, str]] = set()
        self._woken = False
        self._changed = threading.Condition()
        self.swapped: deque[Claim] = deque()
        self._closed_at = math.inf

    @property
    def held(self) -> int:
        """Claims in hand."""
        return len(self._claims)

    @property
    def room(self) -> int:
        """Claims that may still be taken; 0 while it is too little room to be worth a take."""
        room = self._most - len(self._claims)
        return room if room >= self._enough else 0

    def take(self, claims: Collection[Claim]) -> None:
        """Take claims in hand."""
        with self._changed:
            self._claims.update((claim.lane, claim.fence) for claim in claims)

    def drop(self, claims: Collection[Claim]) -> None:
        """Let go of settled claims, and wake whoever waits for room."""
        with self._changed:
            was_full = not self.room
            self._claims.difference_update((claim.lane, claim.fence) for claim in claims)
            if (was_full and self.room) or not self._claims:
                self._woken = True
                self._changed.notify_all()

    def fences(self, lane: int) -> list[str]:
        """Return the fence tokens of the claims of a lane."""
        with self._changed:
            return [fence for of_lane, fence in self._claims if of_lane == lane]

    def wake(self) -> None:
        """There may be something to do."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    @property
    def closing(self) -> bool:
        """Whether nothing more is taken."""
        return self._closed_at < math.inf

    @property
    def closed_s(self) -> float:
        """Seconds since nothing more is taken; below 0 before that."""
        return time.monotonic() - self._closed_at

    def close(self) -> None:
        """Nothing more is taken."""
        self._closed_at = min(self._closed_at, time.monotonic())
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
            return self._changed.wait_for(lambda: not self._claims, seconds)
