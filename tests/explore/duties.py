"""Actions beside the sending: deaths, recovery, the keeper, moves, time, users, receipts."""

from collections.abc import Iterable
from typing import Any, Final

from producers.broadcasts.spec import Spec
from producers.store import keys
from workers.sending.claim import Claim
from workers.sending.sender import _UNSENT
from workers.wechat.reply import Fate, Reply

from .actions import action, broadcasts, on, serves
from .invariants import broken
from .product import APP, Product
from .sending import judged
from .state import ANSWERED, GHOSTS, Held, State, Worker, flights, ghosts, renamed_workers
from .valkey import MODEL_MS
from .wechat import msgid_of
from .world import TEMPLATE, World

LONG_MS: Final = 16_000
"""Longer than a user's turn, and than what lies in flight is left alone."""
_SOON_MS: Final = 600_000


@action(
    "die",
    lambda _, state: (
        ((one.name,) for one in state.workers if one.hands or one.asking)
        if state.left("death")
        else ()
    ),
)
def die(_: Product, state: State, worker: str) -> State:
    """A worker is killed; another one begins under its name. Its flights lie under a ghost's."""
    there = ghosts(state.redis)
    ghost = next(name for n in range(1, 9) if (name := f"{GHOSTS}{n}") not in there)
    if state.disk is not None:
        state = state._replace(disk=renamed_workers(state.disk, {worker: ghost}))
    beats = state.redis.hash(keys.WORKERS)
    redis = renamed_workers(state.redis, {worker: ghost})
    redis = redis.changed({keys.WORKERS: state.redis.keys[keys.WORKERS]}) if beats else redis
    known = state.redis.text(keys.SERVER) == f"run{state.run}"
    born = Worker(worker, server=state.run if known else 0)
    return state.spend("death")._replace(redis=redis).with_worker(born)


def _lost(world: World, state: State) -> Iterable[tuple[str, ...]]:
    burials = state.left("burial")
    called = {broadcast: name for name, broadcast in broadcasts(state).items()}
    if not any(serves(state, one) for one in state.workers):
        return
    for lane, broadcast, name in sorted(flights(state.redis)):
        holders = {row.partition(" ")[0] for row in state.redis.hash(name).values()}
        for holder in sorted(holders - {"-", "aside"}):
            if holder[0] == GHOSTS or burials:
                yield holder, called[broadcast], str(lane)


@action("recover", _lost)
def recover(product: Product, state: State, dead: str, name: str, lane: str) -> State:
    """A worker's messages of a broadcast are taken back; it is dead, or only taken for it."""
    if dead[0] != GHOSTS:
        state = state.spend("burial")
    broadcast = broadcasts(state)[name]
    _, state = on(
        product,
        state,
        ("recover", dead, broadcast, lane),
        lambda: product.recoverer_alone.recover(APP, broadcast, int(lane), dead),
        one_trip=True,
    )
    return state


def _lookers(_: World, state: State) -> Iterable[tuple[str, ...]]:
    if state.now > MODEL_MS and any(True for _ in flights(state.redis)):
        for worker in state.workers:
            if serves(state, worker) and not (worker.asking and worker.asking[0] == "take"):
                yield (worker.name,)


@action("look at flights", _lookers)
def look(product: Product, state: State, worker: str) -> State:
    """A worker looks for what nobody who lives holds, and for what it has forgotten itself."""
    one = state.worker(worker)

    def work() -> tuple[tuple[Claim, ...], tuple[Claim, ...]]:
        back: list[Claim] = []
        given_up: list[Claim] = []
        product.flights(one, back.extend, given_up.extend).run()
        return tuple(back), tuple(given_up)

    claims = tuple(held.claim for held in one.hands)
    knows = one.name, one.server, one.changed_at, one.beaten_at
    (back, given_up), state = on(product, state, ("look", knows, claims), work)
    forgotten = Reply(Fate.FORGOTTEN, errmsg="forgotten")
    new = [Held(claim, ANSWERED, None, _UNSENT) for claim in back]
    new += [
        Held(claim, ANSWERED, forgotten, judged(product, state, claim, forgotten))
        for claim in given_up
    ]
    known = {(held.claim.lane, held.claim.fence) for held in one.hands}
    new = [held for held in new if (held.claim.lane, held.claim.fence) not in known]
    return state.with_worker(one._replace(hands=(*one.hands, *new)))


def _due(world: World, state: State) -> Iterable[tuple[str, ...]]:
    if any(serves(state, one) for one in state.workers):
        for lane in range(world.lanes):
            for name in (keys.due(lane), keys.doing(lane)):
                if any(float(at) <= state.now for at in state.redis.hash(name).values()):
                    yield (str(lane),)
                    break


