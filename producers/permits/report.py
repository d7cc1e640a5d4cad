"""The report of a collect call."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from producers.permits.refusals import Refusal

_LISTED: Final = 100
"""Refused items that a report lists one by one; all are counted."""


@dataclass
class Report:
    """What became of the items of one collect call.

    Attributes:
        lines: lines or uploads read.
        new: items stored. A prepay_id counts once, though it gives three uses.
        known: items that were stored before, in whatever state they are now.
        refused: reason → items.
        listed: the first 100 refusals: (line number or 0, reason, one sentence).
        evicted: older uses that gave way to the cap per user.
    """

    lines: int = 0
    new: int = 0
    known: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    listed: list[tuple[int, str, str]] = field(default_factory=list)
    evicted: int = 0

    def refuse(self, line: int, refusal: Refusal) -> None:
        """Count one refusal, and list it while there is room."""
        self.refused[refusal.reason] += 1
        if len(self.listed) < _LISTED:
            self.listed.append((line, refusal.reason, refusal.detail))

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready fields."""
        return {
            "lines": self.lines,
            "new": self.new,
            "known": self.known,
            "refused": dict(self.refused),
            "evicted": self.evicted,
            "listed": [
                {"line": line, "reason": reason, "detail": detail}
                for line, reason, detail in self.listed
            ],
        }
