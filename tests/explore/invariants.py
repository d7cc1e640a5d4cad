"""What holds in every state: a table of invariants, each a function that yields what is broken.

All are read from the state alone; nothing asks the server.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final, NoReturn

from lasting_keys import LASTING

from producers.broadcasts.lifecycle import RESTORED
from producers.store import keys

from .product import APP, BUCKETS
from .state import State, flights
from .valkey import MODEL_MS, Part
from .world import World

Check = Callable[[World, State], Iterator[str]]
INVARIANTS: Final[dict[str, tuple[Check, bool]]] = {}
HOUR_MS: Final = 3_600_000
VOIDING: Final = frozenset({"refused", "invalid_user", "bad_data", "failed"})
"""Outcomes that may leave the permit void with which they were found out."""


class BrokenError(AssertionError):
    """Something does not hold.

    Attributes:
        name: of the invariant.
        what: how it does not.
    """

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name}: {what}")
        self.name, self.what = name, what

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return BrokenError, (self.name, self.what)


def broken(name: str, what: str) -> NoReturn:
    """Say that something does not hold."""
    raise BrokenError(name, what)


def invariant(name: str, *, of_redis: bool = False) -> Callable[[Check], Check]:
    """Enter a function as an invariant under a name.

    Args:
        name: of the invariant.
        of_redis: it asks for nothing but what Redis holds, and whether it was ever restarted.
    """

    def entered(check: Check) -> Check:
        INVARIANTS[name] = check, of_redis
        return check

    return entered


_sound: set[tuple[str, int, bool]] = set()
_REMEMBERED: Final = 1_000_000


def look(world: World, state: State) -> None:
    """Check them all; those of Redis alone once for all states that hold it.

    Raises:
        BrokenError: the first that does not hold.
    """
    known = world.name, state.redis.digest, state.run > 1
    for name, (check, of_redis) in INVARIANTS.items():
        if of_redis and known in _sound:
            continue
        for what in check(world, state):
            broken(name, what)
    if len(_sound) > _REMEMBERED:
        _sound.clear()
    _sound.add(known)


@invariant("I1 each use of a permit is in one place", of_redis=True)
def _uses(world: World, state: State) -> Iterator[str]:
    """Available, held, spent, void and expired make up what was collected."""
    part = state.redis
    for lane in range(world.lanes):
        ledger = part.hash(keys.ledger(lane, APP))
        stock = part.hash(keys.stock(lane, APP))
        stock.pop("trimmed", None)
        held = _held(part, lane)
        for kind in "fps":
            available = sum(int(n) for name, n in stock.items() if name[0] == kind)
            fates = ("spent", "void", "expired")
            gone = sum(int(ledger.get(f"{fate}:{kind}", 0)) for fate in fates)
            collected = int(ledger.get(f"collected:{kind}", 0))
            if available + held[kind] + gone != collected:
                yield (
                    f"lane {lane}, {kind}: {available} available, {held[kind]} held, {gone} gone,"
                    f" {collected} collected"
                )


def _held(part: Part, lane: int) -> Counter[str]:
    held: Counter[str] = Counter()
    for of, _, name in flights(part):
        for row in part.hash(name).values() if of == lane else ():
            member, expires = row.split(" ")[2:4]
            held[member[0]] += member[0] != "s" or expires == "1"
    return held


@invariant("I1 the stock is what users have", of_redis=True)
def _stocked(world: World, state: State) -> Iterator[str]:
    part = state.redis
    for lane in range(world.lanes):
        stock = part.hash(keys.stock(lane, APP))
        since = max(1, int(stock.pop("trimmed", 0)) * HOUR_MS)
        theirs: Counter[str] = Counter()
        for openid in world.users:
            scores = part.hash(keys.permits(lane, APP, openid)).items()
            ends = [(member[0], int(float(at))) for member, at in scores if float(at) >= since]
            theirs.update(f"{kind}:{at // HOUR_MS}" for kind, at in ends)
            if ends:
                theirs[f"u:{max(at for _, at in ends) // HOUR_MS}"] += 1
            for template, n in part.hash(keys.subscriptions(lane, APP, openid)).items():
                theirs[f"s:{template}"] += int(n)
        if +theirs != Counter({name: int(n) for name, n in stock.items()}):
            yield f"lane {lane}: users have {dict(theirs)}, the stock says {stock}"


@invariant("I1 what WeChat took is not to be had")
def _taken(world: World, state: State) -> Iterator[str]:
    if state.forgot:
        return
    used = {permit: n for permit, n in state.wechat.used if permit[0] != "s"}
    if not used:
        return
    part = state.redis
    for lane in range(world.lanes):
        for openid in world.users:
            if openid in state.forgotten:
                continue  # whoever gives permits afterwards is a new user, of whom nothing is known
            scores = part.hash(keys.permits(lane, APP, openid))
            free = Counter(
                ":".join(member.split(":")[:2]) for member, at in scores.items() if float(at) > 0
            )
            for permit, n in free.items():
                if n + used.get(permit, 0) > world.given(permit):
                    yield f"{permit}: WeChat took {used[permit]}, {n} can be had"


@invariant("I2 each recipient is in one place", of_redis=True)
def _recipients(world: World, state: State) -> Iterator[str]:
    part = state.redis
    for broadcast in part.hash(keys.history(APP)):
        for lane in range(world.lanes):
            copy = part.hash(keys.lane_broadcast(lane, broadcast))
            if not copy:
                continue
            waits = part.words(keys.queue(lane, broadcast))
            waits += part.hash(keys.delayed(lane, broadcast))
            written = [
                (openid, outcome)
                for bucket in range(BUCKETS)
                for openid, outcome in part.hash(keys.outcomes(lane, broadcast, bucket)).items()
            ]
            rows = part.hash(keys.flight(lane, broadcast))
            resumed = {item for item, row in rows.items() if row[:2] == "- "}
            places = [item.partition(":")[2] for item in [*waits, *(rows.keys() - resumed)]]
            places += [openid for openid, _ in written]
            twice = [openid for openid, n in Counter(places).items() if n > 1]
            if twice:
                yield f"{broadcast} lane {lane}: {twice} in two places"
            sweeping = int(copy.get("sweeping", 0))
            lost = resumed - {*waits}
            if lost and not sweeping:
                yield f"{broadcast} lane {lane}: {lost} resumed, and queued nowhere"
            counted = {
                name[2:]: int(n) for name, n in copy.items() if name[:2] == "o:" and n != "0"
            }
            have = Counter(outcome.partition(" ")[0] for _, outcome in written)
            dropped = (
                counted.get(copy.get("drop") or "cancelled", 0)
                - have[copy.get("drop") or "cancelled"]
            )
            if copy.get("drop") != "cancelled" and copy.get("drop"):
                dropped += counted.get("cancelled", 0) - have["cancelled"]
            if sum(counted.values()) != sum(have.values()) + dropped or dropped < 0:
                yield f"{broadcast} lane {lane}: {counted} counted, {dict(have)} written"
            if int(copy.get("done", 0)) != sum(counted.values()):
                yield f"{broadcast} lane {lane}: {copy.get('done')} done, {counted} counted"
            whole = len(places) + dropped + sweeping - int(copy.get("swept", 0))
            if int(copy.get("total", 0)) != whole:
                yield f"{broadcast} lane {lane}: {copy.get('total')} in all, {whole} found"


@invariant("I3 nobody is delivered twice")
def _once(world: World, state: State) -> Iterator[str]:
    for broadcast, openid, times in state.wechat.delivered:
        most = 1
        if state.forgot and _is_repeatable(world, openid):
            most += state.forgot
        if times > most:
            yield f"{openid} was delivered {broadcast} {times} times"


def _is_repeatable(world: World, openid: str) -> bool:
    """Say whether a Redis that forgot may have sent somebody's message again."""
    return world.channel == "subscribe" or "prepayId" in world.users[openid]


