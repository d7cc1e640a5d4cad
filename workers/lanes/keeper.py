"""The keeper: the level-triggered duties of the lanes, each second, by whichever worker holds one.

Whoever makes a need writes it, in the same script, into the lane's `due` (need.lua): so no lost
message or killed process can leave a broadcast behind, and what needs nothing costs nothing. A pass
looks at what is due, all lanes in one trip (keep.lua); what goes beyond a lane is done here, for at
most a second, and the rest in the next pass. Each duty looks at what is and brings it forward, and
doing one twice changes nothing. Jobs and wake-ups only make it sooner.

As a net below that, whoever holds the first lane makes each active broadcast due now and then.
"""

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple

from producers import logs
from producers.broadcasts import Broadcasts
from producers.broadcasts.split import Splitter
from producers.errors import IllegalMoveError, NotFoundError
from producers.logs.events import DutyFailed, PermitsExpired
from producers.settings import Settings
from producers.store import Client, keys
from producers.store.scripts import NoArgs, Script
from producers.words import ENDED
from workers.lanes.copies import Copies

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
_READ: Final = 50
"""Broadcasts whose home and copies are read in one trip."""

_ROUND_S: Final = 60.0
"""The net: a round over all active broadcasts takes at least so long, …"""
_SPREAD: Final = 4
"""… and marks so many places, a home or a lane each, a second; …"""
_FIRST: Final = 50
"""… the first round so many times as many, for what an earlier version left."""
_HEARD: Final = 50
"""Broadcasts heard of that wait for the next pass; the newest are kept."""
_APPS: Final = 4
"""Apps whose active broadcasts are read in one pass."""

_TRIM_S: Final = 3000
"""Past hours leave the stocks within so long after the hour."""

_REASONS: Final = {
    "abort": "WeChat refuses this message for everybody",
    "pause": "refusals in a row: check the appid, the audience and the template",
}
_OVER_BUDGET: Final = "over the error budget: too many of the last answers failed"

_HOME: Final = ("state", "generation", "expires_at_ms", "drop", "canary_lane", "app")
_SPLIT: Final = {"done", "mail"}
"""Of a lane's copy: all that it will have so far is queued."""

_MET: Final = ("template_errors", "refusals", "unknowns")
"""What a canary has met, in a lane's copy."""
_COPY: Final = ("generation", "state", "split", "done", "total", "open", "told", *_MET)

_ORPHAN_MS: Final = 3_600_000
"""An id that was listed and whose home never came is forgotten after an hour."""


class Want(NamedTuple):
    """What keep.lua gave: something that goes beyond a lane.

    Attributes:
        lane: where it was found.
        member: in `due`, ``ID`` or ``ID home``.
        until_ms: when it is due again.
        words: what it is about.
    """

    lane: int
    member: str
    until_ms: str
    words: frozenset[str]

    @property
    def broadcast(self) -> str:
        """The broadcast's id."""
        return self.member.partition(" ")[0]


class KeepKeys(NamedTuple):
    """KEYS of keep.lua."""

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
    prefix: str
    most: int
    messages: int
    ttl_ms: int
    time_ms: int
    alone: int


class DoneKeys(NamedTuple):
    """KEYS of done.lua, which is told what was done."""

    doing: str


class TrimKeys(NamedTuple):
    """KEYS of trim.lua."""

    stock: str
    ledger: str


KEEP: Final = Script(__package__, "keep", KeepKeys, KeepArgs, clock=True)
DONE: Final = Script(__package__, "done", DoneKeys, NoArgs)
TRIM: Final = Script(__package__, "trim", TrimKeys, NoArgs, clock=True)


@dataclass(frozen=True, slots=True)
class _Look:
    """A broadcast as it stands at its home and in every lane."""

    home: dict[str, str | None]
    copies: list[dict[str, str | None]]

    @property
    def is_behind(self) -> bool:
        """Whether a lane has not adopted the newest generation."""
        newest = int(self.home["generation"] or -1)
        return any(int(copy["generation"] or -1) < newest for copy in self.copies)

    @property
    def is_complete(self) -> bool:
        """Whether every lane has settled everyone."""
        return all(_is_through(copy) and copy["split"] != "mail" for copy in self.copies)


def _is_through(copy: dict[str, str | None]) -> bool:
    """Say whether a lane has settled everyone that it has so far."""
    return copy["split"] in _SPLIT and int(copy["done"] or 0) >= int(copy["total"] or 0)


