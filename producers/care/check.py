"""A check of the doctor: what was looked at, what was found, what to change."""

from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    """What a check found."""

    OK = "ok"
    WARN = "warn"
    """Works, and will hurt one day."""
    BAD = "bad"
    """Breaks a guarantee, or does not work at all."""
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        name: what was checked.
        health: what was found.
        found: the finding, short.
        advice: what to change; '' when nothing.
    """

    name: str
    health: Health
    found: str
    advice: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return the check as JSON-ready fields."""
        return {
            "name": self.name,
            "health": self.health,
            "found": self.found,
            "advice": self.advice,
        }
