"""The sums of an evening: what Redis, the service, the logs and the WeChat say of each broadcast.

Where nothing goes wrong all four are equal, and known beforehand. Where workers are killed, a line
may be lost with its worker, and an answer with its connection: then nobody is lost, nobody has
anything twice, and whoever is in doubt is counted.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from producers.broadcasts.status import Status
from producers.care.audit import Auditor
from producers.local.chaos.evening.door import ServiceDoor
from producers.local.chaos.evening.play import Play, text_of
from producers.local.chaos.evening.programme import (
    APPS,
    CAFE,
    SHOP,
    SUPPRESSED,
    Act,
    Evening,
    openid_of,
    page_of,
)
from producers.local.chaos.schedule import Fault
from producers.producer import Producer
from producers.sandbox.control.client import SandboxClient
from producers.settings import Settings
from producers.store import Client
from producers.words import Outcome

_SHOWN: Final = 20


@dataclass
class Line:
    """One broadcast.

    Attributes:
        name, app, id: which.
        state: how it ended.
        recipients: in all.
        redis: outcome → recipients.
        http: the same, by the service.
        logged: lines of deliveries.
        arrived: messages at the WeChat.
        twice: of them, beyond the first to an openid.
    """

    name: str
    app: str
    id: str
    state: str
    recipients: int
    redis: Counter[str] = field(default_factory=Counter)
    http: Counter[str] = field(default_factory=Counter)
    logged: int = 0
    arrived: int = 0
    twice: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready fields."""
        return {
            "name": self.name,
            "app": self.app,
            "id": self.id,
            "state": self.state,
            "recipients": self.recipients,
            "redis": dict(self.redis),
            "http": dict(self.http),
            "logged": self.logged,
            "arrived": self.arrived,
            "twice": self.twice,
        }


@dataclass
class Sums:
    """What an evening ended with.

    Attributes:
        evening: its programme.
        end: ``finished``, or why it did not.
        lines: of each broadcast.
        messages: outcome → single messages.
        outside: messages of the quiet one that arrived before its window.
        beyond_cap: messages of a purpose beyond a user's cap.
        ticks: broadcasts that the series made.
        wrong_words: rows whose message said something else.
        findings: what the audit says, in words.
        struck: fault → how often.
        restarts: of units.
        lost_replies: of Redis.
        faults: what is wrong, as sentences; none is a good verdict.
    """

    evening: Evening
    end: str
    lines: list[Line] = field(default_factory=list)
    messages: Counter[str] = field(default_factory=Counter)
    outside: int = 0
    beyond_cap: int = 0
    ticks: int = 0
    wrong_words: int = 0
    findings: list[str] = field(default_factory=list)
    struck: Mapping[Fault, int] = field(default_factory=dict)
    restarts: int = 0
    lost_replies: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    @property
    def lost(self) -> int:
        """Recipients without an outcome."""
        return sum(line.recipients - line.redis.total() for line in self.lines)

    @property
    def twice(self) -> int:
        """Messages beyond the first of a broadcast to an openid."""
        return sum(line.twice for line in self.lines)

    def as_dict(self) -> dict[str, Any]:
        """Return them as JSON-ready fields."""
        plan = self.evening.plan
        return {
            "good": self.good,
            "wrong": self.faults,
            "seed": plan.seed,
            "users": self.evening.users,
            "faults": sorted(plan.faults),
            "end": self.end,
            "broadcasts": [line.as_dict() for line in self.lines],
            "messages": dict(self.messages),
            "lost": self.lost,
            "twice": self.twice,
            "outside_window": self.outside,
            "beyond_cap": self.beyond_cap,
            "ticks": self.ticks,
            "wrong_words": self.wrong_words,
            "findings": self.findings,
            "struck": {fault.value: count for fault, count in self.struck.items()},
            "restarts": self.restarts,
            "lost_replies": self.lost_replies,
        }