class Keeper:
    """Looks after lanes; used by one thread at a time."""

    name = "keep"

    def __init__(
        self, client: Client, settings: Settings, broadcasts: Broadcasts, worker: str
    ) -> None:
        self._client = client
        self._settings = settings
        self._broadcasts = broadcasts
        self._splitter = Splitter(client, settings)
        self._keep = KEEP.on(client)
        self._done = DONE.on(client)
        self._trim = TRIM.on(client)
        self._copies = Copies(client)
        self._worker = worker
        self._held: set[int] = set()
        self._quiet: dict[int, float] = {}
        self._todo: dict[str, dict[tuple[int, str], Want]] = {}
        self._now_ms = 0
        self._trims: deque[tuple[int, str]] = deque()
        self._trimmed_hour = 0
        self._round: Iterator[list[str]] = iter(())
        self._rounds = 0
        self._next_round = self._next_part = 0.0
        self._listed: dict[str, str] = {}
        self._heard: deque[str] = deque(maxlen=_HEARD)

    def hear(self, broadcast: str) -> None:
        """Somebody let a broadcast run: look at it soon, whether or not a need was written.

        Who lets it run writes one in the same script, but for producers of an earlier version, as
        there are in the middle of an upgrade. From any thread.
        """
        if broadcast not in self._heard:
            self._heard.append(broadcast)

    def due(self, now: float) -> bool:
        """Say whether anything may be due: in a lane, of what was found, or of the net."""
        return bool(
            self._todo
            or self._heard
            or self._trims
            or (0 in self._held and now >= self._next_part)
            or any(self._quiet.get(lane, 0.0) <= now for lane in range(self._settings.lanes))
        )

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
        more = self._look([])
        net = self._net()
        if net:
            more = self._look(net) or more
        while True:
            adopted = self._serve(begun + _PASS_S)
            if adopted:
                self._quiet.clear()
            if not (more or adopted) or time.monotonic() > begun + _PASS_S:
                break
            more = self._look([])
        self._trim_some()

    # -- looking ----------------------------------------------------------------------------

    def _look(self, net: list[str]) -> bool:
        """Look at the lanes in one trip; returns whether more is due already.

        Args:
            net: broadcasts that are made due in every lane, and at their home.
        """
        every = range(self._settings.lanes)
        started = time.monotonic()
        lanes = every if net else [n for n in every if self._quiet.get(n, 0.0) <= started]
        pipeline = self._client.pipeline(transaction=False)
        for lane in lanes:
            args = KeepArgs(
                worker=self._worker,
                lease_ms=LEASE_MS,
                prefix=keys.lane_prefix(lane),
                most=_LOOKED_AT,
                messages=_PROMOTED,
                ttl_ms=self._broadcasts.ttl_ms,
                time_ms=_AGAIN_MS,
                alone=int(len(every) == 1),
            )
            homes = (f"{one} home" for one in net if self._broadcasts.home_lane(one) == lane)
            self._keep(KeepKeys.of(lane), args, (*net, *homes), into=pipeline)
        more = False
        held_before = set(self._held)
        for lane, answer in zip(lanes, pipeline.execute(raise_on_error=False), strict=True):
            self._held.discard(lane)
            # a lane that another worker holds is looked at as seldom as one that needs nothing
            self._quiet[lane] = started + _QUIET_S
            if isinstance(answer, Exception):
                logs.emit(DutyFailed("look", lane, type(answer).__name__))
                continue
            if not int(answer[0]):
                continue
            self._held.add(lane)
            self._now_ms = int(answer[1])
            next_ms = float(answer[2] or "inf")
            more = more or next_ms <= self._now_ms
            if next_ms < self._now_ms + 1000 * _QUIET_S:
                del self._quiet[lane]
            for row in answer[3:]:
                member, until_ms, *words = row.split(" ")
                want = Want(lane, member.replace("/", " "), until_ms, frozenset(words))
                self._todo.setdefault(want.broadcast, {})[lane, want.member] = want
        # who comes to hold a lane trims it at once: nobody knows when its last keeper did
        for lane in self._held - held_before:
            self._trims.extend((lane, app) for app in self._settings.apps)
        return more

    def _net(self) -> list[str]:
        """Return broadcasts that are to be made due: those heard of, and a few active ones."""
        heard = [self._heard.popleft() for _ in range(len(self._heard))]
        now = time.monotonic()
        if 0 not in self._held:
            return []
        if now < self._next_part:
            return heard
        if now >= self._next_round:
            self._next_round = now + _ROUND_S
            most = _SPREAD * (1 if self._rounds else _FIRST)
            self._round = self._parts(max(1, most // (self._settings.lanes + 1)))
            self._rounds += 1
        some = next(self._round, [])
        self._next_part = now
        if self._rounds > 1:  # a part may be one broadcast only, and still too much a second
            self._next_part += len(some) * (self._settings.lanes + 1) / _SPREAD
        return heard + some

    def _parts(self, most: int) -> Iterator[list[str]]:
        """One round over all active broadcasts."""
        self._listed = {}
        part, read = list[str](), 0
        for app in self._settings.apps:
            start = 0
            while True:
                some = self._client.zrange(keys.active(app), start, start + most - 1)
                self._listed.update(dict.fromkeys(some, app))
                part += some
                start += len(some)
                read += 1
                if len(part) >= most or read >= _APPS:
                    yield part
                    part, read = [], 0
                if len(some) < most:
                    break
        yield part

    # -- serving ----------------------------------------------------------------------------

    def _serve(self, until: float) -> bool:
        """Do what was found, as long as there is time; returns whether lanes are due by that."""
        adopted = False
        while self._todo and time.monotonic() < until:
            some = list(islice(self._todo, _READ))
            looks = self._read(some)
            done: dict[int, list[str]] = {}
            for broadcast in some:
                if time.monotonic() > until:
                    break
                wants = list(self._todo.pop(broadcast).values())
                adopted = adopted or looks[broadcast].is_behind
                try:
                    is_done = self._serve_one(broadcast, wants, looks[broadcast])
                except Exception as error:  # noqa: BLE001  (the others go on; it comes again)
                    what = f"{type(error).__name__} ({broadcast})"
                    logs.emit(DutyFailed("keep", wants[0].lane, what))
                    continue
                for want in wants if is_done else ():
                    done.setdefault(want.lane, []).extend((want.member, want.until_ms))
            for lane, members in done.items():
                self._done(DoneKeys(keys.doing(lane)), NoArgs(), members)
        return adopted

    def _read(self, broadcasts: list[str]) -> dict[str, _Look]:
        """Return how broadcasts stand, read in one trip."""
        lanes = range(self._settings.lanes)
        pipeline = self._client.pipeline(transaction=False)
        for broadcast in broadcasts:
            pipeline.hmget(keys.home(self._broadcasts.home_lane(broadcast), broadcast), _HOME)
            for lane in lanes:
                pipeline.hmget(keys.lane_broadcast(lane, broadcast), _COPY)
        answers: list[Any] = pipeline.execute()
        each = 1 + len(lanes)
        return {
            broadcast: _Look(
                dict(zip(_HOME, answers[place * each], strict=True)),
                [
                    dict(zip(_COPY, copy, strict=True))
                    for copy in answers[place * each + 1 : (place + 1) * each]
                ],
            )
            for place, broadcast in enumerate(broadcasts)
        }

    def _serve_one(self, broadcast: str, wants: list[Want], look: _Look) -> bool:
        """Do what a broadcast wants; returns whether that is done."""
        if look.home["state"] is None:
            self._forget_orphan(broadcast)
            return True
        words = frozenset[str]().union(*(want.words for want in wants))
        if "adopt" in words or look.is_behind:
            self._broadcasts.adopt(broadcast)
        for want in wants:
            if "verdict" in want.words:
                self.obey(broadcast, want.lane)
            if "split" in want.words:
                self._splitter.fill(broadcast, want.lane)
        if not look.is_behind and words & {"home", "complete", "open", "canary"}:
            return self._keep_whole(broadcast, look)
        return True  # the lanes that adopted something are due by that

    def _keep_whole(self, broadcast: str, look: _Look) -> bool:
        """Expire, open, hand the canary on, finish; returns whether that is done."""
        home, app = look.home, str(look.home["app"])
        is_over = int(home["expires_at_ms"] or 0) <= self._now_ms
        if home["state"] not in ENDED and home["drop"] != "late" and is_over:
            self._expire(broadcast)
            return True  # its lanes are due by that
        if look.is_complete:
            if self._broadcasts.finish(broadcast):
                self._client.zrem(keys.active(app), broadcast)
            return True
        if any(copy["open"] == "1" for copy in look.copies):
            return self._open_all(app, broadcast, look)
        return self._hand_canary_on(app, broadcast, look)

    def obey(self, broadcast: str, lane: int) -> None:
        """Bring a lane's verdict (``abort 40037``, ``pause 43101``) to the whole broadcast.

        Unless its state has changed since the lane last heard of one: resumed, it is judged anew.
        Carriers are paused at the worst, all of the day's together: messages wait for an operator,
        or until they are late, and no further one is posted (post.lua).
        """
        verdict, generation = self._client.hmget(
            keys.lane_broadcast(lane, broadcast), ["verdict", "generation"]
        )
        if not verdict:
            return
        move, _, errcode = verdict.partition(" ")
        reason = _REASONS[move] if int(errcode) else _OVER_BUDGET
        if keys.is_carrier(broadcast):
            move = "pause"
        try:
            self._broadcasts.move(broadcast, move, reason, int(errcode), known=generation)
        except (IllegalMoveError, NotFoundError):
            return  # somebody was faster, or the operator was
        for sibling in self._broadcasts.siblings(broadcast):
            with contextlib.suppress(IllegalMoveError, NotFoundError):
                self._broadcasts.move(sibling, move, reason, int(errcode))

    def _expire(self, broadcast: str) -> None:
        try:
            self._broadcasts.move(broadcast, "expire", "expired")
        except (IllegalMoveError, NotFoundError):
            return

    def open_lanes(self, app: str, broadcast: str, lanes: list[int]) -> bool:
        """Let the flood into these lanes: somewhere a message was delivered.

        Returns:
            Whether all of them are open.
        """
        opened = [self._copies.open(app, broadcast, lane) for lane in lanes]
        return all(opened)

    def _open_all(self, app: str, broadcast: str, look: _Look) -> bool:
        """Open every lane, and let those that are open on their own know that the others are."""
        closed = [lane for lane, copy in enumerate(look.copies) if copy["open"] != "1"]
        if not self.open_lanes(app, broadcast, closed):
            return False  # a lane has not adopted the broadcast yet
        for lane, copy in enumerate(look.copies):
            if copy["open"] == "1" and copy["told"] != "1":
                self._copies.mark(broadcast, lane, "told", "1")
        return True

    def _hand_canary_on(self, app: str, broadcast: str, look: _Look) -> bool:
        """Move a canary on whose lane is used up; returns whether it is where it belongs.

        It takes along what it met: K errors over all lanes pass the verdict in the last one.
        """
        at = int(look.home["canary_lane"] or 0)
        copy = look.copies[at]
        waiting = [
            lane for lane, one in enumerate(look.copies) if lane != at and not _is_through(one)
        ]
        if not _is_through(copy) or copy["state"] != "running" or not waiting:
            return True
        self._copies.give_canary(app, broadcast, at, 0)
        errors = [int(copy[name] or 0) for name in _MET]
        if not self._copies.give_canary(app, broadcast, waiting[0], self._settings.canary, errors):
            return False  # it has not adopted the broadcast yet
        self._client.hset(
            keys.home(self._broadcasts.home_lane(broadcast), broadcast),
            "canary_lane",
            str(waiting[0]),
        )
        return True

    def _forget_orphan(self, broadcast: str) -> None:
        """An active id without a home: its creator died, or its retention is over."""
        app = self._listed.get(broadcast)
        listed_at = self._client.zscore(keys.active(app), broadcast) if app else None
        if app and listed_at is not None and self._now_ms - listed_at > _ORPHAN_MS:
            self._client.zrem(keys.active(app), broadcast)

    # -- the stocks -------------------------------------------------------------------------

    def _trim_some(self) -> None:
        """Trim some stocks of the lanes held, each once an hour, spread over half of it."""
        hour = self._now_ms // 3_600_000
        if hour != self._trimmed_hour:
            self._trimmed_hour = hour
            self._trims = deque(
                (lane, app) for lane in sorted(self._held) for app in self._settings.apps
            )
        most = max(4, self._settings.lanes * len(self._settings.apps) // _TRIM_S + 1)
        for _ in range(min(most, len(self._trims))):
            lane, app = self._trims.popleft()
            if lane not in self._held:
                continue
            expired = self._trim(TrimKeys(keys.stock(lane, app), keys.ledger(lane, app)), NoArgs())
            if expired:
                logs.emit(PermitsExpired(app, lane, expired))
