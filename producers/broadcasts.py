"""Broadcasts: created once, moved through their states, and seen.

Home and lanes. A broadcast's spec, state and generation stand at its home; each lane has a copy of
the state and its own counts. A move changes the home first, then every lane adopts the newer
generation; whoever makes the move does both, and the keeper repeats the second until all agree.
So a process that dies in between delays a move by a second and loses nothing.
"""

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final

from producers import keys, logs, scripts
from producers.audiences import Audiences
from producers.errors import (
    IdempotencyConflictError,
    IllegalMoveError,
    InvalidInputError,
    NotFoundError,
)
from producers.events import BroadcastCreated, BroadcastMoved
from producers.jobs import Jobs
from producers.retry import LOST, repeat
from producers.settings import Settings, ms
from producers.spec import MAX_LIFE, Spec
from producers.split import Splitter
from producers.store import Client
from producers.words import ENDED, Outcome, State

_UNLIMITED_WINDOW: Final = 10_000
"""Messages queued ahead per second of window when no rate is set."""

RESTORED: Final = "redis may be an old backup"
"""Reason of a pause after Redis came back from a gap of more than ten minutes."""

_KEY_TTL: Final = timedelta(days=7)
_SMALL: Final = 10_000
"""An audience up to so many is split by its creator at once; larger ones by a worker."""


@dataclass(frozen=True, slots=True)
class Created:
    """The answer to a create: the id, and whether the key had created it before."""

    id: str
    known: bool


