"""A state: what Redis holds, what each worker holds, and what WeChat knows, at one model moment.

Two states that differ only by names that steer nothing are one: fence tokens are compared for
being equal alone, so they are numbered anew; workers may change places.
"""

import hashlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from producers.store import keys
from workers.sending.claim import Claim
from workers.sending.verdict import Verdict
from workers.wechat.reply import Reply

from .valkey import Part, Value

NEW, MARKED, ANSWERED = "new", "marked", "answered"


class Held(NamedTuple):
    """A claim in a worker's hands.

    Attributes:
        claim: as take.lua or a swap gave it.
        stage: new, marked (posting.lua) or answered.
        reply: WeChat's, as it came; None while there is none, and when it was never posted.
        verdict: what the reply means.
    """

    claim: Claim
    stage: str = NEW
    reply: Reply | None = None
    verdict: Verdict | None = None


class Worker(NamedTuple):
    """One worker that lives.

    Attributes:
        name: as in flight entries.
        hands: what it holds.
        asking: what it asks for whose reply was lost: (what, lane, then the claims settled).
        server: the run of Redis that it knows.
        changed_at: when it saw that run change; 0: never.
        beaten_at: its last beat that was acknowledged.
    """

    name: str
    hands: tuple[Held, ...] = ()
    asking: tuple[str, int, tuple[Held, ...]] | None = None
    server: int = 1
    changed_at: int = 0
    beaten_at: int = 0


class WeChat(NamedTuple):
    """What WeChat knows; each a sorted tuple.

    Attributes:
        used: (permit, uses) that it took for a message.
        delivered: (broadcast, openid, times).
        perhaps: (use, broadcast, openid) of posts that may have used a permit.
        dead: permits that it refuses.
    """

    used: tuple[tuple[str, int], ...] = ()
    delivered: tuple[tuple[str, str, int], ...] = ()
    perhaps: tuple[tuple[str, str, str], ...] = ()
    dead: tuple[str, ...] = ()


class State(NamedTuple):
    """One state.

    Attributes:
        redis: what Redis holds.
        now: the model's clock (epoch ms).
        workers: who lives.
        wechat: what WeChat knows.
        budget: fault → how many more may happen.
        disk: what Redis would come back with, when that is not what it holds.
        run: the run of Redis that serves.
        forgot: how often it came back having forgotten something.
        forgotten: openids that were forgotten.
    """

    redis: Part
    now: int
    workers: tuple[Worker, ...]
    wechat: WeChat
    budget: tuple[tuple[str, int], ...]
    disk: Part | None = None
    run: int = 1
    forgot: int = 0
    forgotten: tuple[str, ...] = ()

    def left(self, fault: str) -> int:
        """Return how many more of a fault may happen."""
        return dict(self.budget).get(fault, 0)

    def spend(self, fault: str) -> "State":
        """Return it with one fault less to come."""
        return self._replace(budget=tuple((name, n - (name == fault)) for name, n in self.budget))

    def worker(self, name: str) -> Worker:
        """Return a worker by its name."""
        return next(one for one in self.workers if one.name == name)

    def with_worker(self, worker: Worker) -> "State":
        """Return it with this worker in place of its namesake."""
        return self._replace(
            workers=tuple(worker if one.name == worker.name else one for one in self.workers)
        )

    def digest(self, *, with_budget: bool = True) -> bytes:
        """Return what tells it from any other state."""
        rest = self if with_budget else self._replace(budget=())
        return hashlib.blake2b(repr(tuple(rest)).encode(), digest_size=16).digest()


# -- canonical ------------------------------------------------------------------------------------


def flights(part: Part) -> Iterator[tuple[int, str, str]]:
    """Yield (lane, broadcast, key) of each flight hash."""
    for name in part.keys:
        lane, _, rest = name[5:].partition("}:flight:")
        if rest:
            yield int(lane), rest, name


def canonical(state: State) -> tuple[State, dict[str, str]]:
    """Return the one state that stands for all that are alike, and who took whose name."""
    if any(worker.asking for worker in state.workers):
        return _sorted(state), {}
    state = _sorted(_renumbered(state))
    return _in_order(state)


def _sorted(state: State) -> State:
    return state._replace(
        workers=tuple(
            worker._replace(hands=tuple(sorted(worker.hands, key=_place)))
            if len(worker.hands) > 1
            else worker
            for worker in state.workers
        )
    )


def _place(held: Held) -> tuple[int, str, str, int]:
    claim = held.claim
    return claim.lane, claim.broadcast, claim.item, int(claim.fence)


