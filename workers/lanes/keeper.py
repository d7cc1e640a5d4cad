"""The keeper: looks after the lanes, each second, by whichever worker holds one; level-triggered.

Whoever makes a need writes it, in the same script, into the lane's `due` (need.lua): so no lost
message or killed process can leave a broadcast behind, and what needs nothing costs nothing. A pass
looks at what is due, all lanes of a server in one call (keep.lua); what goes beyond a lane
(`wants`) is done for at most a second, and the rest in the next pass. Jobs and wake-ups only make
it sooner; the `net` below finds what nobody wrote.

A lane that is being divided is left alone: what it is due of goes with it, and is found in its
heirs. What of a broadcast waits for it is tried again in each pass.
"""

import math
import time
from itertools import chain, islice
from typing import Any, Final, NamedTuple

from producers import logs
from producers.broadcasts import Broadcasts
from producers.errors import LaneDividedError
from producers.logs.events import DutyFailed
from producers.settings import Layout, Settings
from producers.store import Client, keys
from producers.store.lanes.fence import is_refusal
from producers.store.lanes.layout import follow
from producers.store.lanes.reach import groups, learn
from producers.store.scripts import NoArgs, Script
from producers.words import State
from workers.lanes import standing
from workers.lanes.divided import Apart, is_divided, not_waiting
from workers.lanes.net import Net
from workers.lanes.standing import Standing
from workers.lanes.stocks import Stocks
from workers.lanes.wants import Want, Wants

LEASE_MS: Final = 4000
_QUIET_S: Final = 1.9
"""A lane in which nothing is due within that time is looked at again then."""

_PASS_S: Final = 0.7
"""A pass begins nothing more after so long: it ends long before its leases do."""

_LOOKED_AT: Final = 200
"""Broadcasts that one script run looks at: about 2 ms of Redis."""
_PROMOTED: Final = 1000
"""Delayed messages promoted by one script run."""
_AGAIN_MS: Final = 10_000
"""What was given to a keeper that did not do it is due again after so long."""
_AFTER_S: Final = 0.002
"""A start is looked for so long after its time: before it would be too early."""

_READ: Final = 50
"""Broadcasts whose home and copies are read in one trip."""


class KeepKeys(NamedTuple):
    """KEYS of keep.lua; those of further lanes of the same server follow."""

    lease: str
    due: str
    doing: str

    @classmethod
    def of(cls, lane: int) -> "KeepKeys":
        """Return those of a lane."""
        return cls(keys.keeper(lane), keys.due(lane), keys.doing(lane))


class KeepArgs(NamedTuple):
    """ARGV of keep.lua; the net follows."""

    worker: str
    lease_ms: int
    most: int
    messages: int
    ttl_ms: int
    time_ms: int
    alone: int


class DoneKeys(NamedTuple):
    """KEYS of done.lua, which is told what was done."""

    doing: str


KEEP: Final = Script(__package__, "keep", KeepKeys, KeepArgs, clock=True)
DONE: Final = Script(__package__, "done", DoneKeys, NoArgs)


