"""Moments: a date and a time as people write them, in a zone, turned into epoch milliseconds.

A time that a clock on the wall never shows (clocks are put forward) or shows twice (put back) is
refused, never guessed.
"""

from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from producers.errors import InvalidInputError

_SAMPLE: Final = "2026-12-01 21:00, or with an offset 2026-12-01T21:00+08:00"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_YEARS: Final = (2000, 2100)


def read_moment(what: str, given: str | datetime) -> datetime:
    """Return a date and a time as it was written, with an offset if it has one.

    Args:
        what: how the caller named it, for the fault.
        given: ISO 8601, a blank or a T between date and time.

    Raises:
        InvalidInputError: it is none.
    """
    found = given if isinstance(given, datetime) else _parsed(given)
    if found is None:
        raise InvalidInputError(
            [f"{what} {str(given)[:64]!r}: a date and a time, such as {_SAMPLE}"]
        )
    if not _YEARS[0] <= found.year < _YEARS[1]:
        raise InvalidInputError([f"{what}: a year from {_YEARS[0]} to {_YEARS[1] - 1}"])
    return found


def _parsed(text: object) -> datetime | None:
    if not isinstance(text, str) or ":" not in text:  # a date alone says no time
        return None
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        return None


def moment_ms(what: str, moment: datetime, zone: ZoneInfo) -> int:
    """Return a moment as epoch ms.

    Args:
        what: how the caller named it, for the fault.
        moment: without an offset it is local to the zone.
        zone: whose clocks show it.

    Raises:
        InvalidInputError: the zone's clocks never show it, or show it twice.
    """
    if moment.tzinfo is None:
        earlier, later = (moment.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
        if earlier.utcoffset() != later.utcoffset():
            raise InvalidInputError(
                [f"{what}: {in_words(moment)} {_trouble(earlier, later, zone)}"]
            )
        moment = earlier
    return epoch_ms(moment)


def epoch_ms(moment: datetime) -> int:
    """Return a moment with an offset as epoch ms."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def aware(at_ms: int, zone: ZoneInfo) -> datetime:
    """Return epoch ms as a moment of a zone, with its offset."""
    return (_EPOCH + timedelta(milliseconds=at_ms)).astimezone(zone)


def _trouble(earlier: datetime, later: datetime, zone: ZoneInfo) -> str:
    """Say what is wrong with a time over which clocks are moved, by its two readings."""
    if shown(earlier.astimezone(UTC), zone) != earlier.replace(tzinfo=None):
        return (
            f"does not exist in {zone.key}: clocks are put forward over it; take a time before "
            "or after"
        )
    first, second = (one.isoformat(timespec="minutes") for one in (earlier, later))
    return f"comes twice in {zone.key}: clocks are put back; write {first} or {second}"


def shown(moment: datetime, zone: ZoneInfo) -> datetime:
    """Return what the zone's clocks show at a moment, without an offset."""
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def local(at_ms: int, zone: ZoneInfo) -> datetime:
    """Return epoch ms as the zone's clocks show it, without an offset."""
    return shown(_EPOCH + timedelta(milliseconds=at_ms), zone)


def to_the_second(at_ms: int, zone: ZoneInfo) -> str:
    """Return epoch ms as people read them: ``2026-12-01 21:00:00 Asia/Shanghai``."""
    return f"{local(at_ms, zone):%Y-%m-%d %H:%M:%S} {zone.key}"


def in_words(moment: datetime) -> str:
    """Return ``2026-12-01 21:00``; with seconds where there are any."""
    text = moment.replace(microsecond=0).isoformat(" ")
    return text.removesuffix(":00") if moment.tzinfo is None else text
