"""The pace of a broadcast: how many sends a second, and when it will be through.

The keeper notes each second, per lane, how far a broadcast is (pace.lua); whoever asks for a status
reads the last notes. Nothing on the way of a message is counted for it. Without a worker there are
no notes, and then the rate is 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_FRESH_MS: Final = 5000
"""A lane whose last note is older has no keeper, or its broadcast does not run."""

_EVEN_MS: Final = 500
"""Notes nearer to each other than this say nothing of a rate."""


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


def measure(lanes: Sequence[Sequence[str]], now_ms: int) -> Pace:
    """Return the pace of all lanes together.

    Args:
        lanes: the notes of each lane, the oldest first.
        now_ms: the server's clock.
    """
    sends = settled = 0.0
    for notes in lanes:
        if len(notes) < 2:
            continue
        first, last = (tuple(map(int, note.split(" "))) for note in (notes[0], notes[-1]))
        passed_ms = last[0] - first[0]
        if now_ms - last[0] > _FRESH_MS or passed_ms < _EVEN_MS:
            continue
        settled += max(0, last[1] - first[1]) * 1000 / passed_ms
        sends += max(0, last[2] - first[2]) * 1000 / passed_ms
    return Pace(round(sends, 2), round(settled, 2))