def count(
    sums: Sums,
    play: Play,
    producer: Producer,
    door: ServiceDoor,
    wechat: SandboxClient,
    client: Client,
    settings: Settings,
    log: Path,
) -> None:
    """Fill in what everybody says, and compare it."""
    arrived = _arrivals(sums.evening, wechat)
    logged = _logged(log)
    for name, act in sums.evening.acts.items():
        if name in play.ids:
            status = producer.status(play.ids[name])
            sums.lines.append(_line(act, status, door, logged, arrived))
    for page, (_, message) in play.messages.items():
        sums.messages[producer.message_status(message).outcome] += 1
        got = sum(len(times) for times in arrived.get(page, {}).values())
        sums.faults += [f"{page} arrived {got} times"] if got > 1 else []
    _count_words(sums, wechat)
    _count_bounds(sums, arrived)
    sums.ticks = sum(
        one.template_id == sums.evening.acts["tick"].template
        for one in producer.broadcasts(SHOP, limit=100).broadcasts
    )
    wrong = Auditor(client, settings).run().wrong
    sums.findings = [f"{one.where}: {one.what}: {one.found}, {one.counted}" for one in wrong]
    sums.faults += _faults(sums, play)


def _arrivals(evening: Evening, wechat: SandboxClient) -> dict[str, dict[str, list[int]]]:
    """Return page → openid → when its messages arrived (epoch ms), by the sandbox."""
    found: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for app in APPS:
        for user in range(1 if app == CAFE else evening.users):
            openid = openid_of(app, user)
            for message in wechat.get(f"received?openid={openid}"):
                found[message["page"]][openid].append(message["at_ms"])
    return found


def _logged(log: Path) -> Counter[str]:
    """Return broadcast → lines of deliveries."""
    found: Counter[str] = Counter()
    with log.open("rb") as lines:
        for line in lines:
            if b'"message_settled"' not in line or not line.endswith(b"}\n"):
                continue
            row = orjson.loads(line)
            if row["action"] == "settled" and row["outcome"] == Outcome.DELIVERED:
                found[row["broadcast"]] += 1
    return found


def _line(
    act: Act,
    status: Status,
    door: ServiceDoor,
    logged: Counter[str],
    arrived: Mapping[str, Mapping[str, list[int]]],
) -> Line:
    _, told = door.call("GET", f"/v1/apps/{act.app}/broadcasts/{status.id}")
    got = arrived.get(act.page, {})
    counts = [len(times) for times in got.values()]
    return Line(
        act.name,
        act.app,
        status.id,
        status.state.value,
        status.total,
        Counter(status.outcomes),
        Counter((told or {}).get("outcomes", {})),
        logged[status.id],
        sum(counts),
        sum(counts) - len(counts),
    )


def _count_words(sums: Sums, wechat: SandboxClient) -> None:
    """Look whether each row's message said what the row says."""
    page = page_of("rows")
    for user in range(sums.evening.rows):
        said = [
            message["data"]["thing1"]["value"]
            for message in wechat.get(f"received?openid={openid_of(SHOP, user)}")
            if message["page"] == page
        ]
        sums.wrong_words += sum(text != text_of(user) for text in said)


def _count_bounds(sums: Sums, arrived: Mapping[str, Mapping[str, list[int]]]) -> None:
    """Look at the window, and at the cap."""
    opens_ms = sums.evening.opens_s * 1000
    quiet = arrived.get(page_of("quiet"), {})
    sums.outside = sum(at_ms < opens_ms for times in quiet.values() for at_ms in times)
    offers: Counter[str] = Counter()
    for name in ("offer1", "offer2"):
        for openid, times in arrived.get(page_of(name), {}).items():
            offers[openid] += len(times)
    sums.beyond_cap = sum(max(0, got - 1) for got in offers.values())


