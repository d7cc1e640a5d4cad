"""Actions of a Redis that restarts: it keeps all, or comes back with what it held before."""

from collections.abc import Iterable

from producers.store import keys

from .actions import action, on, serves
from .product import Product
from .state import State
from .world import World


@action(
    "on disk",
    lambda _, state: ((),) if state.left("restart") and state.disk is None else (),
)
def on_disk(_: Product, state: State) -> State:
    """What Redis holds now is all that it will come back with."""
    return state._replace(disk=state.redis)


def _restarts(_: World, state: State) -> Iterable[tuple[str, ...]]:
    if state.left("restart"):
        if state.disk is None:
            yield ("keeps",)
        elif state.disk.digest != state.redis.digest:
            yield ("forgets",)


@action("restart", _restarts)
def restart(_: Product, state: State, how: str) -> State:
    """Redis is killed and comes back; whoever works for it does nothing until it knows."""
    state = state.spend("restart")._replace(run=state.run + 1)
    if how == "keeps":
        return state
    assert state.disk is not None
    redis = state.disk.ended(state.now)
    return state._replace(redis=redis, disk=None, forgot=state.forgot + 1)


def _strangers(_: World, state: State) -> Iterable[tuple[str, ...]]:
    return ((worker.name,) for worker in state.workers if not serves(state, worker))


@action("begin an epoch", _strangers)
def begin(product: Product, state: State, worker: str) -> State:
    """A worker meets another run of Redis than the one it knew."""
    one = state.worker(worker)

    def work() -> tuple[int, int]:
        epochs = product.epochs(one)
        epochs.begin()
        return int(epochs._server.removeprefix("run")), epochs.changed_at_ms

    (server, changed_at), state = on(product, state, ("epoch", one), work)
    product.now_ms = state.now
    assert state.redis.text(keys.SERVER) == f"run{state.run}"
    return state.with_worker(one._replace(server=server, changed_at=changed_at))
