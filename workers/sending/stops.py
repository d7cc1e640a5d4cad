"""Stops: claims in hand whose broadcast was stopped since they were claimed; they are not posted.

A claim is not posted later than `CLAIM_LIFE_S` after it was made, and a claim is itself the proof
that its broadcast ran in that lane at that moment. So a stop concerns the claims made before it,
and is forgotten when they are over: nothing has to say that the broadcast goes on.
"""

import threading
import time
from collections.abc import Iterable
from typing import Final

from workers.sending.claim import Claim
from workers.sending.take import CLAIM_LIFE_S

_LIFE_S: Final = CLAIM_LIFE_S + 1


class Stops:
    """What one worker knows of stops, told by wake-ups and by a look each second.

    Safe to share between threads.
    """

    def __init__(self) -> None:
        self._at: dict[str, float] = {}
        self._claimed: dict[tuple[str, int], float] = {}
        self._lock = threading.Lock()

    def stop(self, broadcast: str, at: float | None = None) -> None:
        """Stop what was claimed of a broadcast until now, or until a moment (monotonic s)."""
        with self._lock:
            self._at[broadcast] = time.monotonic() if at is None else at

    def cover(self, claim: Claim) -> bool:
        """Say whether a claim is stopped."""
        at = self._at.get(claim.broadcast)
        return at is not None and claim.claimed_at <= at

    def claimed(self, places: Iterable[tuple[str, int]]) -> None:
        """Remember (broadcast, lane) of claims that were just made."""
        now = time.monotonic()
        with self._lock:
            self._claimed.update(dict.fromkeys(places, now))

    def places(self) -> list[tuple[str, int]]:
        """Return (broadcast, lane) of claims that may not be posted yet; forget what is over."""
        since = time.monotonic() - _LIFE_S
        with self._lock:
            self._at = {one: at for one, at in self._at.items() if at > since}
            self._claimed = {one: at for one, at in self._claimed.items() if at > since}
            return list(self._claimed)
