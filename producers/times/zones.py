"""Time zones, by the names of the IANA database."""

from functools import cache
from zoneinfo import ZoneInfo

from producers.errors import InvalidInputError

DEFAULT = "Asia/Shanghai"


@cache
def _read(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def zone_of(name: str) -> ZoneInfo:
    """Return a zone by its name.

    Raises:
        InvalidInputError: there is none of that name.
    """
    try:
        return _read(name)
    except (KeyError, ValueError, OSError):  # what its text may lead to: a folder, or nothing
        raise InvalidInputError(
            [f"unknown time zone {name[:64]!r}; take for instance {DEFAULT}"]
        ) from None
