"""Which tests a mutant is tried on: those that ran its line, or its script, the fastest first.

The map is made by running the tests once, file by file, with `noted`, and lies in the state
directory; a file of tests that changed since is run anew. Tests of ``tests/system`` start units as
processes of their own, of which nobody notes what they ran: they are not tried.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .mutant import ROOT, Mutant
from .noted import BEFORE
from .overlay import HOOK

FOLDERS: Final = ("tests/workers", "tests/producers")
OPTIONS: Final = (
    *("-q", "-p", "no:randomly", "-p", "no:cacheprovider"),
    *("-p", "tests.mutants.noted"),
)
"""With which pytest is run."""

AT_ONCE: Final = 12
"""Files of tests that are noted in one run of pytest."""


@dataclass(frozen=True, slots=True)
class Case:
    """A test: its name for pytest, and how long it took."""

    name: str
    seconds: float

    @property
    def file(self) -> str:
        """Where it stands."""
        return self.name.partition("::")[0]


class Choice:
    """The map of the tests, as it lies in a directory."""

    def __init__(self, state: Path, folders: tuple[str, ...] = FOLDERS) -> None:
        self._place = state / "map"
        self._place.mkdir(parents=True, exist_ok=True)
        self._files = [
            str(path.relative_to(ROOT))
            for folder in folders
            for path in sorted((ROOT / folder).rglob("test_*.py")) or [ROOT / folder]
        ]
        self._notes: dict[str, dict[str, Any]] = {}
        self._sources: dict[str, dict[str, str]] = {}

    def prepare(self) -> None:
        """Read the map, after what is missing of it was made."""
        stale = [file for file in self._files if self._kept(file) is None]
        for at in range(0, len(stale), AT_ONCE):
            sys.stderr.write(f"noting what tests touch: {at} of {len(stale)} files\n")
            self._note(stale[at : at + AT_ONCE])
        for file in self._files:
            kept = self._kept(file) or {"tests": {}, "sources": {}}
            for test, notes in kept["tests"].items():
                self._notes[test] = notes
                self._sources[test] = kept["sources"]

    def of(self, mutant: Mutant) -> list[Case]:
        """Return the tests for a mutant: those named for its file first, then the fastest."""
        stem = Path(mutant.path).stem
        found = self._of_script(mutant) if mutant.path.endswith(".lua") else self._of_line(mutant)
        tests = [Case(name, self._notes[name]["seconds"]) for name in dict.fromkeys(found)]
        return sorted(tests, key=lambda test: (stem not in Path(test.file).stem, test.seconds))

    def _of_script(self, mutant: Mutant) -> Iterator[str]:
        users = including(mutant.path)
        for name, notes in self._notes.items():
            if not users.isdisjoint(notes["scripts"]):
                yield name

    def _of_line(self, mutant: Mutant) -> list[str]:
        """Return who ran a line; of one that runs at the import, who uses or names the module."""
        lines = set(range(mutant.line, mutant.last_line + 1))
        digest = hashlib.sha256(mutant.text.encode()).hexdigest()
        ran, of_file = [], []
        for name, notes in self._notes.items():
            mine = notes["lines"].get(mutant.path)
            if mine is None:
                continue
            of_file.append(name)
            known = self._sources[name].get(mutant.path) == digest
            if not known or not lines.isdisjoint(mine):
                ran.append(name)
        if ran:
            return ran
        named = mutant.path.removesuffix(".py").replace("/", ".")
        texts = {file: (ROOT / file).read_text("utf-8") for file in self._files}
        naming = {file for file, text in texts.items() if named in text}
        return [*of_file, *(one for one in self._notes if one.partition("::")[0] in naming)]

    def _kept(self, file: str) -> dict[str, Any] | None:
        place = self._place / (file.replace("/", ".") + ".json")
        if not place.exists():
            return None
        kept: dict[str, Any] = json.loads(place.read_bytes())
        return kept if kept["digest"] == digest_of(file) else None

    def _note(self, files: list[str]) -> None:
        """Run files of tests, and keep what each of their tests touched."""
        notes = self._place / "notes.json"
        notes.unlink(missing_ok=True)
        subprocess.run(
            [sys.executable, "-m", "pytest", *OPTIONS, *files],
            cwd=ROOT,
            env=environment(self._place.parent, "", "") | {"MUTANTS_NOTES": str(notes)},
            stdout=subprocess.DEVNULL,
            check=False,
        )
        found: dict[str, Any] = json.loads(notes.read_bytes()) if notes.exists() else {}
        found.pop(BEFORE, None)
        for file in files:
            tests = {name: n for name, n in found.items() if name.startswith(file + "::")}
            seen = {path for n in tests.values() for path in n["lines"]}
            kept = {
                "digest": digest_of(file),
                "sources": {path: digest_of(path) for path in seen},
                "tests": tests,
            }
            place = self._place / (file.replace("/", ".") + ".json")
            place.write_text(json.dumps(kept), "utf-8")


def digest_of(path: str) -> str:
    """Return a digest of a file of the checkout."""
    return hashlib.sha256((ROOT / path).read_bytes()).hexdigest()


def including(path: str) -> set[str]:
    """Return the scripts in whose text a script, or a piece of scripts, stands; itself too."""
    found, last = {path}, 0
    while len(found) > last:
        last = len(found)
        names = {one.removeprefix("producers/").removesuffix(".lua") for one in found}
        for script in (*ROOT.glob("producers/*/*.lua"), *ROOT.glob("workers/*/*.lua")):
            words = script.read_text("utf-8").splitlines()
            if any(line.removeprefix("--@include ") in names for line in words if "--@" in line):
                found.add(str(script.relative_to(ROOT)))
    return found


def environment(state: Path, path: str, text: str) -> dict[str, str]:
    """Return the environment in which a file holds another text.

    Args:
        state: the state directory.
        path: the file, from the root of the checkout; '' changes none.
        text: what is read there.
    """
    given = state / "mutant.json"
    given.write_text(json.dumps({"path": str(ROOT / path) if path else "", "text": text}))
    return {
        **os.environ,
        "MUTANT": str(given),
        "PYTHONPATH": os.pathsep.join((HOOK, str(ROOT))),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(state / "hypothesis"),
    }
