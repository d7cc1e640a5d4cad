"""Bounds: what broadcasts leave to a user, as kept.lua and capped.lua read it.

They come from the settings of whoever looks: a worker that takes, a process that forecasts. The
day is reckoned from Redis's clock, and the scripts compare it with that clock again.
"""

from datetime import date, datetime, time, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from producers.settings import Settings
from producers.times.moments import epoch_ms, local

_EPOCH: Final = date(1970, 1, 1)
_DAY: Final = timedelta(days=1)


class Bounds(NamedTuple):
    """Of one app, at one time.

    Attributes:
        keep: see kept.lua; '': broadcasts may use up all.
        caps: see capped.lua; '': no purpose has a cap.
    """

    keep: str
    caps: str


NONE: Final = Bounds("", "")


def day_around(now_ms: int, zone: ZoneInfo) -> tuple[int, int, int]:
    """Return the day of a moment on a zone's clocks: its number since the epoch, start and end.

    Args:
        now_ms: the moment, epoch ms, as the ends.
        zone: whose clocks.
    """
    today = local(now_ms, zone).date()
    starts, ends = (
        epoch_ms(datetime.combine(one, time(), tzinfo=zone)) for one in (today, today + _DAY)
    )
    return (today - _EPOCH).days, starts, ends


class Bounding:
    """Tells the bounds of one app; used by one thread.

    Args:
        settings: the apps.
        app: alias of the app.
    """

    def __init__(self, settings: Settings, app: str) -> None:
        own = settings.app(app)
        self._zone = settings.zone_of(app)
        caps = {purpose: most for purpose, most in own.per_user_per_day.items() if most}
        self._caps = "".join(f" {purpose}:{most}" for purpose, most in caps.items())
        self._known = Bounds(own.keep, "")
        self._ends_ms = self._starts_ms = 0

    def at(self, server_ms: int) -> Bounds:
        """Return the bounds at a moment, by the server's clock."""
        if self._caps and not self._starts_ms <= server_ms < self._ends_ms:
            day, self._starts_ms, self._ends_ms = day_around(server_ms, self._zone)
            caps = f"{day} {self._starts_ms} {self._ends_ms}{self._caps}"
            self._known = self._known._replace(caps=caps)
        return self._known
