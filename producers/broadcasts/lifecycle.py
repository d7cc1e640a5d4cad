"""The lifecycle of a broadcast: its moves, brought from its home to every lane.

Home and lanes. A broadcast's spec, state and generation stand at its home; each lane has a copy of
the state and its own counts. A move changes the home first, then every lane adopts the newer
generation; whoever makes the move does both, and the keeper repeats the second until all agree.
So a process that dies in between delays a move by a second and loses nothing. Nor does a lane that
is just being divided: those that it is divided into adopt the move then.

A lane that knows more than the home learned it there, and Redis forgot it there: it came back from
before, or a node of a cluster did. Whoever brings a generation meets such a lane, and makes the
home newer than what it knows (`renew`). What somebody stopped or ended is so again; what was
finished goes on, with whoever has no outcome; a start, a resume, a rate, a weight or another start
time is lost. A lane that knows of an end by somebody never goes back.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import orjson
import redis

from producers import logs
from producers.audiences.expressions import Expression
from producers.broadcasts import carriers
from producers.broadcasts.jobs import Jobs
from producers.broadcasts.spec import Spec, weight_faults
from producers.broadcasts.status import Register, carries_over, weight_of
from producers.broadcasts.timing import Timing
from producers.errors import IllegalMoveError, InvalidInputError, LaneDividedError, NotFoundError
from producers.logs.events import BroadcastCounted, BroadcastMoved
from producers.settings import Settings, kept_rate, rate_faults
from producers.store import Client, keys
from producers.store.lanes.following import anew, steady
from producers.store.lanes.layout import follow
from producers.store.paging import sums
from producers.store.retry import repeat
from producers.store.scripts import Call, Script
from producers.store.trip import Trip, is_done
from producers.words import ENDED, State

_VERBS: Final = {"rate": "change the rate of", "weight": "change the weight of"}
"""How a move that is no verb is said."""

_UNLIMITED_WINDOW: Final = 10_000
"""Messages queued ahead per second of window when no rate is set."""

SPENT: Final = "today's quota is used up; resume lets the rest go on the next day"
"""Reason of a pause when the day cannot carry what was not told to wait for the next one."""

FORGOT: Final = "redis had forgotten it"
"""Reason of a stop or an end that a lane still knew of, and no other reason of it."""

RESTORED: Final = "redis may be an old backup"
"""Reason of a pause after Redis came back from a gap of more than ten minutes."""


class MoveKeys(NamedTuple):
    """KEYS of move.lua."""

    home: str


class MoveArgs(NamedTuple):
    """ARGV of move.lua."""

    move: str
    reason: str
    errcode: int | str
    total: int | str
    ttl_ms: int
    rate: float
    known: str
    outcomes: str = ""
    starts_at_ms: int | str = ""
    ends_at_ms: int | str = ""
    audience_size: int | str = ""
    weight: int | str = ""
    carry: int | str = ""
    seen: str = ""
    last: str = ""


class AdoptKeys(NamedTuple):
    """KEYS of adopt.lua."""

    lane: str
    queue: str
    delayed: str
    flight: str
    tries: str
    ring: str
    first: str
    stock: str
    ledger: str

    @classmethod
    def of(cls, lane: int, app: str, broadcast: str) -> "AdoptKeys":
        """Return those of a broadcast in a lane."""
        return cls(
            keys.lane_broadcast(lane, broadcast),
            keys.queue(lane, broadcast),
            keys.delayed(lane, broadcast),
            keys.flight(lane, broadcast),
            keys.tries(lane, broadcast),
            keys.ring(lane, app),
            keys.priority_ring(lane, app),
            keys.stock(lane, app),
            keys.ledger(lane, app),
        )


class AdoptArgs(NamedTuple):
    """ARGV of adopt.lua; the fields of a first copy follow."""

    broadcast: str
    generation: int | str
    state: str
    drop: str
    ttl_ms: int
    wake: str
    prefix: str
    rate: float
    window: int
    errcode: int | str
    state_generation: int | str
    weight: int | str = 1
    carry: int = 1
    unsure: int | str = 0
    reason: str = ""
    move: str = ""


class Known(NamedTuple):
    """What a lane knows of a broadcast that its home does not.

    Attributes:
        generation, state, errcode, reason: as the home had them.
        move: the token of the home's last move then.
    """

    generation: int
    state: str
    errcode: int
    reason: str
    move: str

    @property
    def rank(self) -> tuple[bool, int]:
        """What goes before what another lane knows: an end by somebody, then what is newer."""
        return self.state in ENDED and self.state != State.FINISHED, self.generation


class Adopted(NamedTuple):
    """How a home was brought to its lanes.

    Attributes:
        app: the broadcast's.
        is_whole: every lane has it; else a lane is just being divided, and the keeper does it.
        renewed: the state of a home that had forgotten a move, and was made newer; '': it had not.
    """

    app: str
    is_whole: bool
    renewed: str = ""


class SweepKeys(NamedTuple):
    """KEYS of sweep.lua."""

    lane: str
    flight: str
    stock: str
    ledger: str
    sending: str

    @classmethod
    def of(cls, lane: int, app: str, broadcast: str) -> "SweepKeys":
        """Return those of a broadcast in a lane."""
        return cls(
            keys.lane_broadcast(lane, broadcast),
            keys.flight(lane, broadcast),
            keys.stock(lane, app),
            keys.ledger(lane, app),
            keys.sending(lane, app),
        )


class SweepArgs(NamedTuple):
    """ARGV of sweep.lua."""

    broadcast: str
    prefix: str
    ttl_ms: int
    cursor: str


MOVE: Final = Script(
    __package__, "move", MoveKeys, MoveArgs, token=True, clock=True, replicated=True
)
ADOPT: Final = Script(__package__, "adopt", AdoptKeys, AdoptArgs, clock=True)
SWEEP: Final = Script(__package__, "sweep", SweepKeys, SweepArgs, clock=True)


class Lifecycle(Register):
    """Moves broadcasts through their states. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        super().__init__(client, settings)
        self._jobs = Jobs(client)
        self._move = MOVE.on(client)
        self._adopt = ADOPT.on(client)
        self._sweep = SWEEP.on(client)

    def pause(self, broadcast: str, reason: str = "asked for", errcode: int = 0) -> State:
        """Stop sending; what is in flight is settled. `resume` goes on where it stopped.

        Raises:
            NotFoundError, IllegalMoveError, StoreUnavailableError.
        """
        return self.move(broadcast, "pause", reason, errcode)

    def resume(self, broadcast: str, *, after_restore: bool = False) -> State:
        """Go on sending a paused broadcast; raises as `pause`.

        One that was paused because the day's quota was used up has been told by that to wait for
        the next day, whenever a day is used up again.

        Args:
            broadcast: its id.
            after_restore: needed when it was paused because Redis may have been restored from an
                old backup: whoever was sent to since then may be sent to again.
        """
        reason = self._home(broadcast).get("reason")
        if reason == RESTORED and not after_restore:
            raise IllegalMoveError(
                broadcast, f"paused ({RESTORED}); look, then resume --after-restore", "resume"
            )
        told = reason == SPENT  # to wait for the next day
        state = self.move(broadcast, "resume", carry=1 if told else "")
        for sibling in self.siblings(broadcast):
            if self._home(sibling).get("errcode"):  # it was stopped for the same template
                with contextlib.suppress(IllegalMoveError):
                    self.move(sibling, "resume")
        self._ask_for_split(broadcast)
        return state

    def siblings(self, broadcast: str) -> Iterator[str]:
        """Yield the other carriers of a carrier's day and template, the first of them first.

        Raises:
            NotFoundError, StoreUnavailableError.
        """
        if not keys.is_carrier(broadcast):
            return
        for carrier in carriers.of_a_day(broadcast, Spec.from_json(self._home(broadcast)["spec"])):
            if not self._exists(carrier):
                return  # they are opened in their order
            if carrier != broadcast:
                yield carrier

    @steady
    def _exists(self, broadcast: str) -> bool:
        key = keys.home(self.home_lane(broadcast), broadcast)
        return bool(repeat("reading the broadcast", lambda: self._client.exists(key)))

    def cancel(self, broadcast: str) -> State:
        """End a broadcast; whoever was not sent to is `cancelled`. Raises as `pause`."""
        state = self.move(broadcast, "cancel", "asked for")
        self._ask_for_split(broadcast)  # counts what was never split
        return state

    def rate(self, broadcast: str) -> float:
        """Return how many sends per second a broadcast may have; 0 = the app's rate alone.

        Raises:
            NotFoundError, StoreUnavailableError.
        """
        home = self._home(broadcast)
        return _rate(home, Spec.from_json(home["spec"]))

    def set_rate(self, broadcast: str, rate: float) -> State:
        """Change how fast a broadcast is sent; workers follow within a second.

        Args:
            broadcast: its id.
            rate: sends per second within the app's rate; 0 = the app's alone.

        Raises:
            InvalidInputError: it is no rate.
            NotFoundError, IllegalMoveError (it has ended), StoreUnavailableError.
        """
        faults = rate_faults(rate)
        if faults:
            raise InvalidInputError(faults)
        return self.move(broadcast, "rate", f"{rate:g} per second", rate=rate)

    def weight(self, broadcast: str) -> int:
        """Return a broadcast's weight; raises as `rate`."""
        home = self._home(broadcast)
        return weight_of(home, Spec.from_json(home["spec"]))

    def set_weight(self, broadcast: str, weight: int) -> State:
        """Change a broadcast's share of what its app sends, among the app's other broadcasts.

        Args:
            broadcast: its id.
            weight: 1 to 100.

        Raises:
            InvalidInputError: it is no weight, or a priority broadcast, or a carrier.
            NotFoundError, IllegalMoveError (it has ended), StoreUnavailableError.
        """
        faults = weight_faults(weight)
        if not faults and self.spec(broadcast).priority:
            faults = ["weight: a priority broadcast goes before all others, and has none"]
        if faults:
            raise InvalidInputError(faults)
        return self.move(broadcast, "weight", f"weight {weight}", weight=weight)

    def move(
        self,
        broadcast: str,
        move: str,
        reason: str = "",
        errcode: int = 0,
        rate: float = 0,
        known: str = "",
        *,
        timing: Timing | None = None,
        size: int | str = "",
        weight: int | str = "",
        carry: int | str = "",
    ) -> State:
        """Make one move of a broadcast (see move.lua) and bring it to every lane.

        Raises:
            NotFoundError: no such broadcast.
            IllegalMoveError: its state does not allow the move; it says the state.
            LaneDividedError: its home is just being divided; nothing was moved.
            StoreUnavailableError: Redis did not answer; the move may have been made.
        """
        ended = self.status(broadcast) if move == "finish" else None
        args = MoveArgs(
            move=move,
            reason=reason,
            errcode=errcode or "",
            total=ended.total if ended else "",
            ttl_ms=self.ttl_ms,
            rate=rate,
            known=known,
            outcomes=orjson.dumps(ended.outcomes).decode() if ended else "",
            starts_at_ms=timing.starts_at_ms if timing else "",
            ends_at_ms=timing.ends_at_ms or "" if timing else "",
            audience_size=size,
            weight=weight,
            carry=carry,
        )
        moved, state, generation = self._move_home(broadcast, args)
        if not moved:
            raise IllegalMoveError(broadcast, state, _VERBS.get(move, move))
        app, _, renewed = self._adopt_where_it_may(broadcast)
        logs.emit(BroadcastMoved(app, broadcast, move, state, generation, reason, errcode))
        return State(renewed or state)

    def _move_home(self, broadcast: str, args: MoveArgs) -> tuple[bool, str, int]:
        """Make one move at a broadcast's home; no lane has it yet.

        Returns:
            Whether it was legal; the state and the generation then.

        Raises:
            NotFoundError, LaneDividedError, StoreUnavailableError: as `move`.
        """
        moved, state, generation = anew(
            self._client,
            self._settings,
            lambda: self._move.repeated(
                f"moving the broadcast ({args.move})",
                MoveKeys(keys.home(self.home_lane(broadcast), broadcast)),
                args,
            ),
        )
        if moved == -1:
            raise NotFoundError(f"no broadcast {broadcast}")
        return bool(moved), state, generation

    def _renew(self, app: str, broadcast: str, known: Known) -> str:
        """Make a broadcast's home newer than what a lane knows.

        Returns:
            Its state then; '': nothing was forgotten, the home was read before a move that the lane
            has already.
        """
        args = MoveArgs(
            move="renew",
            reason=known.reason or FORGOT,
            errcode=known.errcode or "",
            total="",
            ttl_ms=self.ttl_ms,
            rate=0,
            known=str(known.generation),
            seen=known.state,
            last=known.move,
        )
        moved, state, generation = self._move_home(broadcast, args)
        if not moved:
            return ""
        errcode = known.errcode
        logs.emit(BroadcastMoved(app, broadcast, "renew", state, generation, FORGOT, errcode))
        return state

    def adopt(self, broadcast: str) -> str:
        """Bring the home's generation to every lane; repeating it changes nothing.

        Returns:
            The broadcast's app.

        Raises:
            NotFoundError: no such broadcast.
            LaneDividedError: a lane is just being divided; the others have it.
            StoreUnavailableError: Redis did not answer.
        """
        adopted = self._adopt_where_it_may(broadcast)
        if not adopted.is_whole:
            raise LaneDividedError
        return adopted.app

    def _adopt_where_it_may(self, broadcast: str) -> Adopted:
        """As `adopt`; leave to the keeper what concerns a lane that is just being divided."""
        home = self._home(broadcast)
        spec, is_whole, renewed = Spec.from_json(home["spec"]), False, ""
        while not is_whole:
            lanes = self._settings.layout.lanes
            is_whole, known = self._adopt_in(lanes, broadcast, home, spec)
            state = known and self._renew(spec.app, broadcast, known)
            if state:
                home, is_whole, renewed = self._home(broadcast), False, state
            elif not is_whole:
                repeat("looking at the lanes", lambda: follow(self._client, self._settings))
                if self._settings.layout.lanes == lanes:
                    break
        return Adopted(spec.app, is_whole, renewed)

    def bring(self, broadcast: str, lane: int) -> None:
        """Bring the home's generation to one lane; raises as `adopt`."""
        home = self._home(broadcast)
        spec = Spec.from_json(home["spec"])
        is_whole, known = self._adopt_in([lane], broadcast, home, spec)
        if known and self._renew(spec.app, broadcast, known):
            is_whole, _ = self._adopt_in([lane], broadcast, self._home(broadcast), spec)
        if not is_whole:
            raise LaneDividedError

    def _adopt_in(
        self, lanes: Sequence[int], broadcast: str, home: dict[str, str], spec: Spec
    ) -> tuple[bool, Known | None]:
        """Bring a home's generation to lanes.

        Returns:
            Whether none of them refused it, and what one of them knows that the home does not.
        """

        def adopt() -> list[Any]:
            trip = Trip(self._client)
            for lane in lanes:
                trip.ask(self._adoption(lane, broadcast, home, spec))
            return trip.answers(lenient=True)

        answers = repeat("adopting a move", adopt)
        is_whole = all(map(is_done, answers))
        for lane, answer in zip(lanes, answers, strict=True):
            if is_done(answer) and answer[2]:
                try:
                    self._sweep_in(lane, broadcast, spec.app)
                except LaneDividedError:
                    is_whole = False
        ahead = (Known(*answer[3:]) for answer in answers if is_done(answer) and answer[0] == -1)
        return is_whole, max(ahead, key=lambda known: known.rank, default=None)

    def _adoption(self, lane: int, broadcast: str, home: dict[str, str], spec: Spec) -> Call:
        """Return the call by which a lane adopts what stands at a broadcast's home."""
        app, settings = spec.app, self._settings
        rate, carries = _rate(home, spec), keys.is_carrier(broadcast)
        first_copy: list[str | int | float] = [
            "app",
            app,
            "channel",
            spec.channel,
            "template",
            spec.template_id,
            "audience",
            Expression.stored(spec.audience).postfix,
            "priority",
            int(spec.priority),
            "cursor",
            "r0" if keys.is_rows(spec.audience) else 0,
            "split",
            "mail" if carries else "",
            "total",
            0,
            "done",
            0,
            "error_window",
            0 if carries else settings.error_window,  # messages have their content each
            "error_share",
            settings.error_budget,
            "open",
            int(home.get("open", 0)),
            "canary",
            settings.canary if lane == settings.layout.heir(int(home["canary_lane"])) else 0,
        ]
        if spec.purpose and not carries:
            first_copy += ("purpose", spec.purpose)
        # a copy lives as long as its home, which is as long as it waits for its start and ttl_ms
        waits_ms = max(0, int(home.get("starts_at_ms", 0)) - int(home.get("created_at_ms", 0)))
        args = AdoptArgs(
            broadcast=broadcast,
            generation=home["generation"],
            state=home["state"],
            drop=home.get("drop", ""),
            ttl_ms=self.ttl_ms + waits_ms,
            wake=keys.WAKE,
            prefix=keys.lane_prefix(lane),
            rate=rate,
            window=self._window(app, rate),
            errcode=home.get("errcode") or 0,
            state_generation=home.get("state_generation", home["generation"]),
            weight=weight_of(home, spec),
            carry=int(carries_over(home, spec)),
            unsure=home.get("unsure_generation", 0),
            reason=home.get("reason", ""),
            move=home.get("move_token", ""),
        )
        return self._adopt.call(AdoptKeys.of(lane, app, broadcast), args, first_copy)

    def _sweep_in(self, lane: int, broadcast: str, app: str) -> None:
        """Settle what a dropped broadcast leaves in a lane, a page at a time."""
        script_keys = SweepKeys.of(lane, app, broadcast)
        first = SweepArgs(broadcast, keys.lane_prefix(lane), self.ttl_ms, "0")
        sums(
            lambda cursor: self._sweep.repeated(
                "sweeping a dropped broadcast", script_keys, first._replace(cursor=cursor)
            )
        )

    def _window(self, app: str, own_rate: float) -> int:
        """Return how many messages a lane queues ahead: about one second of sending."""
        seconds = self._settings.window.total_seconds()
        known = self._settings.apps.get(app)  # None: it went, and its broadcasts stand still
        rates = [rate for rate in (own_rate, known.rate_per_second if known else 0) if rate]
        rate = min(rates, default=_UNLIMITED_WINDOW)
        return max(100, round(rate * seconds / len(self._settings.layout.lanes)))

    def finish(self, broadcast: str) -> bool:
        """Finish a broadcast whose recipients all have an outcome; else do nothing.

        Returns:
            Whether it has ended and nothing more will change.

        Raises:
            NotFoundError: no such broadcast.
        """
        status = self.status(broadcast)
        if not status.complete:
            return False
        if status.state not in ENDED:
            try:
                self.move(broadcast, "finish")
            except IllegalMoveError:  # somebody was faster
                return self.status(broadcast).state in ENDED
            status = replace(status, state=State.FINISHED)
        logs.emit(
            BroadcastCounted(
                status.app, broadcast, status.state, status.total, status.outcomes, status.errcodes
            )
        )
        return True

    def reopen(self, broadcast: str) -> bool:
        """Let a finished broadcast run again that has recipients without an outcome; else nothing.

        A Redis that forgot its last moments, or a node of a cluster, may have them in its queues
        after others saw the end.

        Returns:
            Whether it runs again.

        Raises:
            NotFoundError: no such broadcast.
        """
        status = self.status(broadcast)
        if status.state is not State.FINISHED or status.complete:
            return False
        with contextlib.suppress(IllegalMoveError):  # somebody was faster
            self.move(broadcast, "reopen", "redis forgot outcomes")
        return True

    def _ask_for_split(self, broadcast: str) -> None:
        try:
            self._jobs.split(broadcast)
        except redis.RedisError:
            return  # an edge: the keeper splits within a second


def _rate(home: dict[str, str], spec: Spec) -> float:
    """Return the rate that a broadcast has now: as created, or as it was changed since."""
    return kept_rate(float(home["rate"])) if "rate" in home else spec.rate
