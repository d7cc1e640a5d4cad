"""What became of the mutants: a line of JSON for each, so that a run goes on where one ended."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from .mutant import Mutant
from .trial import Verdict

DEAD: Final = frozenset({"killed", "timeout"})
ALIVE: Final = frozenset({"survived", "uncovered"})


class Results:
    """The verdicts of a state directory."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, dict[str, Any]] = {}
        if file.exists():
            for line in file.read_text("utf-8").splitlines():
                row = json.loads(line)
                self._known[row["name"]] = row

    def of(self, mutant: Mutant) -> dict[str, Any] | None:
        """Return what is known of a mutant of a file as it is now."""
        return self._known.get(mutant.name)

    def add(self, mutant: Mutant, verdict: Verdict, seconds: float) -> dict[str, Any]:
        """Write a verdict down."""
        row = {
            "name": mutant.name,
            "path": mutant.path,
            "line": mutant.line,
            "source": mutant.source,
            "change": mutant.change,
            "status": verdict.status,
            "by": verdict.by,
            "tests": verdict.tests,
            "left": verdict.left,
            "seconds": round(seconds, 1),
        }
        self._known[mutant.name] = row
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        return row


def told(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the sums of a sample: each status, and the share of those that count which died."""
    sums = Counter(row["status"] for row in rows)
    dead = sum(sums[status] for status in DEAD)
    count = dead + sum(sums[status] for status in ALIVE)
    return {**sums, "count": count, "dead": dead, "rate": round(dead / count, 4) if count else None}
