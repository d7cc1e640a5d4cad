"""What may happen: a table of actions, each a function from a state to the next one.

An action says which options it has in a state, and what becomes of the state. It runs the
product's own code by `on`. A label, its name and its option's words, is what a path is made of.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Final, NamedTuple

from producers.store import keys

from .product import Product
from .state import Held, State, Worker, canonical
from .valkey import Part
from .world import BROADCAST, World

Label = tuple[str, ...]
Options = Callable[[World, State], Iterable[tuple[str, ...]]]
Run = Callable[..., State]


class Action(NamedTuple):
    """One thing that may happen.

    Attributes:
        options: yields the words of each way in which it may.
        run: given the product, the state and the words; returns the next state.
    """

    options: Options
    run: Run


ACTIONS: Final[dict[str, Action]] = {}


def action(name: str, options: Options) -> Callable[[Run], Run]:
    """Enter a function as an action under a name."""

    def entered(run: Run) -> Run:
        ACTIONS[name] = Action(options, run)
        return run

    return entered


def enabled(world: World, state: State) -> list[Label]:
    """Return the labels of all that may happen."""
    return [(name, *words) for name, one in ACTIONS.items() for words in one.options(world, state)]


def apply(product: Product, state: State, label: Label) -> tuple[State, dict[str, str]]:
    """Return the canonical state after an action, and who took whose name."""
    product.run = state.run
    after = ACTIONS[label[0]].run(product, state, *label[1:])
    kept = _without_replies(after, after.redis)
    disk = after.disk and _without_replies(after, after.disk)
    return canonical(after._replace(redis=kept, disk=disk))


def on(
    product: Product,
    state: State,
    what: Hashable,
    work: Callable[[], Any],
    *,
    one_trip: bool = False,
) -> tuple[Any, State]:
    """Run product code on what Redis holds; returns its answer, and the state with what is left.

    Args:
        product: whose server.
        state: before.
        what: all that the work depends on beside what Redis holds, and the time.
        work: calls the product.
        one_trip: it runs one script, by the product's `one_trip` client.
    """
    product.now_ms = state.now
    named = what, state.run
    answer, redis = product.valkey.run(state.redis, state.now, named, work, one_trip=one_trip)
    return answer, state._replace(redis=redis)


def _without_replies(state: State, part: Part) -> Part:
    """Forget the answers that nobody will ask for again."""
    waits = {
        keys.reply(worker.asking[1], f"{worker.asking[0]}:shop", worker.name)
        for worker in state.workers
        if worker.asking
    }
    gone = [name for name in part.keys if "}:reply:" in name and name not in waits]
    return part.changed(dict.fromkeys(gone))


# -- how things are called in labels ---------------------------------------------------------------


def short(broadcast: str) -> str:
    """Return how a broadcast is called: b, or m for a carrier."""
    return "b" if broadcast == BROADCAST else "m"


def broadcasts(state: State) -> dict[str, str]:
    """Return what is sent: how it is called → id."""
    listed = state.redis.hash(keys.history("shop"))
    return {short(broadcast): broadcast for broadcast in listed}


def in_hand(worker: Worker) -> dict[str, Held]:
    """Return what a worker holds, by the names of labels."""
    found: dict[str, Held] = {}
    for held in worker.hands:
        name = f"{short(held.claim.broadcast)}/{held.claim.openid}"
        while name in found:
            name += "'"
        found[name] = held
    return found


def serves(state: State, worker: Worker) -> bool:
    """Say whether a worker may talk to Redis: both know the same run of it."""
    return worker.server == state.run and state.redis.text(keys.SERVER) == f"run{state.run}"


def replaced(worker: Worker, old: Held, *new: Held) -> Worker:
    """Return a worker with other claims in place of one."""
    return worker._replace(hands=(*(one for one in worker.hands if one is not old), *new))