class Keeper:
    """Looks after lanes; used by one thread at a time.

    Attributes:
        wants: does what goes beyond a lane; any thread may ask for it sooner.
    """

    name = "keep"

    def __init__(
        self, client: Client, settings: Settings, broadcasts: Broadcasts, worker: str
    ) -> None:
        self._client = client
        self._settings = settings
        self._broadcasts = broadcasts
        self.wants = Wants(client, settings, broadcasts)
        self._net = Net(client, settings)
        self._stocks = Stocks(client, settings)
        self._keep = KEEP.on(client)
        self._done = DONE.on(client)
        self._worker = worker
        self._held: set[int] = set()
        self._quiet: dict[int, float] = {}
        self._todo: dict[str, dict[tuple[int, str], Want]] = {}
        self._layout: Layout | None = None
        self._now_ms = 0
        self._turn = 0
        self._looked_at = 0.0
        self._alarms: set[float] = set()

    @property
    def alarm_at(self) -> float:
        """When the next broadcast starts (monotonic s) that was seen to; inf: none is near."""
        return min(self._alarms, default=math.inf)

    def hear(self, broadcast: str) -> None:
        """Somebody let a broadcast run; see `Net.hear`."""
        self._net.hear(broadcast)

    def due(self, now: float) -> bool:
        """Say whether anything may be due: in a lane, of what was found, or of the net."""
        return bool(
            self._todo
            or self._stocks.due
            or self.alarm_at <= now
            or self._net.due(now, casts=self._casts)
            or any(self._quiet.get(lane, 0.0) <= now for lane in self._lanes)
        )

    @property
    def _lanes(self) -> list[int]:
        """The lanes that can be looked after."""
        layout = self._settings.layout
        return [lane for lane in layout.lanes if lane != layout.shut]

    @property
    def _casts(self) -> bool:
        """Whether this worker casts the net: it holds the first lane that can be looked after."""
        return next(iter(self._lanes), None) in self._held

    def _follow(self) -> None:
        """Forget the lanes that were divided; their heirs came."""
        layout, before = self._settings.layout, self._layout
        if layout is before:
            return
        self._layout = layout
        lanes = set(self._lanes)
        self._held &= lanes
        self._quiet = {lane: at for lane, at in self._quiet.items() if lane in lanes}
        if before is not None and lanes - set(before.lanes):
            self._net.hurry()  # it passed by while they were not there

    def run_once(self) -> None:
        """As `run`, over all lanes, the quiet ones too."""
        self._quiet.clear()
        self.run()

    def run(self) -> None:
        """Look at the lanes that this worker holds or can take, and do what is due.

        Lanes in which nothing is due so soon are left out. Never raises for a duty that failed: it
        is logged, and comes again.

        Raises:
            redis.RedisError, StoreUnavailableError: Redis did not answer.
        """
        begun = time.monotonic()
        self._alarms = {at for at in self._alarms if at > begun}
        more = self._look([])
        net = self._net.some(casts=self._casts)
        if net:
            more = self._look(net) or more
        while True:
            adopted = self._serve(begun + _PASS_S)
            if adopted:
                self._quiet.clear()
            if not (more or adopted) or time.monotonic() > begun + _PASS_S:
                break
            more = self._look([])
        self._stocks.trim_some(self._held, self._now_ms)

    def _look(self, net: list[str]) -> bool:
        """Look at the lanes in one trip; returns whether more is due already.

        Args:
            net: broadcasts that are made due in every lane, and at their home.
        """
        self._follow()
        every = self._lanes
        started = time.monotonic()
        lanes = every if net else [n for n in every if self._quiet.get(n, 0.0) <= started]
        self._looked_at = started
        self._turn += 1
        together = groups(self._client, lanes, self._turn)
        args = KeepArgs(
            worker=self._worker,
            lease_ms=LEASE_MS,
            most=_LOOKED_AT,
            messages=_PROMOTED,
            ttl_ms=self._broadcasts.ttl_ms,
            time_ms=_AGAIN_MS,
            alone=int(len(self._settings.layout.lanes) == 1),
        )
        pipeline = self._client.pipeline(transaction=False)
        for some in together:
            homes = (
                f"{one} home {1 + some.index(lane)}"
                for one in net
                if (lane := self._broadcasts.home_lane(one)) in some
            )
            first, *others = (KeepKeys.of(lane) for lane in some)
            more_keys = chain.from_iterable(others)
            self._keep(first, args, (*net, *homes), more_keys=more_keys, into=pipeline)
        answers = pipeline.execute(raise_on_error=False)
        if sum(learn(self._client, answer) for answer in answers):
            return self._look(net)  # each lane by a call of its own
        held_before = set(self._held)
        more = refused = False
        for some, answer in zip(together, answers, strict=True):
            if is_refusal(answer):  # and the lanes that were in the same call
                refused = True
            else:
                more = self._learn(some, answer, started) or more
        self._stocks.take_over(self._held - held_before)
        if refused and follow(self._client, self._settings):
            return self._look(net) or more
        return more

    def _learn(self, lanes: list[int], answer: Any, started: float) -> bool:
        """Note what a look at some lanes found; returns whether more is due already."""
        failed = isinstance(answer, Exception)
        words = iter(() if failed else answer)
        now_ms = int(next(words, 0))
        more = False
        for lane in lanes:
            # a lane that another worker holds is looked at as seldom as one that needs nothing
            self._quiet[lane] = started + _QUIET_S
            self._held.discard(lane)
            held, next_ms, count = (next(words, "") for _ in range(3))
            if failed or int(held) < 0:
                what = type(answer).__name__ if failed else "its keys are broken"
                logs.emit(DutyFailed("look", lane, what))
                continue
            if not int(held):
                continue
            self._held.add(lane)
            self._now_ms = now_ms
            due_ms = float(next_ms or "inf")
            more = more or due_ms <= now_ms
            if due_ms < now_ms + 1000 * _QUIET_S:
                del self._quiet[lane]
            for row in islice(words, int(count)):
                member, until_ms, *wanted = row.split(" ")
                want = Want(lane, member.replace("/", " "), until_ms, frozenset(wanted))
                self._todo.setdefault(want.broadcast, {})[lane, want.member] = want
        return more

    def _serve(self, until: float) -> bool:
        """Do what was found, as long as there is time; returns whether lanes are due by that."""
        adopted = False
        again: dict[str, list[Want]] = {}
        while self._todo and time.monotonic() < until:
            some = list(islice(self._todo, _READ))
            layout = self._settings.layout
            looks = standing.read(self._client, self._broadcasts, layout.lanes, some, layout.shut)
            for broadcast in set(some) - looks.keys():
                (lane, _), *_ = self._todo.pop(broadcast)  # a node is away; it comes again
                logs.emit(DutyFailed("keep", lane, f"not read ({broadcast})"))
            some = [broadcast for broadcast in some if broadcast in looks]
            done: dict[int, list[str]] = {}
            for broadcast in some:
                if time.monotonic() > until:
                    break
                wants = self._wants_of(broadcast)
                if not wants:
                    continue
                adopted = adopted or looks[broadcast].is_behind
                try:
                    with not_waiting(self._settings):
                        is_done = self._serve_one(broadcast, wants, looks[broadcast], layout)
                except Exception as error:  # noqa: BLE001  (the others go on; it comes again)
                    if is_divided(error):
                        again[broadcast] = wants
                    else:
                        what = f"{type(error).__name__} ({broadcast})"
                        logs.emit(DutyFailed("keep", wants[0].lane, what))
                    continue
                for want in wants if is_done else ():
                    done.setdefault(want.lane, []).extend((want.member, want.until_ms))
            self._tell_done(done)
        self._keep_for_later(again)
        return adopted

    def _wants_of(self, broadcast: str) -> list[Want]:
        """Take what a broadcast wants, but in lanes that were divided: it comes again in others."""
        lanes = self._lanes
        return [want for want in self._todo.pop(broadcast).values() if want.lane in lanes]

    def _tell_done(self, done: dict[int, list[str]]) -> None:
        """Let lanes know what was done."""
        for lane, members in done.items():
            with Apart().from_others():
                self._done(DoneKeys(keys.doing(lane)), NoArgs(), members)

    def _keep_for_later(self, again: dict[str, list[Want]]) -> None:
        """Have what met a lane that is being divided done in the next pass."""
        for broadcast, wants in again.items():
            self._todo.setdefault(broadcast, {}).update({(w.lane, w.member): w for w in wants})
        if again:
            follow(self._client, self._settings)

    def _serve_one(self, broadcast: str, wants: list[Want], look: Standing, layout: Layout) -> bool:
        """Do what a broadcast wants; returns whether that is done.

        Raises:
            LaneDividedError: a lane is being divided, or was since the look.
        """
        if look.home["state"] is None:
            follow(self._client, self._settings)
            if self._settings.layout.lanes != layout.lanes:
                raise LaneDividedError  # it went with its home's lane
            self._net.forget_orphan(broadcast, self._now_ms)
            return True
        if look.home["state"] == State.SCHEDULED:
            wait_ms = int(look.home["starts_at_ms"] or 0) - self._now_ms
            if wait_ms > 0:
                at = self._looked_at + wait_ms / 1000 + _AFTER_S
                self._alarms.add(math.ceil(1000 * at) / 1000)  # those of one moment are one
        return self.wants.serve(broadcast, wants, look, self._now_ms)
