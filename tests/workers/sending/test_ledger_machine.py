"""The permit ledger as a state machine: the real scripts against a model in Python.

The model does not foresee whose turn take.lua gives; it judges what was given. Every claim, delay
and outcome must be one that the rules allow at that moment, and after every step what lies in Redis
must be what the model knows: each use in one place (I1), each recipient in one place (I2).
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from lane_driver import (
    HOUR,
    LEASE,
    MARGIN,
    WEEK,
    Claimed,
    Item,
    Lane,
    Settled,
    Taken,
    form,
    prepay,
    row,
    subscription,
    swapped,
)

from producers.store.scripts import new_token

OPENIDS = ("anna", "bert", "carl")
BROADCASTS = 6
CAP = 4
MOST_DEAD = 3
"""Permits of a user that may prove dead in a day: see permit.lua."""
ATTEMPTS = 3
TEMPLATE = "T"

EXPIRIES = (-1, 0, 1, MARGIN, 40_000, HOUR, 3 * HOUR, 30 * 24 * HOUR, "")
WORKER = st.sampled_from(["w1", "w2"])
WAITS = st.sampled_from([0, 700, 1000])
DAY = 24 * HOUR
PASSING = (1, 500, LEASE + 1, 20 * 60_000, 5 * HOUR)
TIMED = st.builds(
    lambda kind, name, ends: (kind(name, 0), ends),
    st.sampled_from([form, form, prepay]),
    st.sampled_from("ABCDEF"),
    st.sampled_from(EXPIRIES),
)
COUNTED = st.builds(
    lambda verdict, source, at: (subscription(verdict, TEMPLATE, source=source), at),
    st.sampled_from(["accept", "accept", "accept", "reject", "correct", "forever"]),
    st.sampled_from(["", "", "e1", "e2"]),
    st.sampled_from(["", 0, -1, -3 * HOUR]),
)


@dataclass
class Use:
    """One use of a form_id or prepay_id that Redis still knows."""

    expires: int
    state: str = "available"


@dataclass
class Subscription:
    """What a user's accepts of the one template amount to."""

    count: int = 0
    void_until: int = -1
    voided_at: int = -1
    seen: dict[str, int] = field(default_factory=dict)  # source → when it was accepted


@dataclass
class Flight:
    """A message that may be unanswered; the worker is '-' while it waits."""

    worker: str
    fence: int
    member: str
    expires: int
    since: int
    tries: int
    resumed: bool


@dataclass
class Broadcast:
    """A lane's part of a broadcast."""

    channel: str
    members: set[str]
    state: str = "running"
    drop: str = ""
    generation: int = 1
    split: bool = False
    waiting: dict[str, str] = field(default_factory=dict)
    """openid → queued or delayed."""
    flight: dict[str, Flight] = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    tries: Counter[str] = field(default_factory=Counter)
    suspects: list[tuple[str, int, int]] = field(default_factory=list)
    """openid, when it was refused, accepts that it had then."""

    @property
    def done(self) -> int:
        return len(self.outcomes) + self.dropped.total()


