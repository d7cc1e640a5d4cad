"""Values: durations, rates and counts, as settings write them."""

import base64
import binascii
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from producers.errors import InvalidInputError
from producers.times.zones import zone_of


@dataclass(frozen=True, slots=True)
class Unit:
    """What a number counts: written beside a field's type, for whoever lists the settings."""

    name: str


def _seconds(value: object) -> object:
    """Take a number of seconds written as text, as environment variables are."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value  # ISO 8601, or wrong: pydantic says which


Duration = Annotated[timedelta, BeforeValidator(_seconds), Field(ge=timedelta()), Unit("seconds")]
PositiveDuration = Annotated[
    timedelta, BeforeValidator(_seconds), Field(gt=timedelta()), Unit("seconds")
]
Bytes = Annotated[int, Unit("bytes")]
PerMinute = Annotated[int, Unit("per minute")]
PerDay = Annotated[int, Unit("per day")]


LEAST_RATE: Final = 0.001
MOST_RATE: Final = 1_000_000
"""Sends per second. The limiter reckons in sends per 1,000 seconds: less than one is no rate."""


def rate_faults(rate: float) -> list[str]:
    """Return what is wrong with a rate of sends per second."""
    if rate == 0 or LEAST_RATE <= rate <= MOST_RATE:
        return []
    return [f"rate {rate}: sends per second, 0 (no limit of its own) or 0.001 to 1,000,000"]


def kept_rate(stored: float) -> float:
    """Return a stored rate as one that may be: what an earlier version let in counts as slowest."""
    return LEAST_RATE if rate_faults(stored) else stored


def _checked_rate(rate: float) -> float:
    faults = rate_faults(rate)
    if faults:
        raise ValueError(faults[0])
    return rate


def checked_zone(name: str) -> str:
    """Return the name of a time zone.

    Raises:
        ValueError: there is none of that name.
    """
    try:
        zone_of(name)
    except InvalidInputError as error:
        raise ValueError(str(error)) from None
    return name


Rate = Annotated[
    float,
    AfterValidator(_checked_rate),
    Unit("sends per second"),
    WithJsonSchema(
        {"anyOf": [{"const": 0}, {"type": "number", "minimum": LEAST_RATE, "maximum": MOST_RATE}]}
    ),
]
"""Sends per second: 0, or what `rate_faults` finds nothing wrong with."""


def ms(duration: timedelta) -> int:
    """Return a duration in whole milliseconds."""
    return round(duration.total_seconds() * 1000)


SIGNING_PREFIX: Final = "whsec_"


def signing_keys(secrets: str) -> list[bytes]:
    """Return the keys that webhooks are signed with, of secrets with blanks between them.

    Each is ``whsec_`` and 24 to 64 bytes in base64, as Standard Webhooks has it.

    Raises:
        ValueError: they are none; its text holds nothing of them.
    """
    keys = []
    for secret in secrets.split():
        try:
            key = base64.b64decode(secret.removeprefix(SIGNING_PREFIX), validate=True)
        except (ValueError, binascii.Error):
            key = b""
        if not secret.startswith(SIGNING_PREFIX) or not 24 <= len(key) <= 64:
            raise ValueError("must be whsec_ and the base64 of 24 to 64 random bytes")
        keys.append(key)
    if not 1 <= len(keys) <= 3:
        raise ValueError("give one secret; while it is changed, two or three with blanks between")
    return keys
