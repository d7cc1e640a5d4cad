"""Hours: when an app's broadcasts may be sent, as one worker reckons.

The window comes from the settings, the time from the server's clock: take.lua compares the two, so
nothing is taken outside it. What was taken before its end starts before its end, or goes back
(`within`).
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from producers.store import keys
from producers.times.windows import Window

FOREVER_MS: Final = 2**53

SLOT_LIFE_S: Final = 0.01
"""A slot unused so long after its time is void.

Sends that start late crowd into the following second: rate × this many extra ones. At 10 ms that is
the 1 % which I4 allows; at 100 ms a busy machine was seen to start 9 % too many.
"""

_CLAIM_LIFE_S: Final = 5.0
"""Longer than a claim lives: what is taken further before the end starts before it anyway."""


class Hours(NamedTuple):
    """A window that is open, or comes next, of one app.

    Attributes:
        opens_ms, closes_ms: server epoch ms.
        holds: 1 when single messages wait for it too.
    """

    opens_ms: int
    closes_ms: int
    holds: int

    def within(self, broadcast: str, slot_at: float, server_ahead: float) -> bool:
        """Say whether a send of a broadcast may have a slot.

        Args:
            broadcast: whose.
            slot_at: monotonic seconds.
            server_ahead: server epoch seconds at monotonic 0, as late as they may be.
        """
        if not self.holds and keys.is_carrier(broadcast):
            return True
        at_ms = (slot_at + server_ahead) * 1000
        return self.opens_ms <= at_ms < self.closes_ms - SLOT_LIFE_S * 1000

    def ends_soon(self, slot_at: float, server_ahead: float) -> bool:
        """Say whether a claim could outlive the window: then its slot is good for its moment."""
        return (slot_at + server_ahead + _CLAIM_LIFE_S) * 1000 >= self.closes_ms


ALWAYS: Final = Hours(0, FOREVER_MS, 0)


class Calendar:
    """Tells the hours of one app; used by one thread.

    Args:
        window: when it sends; None: always.
        holds: whether single messages wait for it too.
        told: called with whether it is open, and until when (server epoch ms), when that changes.
    """

    def __init__(
        self, window: Window | None, told: Callable[[bool, int], None], *, holds: bool = False
    ) -> None:
        self._window = window
        self._holds = int(holds)
        self._told = told
        self._known = ALWAYS if window is None else Hours(0, 0, 0)
        self._is_open: bool | None = None

    def at(self, server_s: float) -> Hours:
        """Return the hours that are now, or come next.

        Args:
            server_s: epoch seconds by the server's clock.
        """
        if self._window is None:
            return ALWAYS
        now_ms = int(server_s * 1000)
        known = self._known
        # the clock may be set back: a window that opens later than the next one is none
        if now_ms >= known.closes_ms or now_ms < known.opens_ms:
            known = self._known = Hours(*self._window.around(now_ms), self._holds)
        is_open = known.opens_ms <= now_ms
        if is_open is not self._is_open:
            self._is_open = is_open
            self._told(is_open, known.closes_ms if is_open else known.opens_ms)
        return known
