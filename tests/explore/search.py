"""The search: breadth first, level by level, over all states of a world.

The states of a level are dealt out in chunks to processes, each with a Valkey of its own; what they
find is folded here. So the first path to a broken state is a shortest one. Each state's invariants
and its way to the end are checked once it is found. Between two levels all can be kept in a
directory, and gone on with.
"""

import multiprocessing
import pickle
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final

from . import duties, restarts, sending  # noqa: F401  (their actions are entered)
from .actions import Label, apply, enabled
from .defects import put_back
from .invariants import BrokenError, look
from .kept import Kept
from .life import Life
from .product import Product, laid
from .replay import true_path
from .state import State
from .world import World
from .worlds import WORLDS

_CHUNK: Final = 24
_AHEAD: Final = 2
"""Chunks that one process has before it."""


@dataclass(frozen=True)
class Violation:
    """Something that does not hold, and the shortest way there."""

    world: str
    name: str
    what: str
    path: list[Label]


@dataclass
class Found:
    """What a search found.

    Attributes:
        world: where.
        states, transitions: how many.
        depth: steps from the first state within which all was looked at.
        ended: whether that is all that there is.
        seconds: it took.
        violation: the first, if any.
    """

    world: str
    states: int = 0
    transitions: int = 0
    depth: int = 0
    ended: bool = False
    seconds: float = 0.0
    violation: Violation | None = None
    levels: list[int] = field(default_factory=list)


def packed(state: State) -> bytes:
    """Return a state as bytes."""
    return zlib.compress(pickle.dumps(state, pickle.HIGHEST_PROTOCOL), 1)


def unpacked(blob: bytes) -> State:
    """Return a state of bytes."""
    state: State = pickle.loads(zlib.decompress(blob))  # noqa: S301  (our own)
    return state


class Walker:
    """Expands states in one process."""

    def __init__(self, product: Product) -> None:
        self._product = product
        self._life = Life(product)
        self._told: set[bytes] = set()

    def expand(self, blob: bytes) -> tuple[int, list[tuple[Label, bytes, bytes]], Any]:
        """Return how many transitions a state has, those to new states, and what is broken."""
        state, world = unpacked(blob), self._product.world
        found: list[tuple[Label, bytes, bytes]] = []
        labels = enabled(world, state)
        for label in labels:
            try:
                after, _ = apply(self._product, state, label)
                digest = after.digest()
                if digest in self._told:
                    continue
                self._told.add(digest)
                look(world, after)
                self._life.check(after)
            except BrokenError as error:
                return len(labels), found, (label, error.name, error.what)
            except Exception as error:  # noqa: BLE001  (the product raised: that is a find too)
                return len(labels), found, (label, type(error).__name__, str(error))
            found.append((label, digest, packed(after)))
        return len(labels), found, None


def _serve(line: "Connection[Any, Any]", world: World, defect: str) -> None:
    with put_back(defect), laid(world) as product:
        walker = Walker(product)
        while (chunk := line.recv()) is not None:
            line.send([walker.expand(blob) for blob in chunk])
        line.close()


class _Processes:
    """Expands many states at once; in this process when there is only one."""

    def __init__(self, product: Product, defect: str, many: int) -> None:
        self._lines: list[Any] = []
        self._processes: list[Any] = []
        self._walker = Walker(product) if many <= 1 else None
        if self._walker:
            return
        world = product.world
        context = multiprocessing.get_context("spawn")
        for _ in range(many):
            mine, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, world, defect), daemon=True)
            process.start()
            theirs.close()
            self._lines.append(mine)
            self._processes.append(process)

    def expanded(self, blobs: list[bytes]) -> Iterator[tuple[int, Any]]:
        """Yield (place, what `Walker.expand` says) of each, in any order."""
        if self._walker is not None:
            for place, blob in enumerate(blobs):
                yield place, self._walker.expand(blob)
            return
        starts = iter(range(0, len(blobs), _CHUNK))
        out: dict[Any, list[int]] = {line: [] for line in self._lines}

        def give(line: Any) -> None:
            start = next(starts, None)
            if start is not None:
                out[line].append(start)
                line.send(blobs[start : start + _CHUNK])

        for _ in range(_AHEAD):
            for line in self._lines:
                give(line)
        while any(out.values()):
            for line in wait([line for line, starts_ in out.items() if starts_]):
                answers = line.recv()  # type: ignore[union-attr]
                start = out[line].pop(0)
                give(line)
                for place, answer in enumerate(answers, start):
                    yield place, answer

    def close(self) -> None:
        """End them, in the middle of a level too."""
        for line, process in zip(self._lines, self._processes, strict=True):
            with suppress(OSError):
                line.send(None)
            while process.is_alive():  # it may be telling what nobody wants any more
                if line.poll(0.05):
                    try:
                        line.recv()
                    except (EOFError, OSError):
                        break
            process.join(10)
            line.close()


