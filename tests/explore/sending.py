"""Actions of sending: take, mark, post, settle, and the replies of Redis that are lost."""

from collections.abc import Iterable
from typing import Any, Final

from producers.store import keys
from producers.store.scripts import new_token
from workers.sending.claim import Claim
from workers.sending.posting import PostingArgs, PostingKeys, needs_mark
from workers.sending.sender import _UNSENT, _WEEK_MS
from workers.sending.settle import Answer as Answered
from workers.sending.settle import SettleArgs, SettleKeys
from workers.sending.take import Asking
from workers.sending.verdict import judge
from workers.wechat.reply import Reply

from .actions import action, in_hand, on, replaced, serves
from .invariants import broken
from .product import APP, Product
from .state import ANSWERED, MARKED, NEW, Held, State, Worker
from .wechat import after, answers
from .world import World

_MOST: Final = 2
"""Claims in one worker's hands."""


def _free(state: State) -> Iterable[Worker]:
    return (one for one in state.workers if serves(state, one))


def _takers(world: World, state: State) -> Iterable[tuple[str, ...]]:
    for worker in _free(state):
        if len(worker.hands) < _MOST:
            for lane in range(world.lanes):
                rings = keys.ring(lane, APP), keys.priority_ring(lane, APP)
                if any(name in state.redis.keys for name in rings):
                    yield worker.name, str(lane)


def _if_lost(state: State, options: Iterable[tuple[str, ...]]) -> Iterable[tuple[str, ...]]:
    """Yield those of workers whose reply may be lost: one at a time."""
    if state.left("reply"):
        asking = {one.name for one in state.workers if one.asking}
        yield from (words for words in options if words[0] not in asking)


def _token(worker: str, what: str) -> str:
    return f"{what}-{worker}".ljust(32, "-")


def _place(state: State, worker: str, token: str) -> int:
    """Return the place of a run: another one than that whose reply is lost."""
    return int(state.worker(worker).asking is not None and not token)


def _take(product: Product, state: State, worker: str, lane: int, token: str) -> Any:
    place = _place(state, worker, token)

    def work() -> tuple[Claim, ...]:
        asking = Asking(APP, lane, 1, place, token or new_token(), 0.0)
        taken = product.takers[worker].take(asking, {})
        return tuple(taken.claims)

    return on(product, state, ("take", worker, lane, token, place), work, one_trip=True)


@action("take", _takers)
def take(product: Product, state: State, worker: str, lane: str) -> State:
    """A worker takes one message of a lane."""
    before = state.redis
    claims, state = _take(product, state, worker, int(lane), "")
    for claim in claims:
        copy = before.hash(keys.lane_broadcast(int(lane), claim.broadcast))
        if copy["state"] != "running" or copy.get("verdict"):
            broken("what does not run is not claimed", f"{claim.broadcast} {claim.openid}")
    one = state.worker(worker)
    return state.with_worker(one._replace(hands=(*one.hands, *map(Held, claims))))


@action("take, reply lost", lambda world, state: _if_lost(state, _takers(world, state)))
def take_lost(product: Product, state: State, worker: str, lane: str) -> State:
    """The script ran, and its reply is lost: the worker will ask again."""
    _, state = _take(product, state.spend("reply"), worker, int(lane), _token(worker, "take"))
    return state.with_worker(state.worker(worker)._replace(asking=("take", int(lane), ())))


@action(
    "ask",
    lambda _, state: ((one.name,) for one in state.workers if one.asking and serves(state, one)),
)
def ask(product: Product, state: State, worker: str) -> State:
    """A worker asks again, with the same token, for what it had no reply to."""
    one = state.worker(worker)
    assert one.asking
    what, lane, batch = one.asking
    one = one._replace(asking=None)
    if what == "take":
        claims, state = _take(product, state, worker, lane, _token(worker, "take"))
        return state.with_worker(one._replace(hands=(*one.hands, *map(Held, claims))))
    results, state = _settle(product, state, one, lane, batch, _token(worker, "settle"))
    return _conclude(product, state, one, lane, batch, results)


def _to_mark(_: World, state: State) -> Iterable[tuple[str, ...]]:
    for worker in state.workers:
        if serves(state, worker):
            for name, held in in_hand(worker).items():
                if held.stage == NEW and needs_mark(held.claim):
                    yield worker.name, name


@action("mark", _to_mark)
def mark(product: Product, state: State, worker: str, name: str) -> State:
    """A claim is marked as being posted; one that is no longer the worker's is handed back."""
    one = state.worker(worker)
    held = in_hand(one)[name]
    claim = held.claim
    flight = keys.flight(claim.lane, claim.broadcast)
    pairs = (f"{claim.item} {claim.fence}",)
    refused, state = on(
        product,
        state,
        ("mark", worker, flight, pairs),
        lambda: tuple(
            product.posting(PostingKeys(), PostingArgs(worker), pairs, more_keys=[flight])
        ),
        one_trip=True,
    )
    new = Held(claim, ANSWERED, None, _UNSENT) if refused else held._replace(stage=MARKED)
    return state.with_worker(replaced(one, held, new))


