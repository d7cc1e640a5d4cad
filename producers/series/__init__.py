"""Series: a broadcast made again at each tick of a cron expression."""

from producers.series.series import Series, SeriesStatus

__all__ = ["Series", "SeriesStatus"]
