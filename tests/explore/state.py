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


TOGETHER: Final = "together"
_TICK: Final = "tick"
_TOLD: Final = frozenset({"decide", "withdraw"})
"""Faults of which an invariant asks whether they happened."""
_MANY: Final = 1_000


def budget(faults: dict[str, int], together: int | None) -> tuple[tuple[str, int], ...]:
    """Return a budget of faults, of which so many may happen together.

    None is had more often than all together may be: what can happen no more makes no difference.
    """
    most = _MANY if together is None else together
    left = {
        name: n if name == _TICK or name in _TOLD else min(n, most) for name, n in faults.items()
    }
    if together is not None:
        left[TOGETHER] = together
    return tuple(sorted(left.items()))


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
        left = dict(self.budget)
        return min(left.get(fault, 0), left.get(TOGETHER, _MANY) if fault != _TICK else _MANY)

    def spend(self, fault: str) -> "State":
        """Return it with one fault less to come."""
        left = dict(self.budget)
        left[fault] -= 1
        together = left.pop(TOGETHER, None)
        if together is not None and fault != _TICK:
            together -= 1
        return self._replace(budget=budget(left, together))

    def had(self, fault: str, most: int) -> bool:
        """Say whether a fault of `_TOLD` happened, of which there may be so many."""
        return dict(self.budget).get(fault, 0) < most

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
    if not any(worker.asking for worker in state.workers):  # an answer that waits has tokens too
        state = _renumbered(_sorted(state))
    return _in_order(_sorted(state))


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
    """Number the fence tokens of each lane anew, those given out after the counter's apart.

    The counter is the one that Redis would come back with.
    """
    parts = [state.redis] if state.disk is None else [state.redis, state.disk]
    renamed, ahead = _new_fences(state, parts)
    if all(old == new for (_, old), new in renamed.items()) and not any(ahead.values()):
        return state
    redis, *disk = [_with_fences(part, renamed, ahead) for part in parts]

    def anew(held: Held) -> Held:
        claim = held.claim
        fence = renamed.get((claim.lane, claim.fence), claim.fence)
        return held._replace(claim=claim._replace(fence=fence))

    workers = tuple(one._replace(hands=tuple(map(anew, one.hands))) for one in state.workers)
    return state._replace(redis=redis, workers=workers, disk=disk[0] if disk else None)


def _with_fences(part: Part, renamed: dict[tuple[int, str], str], ahead: dict[int, int]) -> Part:
    """Return what Redis holds with other fence tokens, and its counters gone on by so many."""
    changes: dict[str, Value | None] = {}
    for lane, _, name in flights(part):
        rows, fields = part.hash(name), {}
        for item, row in rows.items():
            words = row.split(" ")
            words[1] = renamed.get((lane, words[1]), words[1])
            fields[item] = " ".join(words)
        if fields != rows:
            changes[name] = part.with_hash(name, fields)
    for lane, more in ahead.items():
        name = keys.fence(lane)
        if more and name in part.keys:
            changes[name] = (f"k{int(part.text(name)) + more}", part.keys[name][1])
    return part.changed(changes)


def _new_fences(
    state: State, parts: list[Part]
) -> tuple[dict[tuple[int, str], str], dict[int, int]]:
    """Return (lane, token) → its new name, as they are met, and lane → what its counter gains."""
    lanes: dict[int, list[str]] = {0: [], 1: []}
    for part in parts:
        for lane, _, name in sorted(flights(part)):
            lanes[lane].extend(row.split(" ")[1] for row in part.hash(name).values())
    for worker in sorted(state.workers, key=lambda one: [_place(held) for held in one.hands]):
        for held in worker.hands:
            lanes[held.claim.lane].append(held.claim.fence)
    renamed: dict[tuple[int, str], str] = {}
    ahead: dict[int, int] = {}
    for lane, fences in lanes.items():
        counter = min(int(part.text(keys.fence(lane)) or 0) for part in parts)
        known = dict.fromkeys(fence for fence in fences if int(fence) <= counter)
        renamed |= {(lane, fence): str(at) for at, fence in enumerate(known, 1)}
        ahead[lane] = len(known) - counter
        later = (one for one in fences if int(one) > counter)
        renamed |= {(lane, one): str(int(one) + ahead[lane]) for one in later}
    return renamed, ahead


def _in_order(state: State) -> tuple[State, dict[str, str]]:
    """Give the workers the names by which their hands are in order; of those alike the least."""
    wanted = sorted(state.workers, key=lambda one: repr(one[1:]))
    found = _named_as(state, wanted)
    if len(wanted) > 1 and wanted[0][1:] == wanted[1][1:]:
        # what lies in flight under their names may be known to nobody
        other = _named_as(state, [*wanted[1::-1], *wanted[2:]])
        found = min(found, other, key=lambda one: (one[0].digest(), len(one[1])))
    return found


def _named_as(state: State, wanted: list[Worker]) -> tuple[State, dict[str, str]]:
    """Give the workers the names of those that stand in their places."""
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
    for name in [name for name in part.keys if "}:reply:" in name]:
        owner = next((old for old in names if name.endswith(old)), "")
        if owner:  # who is the last word of the key, and stands in the token
            text, until = part.keys[name]
            text = text.replace(f"-{owner}-", f"-{names[owner]}-", 1)
            changes.setdefault(name, None)
            changes[name.removesuffix(owner) + names[owner]] = (text, until)
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
