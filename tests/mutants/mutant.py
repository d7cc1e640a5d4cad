"""A mutant: one piece of one file's text, and what stands there instead."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of a text.

    Attributes:
        operator: the kind of change, such as ``drop`` or ``compare``.
        start: where the piece that goes begins, in characters.
        end: where it ends.
        new: what comes instead.
    """

    operator: str
    start: int
    end: int
    new: str

    def applied(self, text: str) -> str:
        """Return the text with the change made."""
        return text[: self.start] + self.new + text[self.end :]


@dataclass(frozen=True, slots=True)
class Mutant:
    """An edit of a file of the code.

    Attributes:
        path: from the root of the checkout.
        edit: the change.
        text: what the file holds without it.
    """

    path: str
    edit: Edit
    text: str

    @property
    def line(self) -> int:
        """The line on which the change begins, from 1."""
        return self.text.count("\n", 0, self.edit.start) + 1

    @property
    def last_line(self) -> int:
        """The line on which the change ends."""
        return self.text.count("\n", 0, self.edit.end) + 1

    @property
    def source(self) -> str:
        """The line on which the change begins, without what surrounds it."""
        return self.text.splitlines()[self.line - 1].strip()

    @property
    def old(self) -> str:
        """What goes."""
        return self.text[self.edit.start : self.edit.end]

    @property
    def change(self) -> str:
        """The change in words: ``compare: < → <=``."""
        shown = " ".join(self.old.split())
        return f"{self.edit.operator}: {shown} → {self.edit.new or '(nothing)'}"

    @property
    def name(self) -> str:
        """What tells it from all others, for as long as the file stays as it is."""
        digest = hashlib.sha256(self.text.encode()).hexdigest()[:12]
        return f"{self.path}@{digest}:{self.edit.start}-{self.edit.end}:{self.edit.new}"

    def mutated(self) -> str:
        """Return the file's text with the change made."""
        return self.edit.applied(self.text)


def shifted(number: str) -> str:
    """Return another number: one more below ten, else twice as much.

    Args:
        number: as it is written in Lua or in Python.
    """
    plain = number.replace("_", "")
    if not plain.isdecimal():
        return f"({number} * 2 + 1)"
    value = int(plain)
    return str(value + 1 if value < 10 else value * 2)


def mutants_of(path: Path, root: Path = ROOT) -> Iterator[Mutant]:
    """Give each mutant of a file, in the order of the text.

    Args:
        path: a ``.lua`` or a ``.py`` file.
        root: what its name begins at.
    """
    from . import lua_edits, python_edits  # noqa: PLC0415 (they need `Edit`)

    text = path.read_text("utf-8")
    edits = lua_edits.edits(text) if path.suffix == ".lua" else python_edits.edits(text)
    for edit in sorted(set(edits), key=lambda one: (one.start, one.end, one.new)):
        yield Mutant(str(path.relative_to(root)), edit, text)


def files(root: Path = ROOT) -> list[Path]:
    """Return what is broken: each script, and each module of ``workers/``."""
    scripts = [path for top in ("producers", "workers") for path in (root / top).rglob("*.lua")]
    modules = [path for path in (root / "workers").rglob("*.py") if path.stem != "__init__"]
    return sorted(scripts + modules)