@action("keep", _due)
def keep(product: Product, state: State, lane: str) -> State:
    """A pass of the keeper over one lane: all that it wants is done."""
    _, after = on(product, state, ("keep", lane), lambda: product.look_after(int(lane)) or False)
    for broadcast in broadcasts(state).values():
        home, then = _home(state, broadcast), _home(after, broadcast)
        stopped = home["state"] == "running" and then["state"] in {"paused", "aborted"}
        if stopped and not _has_a_word(product.world, state, broadcast, home["generation"]):
            broken("a lane's word on what was before moves nothing", broadcast)
    return after


def _has_a_word(world: World, state: State, broadcast: str, generation: str) -> bool:
    """Say whether a lane that knows the newest generation wants the broadcast stopped."""
    copies = [state.redis.hash(keys.lane_broadcast(n, broadcast)) for n in range(world.lanes)]
    return any(one.get("verdict") and one["generation"] == generation for one in copies)


# -- moves of a broadcast, which lanes take over one by one ----------------------------------------


def _moves(_: World, state: State) -> Iterable[tuple[str, ...]]:
    for name, broadcast in broadcasts(state).items():
        is_state = _home(state, broadcast).get("state")
        if is_state == "running" and state.left("move"):
            yield "pause", name
        if is_state in {"running", "paused"} and state.left("move"):
            yield "cancel", name
        if is_state == "paused":
            yield "resume", name


def _home(state: State, broadcast: str) -> dict[str, str]:
    for lane in (0, 1):
        if home := state.redis.hash(keys.home(lane, broadcast)):
            return home
    return {}


@action("move", _moves)
def move(product: Product, state: State, verb: str, name: str) -> State:
    """Somebody pauses, resumes or cancels, and dies before any lane hears of it."""
    broadcast = broadcasts(state)[name]
    if verb != "resume":
        state = state.spend("move")

    def work() -> None:
        if verb == "resume":
            product.at_home.resume(broadcast, after_restore=True)
        else:
            getattr(product.at_home, verb)(broadcast)

    return on(product, state, ("move", verb, broadcast), work)[1]


def _behind(world: World, state: State) -> Iterable[tuple[str, ...]]:
    for name, broadcast in broadcasts(state).items():
        newest = int(_home(state, broadcast).get("generation", 0))
        for lane in range(world.lanes):
            copy = state.redis.hash(keys.lane_broadcast(lane, broadcast))
            if int(copy.get("generation", -1)) < newest:
                yield name, str(lane)


@action("adopt", _behind)
def adopt(product: Product, state: State, name: str, lane: str) -> State:
    """A lane takes over its broadcast's newest generation; what waited is not swept yet."""
    broadcast = broadcasts(state)[name]

    def work() -> None:
        home = product.at_home._home(broadcast)
        spec = Spec.from_json(home["spec"])
        product.at_home._adoption(int(lane), broadcast, home, spec).run()

    return on(product, state, ("adopt", broadcast, lane), work)[1]


def _swept(world: World, state: State) -> Iterable[tuple[str, ...]]:
    for name, broadcast in broadcasts(state).items():
        for lane in range(world.lanes):
            if "sweeping" in state.redis.hash(keys.lane_broadcast(lane, broadcast)):
                yield name, str(lane)


@action("sweep", _swept)
def sweep(product: Product, state: State, name: str, lane: str) -> State:
    """What waited, perhaps sent, of a dropped broadcast is told apart."""
    broadcast = broadcasts(state)[name]
    work = lambda: product.broadcasts._sweep_in(int(lane), broadcast, APP)  # noqa: E731
    return on(product, state, ("sweep", broadcast, lane), work)[1]


def _unsplit(world: World, state: State) -> Iterable[tuple[str, ...]]:
    for name, broadcast in broadcasts(state).items():
        for lane in range(world.lanes):
            if state.redis.hash(keys.lane_broadcast(lane, broadcast)).get("split") == "":
                yield name, str(lane)


@action("split", _unsplit)
def split(product: Product, state: State, name: str, lane: str) -> State:
    """Whoever was asked to splits a broadcast in one lane."""
    broadcast = broadcasts(state)[name]
    work = lambda: product.splitter.fill(broadcast, int(lane))  # noqa: E731
    return on(product, state, ("split", broadcast, lane), work)[1]


# -- users, receipts -------------------------------------------------------------------------------


