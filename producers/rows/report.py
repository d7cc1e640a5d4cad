"""Reports: what is wrong with rows, by row and by rule."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from producers.errors import InvalidInputError

_WHAT_NOW: Final = "nothing was created; mend them, or skip them (skip_bad, --skip-bad)"

LISTED: Final = 100
"""Bad rows that a report tells one by one."""


@dataclass
class RowsReport:
    """What was read.

    Attributes:
        rows: rows read, without blank ones and a CSV header.
        bad: rows that cannot be sent.
        rules: what they break → how many rows: ``openid``, ``duplicate``, ``columns``, or a field
            with WeChat's word, such as ``thing1 invalid`` and ``thing1 empty``.
        listed: the first 100 bad rows: (row number from 1, a header counted, one sentence).
    """

    rows: int = 0
    bad: int = 0
    rules: Counter[str] = field(default_factory=Counter)
    listed: list[tuple[int, str]] = field(default_factory=list)

    @property
    def good(self) -> int:
        """Rows that can be sent."""
        return self.rows - self.bad

    def note(self, row: int, rule: str, detail: str) -> None:
        """A row is bad."""
        self.bad += 1
        self.rules[rule] += 1
        if len(self.listed) < LISTED:
            self.listed.append((row, detail))

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready fields, its rows in their order."""
        return {
            "rows": self.rows,
            "bad": self.bad,
            "rules": dict(self.rules),
            "listed": [{"row": row, "detail": detail} for row, detail in sorted(self.listed)],
        }


class BadRowsError(InvalidInputError):
    """Some rows cannot be sent, and nothing was created.

    Attributes:
        report: which, and why.
    """

    def __init__(self, report: RowsReport) -> None:
        rules = ", ".join(f"{rule} {count:,}" for rule, count in report.rules.most_common())
        super().__init__(
            [
                f"{report.bad:,} of {report.rows:,} rows are bad ({rules}): {_WHAT_NOW}",
                *(f"row {row}: {detail}" for row, detail in sorted(report.listed)),
            ]
        )
        self.report = report
