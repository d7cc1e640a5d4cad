"""One lane driven by its raw scripts, with the clock in the test's hand.

The scripts take `now_ms` (`now_us`) in ARGV 2, so a test moves `now_ms` and never sleeps. What the
tests read back they read by the functions of keys.py, so a key that a script builds by another name
is not found.
"""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import redis

from producers.store import keys, scripts

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
        self._scripts: dict[str, Any] = {}

    def run(self, package: str, name: str, names: list[str], args: list[Any]) -> Any:
        script = self._scripts.get(name)
        if script is None:
            source = scripts.source(package, name)
            script = self._scripts[name] = self.client.register_script(source)
        return script(keys=names, args=args)

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
        names = [
            keys.reply(n, "collect", caller),
            keys.stock(n, app),
            keys.ledger(n, app),
            keys.audience_size(n, app, "all"),
            keys.audience_buckets(n, app, "all"),
        ]
        args: list[Any] = [token or scripts.new_token(), self.now_ms, cap, len(users)]
        for openid, items in users.items():
            bucket = self.bucket(openid)
            names += [
                keys.permits(n, app, openid),
                keys.subscriptions(n, app, openid),
                keys.marks(n, app, openid),
                keys.audience(n, app, "all", bucket),
            ]
            args += [openid, bucket, len(items)]
            for item in items:
                args += item
        return self.run("producers.permits", "collect", names, args)

    def give(self, openid: str, *items: Item, cap: int = 100) -> list[int]:
        return self.collect({openid: list(items)}, cap=cap)

    def audience(self, name: str, *openids: str) -> int:
        n, app = self.number, self.app
        names = [keys.audience_size(n, app, name), keys.audience_buckets(n, app, name)]
        args: list[Any] = [""]
        members: dict[int, list[str]] = {}
        for openid in openids:
            members.setdefault(self.bucket(openid), []).append(openid)
        for bucket, mine in members.items():
            names.append(keys.audience(n, app, name, bucket))
            args += [bucket, len(mine), *mine]
        return self.run("producers.audiences", "add", names, args)

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
        rate, window = first.pop("rate", 0), first.pop("window", 100)
        names = [
            keys.lane_broadcast(n, broadcast),
            keys.queue(n, broadcast),
            keys.delayed(n, broadcast),
            keys.flight(n, broadcast),
            keys.tries(n, broadcast),
            keys.ring(n, app),
            keys.priority_ring(n, app),
            keys.stock(n, app),
            keys.ledger(n, app),
            keys.sending(n, app),
        ]
        args = ["", self.now_ms, broadcast, generation, state, drop, TTL, keys.WAKE, self.prefix]
        args += [rate, window, first.pop("errcode", 0)]
        args.append(first.pop("state_generation", generation))
        for pair in first.items():
            args += pair
        adopted, dropped, sweeping = self.run("producers.broadcasts", "adopt", names, args)
        if sweeping and sweep:
            cursor = "0"
            while True:
                cursor, _, some = self.sweep(broadcast, cursor)
                dropped += some
                if cursor == "0":
                    break
        return [adopted, dropped]

    def sweep(self, broadcast: str, cursor: str = "0") -> list[Any]:
        n, app = self.number, self.app
        names = [
            keys.lane_broadcast(n, broadcast),
            keys.flight(n, broadcast),
            keys.stock(n, app),
            keys.ledger(n, app),
            keys.sending(n, app),
        ]
        args = ["", self.now_ms, broadcast, self.prefix, TTL, cursor]
        return self.run("producers.broadcasts", "sweep", names, args)

    def split(
        self,
        broadcast: str,
        *,
        cursor: int | str | None = None,
        buckets: range | list[int] = range(BUCKETS),
        last: bool = True,
    ) -> list[Any]:
        n, app = self.number, self.app
        copy = self.copy(broadcast)
        at = copy.get("cursor", "0") if cursor is None else cursor
        audience = copy.get("audience", "all")
        names = [keys.lane_broadcast(n, broadcast), keys.queue(n, broadcast)]
        offered = [bucket for bucket in buckets if bucket >= int(at)]
        names += [keys.audience(n, app, audience, bucket) for bucket in offered]
        args = [broadcast, at, "1" if last else "", self.prefix, *offered]
        return self.run("producers.broadcasts", "split", names, args)

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
    ) -> Taken:
        return read_take(self._rows(token, worker, most, allowances, margin, lease))

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
    ) -> list[str]:
        n, app = self.number, self.app
        args: list[Any] = [token or scripts.new_token(), self.now_ms, worker, self.prefix, app]
        args += [most, lease, margin, TTL, 100]
        for broadcast, allowance in (allowances or {}).items():
            of_now = (allowance, self.copy(broadcast).get("rate", 0), 0)
            args += [broadcast, *(allowance if isinstance(allowance, tuple) else of_now)]
        rows: list[str] = self.run(
            "workers.sending",
            "take",
            [
                keys.reply(n, f"take:{app}", worker),
                keys.priority_ring(n, app),
                keys.ring(n, app),
                keys.sending(n, app),
                keys.fence(n),
                keys.stock(n, app),
                keys.ledger(n, app),
            ],
            args,
        )
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
    ) -> Settled:
        n, app = self.number, self.app
        args: list[Any] = [token or scripts.new_token(), self.now_ms, worker, self.prefix, app]
        args += [lease, margin, TTL, self.canary, *rows]
        answer = self.run(
            "workers.sending",
            "settle",
            [
                keys.reply(n, f"settle:{app}", worker),
                keys.sending(n, app),
                keys.fence(n),
                keys.stock(n, app),
                keys.ledger(n, app),
            ],
            args,
        )
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
        n, app = self.number, self.app
        names = [
            keys.lane_broadcast(n, broadcast),
            keys.flight(n, broadcast),
            keys.queue(n, broadcast),
            keys.sending(n, app),
            keys.stock(n, app),
            keys.ledger(n, app),
        ]
        args = [
            "",
            self.now_ms,
            dead,
            broadcast,
            self.prefix,
            TTL,
            attempts,
            LEASE,
        ]
        cursor, found = "0", [0, 0, 0, 0]
        while True:
            cursor, *some = self.run("workers.duties", "recover", names, [*args, cursor])
            found = [sum(pair) for pair in zip(found, some, strict=True)]
            if cursor == "0":
                self.unsent = found[3]
                return found[:2]

    def aside(self, broadcast: str, what: str) -> int:
        n, app = self.number, self.app
        names = [
            keys.lane_broadcast(n, broadcast),
            keys.flight(n, broadcast),
            keys.queue(n, broadcast),
            keys.sending(n, app),
            keys.stock(n, app),
            keys.ledger(n, app),
        ]
        args = ["", self.now_ms, broadcast, self.prefix, app, TTL, what, "0"]
        cursor, found = self.run("producers.recipients", "aside", names, args)
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
        args = ["", self.now_ms, self.prefix, self.item(openid), template, msgid, errcode]
        args += [at_ms or self.now_ms, TTL, *candidates]
        names = [keys.receipts(self.number, self.app, openid)]
        broadcast, what = self.run("producers.recipients", "receipt", names, args)
        return broadcast, what

    def resolve(self, broadcast: str, outcome: str, *openids: str) -> int:
        names = [self.key("lane_broadcast", broadcast), self.key("doubts", broadcast)]
        args = [self.prefix, broadcast, outcome, *(self.item(openid) for openid in openids)]
        return self.run("producers.recipients", "resolve", names, args)

    def keep(
        self, worker: str = "k1", *, most: int = 100, messages: int = 1000, alone: bool = True
    ) -> list[list[str]] | None:
        """Look after what is due; returns what is given to the keeper, None without the lease."""
        n = self.number
        names = [keys.keeper(n), keys.due(n), keys.doing(n)]
        args: list[Any] = ["", self.now_ms, worker, 3000, self.prefix, most, messages, TTL, 10_000]
        held, *answer = self.run("workers.lanes", "keep", names, [*args, "1" if alone else ""])
        if not int(held):
            return None
        return [
            [member.replace("/", " "), *words]
            for member, _, *words in (row.split(" ") for row in answer[2:])
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
        names = [keys.stock(self.number, self.app), keys.ledger(self.number, self.app)]
        return self.run("workers.lanes", "trim", names, ["", self.now_ms])

    # -- reading back ---------------------------------------------------------------------------

    def key(self, name: str, *parts: Any) -> str:
        return getattr(keys, name)(self.number, *parts)

    def bucket(self, openid: str) -> int:
        return keys.bucket_of(openid, BUCKETS)

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
    script = client.register_script(scripts.source("workers.sending", "posting"))
    held = [
        f"{item} {entry.split(' ')[1]}"
        for item, entry in client.hgetall(key).items()
        if entry.startswith(f"{worker} ")
    ]
    refused: list[str] = []
    for start in range(0, len(held), 200):
        refused += script(keys=[key], args=[worker, " ".join(held[start : start + 200])])
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