@invariant("I2 what is recorded is what was")
def _truth(world: World, state: State) -> Iterator[str]:
    """Who is recorded as delivered was; who was delivered is recorded so, or in doubt."""
    part = state.redis
    reached = {(broadcast, openid) for broadcast, openid, _ in state.wechat.delivered}
    for broadcast in part.hash(keys.history(APP)):
        for lane in range(world.lanes):
            for bucket in range(BUCKETS):
                written = part.hash(keys.outcomes(lane, broadcast, bucket)).items()
                for openid, outcome in written:
                    was = (broadcast, openid) in reached
                    if openid in world.users and not _may_be(state, was, outcome):
                        yield f"{broadcast} {openid} is {outcome}, delivered: {was}"


def _may_be(state: State, was: bool, outcome: str) -> bool:
    word = outcome.partition(" ")[0]
    if outcome.endswith(" operator"):  # who decides without knowing
        return True
    if state.forgot:  # what it forgot may have been told before
        return not was or word != "refused"
    if not was:
        return word != "delivered"
    return word in {"delivered", "in_doubt"} or outcome.endswith(" receipt")


@invariant("I2 finished is what has an outcome for everybody", of_redis=True)
def _finished(world: World, state: State) -> Iterator[str]:
    part = state.redis
    for broadcast in part.hash(keys.history(APP)):
        home = part.hash(keys.home(world.layout.home_of(broadcast), broadcast))
        if home.get("state") == "finished":
            for lane in range(world.lanes):
                copy = part.hash(keys.lane_broadcast(lane, broadcast))
                if int(copy.get("done", 0)) < int(copy.get("total", 0)):
                    yield f"{broadcast} lane {lane}: {copy.get('done')} of {copy.get('total')}"


