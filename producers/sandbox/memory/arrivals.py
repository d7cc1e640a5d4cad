"""When sends arrived: enough to check a rate limit exactly."""

from array import array
from typing import Final

WINDOW_S: Final = 1.0


class Arrivals:
    """Arrival times in order, and the fullest second so far.

    The fullest second is kept up to date by each arrival and covers all of them; the times
    themselves are kept up to a bound, the oldest half being dropped then, for windows of other
    lengths.

    Attributes:
        count: arrivals ever.
        dropped: arrivals whose times were dropped.
        max_per_second: the most arrivals in any window of one second, its end left out.
    """

    __slots__ = (
        "_keep",
        "_start",
        "_times",
        "count",
        "dropped",
        "first_at_s",
        "last_at_s",
        "max_per_second",
    )

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._times: array[float] = array("d")
        self._start = 0
        self.count = 0
        self.dropped = 0
        self.max_per_second = 0
        self.first_at_s = 0.0
        self.last_at_s = 0.0

    def add(self, at_s: float) -> None:
        """Note one arrival.

        Args:
            at_s: epoch seconds, never less than the one before; a clock that steps back is
                taken to stand still.
        """
        times = self._times
        if self.count == 0:
            self.first_at_s = at_s
        elif at_s < self.last_at_s:
            at_s = self.last_at_s
        times.append(at_s)
        self.count += 1
        self.last_at_s = at_s
        start = self._start
        edge = at_s - WINDOW_S
        while times[start] <= edge:
            start += 1
        self._start = start
        within = len(times) - start
        self.max_per_second = max(self.max_per_second, within)
        if len(times) > self._keep:
            self._drop(min(start, len(times) // 2))

    def max_in(self, window_s: float) -> int:
        """Count the most arrivals in any window of this length, among the times kept."""
        times = self._times
        most = 0
        start = 0
        for end, at_s in enumerate(times):
            while times[start] <= at_s - window_s:
                start += 1
            most = max(most, end - start + 1)
        return most

    def describe(self) -> dict[str, float | int]:
        """Show the numbers as ``/_sandbox/stats`` does."""
        span_s = self.last_at_s - self.first_at_s
        return {
            "count": self.count,
            "max_per_second": self.max_per_second,
            "mean_per_second": (self.count - 1) / span_s if span_s > 0 else 0.0,
            "first_at": self.first_at_s,
            "last_at": self.last_at_s,
            "kept": len(self._times),
            "dropped": self.dropped,
        }

    def _drop(self, oldest: int) -> None:
        del self._times[:oldest]
        self._start -= oldest
        self.dropped += oldest
