"""What a worker has in its hands: claims not yet settled, counted and bounded.

The pump's thread fills them, the event loop empties them; the condition lets the pump sleep until
there is room or work.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping
from typing import Final

from workers.limits.shares import share, worth
from workers.sending.claim import Claim

_SPARE: Final = 768
_BEYOND: Final = 2
ENOUGH: Final = 128
"""A take and a reserve cost as much for one message as for so many."""
_NONE: Final[Mapping[str, int]] = {}


def room_for(posts: int) -> int:
    """Return how many claims keep so many POSTs unanswered at a time.

    Some are on their way to one, and some are answered and being settled; without these the POSTs
    would wait for the settling.
    """
    return posts + min(posts, _SPARE)


def room_beyond(posts: int) -> int:
    """Return how many more keep so many POSTs unanswered where Redis is far, at the most."""
    return _BEYOND * min(posts, _SPARE)


class Hands:
    """The claims in hand, a bounded number of each app, and swapped ones that wait for a slot.

    Args:
        most: claims in all.
        apps: how many share them; see `workers.limits.shares`.
        beyond: how many more at the most, while Redis is far.
    """

    def __init__(self, most: int, apps: int = 1, beyond: int = 0) -> None:
        self._near = self._most = most
        self._beyond = beyond
        self.share_by(apps)
        self._claims: set[tuple[int, str]] = set()
        self._of: dict[str, int] = {}
        self._short: set[str] = set()
        self._woken = False
        self._changed = threading.Condition()
        self.swapped: deque[Claim] = deque()
        self._closed_at = math.inf

    def share_by(self, apps: int) -> None:
        """So many apps share them from now on."""
        self._alone = apps == 1

    def widen(self, by: int) -> None:
        """Have room for so many more, within bounds: they are on their way to Redis and back."""
        self._most = self._near + min(by, self._beyond)

    @property
    def held(self) -> int:
        """Claims in hand."""
        return len(self._claims)

    def held_of(self, app: str) -> int:
        """Claims of an app in hand."""
        return self._of.get(app, 0)

    def forget(self, app: str) -> None:
        """An app that has none in hand is not served any more."""
        with self._changed:
            self._short.discard(app)
            self._of.pop(app, None)

    def room(self, app: str, asked: Mapping[str, int] = _NONE) -> int:
        """Return how many claims of an app may still be taken.

        0 while it is too little to be worth a take; whoever asks is then woken when it is more.

        Args:
            app: whose.
            asked: app → claims that are being asked for, and may be in hand soon.
        """
        with self._changed:
            self._short.add(app)
            room = self._room(app, asked)
            if room:
                self._short.discard(app)
            return room

    def _room(self, app: str, asked: Mapping[str, int] = _NONE) -> int:
        held = self._of.get(app, 0) + asked.get(app, 0)
        others = len(self._claims) + sum(asked.values()) - held
        most = share(self._most, others, alone=self._alone)
        return worth(most - held, most, ENOUGH)

    def short(self, app: str) -> None:
        """Have the pump woken with the next claims that are let go: an app waits for them."""
        self._short.add(app)

    def take(self, claims: Collection[Claim]) -> None:
        """Take claims of one app in hand."""
        with self._changed:
            before = len(self._claims)
            self._claims.update((claim.lane, claim.fence) for claim in claims)
            self._count(claims, before)

    def drop(self, claims: Collection[Claim]) -> None:
        """Let go of settled claims of one app, and wake whoever waits for room."""
        with self._changed:
            before = len(self._claims)
            self._claims.difference_update((claim.lane, claim.fence) for claim in claims)
            self._count(claims, before)
            if not self._claims or any(self._room(app) for app in self._short):
                self._short.clear()
                self._woken = True
                self._changed.notify_all()

    def _count(self, claims: Collection[Claim], before: int) -> None:
        if claims:
            app = next(iter(claims)).app
            self._of[app] = self._of.get(app, 0) + len(self._claims) - before

    def fences(self, lanes: Collection[int]) -> list[str]:
        """Return the fence tokens of the claims that were made in some lanes."""
        with self._changed:
            return [fence for lane, fence in self._claims if lane in lanes]

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