@action(
    "mark, reply lost",
    lambda world, state: _to_mark(world, state) if state.left("reply") else (),
)
def mark_lost(product: Product, state: State, worker: str, name: str) -> State:
    """Perhaps marked, surely not posted: the claim is handed back."""
    state = mark(product, state.spend("reply"), worker, name)
    one = state.worker(worker)
    held = in_hand(one)[name]
    return state.with_worker(replaced(one, held, Held(held.claim, ANSWERED, None, _UNSENT)))


def _to_post(world: World, state: State) -> Iterable[tuple[str, ...]]:
    for worker in state.workers:
        for name, held in in_hand(worker).items():
            if held.stage == MARKED or (held.stage == NEW and not needs_mark(held.claim)):
                for answer in answers(world, state, held.claim):
                    yield worker.name, name, answer.name


@action("post", _to_post)
def post(product: Product, state: State, worker: str, name: str, what: str) -> State:
    """WeChat does something with a post, and the worker judges what it sees of that."""
    one = state.worker(worker)
    held = in_hand(one)[name]
    claim = held.claim
    answer = next(one for one in answers(product.world, state, claim) if one.name == what)
    if answer.asks and not state.forgot:
        for use, broadcast, openid in state.wechat.perhaps:
            if use == claim.member and (broadcast, openid) != (claim.broadcast, claim.openid):
                broken("I3", f"{use}, perhaps used for {broadcast} {openid}, is posted for another")
    wechat = after(state.wechat, claim, answer)
    new = Held(claim, ANSWERED, answer.reply, judged(product, state, claim, answer.reply))
    if answer.costs:
        state = state.spend(answer.costs)
    return state._replace(wechat=wechat).with_worker(replaced(one, held, new))


def judged(product: Product, state: State, claim: Claim, reply: Reply) -> Any:
    """Return the verdict on a reply, as the sender asks for it."""
    app = product.settings.apps[APP]
    return judge(
        reply,
        kind=claim.kind,
        resumed=claim.resumed,
        tries=claim.tries,
        attempts=product.settings.attempts,
        permit_age_ms=state.now - (claim.expires_at_ms - _WEEK_MS),
        retry_when_busy=app.retry_when_busy,
        unsure=claim.unsure,
    )


def _settlers(_: World, state: State) -> Iterable[tuple[str, ...]]:
    for worker in _free(state):
        lanes = {held.claim.lane for held in _to_settle(worker)}
        for lane in sorted(lanes):
            yield worker.name, str(lane)


def _batch(worker: Worker, lane: int) -> tuple[Held, ...]:
    return tuple(held for held in _to_settle(worker) if held.claim.lane == lane)


def _to_settle(worker: Worker) -> Iterable[Held]:
    """Yield what is answered, and not on its way already."""
    under_way = worker.asking[2] if worker.asking else ()
    return (held for held in worker.hands if held.stage == ANSWERED and held not in under_way)


def _settle(
    product: Product, state: State, worker: Worker, lane: int, batch: tuple[Held, ...], token: str
) -> Any:
    settler, _, _ = product.settler(worker)
    rows = "\n".join(Answered(*_of(held)).row() for held in batch)
    args = SettleArgs(worker.name, keys.lane_prefix(lane), APP, *settler._fixed)

    place = _place(state, worker.name, token)

    def work() -> tuple[str, ...]:
        names = SettleKeys.of(lane, APP, worker.name, place)
        return tuple(product.settling(names, args, (rows,), token=token or new_token()))

    return on(
        product, state, ("settle", worker.name, lane, rows, token, place), work, one_trip=True
    )


def _of(held: Held) -> Any:
    return held.claim, held.reply, held.verdict


def _conclude(
    product: Product,
    state: State,
    worker: Worker,
    lane: int,
    batch: tuple[Held, ...],
    results: tuple[str, ...],
) -> State:
    settler, hands, _ = product.settler(worker)
    hands.take([held.claim for held in batch])
    settler._conclude(APP, lane, [Answered(*_of(held)) for held in batch], list(results), 0.0)
    kept = [held for held in worker.hands if held not in batch]
    return state.with_worker(worker._replace(hands=(*kept, *map(Held, hands.swapped))))


@action("settle", _settlers)
def settle(product: Product, state: State, worker: str, lane: str) -> State:
    """A worker settles what it has answers to, in one lane."""
    one = state.worker(worker)
    batch = _batch(one, int(lane))
    results, state = _settle(product, state, one, int(lane), batch, "")
    return _conclude(product, state, one, int(lane), batch, results)


@action(
    "settle, reply lost",
    lambda world, state: _if_lost(state, _settlers(world, state)),
)
def settle_lost(product: Product, state: State, worker: str, lane: str) -> State:
    """The script ran, and its reply is lost: the worker will ask again."""
    one = state.worker(worker)
    batch = _batch(one, int(lane))
    token = _token(worker, "settle")
    _, state = _settle(product, state.spend("reply"), one, int(lane), batch, token)
    return state.with_worker(one._replace(asking=("settle", int(lane), batch)))
