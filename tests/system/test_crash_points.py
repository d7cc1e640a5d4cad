"""Crash points: whoever dies just before or after a step, nobody gets it twice or is forgotten.

Each case is a stage of its own: a database, a WeChat, a unit that is killed at one step (see
`crash`), and a second unit that finishes what it left. The cases of one test go on at the same
time, for a dead worker is called dead after 8 s.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from crash import POST, Trap, script
from stage import LANES, TEMPLATE, Stage, Stages

from producers.errors import NotFoundError
from producers.permits.ledger import totals
from producers.store import keys
from producers.words import State

Eventually = Callable[..., Any]
RECIPIENTS = 50
TAKE, SETTLE = (script("workers.sending", name) for name in ("take", "settle"))
RESERVE = script("workers.limits", "reserve")
RECOVER = script("workers.duties", "recover")
KEEP = script("workers.lanes", "keep")
CREATE, ADOPT, SPLIT, MOVE = (
    script("producers.broadcasts", name) for name in ("create", "adopt", "split", "move")
)
BOTH = ("before", "after")
CHANNELS = ("template", "subscribe")


class Answering(Stages):
    """Stages that send 100 a second, answered after 100 ms."""

    def __call__(self, **changes: Any) -> Stage:
        """Make one."""
        stage = super().__call__(**{"app": {"rate_per_second": 100}, **changes})
        stage.wechat.configure(latency={"fixed_ms": 100})
        return stage


@pytest.fixture
def stages(valkey_url: str, tmp_path: Path) -> Iterator[Stages]:
    with contextlib.closing(Answering(valkey_url, tmp_path)) as stages:
        yield stages


@dataclass
class Case:
    """One death.

    Attributes:
        word, when, if_request, if_reply: at which step; see `crash.Trap`. The last two are given
            the case, and what is sent.
        channel: of the broadcast.
        recipients: of the broadcast.
        each: form_ids of each user.
        unknown: form_ids that WeChat does not know.
        faults: of the sandbox.
        opened: not before the first message was settled.
    """

    name: str
    word: bytes
    when: str
    channel: str = "template"
    if_request: Callable[["Case", bytes], bool] = lambda *_: True
    if_reply: Callable[["Case", bytes], bool] = lambda *_: True
    recipients: int = RECIPIENTS
    each: int = 1
    unknown: tuple[str, ...] = ()
    faults: tuple[dict[str, Any], ...] = ()
    opened: bool = True
    stage: Stage = field(init=False)
    broadcast: str = field(init=False)
    left: dict[str, str] = field(init=False)
    posting: set[str] = field(init=False)

    def __str__(self) -> str:
        return f"{self.when} {self.name}, {self.channel}"

    def begin(self, stage: Stage, **spec: Any) -> None:
        """Create the broadcast, and start the unit that is to die of it."""
        self.stage = stage
        if self.channel == "template":
            stage.form_ids(self.recipients, self.each, unknown=self.unknown)
        else:
            stage.accepts(self.recipients)
        stage.wechat.fail(*self.faults)
        self.broadcast = stage.create(self.channel, **spec)
        self.trap = Trap(
            self.word, self.when, self._is_now, partial(self.if_reply, self), process=None
        )
        stage.unit(self.trap)

    def _is_now(self, request: bytes) -> bool:
        if self.opened and not self.settled:
            return False
        return self.if_request(self, request)

    @property
    def settled(self) -> int:
        pipeline = self.stage.client.pipeline(transaction=False)
        for lane in self.stage.settings.layout.lanes:
            pipeline.hget(keys.lane_broadcast(lane, self.broadcast), "done")
        return sum(int(done or 0) for done in pipeline.execute())

    def die(self, eventually: Eventually) -> None:
        """Wait for the death, and look at what it left."""
        eventually(self.trap.sprung.is_set, f"the unit died {self}")
        assert self.trap.process
        self.trap.process.wait(10)
        self.left = self.stage.in_hands(self.broadcast)
        self.posting = self.stage.posting(self.broadcast)

    def finish(self) -> None:
        """Let another unit finish."""
        self.stage.unit()
        status = self.stage.wait(self.broadcast, 60)
        assert status.state == State.FINISHED, self
        assert status.outcomes == self.wanted(), (str(self), status, self.left)
        delivered, doubted = (status.outcomes.get(o, 0) for o in ("delivered", "in_doubt"))
        assert delivered <= self.stage.accepted <= delivered + doubted, self
        if self.word != RECOVER:  # who died of recovering has not told of it
            recovered = self.stage.lines("messages_recovered")
            counts = ("resumed", "in_doubt", "unsent")
            assert sum(line[name] for line in recovered for name in counts) == len(self.left)
        self.stage.assert_sound(self.broadcast, self.recipients)

    def wanted(self) -> dict[str, int]:
        """What a dead worker was posting of subscriptions is in doubt, and nothing else.

        A form_id of which an attempt may have arrived is not swapped for another one, even when it
        turns out to be unknown to WeChat.
        """
        doubted = (
            len(self.posting)
            if self.channel == "subscribe"
            else sum(member[2:] in self.unknown for member in self.left.values())
        )
        counts = {"delivered": self.recipients - doubted, "in_doubt": doubted}
        return {outcome: count for outcome, count in counts.items() if count}


def play(cases: list[Case], stages: Stages, eventually: Eventually) -> None:
    """Play all cases at the same time."""
    for case in cases:
        case.begin(stages())
    for case in cases:
        case.die(eventually)
    with ThreadPoolExecutor(len(cases)) as pool:
        ends = [pool.submit(case.finish) for case in cases]
    for end in ends:
        end.result()


def has(what: bytes) -> Callable[[Case, bytes], bool]:
    """Whether a request holds these bytes."""
    return lambda _, request: what in request


@pytest.mark.timeout(150)
def test_death_at_take_and_reserve(stages: Stages, eventually: Eventually) -> None:
    def took_some(case: Case, reply: bytes) -> bool:
        return f"B {case.broadcast} ".encode() in reply

    cases = [
        case
        for channel in CHANNELS
        for when in BOTH
        for case in (
            Case("take", TAKE, when, channel, if_reply=took_some),
            Case("the first take", TAKE, when, channel, if_reply=took_some, opened=False),
            Case("reserve", RESERVE, when, channel),
        )
    ]
    play(cases, stages, eventually)

    for case in cases:
        if (case.word == TAKE and case.when == "after") or case.word == RESERVE:
            assert case.left, f"{case}: claims lay under the dead worker's name"
        if case.channel == "subscribe":
            assert len(case.posting) <= len(case.left)
            assert case.opened or not case.posting, f"{case}: nobody had been posted to"


@pytest.mark.timeout(150)
def test_death_at_the_post(stages: Stages, eventually: Eventually) -> None:
    cases = [
        Case("the POST", POST, when, channel, opened=opened)
        for channel in CHANNELS
        for when in BOTH
        for opened in (True, False)
    ]
    play(cases, stages, eventually)

    for case in cases:
        assert case.left, case
        if case.channel == "template" and case.when == "after":
            assert case.stage.status(case.broadcast).errcodes.get("41029", 0) >= 1, case


@pytest.mark.timeout(150)
def test_death_at_settle(stages: Stages, eventually: Eventually) -> None:
    some = [f"o{user}" for user in range(5)]
    cut = {"api": "/send", "openid": some, "count": 5, "action": "cut_after"}
    busy = {"api": "/send", "openid": some, "count": 5, "action": "errcode", "errcode": 43108}
    quota = {"api": "/send", "skip": 10, "count": 1, "action": "errcode", "errcode": 45011}
    dead = tuple(f"f{user}x0" for user in range(5))
    cases = []
    for when in BOTH:
        for channel in CHANNELS:
            cases += [
                Case("settle delivered", SETTLE, when, channel, has(b" settle spent delivered ")),
                Case("settle delay", SETTLE, when, channel, has(b" delay back "), faults=(busy,)),
                Case("settle requeue", SETTLE, when, channel, has(b" requeue "), faults=(quota,)),
            ]
        cases += [
            Case("settle keep", SETTLE, when, if_request=has(b" keep "), faults=(cut,)),
            Case("settle swap", SETTLE, when, if_request=has(b" swap "), each=2, unknown=dead),
        ]
    play(cases, stages, eventually)

    for case in cases:
        if case.name == "settle swap":
            held = {member[2:] for member in case.left.values()}
            lost = held & set(dead)
            assert lost if case.when == "before" else any(one.endswith("x1") for one in held)
            void = totals(case.stage.client, case.stage.settings, "shop").total.void
            assert void == len(dead) - len(lost)


@pytest.mark.timeout(150)
def test_death_at_split_promote_and_finish(
    stages: Stages, eventually: Eventually, topology: str
) -> None:
    many = 200 * (LANES if topology == "cluster" else 1)  # more than is queued at once, in a lane
    waits = {"template": -1, "subscribe": 43108}  # kept with its form_id; handed back

    def lost(channel: str) -> dict[str, Any]:
        fault = {"api": "/send", "count": 5, "skip": 10, "action": "errcode"}
        return {**fault, "errcode": waits[channel]}

    def splits(case: Case, request: bytes) -> bool:
        client, lanes = case.stage.client, case.stage.settings.lanes
        return any(
            client.hget(keys.lane_broadcast(lane, case.broadcast), "split") != "done"
            and client.llen(keys.queue(lane, case.broadcast)) < 100
            for lane in range(lanes)
            if f"wxb:{{{lane}}}:".encode() in request
        )

    def promotes(case: Case, request: bytes) -> bool:
        if b"EVALSHA" not in request:  # whether the script is known was asked for
            return False
        client = case.stage.client
        seconds, micros = client.time()
        now_ms = seconds * 1000 + micros // 1000
        return any(
            client.zcount(keys.delayed(lane, case.broadcast), "-inf", now_ms)
            for lane in case.stage.settings.layout.lanes
            if f"wxb:{{{lane}}}:".encode() in request
        )

    cases = [
        case
        for when in BOTH
        for case in (
            *(Case("split", SPLIT, when, channel, splits, recipients=many) for channel in CHANNELS),
            *(
                Case("promote", KEEP, when, channel, promotes, faults=(lost(channel),))
                for channel in CHANNELS
            ),
            Case("finish", MOVE, when, if_request=has(b"finish")),
        )
    ]
    play(cases, stages, eventually)


@pytest.mark.timeout(180)
def test_death_at_recover(stages: Stages, eventually: Eventually) -> None:
    """The one who recovers dies too; a third one finishes."""

    def mine(case: Case, request: bytes) -> bool:
        return case.broadcast.encode() in request

    cases = [
        (Case("the POST", POST, "after", channel), Case("recover", RECOVER, when, channel, mine))
        for channel in CHANNELS
        for when in BOTH
    ]
    for first, _ in cases:
        first.begin(stages())
    for first, _ in cases:
        first.die(eventually)
    for first, second in cases:
        second.stage, second.broadcast = first.stage, first.broadcast
        second.trap = Trap(RECOVER, second.when, second._is_now)
        first.stage.unit(second.trap)
    for first, second in cases:
        # it sends the rest meanwhile: what counts is what the first one left
        second.die(eventually)
        left = {openid: member for openid, member in second.left.items() if openid in first.left}
        if second.when == "before":
            assert left == first.left
        elif first.channel == "subscribe":
            # lane by lane: of one that was recovered nothing is left
            settings = first.stage.settings
            recovered = {keys.place_of(one, settings)[0] for one in first.left.keys() - left.keys()}
            assert recovered
            for openid in left.keys() & first.posting:
                assert keys.place_of(openid, settings)[0] not in recovered
        second.left = first.left | second.left
        second.posting |= first.posting
    with ThreadPoolExecutor(len(cases)) as pool:
        ends = [pool.submit(second.finish) for _, second in cases]
    for end in ends:
        end.result()


@pytest.mark.timeout(150)
def test_no_death_breaks_a_cap(stages: Stages, eventually: Eventually) -> None:
    app = {"rate_per_second": 100, "per_user_per_day": {"news": 1}}
    cases = [
        Case("take", TAKE, "after", "template", each=2),
        Case("the POST", POST, "after", "subscribe"),
        Case("settle delivered", SETTLE, "before", "template", has(b" delivered "), each=2),
    ]
    others: list[str] = []
    for case in cases:
        stage = stages(app=app)
        if case.channel == "subscribe":
            stage.accepts(case.recipients)
        case.begin(stage, purpose="news")
        others.append(stage.create(case.channel, purpose="news"))
    for case in cases:
        case.die(eventually)
        case.stage.unit()
    for case, other in zip(cases, others, strict=True):
        counts = Counter[str]()
        both = (case.broadcast, other)
        for broadcast in both:
            counts.update(case.stage.wait(broadcast, 60).outcomes)
        for broadcast in both:  # before, the other one may hold permits
            case.stage.assert_sound(broadcast, case.recipients)
        assert counts["delivered"] <= case.stage.accepted, case
        assert case.stage.accepted <= counts["delivered"] + counts["in_doubt"], case
        # nobody had two, and nobody was capped for what was not sent
        assert counts["delivered"] + counts["in_doubt"] == case.recipients, (str(case), counts)
        assert counts["capped"] == case.recipients, (str(case), counts)


# -- producers ----------------------------------------------------------------------------------

MANY = 1100
"""More than what is created in one step."""

BROADCAST = f"""
from producers import Producer
with Producer() as producer:
    producer.broadcast(key="once", app="shop", channel="template", template_id="{TEMPLATE}",
                       data="a,b,c", audience="all")
