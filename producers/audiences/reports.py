"""Reports: what became of the rows of a file; and a page of the audiences that there are."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class ImportReport:
    """What became of the rows of one import.

    Attributes:
        rows: rows read, without blank ones and a CSV header.
        added: members that are new.
        known: members that were there before.
        bad: rows that hold no openid.
        listed: the first 100 bad rows: (row number from 1, one sentence).
        removed: members that a replacement left out.
    """

    rows: int = 0
    added: int = 0
    known: int = 0
    bad: int = 0
    listed: list[tuple[int, str]] = field(default_factory=list)
    removed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready fields."""
        return {
            "rows": self.rows,
            "added": self.added,
            "known": self.known,
            "bad": self.bad,
            "removed": self.removed,
            "listed": [{"row": row, "detail": detail} for row, detail in self.listed],
        }


@dataclass
class RemovalReport:
    """What became of the rows of one removal.

    Attributes:
        rows: rows read, without blank ones and a CSV header.
        removed: who was a member.
        unknown: who was none.
        bad: rows that hold no openid.
        listed: the first 100 bad rows: (row number from 1, one sentence).
    """

    rows: int = 0
    removed: int = 0
    unknown: int = 0
    bad: int = 0
    listed: list[tuple[int, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready fields."""
        return {
            "rows": self.rows,
            "removed": self.removed,
            "unknown": self.unknown,
            "bad": self.bad,
            "listed": [{"row": row, "detail": detail} for row, detail in self.listed],
        }


@dataclass(frozen=True, slots=True)
class AudiencePage:
    """One page of an app's audiences.

    Attributes:
        audiences: (name, members) by name, ``all`` first of all.
        cursor: of the next page; '' when this is the last.
    """

    audiences: list[tuple[str, int]]
    cursor: str

    def as_dict(self) -> dict[str, Any]:
        """Return the page as JSON-ready fields."""
        return {
            "audiences": [{"name": name, "members": size} for name, size in self.audiences],
            "cursor": self.cursor,
        }
