"""Replays: a path of labels through a world, checked at each step."""

from collections.abc import Iterable, Sequence

from . import duties, restarts, sending  # noqa: F401  (their actions are entered)
from .actions import Label, apply, enabled
from .defects import put_back
from .invariants import look
from .life import Life
from .product import Product, laid
from .state import State
from .world import World
from .worlds import WORLDS


def replay(
    world: str | World, path: Iterable[Sequence[str]], *, lives: bool = True, defect: str = ""
) -> State:
    """Walk a path, and check all that holds after each step; returns where it ends.

    Args:
        world: its name, or itself.
        path: labels, as the explorer prints them.
        lives: check in the end that what stands comes to its end.
        defect: one that is put back.

    Raises:
        BrokenError: something does not hold.
        AssertionError: a step cannot be made.
    """
    with put_back(defect), laid(WORLDS[world] if isinstance(world, str) else world) as product:
        return walk(product, [tuple(label) for label in path], lives=lives)


def walk(product: Product, path: Iterable[Label], *, lives: bool = True) -> State:
    """As `replay`, in a world that is laid."""
    state = product.first()
    names: dict[str, str] = {}  # true name → name in the state
    for label in path:
        inside = tuple(names.get(word, word) for word in label)
        assert inside in enabled(product.world, state), f"{label} cannot be done here"
        state, renamed = apply(product, state, inside)
        names = followed(names, renamed)
        look(product.world, state)
    if lives:
        Life(product).check(state)
    return state


def true_path(product: Product, path: Iterable[Label]) -> list[Label]:
    """Return a path through canonical states with the workers' true names: as it really went."""
    state, names, told = product.first(), dict[str, str](), list[Label]()
    for label in path:
        true = {now: name for name, now in names.items()}
        told.append(tuple(true.get(word, word) for word in label))
        try:
            state, renamed = apply(product, state, label)
        except Exception:  # noqa: BLE001  (the last step is the one that breaks something)
            break
        names = followed(names, renamed)
    return told


def followed(names: dict[str, str], renamed: dict[str, str]) -> dict[str, str]:
    """Return true name → name in the state, after workers changed names."""
    if not renamed:
        return names
    true = {name: names.get(name, name) for name in ("w1", "w2")}
    return {name: renamed.get(now, now) for name, now in true.items()}