def _receipts(_: World, state: State) -> Iterable[tuple[str, ...]]:
    if state.left("receipt"):
        called = {broadcast: name for name, broadcast in broadcasts(state).items()}
        for broadcast, openid, _times in state.wechat.delivered:
            for errcode in ("0", "1"):
                yield called[broadcast], openid, errcode


@action("receipt", _receipts)
def receipt(product: Product, state: State, name: str, openid: str, errcode: str) -> State:
    """WeChat's word on a send: before its answer, after it, or again."""
    broadcast = broadcasts(state)[name]
    given: dict[str, Any] = {"msgid": msgid_of(broadcast, openid), "errcode": int(errcode)}
    _, state = on(
        product,
        state.spend("receipt"),
        ("receipt", openid, *given.values()),
        lambda: product.receipts.settle(APP, openid, TEMPLATE, **given, at_ms=state.now),
    )
    return state


@action(
    "forget",
    lambda world, state: (
        ((openid,) for openid in world.users if openid not in state.forgotten)
        if state.left("forget")
        else ()
    ),
)
def forget(product: Product, state: State, openid: str) -> State:
    """A user is forgotten everywhere."""
    product.seed = f"{openid} {state.now}"
    work = lambda: product.forgetter.forget(APP, openid) and None  # noqa: E731
    _, state = on(product, state.spend("forget"), ("forget", openid), work)
    return state._replace(forgotten=(*state.forgotten, openid))


@action(
    "collect",
    lambda world, state: ((openid,) for openid in world.users) if state.left("collect") else (),
)
def collect(product: Product, state: State, openid: str) -> State:
    """A phone uploads once more what it gave before."""
    work = lambda: product.give(openid, anew=True)  # noqa: E731
    return on(product, state.spend("collect"), ("collect", openid), work)[1]


@action(
    "withdraw",
    lambda world, state: ((one,) for one in world.users) if state.left("withdraw") else (),
)
def withdraw(product: Product, state: State, openid: str) -> State:
    """A user takes back what was accepted, as far as the phone says."""
    upload = {"openid": openid, "subscriptions": {TEMPLATE: "reject"}, "id": "withdrawn"}
    work = lambda: product.collector.collect(APP, [upload]) and None  # noqa: E731
    return on(product, state.spend("withdraw"), ("withdraw", openid), work)[1]


def _decided(world: World, state: State) -> Iterable[tuple[str, ...]]:
    for name, broadcast in broadcasts(state).items() if state.left("decide") else ():
        for lane in range(world.lanes):
            if keys.doubts(lane, broadcast) in state.redis.keys:
                yield name, "delivered"
                yield name, "failed"
            rows = state.redis.hash(keys.flight(lane, broadcast)).values()
            if any(row.startswith("aside ") for row in rows):
                yield name, "replay"
                yield name, "doubt"


@action("decide", _decided)
def decide(product: Product, state: State, name: str, what: str) -> State:
    """An operator decides on what is in doubt, or was set aside."""
    broadcast = broadcasts(state)[name]

    def work() -> None:
        if what in {"replay", "doubt"}:
            product.doubts.aside(broadcast, replay=what == "replay")
        else:
            product.doubts.decide(broadcast, what)

    return on(product, state.spend("decide"), ("decide", broadcast, what), work)[1]


# -- time ------------------------------------------------------------------------------------------


def next_ms(world: World, state: State) -> int | None:
    """Return when something is due that is not yet, within ten minutes."""
    found = []
    for lane in range(world.lanes):
        names = [keys.due(lane), keys.doing(lane)]
        names += [keys.delayed(lane, one) for one in broadcasts(state).values()]
        for name in names:
            found += [int(float(at)) for at in state.redis.hash(name).values()]
    return min((at for at in found if state.now < at < state.now + _SOON_MS), default=None)


@action(
    "tick",
    lambda world, state: (
        ((("next",), ("long",)) if next_ms(world, state) else (("long",),))
        if state.left("tick")
        else ()
    ),
)
def tick(product: Product, state: State, how: str) -> State:
    """The clock goes on: to what is due next, or past all leases. All who live beat."""
    following = next_ms(product.world, state)
    now = following if how == "next" and following else state.now + LONG_MS
    state = state.spend("tick")._replace(now=now, redis=state.redis.ended(now))
    if "restart" not in product.world.faults:
        return state
    for worker in state.workers:
        if serves(state, worker):
            work = lambda name=worker.name: product.beats(name)  # noqa: E731
            _, state = on(product, state, ("beat", worker.name), work, one_trip=True)
            state = state.with_worker(worker._replace(beaten_at=now))
    return state
