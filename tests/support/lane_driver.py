"""One lane driven by its raw scripts, with the clock in the test's hand.

The scripts take the clock from whoever runs them, so a test moves `now_ms` and never sleeps. What
the tests read back they read by the functions of keys.py, so a key that a script builds by another
name is not found.
"""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import redis
from cluster import strictly

from producers.audiences.batches import AudienceKeys
from producers.audiences.members import ADD, AddArgs
from producers.broadcasts.lifecycle import ADOPT, SWEEP, AdoptArgs, AdoptKeys, SweepArgs, SweepKeys
from producers.broadcasts.split import SPLIT, SplitArgs, SplitKeys
from producers.lanes.bounds import NONE, Bounds
from producers.ordering.passes import (
    BEGIN,
    FEED,
    LOOK,
    BeginArgs,
    BeginKeys,
    FeedArgs,
    FeedKeys,
    LookArgs,
    LookKeys,
    next_bucket,
)
from producers.permits.batch import COLLECT, CollectArgs, CollectKeys
from producers.recipients.doubts import (
    ASIDE,
    RESOLVE,
    AsideArgs,
    AsideKeys,
    ResolveArgs,
    ResolveKeys,
)
from producers.recipients.receipts import RECEIPT, ReceiptArgs, ReceiptKeys
from producers.store import keys
from producers.store.scripts import Args, Bound, Keys, NoArgs, Script, Value
from workers.duties.recover import RECOVER, RecoverArgs, RecoverKeys
from workers.lanes.keeper import KEEP, KeepArgs, KeepKeys
from workers.lanes.stocks import TRIM, TrimKeys
from workers.limits.gate import HORIZON_MS
from workers.limits.hours import ALWAYS, Hours
from workers.sending.posting import POSTING, PostingArgs, PostingKeys
from workers.sending.settle import SETTLE, SettleArgs, SettleKeys
from workers.sending.take import TAKE, TakeArgs, TakeKeys

HOUR: Final = 3_600_000
WEEK: Final = 7 * 24 * HOUR
LEASE: Final = 12_000
MARGIN: Final = 10_000
TTL: Final = 30 * 24 * HOUR
BUCKETS: Final = 8
KINDS: Final = ("f", "p", "s")

Item = tuple[str, str, int | str, str, str, int | str]


def form(form_id: str, expires_at_ms: int | str = "") -> Item:
    return ("f", form_id, expires_at_ms, "", "", "")


def prepay(prepay_id: str, expires_at_ms: int | str = "") -> Item:
    return ("p", prepay_id, expires_at_ms, "", "", "")


def subscription(
    verdict: str, template: str = "T", *, source: str = "", at: int | str = ""
) -> Item:
    return ("s", template, "", verdict, source, at)


def accept(template: str = "T", *, source: str = "", at: int | str = "") -> Item:
    return subscription("accept", template, source=source, at=at)


def reject(template: str = "T", *, source: str = "", at: int | str = "") -> Item:
    return subscription("reject", template, source=source, at=at)


@dataclass(frozen=True)
class Claimed:
    """One claim row of take.lua, or a swap's."""

    broadcast: str
    item: str
    member: str
    expires_at_ms: int
    fence: int
    tries: int = 0
    resumed: bool = False

    @property
    def openid(self) -> str:
        return self.item.partition(":")[2]


@dataclass
class Taken:
    """Every row of one take, sorted by what it says."""

    claims: list[Claimed] = field(default_factory=list)
    low: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    complete: list[str] = field(default_factory=list)
    left: str = ""

    @property
    def openids(self) -> list[str]:
        return [claim.openid for claim in self.claims]


@dataclass
class Settled:
    """The answer of settle.lua: one string per row, then the flags."""

    results: list[str]
    flags: list[str]