@dataclass(frozen=True, slots=True)
class Status:
    """What a broadcast is doing.

    Attributes:
        id, app, channel, template_id, audience: what it is.
        state: its state.
        total: recipients so far; of an ended one, all of them.
        expected: members of the audience when it was created.
        settled: recipients that have an outcome.
        outcomes: outcome → recipients, without zeros.
        errcodes: WeChat's errcode → answers, without 0.
        queued, delayed, in_flight: messages now; a resumed one counts as queued or delayed too.
        aside: messages that outlived their workers too often and wait for an operator.
        reason, errcode: why it was paused or aborted, or '' and 0.
        created_at_ms, ended_at_ms: server epoch ms; 0 while not ended.
        complete: every recipient has its outcome, and nothing more will change.
    """

    id: str
    app: str
    channel: str
    template_id: str
    audience: str
    state: State
    total: int
    expected: int
    settled: int
    outcomes: dict[str, int]
    errcodes: dict[str, int]
    queued: int
    delayed: int
    in_flight: int
    aside: int
    reason: str
    errcode: int
    created_at_ms: int
    ended_at_ms: int
    complete: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the status as JSON-ready fields."""
        return {name: getattr(self, name) for name in self.__slots__}


class Broadcasts:
    """The broadcasts of every app. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._audiences = Audiences(client, settings)
        self._splitter = Splitter(client, settings)
        self._jobs = Jobs(client)
        self._create = client.register_script(scripts.source("producers", "create"))
        self._move = client.register_script(scripts.source("producers", "move"))
        self._adopt = client.register_script(scripts.source("producers", "adopt"))

    # -- creating ---------------------------------------------------------------------------

    def create(self, spec: Spec, key: str = "") -> Created:
        """Store a broadcast and set it running.

        Args:
            spec: what is sent to whom (see `Spec.checked`).
            key: idempotency key, 1-128 visible characters; the same key with the same content
                gives the same broadcast for 7 days. Without one, each call is a new broadcast.

        Raises:
            UnknownAppError: no such app.
            NotFoundError: no such audience.
            InvalidInputError: the key is not one.
            IdempotencyConflictError: the key was used with other content.
            StoreUnavailableError: Redis did not answer; the same call with the same key goes on.
        """
        if key and not (len(key) <= 128 and key.isascii() and key.isprintable() and " " not in key):
            raise InvalidInputError(["key: 1-128 visible ASCII characters without blanks"])
        size = self._audiences.count(spec.app, spec.audience)
        broadcast = self._claim_id(spec, key)
        seconds, micros = repeat("asking the time", self._client.time)
        now_ms = seconds * 1000 + micros // 1000
        for index in (keys.active(spec.app), keys.history(spec.app)):
            listed = partial(self._client.zadd, index, {broadcast: now_ms}, nx=True)
            repeat("listing the broadcast", listed)
        pipeline = self._client.pipeline(transaction=False)
        pipeline.zremrangebyscore(keys.history(spec.app), "-inf", now_ms - self.ttl_ms)
        pipeline.pexpire(keys.history(spec.app), self.ttl_ms)
        repeat("trimming the history", pipeline.execute)
        fields: list[str | int] = [
            "spec",
            spec.to_json(),
            "app",
            spec.app,
            "state",
            State.RUNNING,
            "generation",
            1,
            "audience_size",
            size,
            "expires_in_ms",
            spec.expires_in_ms,
            "canary_lane",
            self.home_lane(broadcast),
        ]
        created, *_ = repeat(
            "creating the broadcast",
            lambda: self._create(
                keys=[keys.home(self.home_lane(broadcast), broadcast)],
                args=[self.ttl_ms, "", *fields],
            ),
        )
        self.adopt(broadcast)
        if size <= _SMALL:
            for lane in range(self._settings.lanes):
                self._splitter.fill(broadcast, lane)
        else:
            self._ask_for_split(broadcast)
        if created:
            logs.emit(
                BroadcastCreated(
                    spec.app, broadcast, spec.channel, spec.template_id, spec.audience, size
                )
            )
        return Created(broadcast, known=not created)

    def _claim_id(self, spec: Spec, key: str) -> str:
        """Return a new id, or the one that the key claimed before."""
        broadcast = f"{time.time_ns() // 1_000_000:011x}{secrets.token_hex(5)}"
        if not key:
            return broadcast
        mine = f"{broadcast} {spec.digest()}"
        held = repeat(
            "claiming the key",
            lambda: self._client.set(
                keys.idempotency(spec.app, key), mine, nx=True, get=True, px=ms(_KEY_TTL)
            ),
        )
        known, digest = (held or mine).split(" ")
        if digest != spec.digest():
            raise IdempotencyConflictError(key, known)
        return str(known)

    def _ask_for_split(self, broadcast: str) -> None:
        try:
            self._jobs.split(broadcast)
        except LOST:
            return  # an edge: the keeper splits within a second

    # -- moving -----------------------------------------------------------------------------

    def pause(self, broadcast: str, reason: str = "asked for", errcode: int = 0) -> State:
        """Stop sending; what is in flight is settled. `resume` goes on where it stopped.

        Raises:
            NotFoundError, IllegalMoveError, StoreUnavailableError.
        """
        return self.move(broadcast, "pause", reason, errcode)

    def resume(self, broadcast: str, *, after_restore: bool = False) -> State:
        """Go on sending a paused broadcast; raises as `pause`.

        Args:
            broadcast: its id.
            after_restore: needed when it was paused because Redis may have been restored from an
                old backup: whoever was sent to since then may be sent to again.
        """
        if self._home(broadcast).get("reason") == RESTORED and not after_restore:
            raise IllegalMoveError(
                broadcast, f"paused ({RESTORED}); look, then resume --after-restore", "resume"
            )
        state = self.move(broadcast, "resume")
        self._ask_for_split(broadcast)
        return state

    def cancel(self, broadcast: str) -> State:
        """End a broadcast; whoever was not sent to is `cancelled`. Raises as `pause`."""
        state = self.move(broadcast, "cancel", "asked for")
        self._ask_for_split(broadcast)  # counts what was never split
        return state

    def move(self, broadcast: str, move: str, reason: str = "", errcode: int = 0) -> State:
        """Make one move of a broadcast (see move.lua) and bring it to every lane.

        Raises:
            NotFoundError: no such broadcast.
            IllegalMoveError: its state does not allow the move; it says the state.
            StoreUnavailableError: Redis did not answer; the move may have been made.
        """
        token = scripts.new_token()
        total = self.status(broadcast).total if move == "finish" else ""
        moved, state, generation = repeat(
            f"moving the broadcast ({move})",
            lambda: self._move(
                keys=[keys.home(self.home_lane(broadcast), broadcast)],
                args=[token, "", move, reason, errcode or "", total, self.ttl_ms],
            ),
        )
        if moved == -1:
            raise NotFoundError(f"no broadcast {broadcast}")
        if moved == 0:
            raise IllegalMoveError(broadcast, state, move)
        app = self.adopt(broadcast)
        logs.emit(BroadcastMoved(app, broadcast, move, state, generation, reason, errcode))
        return State(state)

    def adopt(self, broadcast: str) -> str:
        """Bring the home's generation to every lane; repeating it changes nothing.

        Returns:
            The broadcast's app.

        Raises:
            NotFoundError: no such broadcast.
            StoreUnavailableError: Redis did not answer.
        """
        home = self._home(broadcast)
        spec = Spec.from_json(home["spec"])
        for lane in range(self._settings.lanes):
            self._adopt_in(lane, broadcast, home, spec)
        return spec.app

    def _adopt_in(self, lane: int, broadcast: str, home: dict[str, str], spec: Spec) -> None:
        app, settings = spec.app, self._settings
        first_copy: list[str | int | float] = [
            "app",
            app,
            "channel",
            spec.channel,
            "template",
            spec.template_id,
            "audience",
            spec.audience,
            "priority",
            int(spec.priority),
            "rate",
            spec.rate,
            "window",
            self._window(spec),
            "cursor",
            0,
            "split",
            "",
            "total",
            0,
            "done",
            0,
            "error_window",
            settings.error_window,
            "error_share",
            settings.error_budget,
            "open",
            0,
            "canary",
            settings.canary if lane == int(home["canary_lane"]) else 0,
        ]
        script_keys = [
            keys.lane_broadcast(lane, broadcast),
            keys.queue(lane, broadcast),
            keys.delayed(lane, broadcast),
            keys.flight(lane, broadcast),
            keys.tries(lane, broadcast),
            keys.ring(lane, app),
            keys.priority_ring(lane, app),
            keys.stock(lane, app),
            keys.ledger(lane, app),
            keys.sending(lane, app),
        ]
        args = [
            "",
            "",
            broadcast,
            home["generation"],
            home["state"],
            home.get("drop", ""),
            self.ttl_ms,
            keys.WAKE,
            keys.lane_prefix(lane),
            *first_copy,
        ]
        repeat("adopting a move", lambda: self._adopt(keys=script_keys, args=args))

    def _window(self, spec: Spec) -> int:
        """Return how many messages a lane queues ahead: about one second of sending."""
        seconds = self._settings.window.total_seconds()
        rates = [rate for rate in (spec.rate, self._settings.app(spec.app).rate_per_second) if rate]
        rate = min(rates, default=_UNLIMITED_WINDOW)
        return max(100, round(rate * seconds / self._settings.lanes))

    # -- seeing -----------------------------------------------------------------------------

    def status(self, broadcast: str) -> Status:
        """Return what a broadcast is doing now.

        Raises:
            NotFoundError: no such broadcast, or its retention is over.
        """
        home = self._home(broadcast)
        spec = Spec.from_json(home["spec"])
        lanes = range(self._settings.lanes)
        pipeline = self._client.pipeline(transaction=False)
        for lane in lanes:
            pipeline.hgetall(keys.lane_broadcast(lane, broadcast))
            pipeline.llen(keys.queue(lane, broadcast))
            pipeline.zcard(keys.delayed(lane, broadcast))
            pipeline.hlen(keys.flight(lane, broadcast))
        answers = repeat("reading the broadcast", pipeline.execute)
        copies: list[dict[str, str]] = answers[0::4]
        outcomes: dict[str, int] = {}
        errcodes: dict[str, int] = {}
        for copy in copies:
            for field, count in copy.items():
                if field.startswith("o:"):
                    outcomes[field[2:]] = outcomes.get(field[2:], 0) + int(count)
                elif field.startswith("e:"):
                    errcodes[field[2:]] = errcodes.get(field[2:], 0) + int(count)
        total = sum(int(copy.get("total", 0)) for copy in copies)
        aside = sum(int(copy.get("aside", 0)) for copy in copies)
        settled = sum(int(copy.get("done", 0)) for copy in copies)
        split = all(copy.get("split") == "done" for copy in copies)
        order = {outcome: place for place, outcome in enumerate(Outcome)}
        return Status(
            id=broadcast,
            app=spec.app,
            channel=spec.channel,
            template_id=spec.template_id,
            audience=spec.audience,
            state=State(home["state"]),
            total=total,
            expected=int(home["audience_size"]),
            settled=settled,
            outcomes=dict(sorted(outcomes.items(), key=lambda pair: order[Outcome(pair[0])])),
            errcodes=errcodes,
            queued=sum(answers[1::4]),
            delayed=sum(answers[2::4]),
            in_flight=sum(answers[3::4]) - aside,
            aside=aside,
            reason=home.get("reason", ""),
            errcode=int(home.get("errcode") or 0),
            created_at_ms=int(home["created_at_ms"]),
            ended_at_ms=int(home.get("ended_at_ms", 0)),
            complete=split and total == settled,
        )

    def spec(self, broadcast: str) -> Spec:
        """Return what is sent to whom.

        Raises:
            NotFoundError: no such broadcast.
        """
        return Spec.from_json(self._home(broadcast)["spec"])

    def latest(self, app: str, limit: int = 20) -> list[str]:
        """Return the ids of the app's newest broadcasts, the newest first.

        Raises:
            UnknownAppError: no such app.
        """
        self._settings.app(app)
        return list(
            repeat(
                "listing broadcasts",
                lambda: self._client.zrevrange(keys.history(app), 0, limit - 1),
            )
        )

    def watch(self, broadcast: str, every: timedelta = timedelta(seconds=0.5)) -> Iterator[Status]:
        """Yield the status again and again until the broadcast has ended and is complete.

        Raises:
            NotFoundError: no such broadcast.
        """
        while True:
            status = self.status(broadcast)
            yield status
            if status.state in ENDED and status.complete:
                return
            time.sleep(every.total_seconds())

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
        return True

    # -- parts ------------------------------------------------------------------------------

    @property
    def ttl_ms(self) -> int:
        """How long a broadcast's keys live: its life, the retention, a day to spare."""
        return ms(MAX_LIFE + self._settings.retention + timedelta(days=1))

    def home_lane(self, broadcast: str) -> int:
        """Return the lane that is a broadcast's home."""
        return keys.lane_of(broadcast, self._settings.lanes)

    def _home(self, broadcast: str) -> dict[str, str]:
        home: dict[str, str] = repeat(
            "reading the broadcast",
            lambda: self._client.hgetall(keys.home(self.home_lane(broadcast), broadcast)),
        )
        if not home:
            raise NotFoundError(f"no broadcast {broadcast}: it never was, or its retention is over")
        return home