def _faults(sums: Sums, play: Play) -> Iterator[str]:
    """Yield what is wrong."""
    if sums.end != "finished":
        yield f"it did not finish: {sums.end}"
    missing = sums.evening.acts.keys() - play.ids.keys()
    if missing:
        yield f"never begun: {', '.join(sorted(missing))}"
    for line in sums.lines:
        act = sums.evening.acts[line.name]
        yield from (f"{line.name}: {one}" for one in _of_line(line, act))
        if sums.evening.is_exact:
            yield from (f"{line.name}: {one}" for one in _of_exact_line(line, act))
    bounds = {
        f"{sums.outside:,} messages arrived outside their window": sums.outside,
        f"{sums.beyond_cap:,} messages went beyond a cap": sums.beyond_cap,
        f"the series made {sums.ticks} broadcasts for one tick": sums.ticks != 1,
        f"{sums.wrong_words:,} rows' messages said something else": sums.wrong_words,
        f"{len(sums.findings)} sums of the audit differ": bool(sums.findings),
    }
    yield from (sentence for sentence, is_so in bounds.items() if is_so)
    both = _of(sums, "offer1", Outcome.DELIVERED) + _of(sums, "offer2", Outcome.DELIVERED)
    capped = _of(sums, "offer1", Outcome.CAPPED) + _of(sums, "offer2", Outcome.CAPPED)
    users = sums.evening.users
    if sums.evening.is_exact:
        if (both, capped) != (users, users):
            yield f"offers: {both:,} delivered and {capped:,} capped, of {users:,} each"
        unlike = sums.messages.total() - sums.messages[Outcome.DELIVERED]
        if unlike:
            yield f"{unlike} single messages ended otherwise: {dict(sums.messages)}"
    odd = sums.messages.keys() - {Outcome.DELIVERED, Outcome.IN_DOUBT}
    if odd:
        yield f"single messages ended in {', '.join(sorted(odd))}"


def _of(sums: Sums, name: str, outcome: Outcome) -> int:
    return sum(line.redis[outcome] for line in sums.lines if line.name == name)


def _of_line(line: Line, act: Act) -> Iterator[str]:
    """Yield what is wrong whatever happened."""
    delivered, doubts = line.redis[Outcome.DELIVERED], line.redis[Outcome.IN_DOUBT]
    if line.state != act.state:
        yield f"it ended {line.state}"
    if line.redis.total() != line.recipients:
        yield f"{line.recipients - line.redis.total():,} recipients were forgotten"
    if act.name != "retried" and line.recipients != act.recipients:
        yield f"it was for {line.recipients:,} of {act.recipients:,}"
    if line.twice:
        yield f"{line.twice:,} messages arrived twice"
    if not delivered <= line.arrived <= delivered + doubts:
        yield f"{line.arrived:,} arrived, {delivered:,} delivered, {doubts:,} in doubt"
    if line.http != line.redis:
        yield f"the service says {dict(line.http)}, Redis {dict(line.redis)}"
    if act.name == "quiet" and line.redis[Outcome.SUPPRESSED] != SUPPRESSED:
        yield f"{line.redis[Outcome.SUPPRESSED]} were suppressed of {SUPPRESSED}"
    odd = sorted(line.redis.keys() - _allowed(act))
    if odd:
        yield f"outcomes that nothing explains: {', '.join(odd)}"


def _allowed(act: Act) -> set[str]:
    """Return the outcomes that one may end with."""
    allowed: set[str] = {Outcome.DELIVERED, Outcome.IN_DOUBT}
    if act.name.startswith("offer"):
        allowed.add(Outcome.CAPPED)
    if act.name == "quiet":
        allowed.add(Outcome.SUPPRESSED)
    if act.state != "finished":
        allowed.add(Outcome.CANCELLED)
    return allowed


def _of_exact_line(line: Line, act: Act) -> Iterator[str]:
    """Yield what is wrong where nothing went wrong."""
    delivered = line.redis[Outcome.DELIVERED]
    if line.redis[Outcome.IN_DOUBT]:
        yield f"{line.redis[Outcome.IN_DOUBT]:,} are in doubt"
    if act.delivered >= 0 and delivered != act.delivered:
        yield f"{delivered:,} were delivered of {act.delivered:,}"
    if line.logged != delivered:
        yield f"{line.logged:,} lines of deliveries, {delivered:,} delivered"
