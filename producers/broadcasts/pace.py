"""The pace of a broadcast: how many sends a second, and when it will be through.

Where its counts move, at most once a second and lane, a note says how far it was before (pace.lua);
whoever asks for a status compares the notes of the last seconds with the counts as they are now.
Nothing on the way of a message is counted for it, and what stands still costs nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

_WINDOW_MS: Final = 8000
"""A rate is that of the last seconds, so that a pause shows."""

_EVEN_MS: Final = 500
"""A shorter time says nothing of a rate."""


class Progress(NamedTuple):
    """How far a broadcast is in one lane.

    Attributes:
        notes: of earlier moments, the oldest first.
        settled: recipients that have an outcome now.
        answered: those of them that cost a send.
    """

    notes: Sequence[str]
    settled: int
    answered: int


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a broadcast goes, over the last seconds.

    Attributes:
        sends: answered sends per second.
        settled: recipients per second that got an outcome; those without a permit cost no send.
    """

    sends: float = 0.0
    settled: float = 0.0

    def left_s(self, recipients: int) -> int | None:
        """Return the seconds that so many recipients will take; None when nobody knows."""
        if recipients <= 0:
            return 0
        return round(recipients / self.settled) if self.settled > 0 else None


def measure(lanes: Iterable[Progress], now_ms: int) -> Pace:
    """Return the pace of all lanes together.

    Args:
        lanes: how far each is.
        now_ms: the server's clock.
    """
    sends = settled = 0.0
    for lane in lanes:
        for note in lane.notes:
            at_ms, settled_then, answered_then = map(int, note.split(" "))
            passed_ms = now_ms - at_ms
            if passed_ms > _WINDOW_MS:
                continue
            if passed_ms >= _EVEN_MS:
                settled += max(0, lane.settled - settled_then) * 1000 / passed_ms
                sends += max(0, lane.answered - answered_then) * 1000 / passed_ms
            break  # the oldest of the window
    return Pace(round(sends, 2), round(settled, 2))