class Ledger(RuleBasedStateMachine):
    """Rules are what producers, workers, operators and time do to a lane."""

    def __init__(self, client: "redis.Redis") -> None:
        super().__init__()
        client.flushall()
        self.lane = Lane(client)
        self.uses: dict[str, dict[str, Use]] = {openid: {} for openid in OPENIDS}
        self.subs = {openid: Subscription() for openid in OPENIDS}
        self.ledger: Counter[str] = Counter()
        self.dead: Counter[tuple[str, int]] = Counter()
        self.broadcasts: dict[str, Broadcast] = {}
        self.claims: list[tuple[str, Claimed]] = []
        self.last_fence = 0
        self.last_take: tuple[str, int, str, Taken] | None = None
        self.last_settle: tuple[str, list[str], str, Settled] | None = None
        self.last_collect: tuple[dict[str, list[Item]], str, list[int]] | None = None

    # -- what the model knows -------------------------------------------------------------------

    @property
    def now(self) -> int:
        return self.lane.now_ms

    def expire(self, use: Use, member: str) -> None:
        if use.state == "available":
            use.state = "expired"
            self.ledger[f"expired:{member[0]}"] += 1

    def usable(self, openid: str, skip: str = "-") -> list[tuple[int, str]]:
        """Return (expires, member) of what may be claimed, the one that ends first at the front."""
        return sorted(
            (use.expires, member)
            for member, use in self.uses[openid].items()
            if use.state == "available" and use.expires > self.now + MARGIN and member[0] != skip
        )

    def may_claim(self, openid: str, channel: str, skip: str = "-") -> bool:
        if channel == "subscribe":
            return self.subs[openid].count != 0
        return bool(self.usable(openid, skip))

    def claim(self, openid: str, channel: str, member: str, expires: int, skip: str = "-") -> None:
        """Judge a fresh claim, and hold its use."""
        if channel == "subscribe":
            known = self.subs[openid]
            assert (member, expires) == (f"s:{TEMPLATE}", 1 if known.count > 0 else 0)
            assert known.count != 0
            if known.count > 0:
                known.count -= 1
            return
        usable = self.usable(openid, skip)
        assert (expires, member) in usable, "claimed what is not available"
        assert expires == usable[0][0], "another permit ends before it"
        self.uses[openid][member].state = "held"

    def end(self, openid: str, flight: Flight, fate: str) -> None:
        """Give a held use its fate: spent, void, or back."""
        member, expires = flight.member, flight.expires
        if member[0] == "s":
            if expires == 0:
                return
            known = self.subs[openid]
            if fate == "back" and known.voided_at < flight.since and known.count >= 0:
                known.count += 1
            else:
                self.ledger[f"{'void' if fate == 'back' else fate}:s"] += 1
            return
        if fate == "back":
            fate = "available" if expires > self.now else "expired"
        use = self.uses[openid].get(member)
        if use and use.expires == expires:
            assert use.state == "held"
            use.state = fate
        if fate != "available":
            self.ledger[f"{fate}:{member[0]}"] += 1

    def void_all(self, openid: str, channel: str) -> None:
        if channel == "subscribe":
            self.void_subscription(openid, self.now)
            return
        for member, use in self.uses[openid].items():
            if use.state == "available" and use.expires > self.now:
                use.state = "void"
                self.ledger[f"void:{member[0]}"] += 1

    def void_subscription(self, openid: str, until: int, keep: int = 0) -> None:
        known = self.subs[openid]
        kept = min(known.count, keep)  # an unlimited one is -1, and kept with any
        self.ledger["void:s"] += max(0, known.count - kept)
        known.count, known.voided_at = (kept if keep else 0), self.now
        known.void_until = max(known.void_until, until)

    def being_sent_to(self, openid: str, but: str = "") -> bool:
        return any(
            name != but
            and (flight := one.flight.get(openid))
            and flight.worker not in ("-", "aside")
            and flight.since + LEASE > self.now
            for name, one in self.broadcasts.items()
        )

    # -- producing ------------------------------------------------------------------------------

    @rule(
        users=st.dictionaries(
            st.sampled_from(OPENIDS),
            st.lists(st.one_of(TIMED, TIMED, COUNTED), min_size=1, max_size=4),
            min_size=1,
        )
    )
    def collect(self, users: dict[str, list[tuple[Item, Any]]]) -> None:
        self.collect_from(users)

    def collect_from(self, users: dict[str, list[tuple[Item, Any]]]) -> None:
        given: dict[str, list[Item]] = {}
        expected: list[int] = []
        evicted = 0
        for openid, items in users.items():
            mine = self.uses[openid]
            if any(item[0] != "s" for item, _ in items):
                for member in [name for name, use in mine.items() if use.expires <= self.now]:
                    self.expire(mine[member], member)
                    del mine[member]
            given[openid] = []
            for (kind, name, _, verdict, source, _), when in items:
                at = when if when == "" else self.now + when
                if kind == "s":
                    given[openid].append((kind, name, "", verdict, source, at))
                    result, over = self.add_subscription(openid, verdict, source, at)
                    evicted += over
                else:
                    given[openid].append((kind, name, at, "", "", ""))
                    result = self.add_permit(openid, kind, name, at)
                expected.append(result)
            if any(item[0] != "s" for item in given[openid]):
                evicted += self.evict(openid)
        token = new_token()
        answer = self.lane.collect(given, cap=CAP, token=token)
        assert answer == [*expected, evicted]
        self.last_collect = (given, token, answer)

    def add_permit(self, openid: str, kind: str, name: str, at: int | str) -> int:
        ends = min(int(at), self.now + WEEK) if at != "" else self.now + WEEK
        if ends <= self.now:
            return -1
        names = [f"f:{name}"] if kind == "f" else [f"p:{name}:{use}" for use in (1, 2, 3)]
        fresh = [member for member in names if member not in self.uses[openid]]
        for member in fresh:
            self.uses[openid][member] = Use(ends)
            self.ledger[f"collected:{kind}"] += 1
        return int(bool(fresh))

    def add_subscription(
        self, openid: str, verdict: str, source: str, at: int | str
    ) -> tuple[int, int]:
        known = self.subs[openid]
        given_at = self.now if at == "" else min(int(at), self.now)
        if verdict == "correct":
            return -3, 0
        if source and source in known.seen:
            return 0, 0
        if source:
            known.seen[source] = -1 if verdict == "reject" else given_at
        if verdict == "reject":
            since = max(given_at, known.void_until)
            later = sum(given > since for given in known.seen.values()) if at != "" else 0
            self.void_subscription(openid, given_at, keep=later)
            return -4, 0
        if at != "" and given_at <= known.void_until:
            return -2, 0
        if verdict == "forever":
            self.ledger["void:s"] += max(0, known.count)
            was, known.count = known.count, -1
            return int(was != -1), 0
        if known.count == -1:
            return 0, 0
        if known.count >= CAP:
            return 0, 1
        known.count += 1
        self.ledger["collected:s"] += 1
        return 1, 0

    def evict(self, openid: str) -> int:
        alive = sorted(
            (use.expires, member)
            for member, use in self.uses[openid].items()
            if use.state == "available" and use.expires > self.now
        )
        over = alive[: max(0, len(alive) - CAP)]
        for _, member in over:
            self.uses[openid][member].state = "void"
            self.ledger[f"void:{member[0]}"] += 1
        return len(over)

    @initialize(
        channels=st.permutations(["template", "template", "subscribe"]),
        canary=st.sampled_from([2, 6]),
    )
    def begin(self, channels: list[str], canary: int) -> None:
        """Start in the middle of things: everybody has permits, and broadcasts are running."""
        self.lane.canary = canary
        accepts = [(subscription("accept", TEMPLATE), "")] * 3
        timed = [(form("A", 0), 3 * HOUR), (form("B", 0), ""), (prepay("C", 0), HOUR)]
        for openid in OPENIDS:
            self.collect_from({openid: accepts})
            self.collect_from({openid: timed[: 1 + OPENIDS.index(openid)]})
        for channel in channels:
            self.create_and_split(channel, set(OPENIDS))

    @rule(
        channel=st.sampled_from(["template", "template", "subscribe"]),
        members=st.sets(st.sampled_from(OPENIDS), min_size=1),
    )
    @precondition(lambda self: len(self.broadcasts) < BROADCASTS)
    def create_and_split(self, channel: str, members: set[str]) -> None:
        name = f"b{len(self.broadcasts)}"
        self.lane.audience(f"of-{name}", *members)
        self.lane.adopt(name, channel=channel, template=TEMPLATE, audience=f"of-{name}", window=2)
        self.broadcasts[name] = Broadcast(channel, members)
        self.split_on(name)

    @rule(data=st.data())
    def split(self, data: st.DataObject) -> None:
        self.split_on(self.pick(data)[0])

    def split_on(self, name: str) -> None:
        one = self.broadcasts[name]
        verdict = self.lane.copy(name)["verdict"]
        status, _, moved, _ = self.lane.split(name)
        if status != 1:
            blocked = not one.drop and (one.state != "running" or verdict)
            full = not one.drop and self.count(one, "queued") >= 2
            assert one.split or blocked or full
            return
        assert not one.split
        if one.drop:
            one.dropped[one.drop] += moved
            one.split = True
            return
        known = one.waiting.keys() | one.flight.keys() | one.outcomes.keys()
        arrived = set(self.lane.queue(name)) - set(one.waiting)
        assert not arrived & known
        assert len(arrived) == moved
        one.waiting |= dict.fromkeys(arrived, "queued")
        one.split = self.lane.copy(name)["split"] == "done"
        assert not one.split or len(known | arrived) == len(one.members)

    @staticmethod
    def count(one: Broadcast, place: str) -> int:
        return sum(where == place for where in one.waiting.values())

    # -- operating ------------------------------------------------------------------------------

    @rule(data=st.data(), move=st.sampled_from(["resume"] * 4 + ["pause", "late", "cancel"]))
    def move(self, data: st.DataObject, move: str) -> None:
        self.move_on(self.pick(data)[0], move)

    def move_on(self, name: str, move: str) -> None:
        one = self.broadcasts[name]
        if one.state == "cancelled" or (move == "late" and one.drop):
            return
        to = {"pause": "paused", "resume": "running", "cancel": "cancelled", "late": "running"}
        one.state = to[move]
        one.drop = {"cancel": "cancelled", "late": "late"}.get(move, one.drop)
        one.generation += 1
        dropped = 0
        if one.drop:
            for openid in list(one.waiting):
                del one.waiting[openid]
                flight = one.flight.pop(openid, None)
                if flight:
                    self.end(openid, flight, "spent")
                    one.outcomes[openid] = "in_doubt"
                else:
                    dropped += 1
            for openid, flight in list(one.flight.items()):
                if flight.worker == "aside":
                    self.end(openid, flight, "spent")
                    one.outcomes[openid] = "in_doubt"
                    del one.flight[openid]
            one.dropped[one.drop] += dropped
        assert self.lane.adopt(name, one.generation, one.state, one.drop) == [1, dropped]

    @rule(ms=st.sampled_from(PASSING), trims=st.booleans())
    def let_time_pass(self, ms: int, *, trims: bool) -> None:
        self.lane.now_ms += ms
        if trims:
            self.trim()
            assert self.lane.trim() == 0

    def trim(self) -> None:
        before = self.ledger.copy()
        for uses in self.uses.values():
            for member, use in uses.items():
                if use.expires // HOUR < self.now // HOUR:
                    self.expire(use, member)
        assert self.lane.trim() == (self.ledger - before).total()

    # -- working --------------------------------------------------------------------------------

    @rule(worker=WORKER, most=st.integers(1, 6), wait_ms=WAITS)
    def take(self, worker: str, most: int, wait_ms: int) -> None:
        self.promote(wait_ms)
        self.claims += [(worker, claim) for claim in self.taken(worker, most)]

    @rule(worker=WORKER, most=st.integers(1, 6), wait_ms=WAITS)
    def take_and_lose_the_reply(self, worker: str, most: int, wait_ms: int) -> None:
        self.promote(wait_ms)
        self.taken(worker, most)

    @rule(worker=WORKER, most=st.integers(2, 6), wait_ms=WAITS, data=st.data())
    def take_and_settle(self, worker: str, most: int, wait_ms: int, data: st.DataObject) -> None:
        self.promote(wait_ms)
        claims = self.taken(worker, most)
        self.claims += [(worker, claim) for claim in claims]
        if claims:
            self.settle_some(worker, claims, data)

    def taken(self, worker: str, most: int) -> list[Claimed]:
        """Take, and judge all that came of it."""
        blocked = {
            name
            for name, one in self.broadcasts.items()
            if one.state != "running" or one.drop or self.lane.copy(name)["verdict"]
        }
        token = new_token()
        taken = self.lane.take(worker, most, token=token)
        self.last_take = (worker, most, token, taken)
        assert len(taken.claims) <= most
        for claim in sorted(taken.claims, key=lambda claim: claim.fence):
            self.judge_claim(claim, worker, blocked)
        without: list[tuple[str, str]] = []
        for name, one in self.broadcasts.items():
            queued, delayed = set(self.lane.queue(name)), self.lane.delayed(name)
            outcomes = self.lane.outcomes(name)
            for openid, place in list(one.waiting.items()):
                if place == "delayed" or openid in queued:
                    continue
                assert name not in blocked
                if openid in delayed:
                    assert self.being_sent_to(openid, but=name), "delayed though nobody sends to it"
                    one.waiting[openid] = "delayed"
                    continue
                assert outcomes.get(openid) == "no_permit"
                assert openid not in one.flight, "a resumed message holds its permit"
                del one.waiting[openid]
                one.outcomes[openid] = "no_permit"
                without.append((openid, one.channel))
        could = [who for who in without if self.may_claim(*who) and not self.is_distrusted(*who)]
        for name in self.broadcasts:
            self.judge_suspects(name, opened_now=False)  # the last no_permit completes a broadcast
        assert not [who for who in could if self.may_claim(*who)], "no_permit though it had one"
        return taken.claims

    def judge_claim(self, claim: Claimed, worker: str, blocked: set[str]) -> None:
        openid, one = claim.openid, self.broadcasts[claim.broadcast]
        assert claim.broadcast not in blocked
        assert one.waiting.pop(openid, "") == "queued"
        assert not self.being_sent_to(openid), "two messages at a time to one user"
        assert claim.fence > self.last_fence
        self.last_fence = claim.fence
        waiting = one.flight.get(openid)
        if waiting:
            assert (claim.member, claim.expires_at_ms) == (waiting.member, waiting.expires)
            assert (claim.tries, claim.resumed) == (waiting.tries, True)
        else:
            assert (claim.tries, claim.resumed) == (one.tries[openid], False)
            self.claim(openid, one.channel, claim.member, claim.expires_at_ms)
        one.flight[openid] = Flight(
            worker,
            claim.fence,
            claim.member,
            claim.expires_at_ms,
            self.now,
            claim.tries,
            claim.resumed,
        )

    @rule(worker=WORKER, data=st.data())
    @precondition(lambda self: self.in_hand("w1") or self.in_hand("w2"))
    def settle(self, worker: str, data: st.DataObject) -> None:
        claims = self.in_hand(worker) or self.in_hand({"w1": "w2", "w2": "w1"}[worker])
        self.settle_some(next(w for w, claim in self.claims if claim == claims[0]), claims, data)

    @rule(worker=WORKER, data=st.data())
    def settle_as_a_zombie(self, worker: str, data: st.DataObject) -> None:
        """Settle anything that this worker ever had, most of it settled or buried since."""
        claims = [claim for owner, claim in self.claims if owner == worker]
        if claims:
            self.settle_some(worker, claims, data)

    def in_hand(self, worker: str) -> list[Claimed]:
        return [
            claim
            for owner, claim in self.claims
            if owner == worker
            and (flight := self.broadcasts[claim.broadcast].flight.get(claim.openid))
            and (flight.worker, flight.fence) == (worker, claim.fence)
        ]

    def settle_some(self, worker: str, claims: list[Claimed], data: st.DataObject) -> None:
        picks = st.lists(st.sampled_from(claims), min_size=1, max_size=4)
        chosen = data.draw(picks, "claims")
        self.settle_rows(worker, chosen, [self.draw_answer(data, claim) for claim in chosen])

    def settle_rows(self, worker: str, chosen: list[Claimed], rows: list[str]) -> None:
        touched = {claim.broadcast for claim in chosen}
        opened_before = {name: self.lane.copy(name)["open"] == "1" for name in touched}
        token = new_token()
        settled = self.lane.settle(*rows, worker=worker, token=token)
        self.last_settle = (worker, rows, token, settled)
        opened = dict(opened_before)
        for claim, text, result in zip(chosen, rows, settled.results, strict=True):
            self.judge_result(claim, worker, text.split(" "), result, opened)
        for name in sorted(touched):
            self.judge_suspects(name, opened_now=opened[name] and not opened_before[name])

    def draw_answer(self, data: st.DataObject, claim: Claimed) -> str:
        """Return an answer of the kinds that a verdict may give to such a claim."""
        first = [
            ("settle", "spent", "delivered", 0, "ok"),
            ("settle", "void", "failed", 99999, "unknown"),
            ("settle", "back", "bad_data", 47003, "template"),
            ("settle", "void_all", "refused", 43101, "refusal"),
            ("settle", "doubt", "in_doubt", 0, "-"),
            ("swap", "void", "no_permit", 41028, "refusal"),
            ("swap", "back", "failed", 41030, "template"),
            ("delay", "back", "-", 43108, "-"),
            ("requeue", "back", "-", 0, "-"),
        ]
        again = [
            ("settle", "spent", "delivered", 41029, "ok"),
            ("settle", "doubt", "in_doubt", 41028, "-"),
            ("requeue", "back", "-", 0, "-"),
        ]
        keep = [("keep", "keep", "-", -1, "-")] * (claim.member[0] == "f")
        answers = (again if claim.resumed else first) + keep
        action, fate, outcome, errcode, streak = data.draw(st.sampled_from(answers), "answer")
        skip = claim.member[0] if (action, fate) == ("swap", "back") else "-"
        return row(
            claim, action, fate, outcome, errcode=errcode, delay=700, streak=streak, skip=skip
        )

    def judge_result(
        self, claim: Claimed, worker: str, text: list[str], result: str, opened: dict[str, bool]
    ) -> None:
        _, _, _, action, fate, outcome, errcode, _, streak, _, _ = text
        name, openid, one = claim.broadcast, claim.openid, self.broadcasts[claim.broadcast]
        flight = one.flight.get(openid)
        if not flight or (flight.worker, flight.fence) != (worker, claim.fence):
            assert result == "stale"
            return
        was_open = opened[name]
        opened[name] = was_open or streak == "ok"
        if action == "keep" or (action == "requeue" and flight.resumed):
            self.judge_keep(one, openid, result, action)
            return
        if fate == "void_all":
            if was_open:
                self.void_all(openid, one.channel)
            else:
                accepts = max(0, self.subs[openid].count)
                one.suspects.append((openid, self.now, accepts))
        ends_as = {"void_all": "void", "doubt": "spent"}.get(fate, fate)
        if action == "settle":
            assert result == "done"
            plain = outcome == "delivered" or errcode == "0"
            self.finish(one, openid, outcome if plain else f"{outcome} {errcode}", ends_as)
            return
        self.end(openid, flight, ends_as)
        if action == "swap" and self.swaps_or_ends(claim, worker, text, result, was_open=was_open):
            return
        self.judge_wait(one, openid, result, "queued" if action == "requeue" else "delayed")
        if result == "later" and action != "requeue":
            one.tries[openid] = max(one.tries[openid], flight.tries + (fate == "back"))

    def swaps_or_ends(
        self, claim: Claimed, worker: str, text: list[str], result: str, *, was_open: bool
    ) -> bool:
        """Judge a swap; returns whether it came to another permit, or to the message's end."""
        fate, outcome, errcode, skip = text[4], text[5], text[6], text[9]
        openid, one = claim.openid, self.broadcasts[claim.broadcast]
        if fate == "void":
            self.dead[openid, self.now // DAY] += 1
        if one.drop:
            return False
        if fate == "void" and self.is_worn_out(openid):
            assert result == "done"
        elif was_open or fate == "back":
            may_claim = self.may_claim(openid, one.channel, skip)
            if may_claim and not self.being_sent_to(openid, but=claim.broadcast):
                self.judge_swap(claim, worker, result, skip)
                return True
            if may_claim or result != "done":
                return False
            assert fate != "back"
        else:
            return False
        self.finish(one, openid, f"{outcome} {errcode}", "")
        return True

    def is_worn_out(self, openid: str) -> bool:
        """Whether so many permits of a user proved dead today that no further one is tried."""
        return self.dead[openid, self.now // DAY] >= MOST_DEAD

    def is_distrusted(self, openid: str, channel: str) -> bool:
        """Whether a take gives such a user nothing more today; only form_ids are made up."""
        return channel == "template" and self.is_worn_out(openid)

    def judge_keep(self, one: Broadcast, openid: str, result: str, action: str) -> None:
        """Perhaps sent, so the permit stays with the message; without a future it is in doubt."""
        assert result == ("in_doubt" if one.drop else "later")
        if one.drop:
            self.finish(one, openid, "in_doubt", "spent")
            return
        flight = one.flight[openid]
        flight.worker, flight.resumed = "-", True
        flight.tries += action == "keep"
        one.waiting[openid] = "delayed" if action == "keep" else "queued"

    @staticmethod
    def judge_wait(one: Broadcast, openid: str, result: str, place: str) -> None:
        del one.flight[openid]
        assert result == (one.drop or "later")
        if one.drop:
            one.dropped[one.drop] += 1
        else:
            one.waiting[openid] = place

    def judge_swap(self, claim: Claimed, worker: str, result: str, skip: str) -> None:
        one, openid = self.broadcasts[claim.broadcast], claim.openid
        following = swapped(claim, result)
        assert following.fence > self.last_fence
        self.last_fence = following.fence
        self.claim(openid, one.channel, following.member, following.expires_at_ms, skip)
        one.flight[openid] = Flight(
            worker,
            following.fence,
            following.member,
            following.expires_at_ms,
            self.now,
            one.flight[openid].tries + (skip != "-"),  # a kind handed back counts as a try
            resumed=False,
        )
        self.claims.append((worker, following))

    def finish(self, one: Broadcast, openid: str, outcome: str, fate: str) -> None:
        flight = one.flight.pop(openid)
        if fate:
            self.end(openid, flight, fate)
        one.outcomes[openid] = outcome

    def judge_suspects(self, name: str, *, opened_now: bool) -> None:
        """Suspects lose the rest of their permits on the first delivery, or when all are judged."""
        one = self.broadcasts[name]
        if not one.suspects:
            return
        listed = self.lane.client.lrange(self.lane.key("suspects", name), 0, -1)
        left = [(openid, int(at), int(n)) for openid, at, n in map(str.split, listed)]
        if opened_now:
            assert left == []
        if left:
            assert left == one.suspects
        elif one.suspects:
            assert opened_now or self.complete(one)
            for openid, at, accepts in one.suspects:
                if one.channel == "subscribe":
                    self.void_accepts(openid, at, accepts)
                else:
                    self.void_all(openid, one.channel)
            one.suspects = []

    def void_accepts(self, openid: str, at: int, most: int) -> None:
        """Void what was given until a refusal that is believed only now."""
        known = self.subs[openid]
        gone = min(max(0, known.count), most)
        self.ledger["void:s"] += gone
        known.count = 0 if known.count < 0 else known.count - gone
        known.void_until = max(known.void_until, at)
        known.voided_at = max(known.voided_at, at)

    @staticmethod
    def complete(one: Broadcast) -> bool:
        return one.split and not one.waiting and not one.flight

    @rule()
    def repeat(self) -> None:
        """Lost replies and late news: the same token gives the first answer, nothing happens."""
        for name, one in self.broadcasts.items():
            said = self.lane.adopt(name, one.generation, "cancelled", "cancelled")
            assert said[:2] in ([0, 0], [-1, 0])  # where it is not cancelled it knows another end
        if self.last_collect:
            given, token, answer = self.last_collect
            assert self.lane.collect(given, cap=CAP, token=token) == answer
        if self.last_take and self.last_take[3].claims:
            worker, most, token, taken = self.last_take
            assert self.lane.take(worker, most, token=token) == taken
        if self.last_settle:
            worker, rows, token, settled = self.last_settle
            assert self.lane.settle(*rows, worker=worker, token=token) == settled

    @rule(dead=WORKER)
    def recover(self, dead: str) -> None:
        """Bury a worker; its claims stay known, so that it may settle as a zombie."""
        for name, one in self.broadcasts.items():
            resumed = doubted = 0
            for openid, flight in list(one.flight.items()):
                if flight.worker != dead:
                    continue
                if flight.member[0] != "f" or one.drop:
                    self.finish(one, openid, "in_doubt", "spent")
                    doubted += 1
                elif flight.tries + 1 >= ATTEMPTS:
                    flight.worker, flight.resumed = "aside", True
                    flight.tries += 1
                else:
                    flight.worker, flight.resumed = "-", True
                    flight.tries += 1
                    one.waiting[openid] = "queued"
                    resumed += 1
            assert self.lane.recover(name, dead, attempts=ATTEMPTS) == [resumed, doubted]

    def promote(self, wait_ms: int) -> None:
        self.lane.now_ms += wait_ms
        for name, one in self.broadcasts.items():
            copy = self.lane.copy(name)
            due = [openid for openid, wait in self.lane.delayed(name).items() if wait <= 0]
            if one.state != "running" or one.drop or copy["verdict"]:
                due = []
            assert self.lane.promote(name) == len(due)
            one.waiting |= dict.fromkeys(due, "queued")

    def pick(self, data: st.DataObject) -> tuple[str, Broadcast]:
        name = data.draw(st.sampled_from(sorted(self.broadcasts)), "broadcast")
        return name, self.broadcasts[name]

    # -- what comes in the end ------------------------------------------------------------------

    def teardown(self) -> None:
        """Once all is resumed, and everybody answers, every recipient has an outcome."""
        self.recover("w1")
        self.recover("w2")
        for name, one in self.broadcasts.items():
            self.move_on(name, "resume")
            aside = {o: f for o, f in one.flight.items() if f.worker == "aside"}
            assert self.lane.aside(name, "replay") == len(aside)
            for openid, flight in aside.items():
                flight.worker, flight.tries = "-", 0
                one.waiting[openid] = "queued"
        for _ in range(12):
            self.promote(LEASE + 1)
            for name in self.broadcasts:
                self.split_on(name)
            for claim in self.taken("w1", 6):
                delivered = row(claim, "settle", "spent", "delivered", streak="ok")
                self.settle_rows("w1", [claim], [delivered])
        for name, one in self.broadcasts.items():
            assert self.complete(one), f"{name} stands still: {one}"

    # -- what always holds ----------------------------------------------------------------------

    @invariant()
    def every_use_is_in_one_place(self) -> None:
        """I1, from the users' keys, the stock by hour, and the ledger."""
        lane = self.lane
        hour = self.now // HOUR
        stock: Counter[str] = Counter()
        for openid in OPENIDS:
            stored = lane.uses(openid)
            held = {member for member, use in self.uses[openid].items() if use.state != "available"}
            for member, use in self.uses[openid].items():
                if use.state == "expired":
                    continue
                assert stored[member] == (-use.expires if member in held else use.expires), member
                if use.state == "available":
                    stock[f"{member[0]}:{use.expires // HOUR - hour:+d}"] += 1
            ends = [u.expires for u in self.uses[openid].values() if u.state == "available"]
            if ends:
                stock[f"u:{max(ends) // HOUR - hour:+d}"] += 1
            count = self.subs[openid].count
            assert int(lane.subs(openid).get(TEMPLATE, 0)) == count
            stock[f"s:{TEMPLATE}"] += max(0, count)
        assert lane.stock() == +stock
        assert +Counter(lane.ledger()) == +self.ledger
        lane.check_ledger(*self.broadcasts)

    @invariant()
    def every_recipient_is_in_one_place(self) -> None:
        """I2, from the queue, the delayed, the flight and the outcomes of each broadcast."""
        lane = self.lane
        for name, one in self.broadcasts.items():
            queue, delayed, flight = lane.queue(name), lane.delayed(name), lane.flight(name)
            places = Counter([*queue, *delayed, *lane.outcomes(name)])
            places.update(openid for openid, entry in flight.items() if entry[0] != "-")
            assert all(count == 1 for count in places.values()), places
            assert dict.fromkeys(queue, "queued") | dict.fromkeys(delayed, "delayed") == one.waiting
            assert lane.outcomes(name) == one.outcomes
            assert {openid: Flight(*entry) for openid, entry in flight.items()} == one.flight
            counts = lane.counts(name)
            assert counts["total"] == len(places) + one.dropped.total()
            assert counts["done"] == one.done
            outcomes = Counter(outcome.split(" ")[0] for outcome in one.outcomes.values())
            counted = {key[2:]: n for key, n in counts.items() if key.startswith("o:") and n}
            assert counted == dict(+(outcomes + one.dropped))

    @invariant()
    def a_closed_canary_risks_at_most_k(self) -> None:
        for name, one in self.broadcasts.items():
            if self.lane.copy(name)["open"] == "0":
                at_risk = [f for f in one.flight.values() if f.worker != "aside"]
                assert len(at_risk) <= self.lane.canary


@pytest.mark.timeout(400)  # a failure is shrunk for five minutes at most
def test_the_scripts_keep_every_permit_and_every_recipient(valkey_url: str) -> None:
    client = redis.Redis.from_url(valkey_url, decode_responses=True)
    bounds = hypothesis_settings(max_examples=80, stateful_step_count=40)
    try:
        run_state_machine_as_test(lambda: Ledger(client), settings=bounds)
    finally:
        client.close()
        client.connection_pool.disconnect()
