"""Liveness by reachability: with no more faults, what stands comes to its end.

From a state a fixed schedule runs: workers do what they can, the keeper what is due, an operator
resumes what is paused, the clock goes on when nothing else does. It must end with every recipient
in an outcome. States that are known to end are remembered, so a schedule stops at the first.
"""

from collections.abc import Iterator
from typing import Final

from producers.store import keys
from producers.words import ENDED

from .actions import Label, apply, enabled, short
from .duties import next_ms
from .invariants import BrokenError, broken, look
from .product import APP, Product
from .state import State, ghosts

_LONGEST: Final = 120
_REMEMBERED: Final = 2_000_000
_EVERY: Final = (("decide", 1), ("tick", 1))
"""What the schedule may have beside what costs nothing."""


class Life:
    """Knows which states end, in one world."""

    def __init__(self, product: Product) -> None:
        self._product = product
        self._ends: set[bytes] = set()
        self.steps = 0

    def check(self, state: State) -> None:
        """Check that a state comes to its end.

        Raises:
            BrokenError: it does not, or what always holds does not on the way.
        """
        way: list[bytes] = []
        path: list[Label] = []
        state = state._replace(budget=())
        while True:
            digest = state.digest()
            if digest in self._ends or self._is_over(state):
                break
            if digest in way or len(way) > _LONGEST:
                broken("liveness", f"goes round without an end: {_told(path[-30:])}")
            way.append(digest)
            state = self._step(state, path)
            self.steps += 1
        if len(self._ends) > _REMEMBERED:
            self._ends.clear()
        self._ends.update(way)

    def _step(self, state: State, path: list[Label]) -> State:
        for label in self._wanted(state):
            after = self._apply(state, label)
            if after.digest() != state.digest():
                path.append(label)
                try:
                    look(self._product.world, after)
                except BrokenError as error:
                    broken(error.name, f"{error.what}; on the way to the end: {_told(path)}")
                return after
        return broken("liveness", f"nothing moves any more: {_told(path[-30:])}")

    def _apply(self, state: State, label: Label) -> State:
        after, _ = apply(self._product, state._replace(budget=_EVERY), label)
        return after._replace(budget=state.budget)

    def _wanted(self, state: State) -> Iterator[Label]:
        """Yield what may be done, the most urgent first."""
        world = self._product.world
        may: dict[str, list[Label]] = {}
        for label in enabled(world, state):
            may.setdefault(label[0], []).append(label)
        for name in ("begin an epoch", "ask", "settle", "mark"):
            yield from may.get(name, ())
        posts = may.get("post", ())
        yield from posts[:1]
        for name in ("keep", "take"):
            yield from may.get(name, ())
        yield from (one for one in may.get("recover", ()) if one[1] in ghosts(state.redis))
        yield from may.get("look at flights", ())
        if next_ms(world, state) is not None:
            yield ("tick", "next")
        yield from (one for one in may.get("move", ()) if one[1] == "resume")
        for broadcast in state.redis.hash(keys.history(APP)):
            for lane in range(world.lanes):
                rows = state.redis.hash(keys.flight(lane, broadcast)).values()
                if any(row.startswith("aside ") for row in rows):
                    yield ("decide", short(broadcast), "replay")
        if any(
            state.redis.hash(keys.flight(lane, broadcast))
            for broadcast in state.redis.hash(keys.history(APP))
            for lane in range(world.lanes)
        ):
            yield ("tick", "long")

    def _is_over(self, state: State) -> bool:
        part, world = state.redis, self._product.world
        if any(worker.hands or worker.asking for worker in state.workers):
            return False
        for broadcast in part.hash(keys.history(APP)):
            home = part.hash(keys.home(world.layout.home_of(broadcast), broadcast))
            if not keys.is_carrier(broadcast) and home.get("state") not in ENDED:
                return False
            for lane in range(world.lanes):
                copy = part.hash(keys.lane_broadcast(lane, broadcast))
                if not copy or int(copy["done"]) < int(copy["total"]):
                    return False
                if part.hash(keys.flight(lane, broadcast)):
                    return False
                newest = int(home.get("generation", 0))
                if int(copy["generation"]) < newest or "sweeping" in copy:
                    return False
        return True


def _told(path: list[Label]) -> str:
    return ", ".join(" ".join(label) for label in path)
