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

from producers import keys, logs, scripts
from producers.broadcasts import Broadcasts
from producers.errors import IllegalMoveError, NotFoundError
from producers.events import DutyFailed, PermitsExpired
from producers.settings import Settings
from producers.split import Splitter
from producers.store import Client
from producers.words import ENDED
from workers.copies import Copies

LEASE_MS: Final = 3000
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
_SPREAD: Final = 32
"""… and marks at most so many places, a home or a lane each, a second; the first round 8 times as
many, for what an earlier version left."""
_APPS: Final = 4
"""Apps whose active broadcasts are read in one pass."""

_TRIM_S: Final = 1800
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
_COPY: Final = ("generation", "state", "split", "done", "total", "open", *_MET)

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

    def __init__(
        self, client: Client, settings: Settings, broadcasts: Broadcasts, worker: str
    ) -> None:
        self._client = client
        self._settings = settings
        self._broadcasts = broadcasts
        self._splitter = Splitter(client, settings)
        self._keep = client.register_script(scripts.source("workers", "keep"))
        self._done = client.register_script(scripts.source("workers", "done"))
        self._trim = client.register_script(scripts.source("workers", "trim"))
        self._copies = Copies(client)
        self._worker = worker
        self._held: set[int] = set()
        self._todo: dict[tuple[int, str], Want] = {}
        self._now_ms = 0
        self._trims: deque[tuple[int, str]] = deque()
        self._trimmed_hour = 0
        self._round: Iterator[int] = iter(())
        self._rounds = 0
        self._next_round = 0.0
        self._listed: dict[str, str] = {}

    def run_once(self) -> None:
        """Look at the lanes that this worker holds or can take, and do what is due.

        Never raises for a duty that failed: it is logged, and comes again.

        Raises:
            redis.RedisError, StoreUnavailableError: Redis did not answer.
        """
        begun = time.monotonic()
        more = self._look()
        if self._mark():
            more = self._look() or more
        while True:
            adopted = self._serve(begun + _PASS_S)
            if not (more or adopted) or time.monotonic() > begun + _PASS_S:
                break
            more = self._look()
        self._trim_some()

    # -- looking ----------------------------------------------------------------------------

    def _look(self) -> bool:
        """Look at every lane in one trip; returns whether more is due already."""
        lanes = range(self._settings.lanes)
        pipeline = self._client.pipeline(transaction=False)
        for lane in lanes:
            args = [
                "",
                "",
                self._worker,
                LEASE_MS,
                keys.lane_prefix(lane),
                _LOOKED_AT,
                _PROMOTED,
                self._broadcasts.ttl_ms,
                _AGAIN_MS,
                "1" if len(lanes) == 1 else "",
            ]
            script_keys = [keys.keeper(lane), keys.due(lane), keys.doing(lane)]
            self._keep(keys=script_keys, args=args, client=pipeline)
        more = False
        held_before, self._held = self._held, set()
        for lane, answer in enumerate(pipeline.execute(raise_on_error=False)):
            if isinstance(answer, Exception):
                logs.emit(DutyFailed("look", lane, type(answer).__name__))
                continue
            if not int(answer[0]):
                continue
            self._held.add(lane)
            self._now_ms = int(answer[1])
            more = more or bool(int(answer[2]))
            for row in answer[3:]:
                member, until_ms, *words = row.split(" ")
                want = Want(lane, member.replace("/", " "), until_ms, frozenset(words))
                self._todo[lane, want.member] = want
        for lane in self._held - held_before:
            self._trims.extend((lane, app) for app in self._settings.apps)
        return more

    def _mark(self) -> bool:
        """The net: make some active broadcasts due; returns whether it did."""
        if 0 not in self._held:
            return False
        if time.monotonic() >= self._next_round:
            self._next_round = time.monotonic() + _ROUND_S
            self._round = self._mark_all(_SPREAD * (1 if self._rounds else 8))
            self._rounds += 1
        return bool(next(self._round, 0))

    def _mark_all(self, most: int) -> Iterator[int]:
        """One round, a second's part at a time; yields how many it marked."""
        lanes = self._settings.lanes
        page = max(1, most // (lanes + 1))
        self._listed = {}
        marked = looked_at = 0
        for app in self._settings.apps:
            start = 0
            while True:
                some = self._client.zrange(keys.active(app), start, start + page - 1)
                looked_at += 1
                if some:
                    self._make_due(some)
                    self._listed.update(dict.fromkeys(some, app))
                    marked += len(some)
                if marked >= page or looked_at >= _APPS:
                    yield marked
                    marked = looked_at = 0
                if len(some) < page:
                    break
                start += page
        yield marked

    def _make_due(self, broadcasts: list[str]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        homes: dict[int, dict[str, int]] = {}
        for broadcast in broadcasts:
            home = self._broadcasts.home_lane(broadcast)
            homes.setdefault(home, {})[f"{broadcast} home"] = 0
        for lane in range(self._settings.lanes):
            members = dict.fromkeys(broadcasts, 0) | homes.get(lane, {})
            pipeline.zadd(keys.due(lane), members, lt=True)
        pipeline.execute()

    # -- serving ----------------------------------------------------------------------------

    def _serve(self, until: float) -> bool:
        """Do what was found, as long as there is time; returns whether lanes are due by that."""
        adopted = False
        while self._todo and time.monotonic() < until:
            wants = list(islice(self._todo.values(), _READ))
            looks = self._read({want.broadcast for want in wants})
            done: dict[int, list[str]] = {}
            for want in wants:
                if time.monotonic() > until:
                    break
                self._todo.pop((want.lane, want.member), None)
                adopted = adopted or looks[want.broadcast].is_behind
                try:
                    if self._serve_one(want, looks[want.broadcast]):
                        done.setdefault(want.lane, []).extend((want.member, want.until_ms))
                except Exception as error:  # noqa: BLE001  (the others go on; it comes again)
                    what = f"{type(error).__name__} ({want.broadcast})"
                    logs.emit(DutyFailed("keep", want.lane, what))
            for lane, members in done.items():
                self._done(keys=[keys.doing(lane)], args=members)
        return adopted

    def _read(self, broadcasts: set[str]) -> dict[str, _Look]:
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

    def _serve_one(self, want: Want, look: _Look) -> bool:
        """Do what a broadcast wants; returns whether that is done."""
        broadcast, home = want.broadcast, look.home
        if home["state"] is None:
            self._forget_orphan(broadcast)
            return True
        if "adopt" in want.words or look.is_behind:
            self._broadcasts.adopt(broadcast)
        if "verdict" in want.words:
            self.obey(broadcast, want.lane)
        if "split" in want.words:
            self._splitter.fill(broadcast, want.lane)
        if not look.is_behind and want.words & {"home", "complete", "open", "canary"}:
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
            closed = [lane for lane, copy in enumerate(look.copies) if copy["open"] != "1"]
            return self.open_lanes(app, broadcast, closed)
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
            Whether all are open, and every lane knows that the others are.
        """
        opened = [self._copies.open(app, broadcast, lane) for lane in lanes]
        if not all(opened):
            return False
        for lane in range(self._settings.lanes):
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
        most = max(8, self._settings.lanes * len(self._settings.apps) // _TRIM_S + 1)
        for _ in range(min(most, len(self._trims))):
            lane, app = self._trims.popleft()
            if lane not in self._held:
                continue
            expired = self._trim(
                keys=[keys.stock(lane, app), keys.ledger(lane, app)], args=["", ""]
            )
            if expired:
                logs.emit(PermitsExpired(app, lane, expired))
