"""Telling wishes: Redis knows what the apps want of webhooks, from the start on."""

import time
from typing import Final

from producers.webhooks.wishes import Wishes

_EVERY_S: Final = 60.0


class TellWishes:
    """Tells them for one worker; used by one thread at a time."""

    name = "tell wishes"

    def __init__(self, wishes: Wishes) -> None:
        self._wishes = wishes
        self._told_at = float("-inf")

    def hurry(self) -> None:
        """Tell them with the next look."""
        self._told_at = float("-inf")

    def due(self, now: float) -> bool:
        """Say whether it is time."""
        return now >= self._told_at + _EVERY_S

    def run(self) -> None:
        """Tell them.

        Raises:
            StoreUnavailableError: Redis did not answer; run it again.
        """
        self._wishes.tell()
        self._told_at = time.monotonic()