def explore(
    world: str | World,
    *,
    seconds: float = 600.0,
    depth: int = 10_000,
    faults: int | None = None,
    processes: int = 2,
    defect: str = "",
    state_dir: Path | None = None,
    resume: bool = False,
    progress: Any = None,
) -> Found:
    """Walk through a world, until all is seen, something is broken, or the time is over.

    Args:
        world: its name, or itself.
        seconds: at most.
        depth: steps at most.
        faults: at most in one run, of all kinds together, ticks beside; None: as the world says.
        processes: that expand states; 1: this one.
        defect: one that is put back.
        state_dir: where the search is kept after each level.
        resume: go on with what is kept there.
        progress: called with what was found, after each level.
    """
    begun = time.monotonic()
    here = WORLDS[world] if isinstance(world, str) else world
    if faults is not None:
        here = replace(here, together=faults)
    name = here.name
    folder = "-".join(filter(None, (name, defect, "" if faults is None else str(faults))))
    kept = Kept(state_dir / folder) if state_dir else None
    with put_back(defect), laid(here) as product:
        first = product.first()
        found, parents, frontier = Found(name), dict[bytes, Any](), list[tuple[bytes, bytes]]()
        if kept and resume and kept.is_there:
            parents, frontier, counts = kept.read()
            found = Found(name, **counts)
        else:
            parents[first.digest()] = None
            frontier = [(first.digest(), packed(first))]
            found.violation = _at_first(product, first)
        crew = _Processes(product, defect, processes)
        before_s = found.seconds
        try:
            while frontier and found.depth < depth and not found.violation:
                level = _level(crew, frontier, parents, found, begun + seconds)
                found.seconds = before_s + time.monotonic() - begun
                found.states = len(parents)
                if found.violation or level is None:
                    break
                frontier = level
                found.depth += 1
                found.levels.append(len(frontier))
                if kept:
                    kept.write(parents, frontier, found)
                if progress:
                    progress(found)
            else:
                found.ended = not frontier
        finally:
            crew.close()
        if found.violation:
            path = true_path(product, found.violation.path)
            found.violation = Violation(name, found.violation.name, found.violation.what, path)
        return found


def _at_first(product: Product, first: State) -> Violation | None:
    """Look at the first state, and at its way to the end."""
    try:
        look(product.world, first)
        Life(product).check(first)
    except BrokenError as error:
        return Violation(product.world.name, error.name, error.what, [])
    return None


def _level(
    crew: _Processes,
    frontier: list[tuple[bytes, bytes]],
    parents: dict[bytes, Any],
    found: Found,
    until: float,
) -> list[tuple[bytes, bytes]] | None:
    """Expand a level; returns the next one, None when the time was over before its end."""
    following: list[tuple[bytes, bytes]] = []
    for place, (transitions, new, is_broken) in crew.expanded([blob for _, blob in frontier]):
        before = frontier[place][0]
        found.transitions += transitions
        for label, digest, blob in new:
            if digest not in parents:
                parents[digest] = (before, label)
                following.append((digest, blob))
        if is_broken:
            label, name, what = is_broken
            path = [*path_to(parents, before), label]
            found.violation = Violation(found.world, name, what, path)
            return None
        if time.monotonic() > until:
            return None
    return following


def path_to(parents: dict[bytes, Any], digest: bytes) -> list[Label]:
    """Return the labels from the first state to one."""
    path: list[Label] = []
    while parents[digest] is not None:
        digest, label = parents[digest]
        path.append(label)
    return path[::-1]
