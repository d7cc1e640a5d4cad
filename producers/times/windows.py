"""Send windows: the hours of a day within which an app sends broadcasts.

A window lies on the zone's clocks, and may lie across midnight. On a day on which clocks are moved
over one of its ends, it is the shorter one: nobody is woken, whatever clock they look at.
"""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Self
from zoneinfo import ZoneInfo

from producers.times.moments import local

_TEXT: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-(?:([01]\d|2[0-3]):([0-5]\d)|24:00)")
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Window:
    """The hours in which an app sends.

    Attributes:
        opens: minutes after midnight.
        closes: minutes after midnight, 1440 its end; not above `opens`: on the next day.
        zone: whose clocks.
    """

    opens: int
    closes: int
    zone: ZoneInfo

    @classmethod
    def read(cls, text: str, zone: ZoneInfo) -> Self:
        """Read ``08:00-22:00``; ``20:00-02:00`` ends on the next day.

        Raises:
            ValueError: it is none; the text says what to write.
        """
        found = _TEXT.fullmatch(text)
        if found is None:
            raise ValueError(
                f"{text[:40]!r} is no window: opening and closing time, such as 08:00-22:00"
            )
        opens = 60 * int(found[1]) + int(found[2])
        closes = 60 * int(found[3]) + int(found[4]) if found[3] else 1440
        if opens == closes % 1440:
            raise ValueError(f"{text!r} has no end: leave it out to send at any time")
        return cls(opens, closes, zone)

    def around(self, now_ms: int) -> tuple[int, int]:
        """Return when the window that is open at a moment, or the next one, opens and closes.

        Args:
            now_ms: the moment, epoch ms, as the answers.
        """
        day = local(now_ms, self.zone).date() - _DAY
        while True:
            opens, closes = self._on(day)
            if opens < closes and now_ms < closes:
                return opens, closes
            day += _DAY

    def _on(self, day: date) -> tuple[int, int]:
        """Return when the window of a day opens and closes, epoch ms."""
        last = day + _DAY if self.closes <= self.opens else day
        return max(self._shown(day, self.opens)), min(self._shown(last, self.closes))

    def _shown(self, day: date, minutes: int) -> tuple[int, int]:
        """Return both readings of a time of day: they differ where clocks are moved over it."""
        moment = datetime.combine(day, time()) + timedelta(minutes=minutes)
        first, second = (
            round(moment.replace(tzinfo=self.zone, fold=fold).astimezone(UTC).timestamp() * 1000)
            for fold in (0, 1)
        )
        return first, second

    @property
    def text(self) -> str:
        """It, as it is written: ``08:00-22:00``."""
        return f"{self.opens_at}-{self.closes // 60:02}:{self.closes % 60:02}"

    @property
    def opens_at(self) -> str:
        """When it opens, as its clocks show it: ``08:00``."""
        return f"{self.opens // 60:02}:{self.opens % 60:02}"