class Lane:
    """One lane of one app, and everything that its scripts can do to it."""

    def __init__(
        self, client: "redis.Redis", *, number: int = 0, app: str = "shop", canary: int = 10
    ) -> None:
        self.client = client
        self.number = number
        self.app = app
        self.canary = canary
        self.prefix = keys.lane_prefix(number)
        # the top of an hour, not in the past: PEXPIREAT takes the server's own clock
        self.now_ms = (time.time_ns() // 1_000_000 // HOUR + 2) * HOUR
        self.unsent = 0
        self._scripts: dict[Script[Any, Any], Bound[Any, Any]] = {}

    def run(
        self,
        script: Script[Keys, Args],
        names: Keys,
        args: Args,
        more: Iterable[Value] = (),
        *,
        more_keys: Iterable[str] = (),
        token: str | None = None,
        now: int | None = None,
    ) -> Any:
        """Run a script by the test's clock."""
        bound = self._scripts.get(script)
        if bound is None:
            bound = self._scripts[script] = strictly(script, self.client)
        now = self.now_ms if now is None else now
        return bound(names, args, more, more_keys=more_keys, token=token or "", now=now)

    # -- producing ------------------------------------------------------------------------------

    def collect(
        self,
        users: dict[str, list[Item]],
        *,
        cap: int = 100,
        token: str | None = None,
        caller: str = "phone",
    ) -> list[int]:
        n, app = self.number, self.app
        names: list[str] = []
        given: list[Value] = []
        for openid, items in users.items():
            bucket = self.bucket(openid)
            names += [
                keys.permits(n, app, openid),
                keys.subscriptions(n, app, openid),
                keys.marks(n, app, openid),
                keys.audience(n, app, "all", bucket),
            ]
            given += [openid, bucket, len(items)]
            for item in items:
                given += item
        args = CollectArgs(cap, len(users))
        script_keys = CollectKeys.of(n, app, caller)
        return self.run(COLLECT, script_keys, args, given, more_keys=names, token=token)

    def give(self, openid: str, *items: Item, cap: int = 100) -> list[int]:
        return self.collect({openid: list(items)}, cap=cap)

    def audience(self, name: str, *openids: str) -> int:
        n, app = self.number, self.app
        names: list[str] = []
        given: list[Value] = []
        members: dict[int, list[str]] = {}
        for openid in openids:
            members.setdefault(self.bucket(openid), []).append(openid)
        for bucket, mine in members.items():
            names.append(keys.audience(n, app, name, bucket))
            given += [bucket, len(mine), *mine]
        return self.run(ADD, AudienceKeys.of(n, app, name), AddArgs(""), given, more_keys=names)

    def adopt(
        self,
        broadcast: str,
        generation: int = 1,
        state: str = "running",
        drop: str = "",
        *,
        sweep: bool = True,
        **copy: Any,
    ) -> list[int]:
        n, app = self.number, self.app
        first = {
            "app": app,
            "channel": "template",
            "template": "T",
            "audience": "all",
            "priority": 0,
            "cursor": 0,
            "split": "",
            "total": 0,
            "done": 0,
            "open": 0,
            "canary": self.canary,
        } | copy
        args = AdoptArgs(
            broadcast=broadcast,
            generation=generation,
            state=state,
            drop=drop,
            ttl_ms=TTL,
            wake=keys.WAKE,
            prefix=self.prefix,
            rate=first.pop("rate", 0),
            window=first.pop("window", 100),
            errcode=first.pop("errcode", 0),
            state_generation=first.pop("state_generation", generation),
            weight=first.pop("weight", 1),
            unsure=first.pop("unsure", 0),
            reason=first.pop("reason", ""),
            move=first.pop("move", ""),
        )
        fields: list[Value] = []
        for pair in first.items():
            fields += pair
        names = AdoptKeys.of(n, app, broadcast)
        adopted, dropped, sweeping, *known = self.run(ADOPT, names, args, fields)
        if sweeping and sweep:
            cursor = "0"
            while True:
                cursor, _, some = self.sweep(broadcast, cursor)
                dropped += some
                if cursor == "0":
                    break
        return [adopted, dropped, *known]

    def sweep(self, broadcast: str, cursor: str = "0") -> list[Any]:
        names = SweepKeys.of(self.number, self.app, broadcast)
        return self.run(SWEEP, names, SweepArgs(broadcast, self.prefix, TTL, cursor))

    def split(
        self,
        broadcast: str,
        *,
        cursor: int | str | None = None,
        buckets: range | list[int] = range(BUCKETS),
        last: bool = True,
    ) -> list[Any]:
        n, at = self.number, self.copy(broadcast).get("cursor", "0") if cursor is None else cursor
        offered = [bucket for bucket in buckets if bucket >= next_bucket(str(at))]
        return self.run(
            SPLIT,
            SplitKeys(keys.lane_broadcast(n, broadcast), keys.queue(n, broadcast)),
            SplitArgs(broadcast, str(at), "1" if last else "", self.prefix),
            offered,
        )

    def begin_pass(
        self, broadcast: str, width_ms: int, *, number: int | None = None, cursor: str | None = None
    ) -> int:
        copy = self.copy(broadcast)
        args = BeginArgs(
            broadcast=broadcast,
            prefix=self.prefix,
            cursor=copy.get("cursor", "0") if cursor is None else cursor,
            number=int(copy.get("pass", 0)) + 1 if number is None else number,
            from_ms=self.now_ms,
            width_ms=width_ms,
        )
        begun: int = self.run(BEGIN, BeginKeys(keys.lane_broadcast(self.number, broadcast)), args)
        return begun

    def look(
        self,
        broadcast: str,
        *,
        look: str | None = None,
        most: int = 1000,
        buckets: range | list[int] = range(BUCKETS),
        last: bool = True,
    ) -> list[Any]:
        at = self.copy(broadcast).get("look", "") if look is None else look
        first = int(at.partition(" ")[0]) if at[:1].isdigit() else 0
        args = LookArgs(broadcast, at, "1" if last else "", self.prefix, MARGIN, most)
        offered = [bucket for bucket in buckets if bucket >= first]
        names = LookKeys(keys.lane_broadcast(self.number, broadcast))
        answer: list[Any] = self.run(LOOK, names, args, offered)
        return answer

    def feed(self, broadcast: str, most: int = 1000) -> list[int]:
        n = self.number
        names = FeedKeys(keys.lane_broadcast(n, broadcast), keys.queue(n, broadcast))
        answer: list[int] = self.run(FEED, names, FeedArgs(broadcast, self.prefix, most))
        return answer

    def start(self, broadcast: str, *openids: str, **copy: Any) -> None:
        """Run a broadcast to these openids, in this order, already split."""
        self.adopt(broadcast, **{"audience": "none", "split": "done", **copy})
        items = [self.item(openid) for openid in openids]
        lane, queue = keys.lane_broadcast(self.number, broadcast), self.key("queue", broadcast)
        self.client.hincrby(lane, "total", len(items))
        if items:
            self.client.rpush(queue, *items)
            self.client.pexpire(queue, TTL)
            priority = copy.get("priority") == 1
            ring = keys.priority_ring if priority else keys.ring
            self.client.rpush(ring(self.number, self.app), broadcast)
            self.client.sadd(self.key("busy"), self.app)

    # -- working --------------------------------------------------------------------------------

    def take(
        self,
        worker: str = "w1",
        most: int = 100,
        *,
        allowances: dict[str, Any] | None = None,
        token: str | None = None,
        margin: int = MARGIN,
        lease: int = LEASE,
        hours: Hours = ALWAYS,
        bounds: Bounds = NONE,
        spent: tuple[int, int] = (0, 0),
    ) -> Taken:
        rows = self._rows(token, worker, most, allowances, margin, lease, hours, bounds, spent)
        return read_take(rows)

    def rows(self, worker: str = "w1", most: int = 100) -> list[str]:
        """Take, and return the rows as the script gave them."""
        return self._rows(None, worker, most, None, MARGIN, LEASE)

    def _rows(
        self,
        token: str | None,
        worker: str,
        most: int,
        allowances: dict[str, Any] | None,
        margin: int,
        lease: int,
        hours: Hours = ALWAYS,
        bounds: Bounds = NONE,
        spent: tuple[int, int] = (0, 0),
    ) -> list[str]:
        own: list[Value] = []
        for broadcast, allowance in (allowances or {}).items():
            of_now = (allowance, self.copy(broadcast).get("rate", 0), 0)
            own += [broadcast, *(allowance if isinstance(allowance, tuple) else of_now)]
        names = TakeKeys.of(self.number, self.app, worker)
        fixed = (most, lease, margin, TTL, HORIZON_MS)
        args = TakeArgs(worker, self.prefix, self.app, *fixed, *hours, *bounds, *spent)
        rows: list[str] = self.run(TAKE, names, args, own, token=token)
        return rows

    def take_one(self, worker: str = "w1", **options: Any) -> Claimed:
        (claim,) = self.take(worker, 1, **options).claims
        return claim

    def settle(
        self,
        *rows: str,
        worker: str = "w1",
        token: str | None = None,
        margin: int = MARGIN,
        lease: int = LEASE,
        keep: str = "",
    ) -> Settled:
        names = SettleKeys.of(self.number, self.app, worker)
        args = SettleArgs(worker, self.prefix, self.app, lease, margin, TTL, self.canary, keep)
        answer = self.run(SETTLE, names, args, rows, token=token)
        return Settled(answer[: len(rows)], answer[len(rows) :])

    def deliver(self, claim: Claimed, worker: str = "w1") -> Settled:
        return self.settle(row(claim, "settle", "spent", "delivered", streak="ok"), worker=worker)

    def post(self, broadcast: str, worker: str = "w1") -> list[str]:
        """Mark all that a worker has in flight as being posted; returns the refused fences."""
        return mark_posting(self.client, self.number, broadcast, worker)

    def recover(
        self,
        broadcast: str,
        dead: str,
        *,
        attempts: int = 5,
        posted: bool = True,
    ) -> list[int]:
        """Take back what a dead worker had in flight; it died in its POSTs, or just before them."""
        if posted:
            self.post(broadcast, dead)
        names = RecoverKeys.of(self.number, self.app, broadcast)
        cursor, found = "0", [0, 0, 0, 0]
        while True:
            args = RecoverArgs(dead, broadcast, self.prefix, TTL, attempts, LEASE, cursor)
            cursor, *some = self.run(RECOVER, names, args)
            found = [sum(pair) for pair in zip(found, some, strict=True)]
            if cursor == "0":
                self.unsent = found[3]
                return found[:2]

    def aside(self, broadcast: str, what: str) -> int:
        names = AsideKeys.of(self.number, self.app, broadcast)
        args = AsideArgs(broadcast, self.prefix, self.app, TTL, what, "0")
        cursor, found = self.run(ASIDE, names, args)
        assert cursor == "0", "so few are one page"
        return found

    def receipt(
        self,
        openid: str,
        *candidates: str,
        msgid: str = "",
        errcode: int = 0,
        at_ms: int = 0,
        template: str = "T",
    ) -> tuple[str, str]:
        """Settle by receipt; the candidates are the newest first. Return broadcast, what."""
        names = ReceiptKeys(keys.receipts(self.number, self.app, openid))
        at_ms = at_ms or self.now_ms
        args = ReceiptArgs(self.prefix, self.item(openid), template, msgid, errcode, at_ms, TTL)
        broadcast, what = self.run(RECEIPT, names, args, candidates)
        return broadcast, what

    def resolve(self, broadcast: str, outcome: str, *openids: str) -> int:
        names = ResolveKeys(self.key("lane_broadcast", broadcast), self.key("doubts", broadcast))
        args = ResolveArgs(self.prefix, broadcast, outcome)
        return self.run(RESOLVE, names, args, map(self.item, openids))

    def keep(
        self, worker: str = "k1", *, most: int = 100, messages: int = 1000, alone: bool = True
    ) -> list[list[str]] | None:
        """Look after what is due; returns what is given to the keeper, None without the lease."""
        args = KeepArgs(worker, 3000, most, messages, TTL, 10_000, int(alone))
        _, held, _, _, *rows = self.run(KEEP, KeepKeys.of(self.number), args)
        if not int(held):
            return None
        return [
            [member.replace("/", " "), *words]
            for member, _, *words in (row.split(" ") for row in rows)
        ]

    def due(self) -> dict[str, int]:
        """Return what is due → ms from now."""
        stored = self.client.zrange(keys.due(self.number), 0, -1, withscores=True)
        return {member: int(at) - self.now_ms for member, at in stored}

    def promote(self, broadcast: str, messages: int = 1000) -> int:
        """Look at one broadcast; returns how many of its delayed messages were promoted."""
        before, key = len(self.delayed(broadcast)), keys.due(self.number)
        others = dict(self.client.zrange(key, 0, -1, withscores=True))
        others.pop(broadcast, None)
        self.client.delete(key, keys.doing(self.number))
        self.client.zadd(key, {broadcast: 0})
        self.keep(messages=messages)
        if others:
            self.client.zadd(key, others)
        return before - len(self.delayed(broadcast))

    def trim(self) -> int:
        names = TrimKeys(keys.stock(self.number, self.app), keys.ledger(self.number, self.app))
        return self.run(TRIM, names, NoArgs())

    # -- reading back ---------------------------------------------------------------------------

    def key(self, name: str, *parts: Any) -> str:
        return getattr(keys, name)(self.number, *parts)

    def ends(self, name: str, *parts: Any) -> None:
        """Give a key that a test wrote by itself the end that the scripts would give it."""
        self.client.pexpire(self.key(name, *parts), TTL)

    def bucket(self, openid: str) -> int:
        return keys.bucket_of(openid, BUCKETS)

    def doubt(self, noted: dict[str, int]) -> None:
        """Note of users that a permit of theirs proved used after Redis forgot, and when (ms)."""
        self.client.hset(self.key("doubted", "shop"), mapping=noted)
        self.client.pexpire(self.key("doubted", "shop"), WEEK)

    def item(self, openid: str) -> str:
        return f"{self.bucket(openid)}:{openid}"

    def uses(self, openid: str) -> dict[str, int]:
        """Return member → expires_at_ms, negative once it is held, spent or void."""
        stored = self.client.zrange(self.key("permits", self.app, openid), 0, -1, withscores=True)
        return {member: int(score) for member, score in stored}

    def subs(self, openid: str) -> dict[str, str]:
        return self.client.hgetall(self.key("subscriptions", self.app, openid))

    def marks(self, openid: str) -> dict[str, tuple[int, int, int, int]]:
        """Return template → void, voided, floor, ids that are remembered."""
        found = {}
        for template, value in self.client.hgetall(self.key("marks", self.app, openid)).items():
            void, voided, floor, *ids = value.split(" ")
            found[template] = (int(void), int(voided), int(floor), len(ids))
        return found

    def copy(self, broadcast: str) -> dict[str, str]:
        return self.client.hgetall(self.key("lane_broadcast", broadcast))

    def counts(self, broadcast: str) -> dict[str, int]:
        """Return total, done, and every outcome and errcode that is counted."""
        copy = self.copy(broadcast)
        return {
            name: int(value)
            for name, value in copy.items()
            if name[:2] in ("o:", "e:") or name in ("total", "done")
        }

    def canary_of(self, broadcast: str) -> tuple[str, int, int, int, int]:
        """Return open, unjudged, template_errors, refusals, unknowns."""
        copy = self.copy(broadcast)
        numbers = ("unjudged", "template_errors", "refusals", "unknowns")
        return (copy["open"], *(int(copy.get(name, 0)) for name in numbers))

    def queue(self, broadcast: str) -> list[str]:
        return [
            i.partition(":")[2] for i in self.client.lrange(self.key("queue", broadcast), 0, -1)
        ]

    def delayed(self, broadcast: str) -> dict[str, int]:
        """Return openid → ms from now until it is due."""
        waiting = self.client.zrange(self.key("delayed", broadcast), 0, -1, withscores=True)
        return {item.partition(":")[2]: int(due) - self.now_ms for item, due in waiting}

    def flight(self, broadcast: str) -> dict[str, tuple[str, int, str, int, int, int, bool]]:
        """Return openid → worker, fence, member, expires_at_ms, since_ms, tries, resumed."""
        entries = {}
        for item, value in self.client.hgetall(self.key("flight", broadcast)).items():
            worker, fence, member, expires, since, tries, resumed = value.split(" ")
            entries[item.partition(":")[2]] = (
                worker,
                int(fence),
                member,
                int(expires),
                int(since),
                int(tries),
                resumed == "1",
            )
        return entries

    def outcomes(self, broadcast: str) -> dict[str, str]:
        found: dict[str, str] = {}
        pipeline = self.client.pipeline(transaction=False)
        for bucket in range(BUCKETS):
            pipeline.hgetall(self.key("outcomes", broadcast, bucket))
        for some in pipeline.execute():
            found |= some
        return found

    def ring(self, *, first: bool = False) -> list[str]:
        key = self.key("priority_ring" if first else "ring", self.app)
        return self.client.lrange(key, 0, -1)

    def sending(self) -> dict[str, int]:
        """Return openid → ms until its lease ends."""
        leases = self.client.zrange(self.key("sending", self.app), 0, -1, withscores=True)
        return {openid: int(ends) - self.now_ms for openid, ends in leases}

    def stock(self) -> dict[str, int]:
        """Return kind:hours from now or s:template → uses, without zeros."""
        hour = self.now_ms // HOUR
        stored = self.client.hgetall(self.key("stock", self.app)).items()
        return {
            name if name[0] == "s" else f"{name[0]}:{int(name[2:]) - hour:+d}": int(uses)
            for name, uses in stored
            if uses != "0" and name != "trimmed"
        }

    def ledger(self) -> dict[str, int]:
        stored = self.client.hgetall(self.key("ledger", self.app))
        return {name: int(uses) for name, uses in stored.items()}

    def held(self, *broadcasts: str) -> Counter[str]:
        """Return how many uses of each kind lie in the flight entries."""
        held: Counter[str] = Counter()
        for broadcast in broadcasts:
            for entry in self.flight(broadcast).values():
                member, expires = entry[2], entry[3]
                if member[0] != "s" or expires == 1:
                    held[member[0]] += 1
        return held

    def check_ledger(self, *broadcasts: str) -> None:
        """Check I1: each collected use is available, held, spent, void or expired."""
        ledger, stock, held = self.ledger(), self.stock(), self.held(*broadcasts)
        for kind in KINDS:
            available = sum(uses for name, uses in stock.items() if name[0] == kind)
            gone = sum(ledger.get(f"{fate}:{kind}", 0) for fate in ("spent", "void", "expired"))
            found = {"available": available, "held": held[kind], "gone": gone}
            assert sum(found.values()) == ledger.get(f"collected:{kind}", 0), (kind, found, ledger)


def mark_posting(client: "redis.Redis", lane: int, broadcast: str, worker: str) -> list[str]:
    """Mark all that a worker has in flight as being posted; returns the refused fences."""
    key = keys.flight(lane, broadcast)
    script = POSTING.on(client)
    held = [
        f"{item} {entry.split(' ')[1]}"
        for item, entry in client.hgetall(key).items()
        if entry.startswith(f"{worker} ")
    ]
    refused: list[str] = []
    for start in range(0, len(held), 200):
        claims = (" ".join(held[start : start + 200]),)
        refused += script(PostingKeys(), PostingArgs(worker), claims, more_keys=[key])
    return refused


def read_take(rows: list[str]) -> Taken:
    taken, broadcast = Taken(), ""
    for text in rows:
        first, *rest = text.split(" ")
        if first == "B":
            broadcast, low, closed, _rate = rest
            if low == "1":
                taken.low.append(broadcast)
            if closed == "1":
                taken.closed.append(broadcast)
        elif first == "Q":
            taken.complete += rest
        elif text in ("more", "soon", "rest"):
            taken.left = text
        else:
            member, expires, fence, tries, resumed, *_payload = rest
            taken.claims.append(
                Claimed(
                    broadcast, first, member, int(expires), int(fence), int(tries), resumed == "1"
                )
            )
    return taken


def swapped(claim: Claimed, result: str) -> Claimed:
    """Return the claim that a swap gave in place of another."""
    word, member, expires, fence, _unsure = result.split(" ")
    assert word == "next"
    return Claimed(claim.broadcast, claim.item, member, int(expires), int(fence), claim.tries)


def row(
    claim: Claimed,
    action: str,
    fate: str,
    outcome: str = "-",
    *,
    errcode: int = 0,
    delay: int = 0,
    streak: str = "-",
    skip: str = "-",
    msgid: str = "-",
) -> str:
    """Return one answer for settle.lua."""
    return (
        f"{claim.broadcast} {claim.item} {claim.fence} {action} {fate} {outcome} {errcode} {delay} "
        f"{streak} {skip} {msgid}"
    )