"""
CANCEL = """
from producers import Producer
with Producer() as producer:
    producer.cancel({broadcast!r})
"""


@pytest.mark.timeout(150)
def test_death_of_a_producer_at_create_adopt_and_split(
    stages: Stages, eventually: Eventually
) -> None:
    cases = [(word, when, stages()) for word in (CREATE, ADOPT, SPLIT) for when in BOTH]
    traps = [Trap(word, when) for word, when, _ in cases]
    for (_, _, stage), trap in zip(cases, traps, strict=True):
        stage.form_ids(MANY)
        stage.python(BROADCAST, trap)
    for (word, when, stage), trap in zip(cases, traps, strict=True):
        eventually(trap.sprung.is_set, "the producer died")
        [broadcast] = stage.client.zrange(keys.active("shop"), 0, -1)
        if (word, when) == (CREATE, "before"):
            with pytest.raises(NotFoundError):
                stage.status(broadcast)
            again = stage.broadcasts.create(stage.spec(), "once")
            assert (again.id, again.known) == (broadcast, False)
        stage.unit()

    for _, _, stage in cases:
        [broadcast] = stage.client.zrange(keys.history("shop"), 0, -1)
        status = stage.wait(broadcast, 60)
        assert (status.state, status.outcomes) == ("finished", {"delivered": MANY})
        again = stage.broadcasts.create(stage.spec(), "once")
        assert (again.id, again.known) == (broadcast, True)
        stage.assert_sound(broadcast, MANY)


@pytest.mark.one_server  # in several lanes it is never one step
def test_death_of_a_producer_at_the_one_step_that_creates_for_a_few(
    stages: Stages, eventually: Eventually
) -> None:
    for when in BOTH:
        stage, trap = stages(), Trap(CREATE, when)
        stage.form_ids(RECIPIENTS)
        stage.python(BROADCAST, trap)
        eventually(trap.sprung.is_set, "the producer died")
        made = stage.client.zrange(keys.active("shop"), 0, -1)
        assert len(made) == (when == "after")
        again = stage.broadcasts.create(stage.spec(), "once")
        assert again.known == (when == "after")
        assert stage.client.zrange(keys.active("shop"), 0, -1) == [again.id]
        assert stage.status(again.id).queued == RECIPIENTS


@pytest.mark.timeout(150)
def test_death_of_a_producer_at_a_move(
    stages: Stages, eventually: Eventually, topology: str
) -> None:
    several = topology == "cluster"  # then what adopts goes to each node by itself
    cases = [(word, when, stages()) for word in (MOVE, ADOPT) for when in BOTH]
    traps = [Trap(word, when) for word, when, _ in cases]
    broadcasts = []
    for (_, _, stage), trap in zip(cases, traps, strict=True):
        stage.form_ids(500)
        broadcasts.append(stage.create())
        stage.python(CANCEL.format(broadcast=broadcasts[-1]), trap)
    for (word, when, stage), trap, broadcast in zip(cases, traps, broadcasts, strict=True):
        eventually(trap.sprung.is_set, "the producer died")
        moved = (word, when) != (MOVE, "before")
        assert (stage.status(broadcast).state == State.CANCELLED) == moved
        stage.unit()

    for (word, when, stage), broadcast in zip(cases, broadcasts, strict=True):
        status = stage.wait(broadcast, 60)
        stage.assert_sound(broadcast, 500)
        if (word, when) == (MOVE, "before"):
            assert (status.state, status.outcomes) == ("finished", {"delivered": 500})
            continue
        # where the lane did not know, the unit sends until its keeper brings the end: a second
        assert status.state == State.CANCELLED
        assert set(status.outcomes) <= {"cancelled", "delivered"}
        assert status.outcomes.get("delivered", 0) == stage.accepted < 250
        assert bool(stage.accepted) <= (several or (word, when) != (ADOPT, "after"))
