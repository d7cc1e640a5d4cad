"""Timing: when a broadcast starts and ends, of what its creator wrote.

The server's clock decides what is past. A moment without an offset is local to the zone that was
given, else to the app's.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from producers.broadcasts.spec import MAX_LIFE, Spec
from producers.errors import InvalidInputError
from producers.settings import Settings, ms
from producers.store import keys
from producers.times.moments import in_words, local, moment_ms, read_moment
from producers.times.zones import zone_of
from producers.words import State

MAX_AHEAD: Final = timedelta(days=30)
"""A broadcast is scheduled at most so long after it was created: as long as it is listed."""


@dataclass(frozen=True, slots=True)
class Timing:
    """When a broadcast starts and ends.

    Attributes:
        starts_at_ms: epoch ms; 0: at once.
        ends_at_ms: epoch ms after which the rest is late; 0: as its life says alone.
        zone: in which it was written, for people.
    """

    starts_at_ms: int
    ends_at_ms: int
    zone: ZoneInfo

    @classmethod
    def of(cls, spec: Spec, zone: ZoneInfo) -> "Timing":
        """Return that of a spec.

        Args:
            spec: `at`, `zone` and `until` as they were written.
            zone: the app's.

        Raises:
            InvalidInputError: a moment does not exist in its zone, or comes twice.
        """
        return cls.read(spec.at, spec.until, zone_of(spec.zone) if spec.zone else zone)

    @classmethod
    def read(cls, at: str | datetime, until: str | datetime, zone: ZoneInfo) -> "Timing":
        """Return that of two moments, '' for none; raises as `of`."""
        moments = {"at": at, "until": until}
        starts, ends = (
            moment_ms(what, read_moment(what, given), zone) if given else 0
            for what, given in moments.items()
        )
        return cls(starts, ends, zone)

    @property
    def starts(self) -> str:
        """When it starts, in words: ``2026-12-01 21:00 Asia/Shanghai``."""
        return self._said(self.starts_at_ms)

    def check(self, now_ms: int, born_ms: int) -> None:
        """Say whether it can be kept.

        Args:
            now_ms: the server's clock.
            born_ms: when the broadcast was created.

        Raises:
            InvalidInputError: with each fault.
        """
        faults = []
        if self.starts_at_ms and self.starts_at_ms <= now_ms:
            faults.append(f"at: {self._said(self.starts_at_ms)} is past; {self._now(now_ms)}")
        elif self.starts_at_ms > born_ms + ms(MAX_AHEAD):
            faults.append(f"at: at most {MAX_AHEAD.days} days after a broadcast is created")
        if self.ends_at_ms:
            faults += self._end_faults(now_ms)
        if faults:
            raise InvalidInputError(faults)

    def _end_faults(self, now_ms: int) -> list[str]:
        until = self._said(self.ends_at_ms)
        if self.ends_at_ms <= now_ms:
            return [f"until: {until} is past; {self._now(now_ms)}"]
        starts_at_ms = self.starts_at_ms or now_ms
        if self.ends_at_ms < starts_at_ms + 1000:
            return [f"until: {until} is not after its start, {self._said(starts_at_ms)}"]
        if self.ends_at_ms > starts_at_ms + ms(MAX_LIFE):
            return [f"until: at most {MAX_LIFE.days} days after its start"]
        return []

    def _now(self, now_ms: int) -> str:
        return f"it is {self._said(now_ms // 60_000 * 60_000)} now"

    def _said(self, at_ms: int) -> str:
        return f"{in_words(local(at_ms, self.zone))} {self.zone.key}"


def waits_for(
    broadcast: str, state: State, spec: Spec, starts_at_ms: int, settings: Settings, now_ms: int
) -> tuple[str, int]:
    """Return what a broadcast waits for by itself.

    Args:
        broadcast: its id.
        state: its state.
        spec: what is sent to whom.
        starts_at_ms: of a scheduled one.
        settings: the app's window; of an app that is not there any more nothing is known.
        now_ms: the server's clock.

    Returns:
        What it waits for, in words, '' for nothing; and when the app's send window opens, epoch ms,
        0 unless it waits for that.
    """
    app = settings.apps.get(spec.app)
    if app is None:
        return "", 0
    if state is State.SCHEDULED:
        zone = zone_of(spec.zone) if spec.zone else settings.zone_of(spec.app)
        return f"waiting for its time, {Timing(starts_at_ms, 0, zone).starts}", 0
    passes = keys.is_carrier(broadcast) and not app.window_holds_messages
    window = settings.window_of(spec.app)
    if state is not State.RUNNING or window is None or passes:
        return "", 0
    opens_at_ms, _ = window.around(now_ms)
    if now_ms >= opens_at_ms:
        return "", 0
    return f"waiting for the window, opens {window.opens_at}", opens_at_ms
