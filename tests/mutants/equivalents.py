"""Mutants that nobody can tell from the code, each with its reason: ``equivalents.toml``.

An entry names the file, its line as it stands, and the change as the report writes it; one that
fits nothing any more is an error (`test_mutants`), so that no entry outlives its code.
"""

import tomllib
from pathlib import Path
from typing import Final

from .mutant import ROOT, Mutant, mutants_of

FILE: Final = Path(__file__).parent / "equivalents.toml"


class Equivalents:
    """What is known to change nothing."""

    def __init__(self, file: Path = FILE) -> None:
        entries = tomllib.loads(file.read_text("utf-8")).get("equivalent", [])
        self._reasons = {(e["path"], e["line"], e["change"]): e["reason"] for e in entries}
        self.twice = len(entries) - len(self._reasons)

    @property
    def reasons(self) -> list[str]:
        """Return all reasons."""
        return list(self._reasons.values())

    def reason(self, mutant: Mutant) -> str:
        """Return why a mutant is equivalent; '' of one that is not known to be."""
        found: str = self._reasons.get((mutant.path, mutant.source, mutant.change), "")
        return found

    def outlived(self, root: Path = ROOT) -> list[tuple[str, str, str]]:
        """Return the entries that fit nothing: path, line, change."""
        paths = {path for path, _, _ in self._reasons}
        there = {
            (mutant.path, mutant.source, mutant.change)
            for path in paths
            if (root / path).exists()
            for mutant in mutants_of(root / path, root)
        }
        return sorted(set(self._reasons) - there)