@invariant("I8 a restart that keeps all pauses nothing")
def _kept(world: World, state: State) -> Iterator[str]:
    if state.forgot:
        return
    for broadcast in state.redis.hash(keys.history(APP)):
        home = state.redis.hash(keys.home(world.layout.home_of(broadcast), broadcast))
        if home.get("reason", "").startswith(RESTORED):
            yield broadcast


@invariant("I7 a refusal voids its own permit alone before the first delivery")
def _voided(world: World, state: State) -> Iterator[str]:
    if state.wechat.delivered or state.forgotten or world.channel != "subscribe":
        return
    if world.posts:  # a single message has no canary: it takes the next permit at once
        return
    if state.had("withdraw", world.faults.get("withdraw", 0)):  # that voids too
        return
    part = state.redis
    void = sum(int(part.hash(keys.ledger(n, APP)).get("void:s", 0)) for n in range(world.lanes))
    refused = 0
    for broadcast in part.hash(keys.history(APP)):
        home = part.hash(keys.home(world.layout.home_of(broadcast), broadcast))
        if home.get("state") == "finished":
            return  # who was refused is believed now
        for lane in range(world.lanes):
            for bucket in range(BUCKETS):
                outcomes = part.hash(keys.outcomes(lane, broadcast, bucket)).values()
                refused += sum(outcome.partition(" ")[0] in VOIDING for outcome in outcomes)
    if void > refused:
        yield f"{void} are void, {refused} were refused"


@invariant("a user is sent one message at a time")
def _one_at_a_time(world: World, state: State) -> Iterator[str]:
    if state.now > MODEL_MS:  # a turn may be over
        return
    held = Counter(
        item.partition(":")[2]
        for _, _, name in flights(state.redis)
        for item, row in state.redis.hash(name).items()
        if row.partition(" ")[0] not in {"-", "aside"}
    )
    yield from (f"{openid}: {n} messages are held" for openid, n in held.items() if n > 1)


@invariant("what lies under a worker's name is in its hands")
def _in_hand(world: World, state: State) -> Iterator[str]:
    if state.forgot or state.run > 1:
        return
    held = {
        (worker.name, one.claim.lane, one.claim.fence)
        for worker in state.workers
        for one in worker.hands
    }
    asks = {worker.name for worker in state.workers if worker.asking}
    for lane, _, name in flights(state.redis):
        for item, row in state.redis.hash(name).items():
            worker, fence = row.split(" ")[:2]
            lives = worker in world.names and worker not in asks
            if lives and (worker, lane, fence) not in held:
                yield f"{item} of {worker}: in flight, and not in its hands"


@invariant("I7 at most K permits are at risk before the first delivery")
def _at_risk(world: World, state: State) -> Iterator[str]:
    if state.forgot or state.run > 1:
        return
    if state.had("decide", world.faults.get("decide", 0)):  # an operator's replay may go beyond K
        return
    part = state.redis
    for broadcast in part.hash(keys.history(APP)):
        copies = [part.hash(keys.lane_broadcast(lane, broadcast)) for lane in range(world.lanes)]
        if any(copy.get("open") == "1" for copy in copies):
            continue
        at_risk = sum(
            row.split(" ")[0] != "aside"
            for lane in range(world.lanes)
            for row in part.hash(keys.flight(lane, broadcast)).values()
        )
        met = max(
            int(copy.get("template_errors", 0)) + int(copy.get("refusals", 0)) for copy in copies
        )
        if at_risk + met > world.canary:
            yield f"{broadcast}: {at_risk} in flight and {met} refused, K is {world.canary}"


@invariant("every key has an end, or stands among the lasting ones", of_redis=True)
def _ends(_: World, state: State) -> Iterator[str]:
    for name, (_value, until) in state.redis.keys.items():
        if until < 0 and not _lasts(name):
            yield name


_known: dict[str, bool] = {}


def _lasts(name: str) -> bool:
    found = _known.get(name)
    if found is None:
        found = _known[name] = bool(re.fullmatch(LASTING, name))
    return found
