"""Ticks: series whose time has come make their broadcasts; see `producers.series`."""

from producers.series import Series


class Ticks:
    """Looks each second; any worker may be first."""

    name = "make what is due of series"

    def __init__(self, series: Series) -> None:
        self._series = series

    def due(self, now: float) -> bool:  # noqa: ARG002
        """Say yes: what is due stands in Redis."""
        return True

    def run(self) -> None:
        """Make what is due.

        Raises:
            redis.RedisError, StoreUnavailableError: Redis did not answer; it comes again.
        """
        self._series.tick()
