"""Random walks: one long way through a world after another, by a seed; far deeper than all ways."""

import random
import time
from dataclasses import dataclass, replace
from typing import Final

from . import duties, restarts, sending  # noqa: F401  (their actions are entered)
from .actions import Label, apply, enabled
from .defects import put_back
from .invariants import BrokenError, look
from .life import Life
from .product import laid
from .replay import true_path
from .search import Violation
from .worlds import WORLDS

_MORE: Final = 20
"""So many times the faults of the exhaustive search."""
_LOOKS_AHEAD: Final = 7
"""Each so manieth state is followed to its end."""


@dataclass
class Walked:
    """What walks found.

    Attributes:
        walks, steps: how many.
        deepest: steps of the longest.
        violation: the first, if any; its path is as it was walked, not the shortest.
    """

    world: str
    walks: int = 0
    steps: int = 0
    deepest: int = 0
    seconds: float = 0.0
    violation: Violation | None = None


def walk(world: str, *, depth: int, seconds: float, seed: int = 1, defect: str = "") -> Walked:
    """Walk at random, so many steps at a time, until the time is over or something is broken."""
    begun, found, chance = time.monotonic(), Walked(world), random.Random(seed)
    more = replace(WORLDS[world], faults={f: n * _MORE for f, n in WORLDS[world].faults.items()})
    with put_back(defect), laid(more) as product:
        life, first = Life(product), product.first()
        while time.monotonic() < begun + seconds:
            state, path = first, list[Label]()
            try:
                while len(path) < depth and time.monotonic() < begun + seconds:
                    labels = enabled(more, state)
                    if not labels:
                        break
                    names = sorted({label[0] for label in labels})
                    name = chance.choice(names)  # an action of many options is not likelier
                    path.append(chance.choice([label for label in labels if label[0] == name]))
                    state, _ = apply(product, state, path[-1])
                    look(more, state)
                    if len(path) % _LOOKS_AHEAD == 0:
                        life.check(state)
                life.check(state)
            except BrokenError as error:
                told = true_path(product, path)
                found.violation = Violation(world, error.name, error.what, told)
            found.walks += 1
            found.steps += len(path)
            found.deepest = max(found.deepest, len(path))
            if found.violation:
                break
    found.seconds = time.monotonic() - begun
    return found