def _renumbered(state: State) -> State:
    """Number the fence tokens of each lane anew, those given out after the counter's apart."""
    if state.disk is not None:
        return state  # what lies on disk has tokens too
    part = state.redis
    entries = {name: part.hash(name) for _, _, name in sorted(flights(part))}
    renamed, changes = _new_fences(state, entries)
    for name, rows in entries.items():
        lane = _lane_of(name)
        fields = {}
        for item, row in rows.items():
            words = row.split(" ")
            words[1] = renamed.get((lane, words[1]), words[1])
            fields[item] = " ".join(words)
        if fields != rows:
            changes[name] = part.with_hash(name, fields)
    if not changes:
        return state

    def anew(held: Held) -> Held:
        claim = held.claim
        fence = renamed.get((claim.lane, claim.fence), claim.fence)
        return held._replace(claim=claim._replace(fence=fence))

    workers = tuple(one._replace(hands=tuple(map(anew, one.hands))) for one in state.workers)
    return state._replace(redis=part.changed(changes), workers=workers)


def _lane_of(name: str) -> int:
    return int(name[5:].partition("}")[0])


def _new_fences(
    state: State, entries: dict[str, dict[str, str]]
) -> tuple[dict[tuple[int, str], str], dict[str, Value | None]]:
    """Return (lane, token) → its new name, in the order in which they are met, and the counters."""
    lanes: dict[int, list[str]] = {0: [], 1: []}
    for name, rows in entries.items():
        lanes[_lane_of(name)].extend(row.split(" ")[1] for row in rows.values())
    for worker in sorted(state.workers, key=lambda one: [_place(held) for held in one.hands]):
        for held in worker.hands:
            lanes[held.claim.lane].append(held.claim.fence)
    renamed: dict[tuple[int, str], str] = {}
    changes: dict[str, Value | None] = {}
    for lane, fences in lanes.items():
        name = keys.fence(lane)
        if name not in state.redis.keys:
            continue
        counter = int(state.redis.text(name))
        known = dict.fromkeys(fence for fence in fences if int(fence) <= counter)
        renamed |= {(lane, fence): str(at) for at, fence in enumerate(known, 1)}
        ahead = len(known) - counter
        renamed |= {(lane, one): str(int(one) + ahead) for one in fences if int(one) > counter}
        if ahead:
            changes[name] = (f"k{len(known)}", state.redis.keys[name][1])
    return renamed, changes


def _in_order(state: State) -> tuple[State, dict[str, str]]:
    """Give the workers the names by which their hands are in order."""
    wanted = sorted(state.workers, key=lambda one: repr(one[1:]))
    if all(one is other for one, other in zip(wanted, state.workers, strict=True)):
        return state, {}
    names = {
        old.name: new.name
        for old, new in zip(wanted, state.workers, strict=True)
        if old.name != new.name
    }
    workers = tuple(
        one._replace(name=new.name) for one, new in zip(wanted, state.workers, strict=True)
    )
    redis = renamed_workers(state.redis, names)
    disk = state.disk and renamed_workers(state.disk, names)
    return state._replace(redis=redis, workers=workers, disk=disk), names


def renamed_workers(part: Part, names: dict[str, str]) -> Part:
    """Return what Redis holds with workers under other names."""
    changes: dict[str, Value | None] = {}
    for _, _, name in flights(part):
        rows = part.hash(name)
        fields = {}
        for item, row in rows.items():
            worker, _, rest = row.partition(" ")
            fields[item] = f"{names.get(worker, worker)} {rest}"
        if fields != rows:
            changes[name] = part.with_hash(name, fields)
    if keys.WORKERS in part.keys:
        beats = {names.get(one, one): at for one, at in part.hash(keys.WORKERS).items()}
        pairs = sorted(beats.items(), key=lambda pair: (float(pair[1]), pair[0]))
        text = "z" + "\x1f".join(word for pair in pairs for word in pair)
        changes[keys.WORKERS] = (text, part.keys[keys.WORKERS][1])
    return part.changed(changes)


GHOSTS: Final = "d"
"""What the names begin with under which dead workers' flights lie."""


def ghosts(part: Part) -> set[str]:
    """Return who is dead and still has something in flight."""
    found = set()
    for _, _, name in flights(part):
        for row in part.hash(name).values():
            worker = row.partition(" ")[0]
            if worker[0] == GHOSTS:
                found.add(worker)
    return found
