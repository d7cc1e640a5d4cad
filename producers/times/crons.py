"""Crons: moments that come again and again, as five fields and a zone say.

Read by cronsim, which does with moved clocks as Debian's cron does: a time that is skipped comes
when the clocks have been put forward, and one that is shown twice comes once.
"""

from dataclasses import dataclass
from typing import Self
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from producers.errors import InvalidInputError
from producers.times.moments import aware, epoch_ms


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression on a zone's clocks.

    Attributes:
        text: minute, hour, day of the month, month, day of the week.
        zone: whose clocks.
    """

    text: str
    zone: ZoneInfo

    @classmethod
    def read(cls, text: str, zone: ZoneInfo) -> Self:
        """Read one.

        Raises:
            InvalidInputError: it is none, or never comes.
        """
        cron = cls(" ".join(text.split()), zone)
        why = cron._fault()
        if why:
            sample = "minute, hour, day of the month, month, day of the week, such as 0 21 * * *"
            raise InvalidInputError([f"every {text[:64]!r}: {why}; five fields: {sample}"])
        return cron

    def _fault(self) -> str:
        """Say what is wrong with it, or ''."""
        if len(self.text.split(" ")) != 5:
            return "wrong number of fields"
        try:
            self.after(0)
        except (CronSimError, StopIteration) as error:
            return str(error).lower() or "it never comes"
        return ""

    def after(self, at_ms: int) -> int:
        """Return the first of its moments after another, epoch ms."""
        return epoch_ms(next(CronSim(self.text, aware(at_ms, self.zone))))
