"""A search that is kept in a directory between two levels, so that it can be gone on with."""

import os
import pickle
from pathlib import Path
from typing import Any


class Kept:
    """One search's directory.

    ``parents.N`` holds what level N brought, ``level`` all else; that one is replaced at once, so
    whatever dies leaves a whole level behind.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written = 0

    @property
    def is_there(self) -> bool:
        """Whether something is kept."""
        return (self._folder / "level").exists()

    def read(self) -> tuple[dict[bytes, Any], list[tuple[bytes, bytes]], dict[str, Any]]:
        """Return how each state was reached, the last level, and the counts so far."""
        frontier, counts = pickle.loads((self._folder / "level").read_bytes())  # noqa: S301
        parents: dict[bytes, Any] = {}
        for depth in range(1, counts["depth"] + 1):
            path = self._folder / f"parents.{depth}"
            parents |= pickle.loads(path.read_bytes())  # noqa: S301
        self._written = len(parents)
        return parents, frontier, counts

    def write(
        self, parents: dict[bytes, Any], frontier: list[tuple[bytes, bytes]], found: Any
    ) -> None:
        """Keep one level more."""
        self._folder.mkdir(parents=True, exist_ok=True)
        new = dict(list(parents.items())[self._written :])
        _replace(self._folder / f"parents.{found.depth}", pickle.dumps(new))
        names = ("states", "transitions", "depth", "seconds", "levels")
        counts = {name: getattr(found, name) for name in names}
        _replace(self._folder / "level", pickle.dumps((frontier, counts)))
        self._written = len(parents)


def _replace(path: Path, content: bytes) -> None:
    beside = path.with_name(path.name + ".new")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
