"""The pump: decides when to take, takes, reserves slots, and gives the batch to an actor call.

It runs on Dramatiq's consumer thread of the `send` queue, and goes on *trips* to Redis. What one
trip claimed is reserved for by the next one, which takes again: a trip brings claims and slots at
once, and where it is long several takes ride in it, and there is room in hand for what they bring
(`Hands.widen`): so a unit far from Redis sends as much as a near one. Where a limit could be passed
by what was claimed and has no slot yet, it is reckoned as given (`Gate.expect`).

Where it waits, it waits for one of: room in hand, the limiter's horizon, the slot of a broadcast
with a rate of its own, or work: a wake-up names where, and the look at the lanes a second later
(`Watch`).
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import redis

from producers import logs
from producers.broadcasts.status import Register
from producers.lanes.bounds import NONE, Bounds
from producers.logs.events import (
    AppFailed,
    QuotaSpent,
    RateRestored,
    ReplicasBehind,
    StoreUnreachable,
)
from producers.settings import Settings
from producers.store import Client, keys, scripts
from producers.store.connection import is_cluster
from producers.store.primary import NotDoneError
from producers.store.replicas import UnacknowledgedError
from producers.store.retry import passes, pause_s
from producers.store.scripts import Call
from producers.store.trip import Trip
from producers.words import Channel
from workers.limits.gate import BATCH, Gate
from workers.limits.hours import ALWAYS, Hours
from workers.limits.limiter import Grant, Limiter
from workers.sending.claim import Claim
from workers.sending.envelopes import Envelopes
from workers.sending.hands import Hands
from workers.sending.stops import Stops
from workers.sending.take import MORE, REST, SOON, Asking, Taken, Taker, read
from workers.sending.turns import Turns
from workers.wechat.envelope import Envelope
from workers.wechat.tokens import TokenKeeper

_POLL_S: Final = 1.0
_FAILED_S: Final = 1.0
_BEHIND_S: Final = 8.0
"""A server without its replicas is left alone so long at the most: a take there costs a second, of
all other servers' lanes too."""
_GIVE_UP_S: Final = 6.5
"""A worker that stops asks so long what a take whose reply was lost has claimed."""

_NOT_ASKED: Final = (NotDoneError, redis.OutOfMemoryError)
_SOON_S: Final = 0.02
"""Before the next take where many broadcasts gave nothing."""
_ASKS: Final = 3
"""How often slots are asked for again whose answer was lost: permits are held meanwhile."""

_TAKE_S: Final = 0.008
"""A trip so long has room for one take more: 256 claims in so long are 32,000 a second."""
_MOST_TAKES: Final = 4
_OF_A_TAKE: Final = 2 * BATCH
"""In hand for each take more: one trip claims so many while the one before has its slots."""
_FEWEST: Final = 16
"""Claims that are worth a take of their own, where an app's rate allows a few."""

_SMOOTH: Final = 1 / 16
"""How much of a longer trip counts: Redis may have moved away."""

Batch = list[tuple[Claim, Envelope]]


class _Lost(NamedTuple):
    """A take of a cluster's node whose answer was lost: asked again, while other nodes are served.

    Attributes:
        asking: the take, with its token.
        error: why it was lost.
        attempt: how often it was.
        at: when it is asked again (monotonic s).
    """

    asking: Asking
    error: redis.RedisError
    attempt: int
    at: float


class _Wanted(NamedTuple):
    """Slots that are asked for: of an app's claims of one channel.

    Attributes:
        app, channel: whose.
        groups: the claims without a rate of their own, then those of each broadcast with one.
        rates: broadcast with a rate of its own → (that, its claims).
        call: what reserves.
    """

    app: str
    channel: str
    groups: list[list[Claim]]
    rates: dict[str, tuple[float, int]]
    call: Call


class Pump:
    """Fetches batches for one worker; used by one thread.

    Args:
        settings: apps, lanes, limits.
        client: Redis, for trips.
        taker, limiter: the two scripts.
        register: where specs are read.
        gates: app → what is known of its limits.
        tokens: app → its token keeper; nothing is taken while there is no good token.
        hands: what is in hand.
        workers: how many workers there are; 0 while this one is not known as alive.
        hand_back: returns claims that got no slot, from any thread.
        on_low: called with (broadcast, lane) when a queue wants a split.
        on_complete: called with (broadcast) when a lane has settled everyone.
        turns: where there may be something to take.
        stops: told of every claim that is made.
        posts: how many POSTs an app may begin.
        wait_s: how far ahead the slots of some claims must lie.
        server_time: epoch seconds by the Redis server's clock.
    """

    def __init__(
        self,
        settings: Settings,
        client: Client,
        taker: Taker,
        limiter: Limiter,
        register: Register,
        gates: Mapping[str, Gate],
        tokens: Mapping[str, TokenKeeper],
        hands: Hands,
        workers: Callable[[], int],
        hand_back: Callable[[list[Claim]], None],
        on_low: Callable[[str, int], None],
        on_complete: Callable[[str], None],
        turns: Turns,
        stops: Stops,
        posts: Callable[[str], int],
        wait_s: Callable[[list[Claim]], float],
        server_time: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._client = client
        self._taker = taker
        self._limiter = limiter
        self._envelopes = Envelopes(register)
        self._gates = gates
        self._tokens = tokens
        self._hands = hands
        self._workers = workers
        self._hand_back = hand_back
        self._on_low = on_low
        self._on_complete = on_complete
        self._turns = turns
        self._stops = stops
        self._posts = posts
        self._wait_s = wait_s
        self._server_time = server_time
        self._waiting: list[Claim] = []
        self._more: set[tuple[str, int]] = set()
        self._lost: dict[str, _Lost] = {}
        self._apart = is_cluster(client)
        self._behind: dict[Any, tuple[float, float]] = {}  # server → held for (s), until
        self._trip_s = 0.0
        self.unknown = False
        """Whether a take is under way, or lost, whose claims are not known yet."""
        self._travels = False
        self.thread: threading.Thread | None = None
        """Who pumps."""

    def next_batch(self, seconds: float) -> Batch | None:
        """Return the next batch with its slots, or None when none came within so long."""
        self.thread = threading.current_thread()
        deadline = time.monotonic() + seconds
        while not self._hands.closing:
            self._take_in_swapped()
            asked = self._asked_again() + self._worth_taking()
            if asked or self._waiting:
                if batch := self._travel(asked):
                    return batch
                if self._waiting or time.monotonic() < deadline:
                    continue  # what was claimed is to have its slots, or there is more to take
            now = time.monotonic()
            if now >= deadline:
                return None
            self._hands.wait(max(0.001, min(deadline, self._next_at(now)) - now))
        waiting, self._waiting = self._waiting, []
        self._hand_back(waiting)
        for lost in [self._lost.pop(token) for token in list(self._lost)]:
            self._taken(lost.asking, lost.error)
        self.unknown = False
        return None

    def is_unknown(self, lane: int) -> bool:
        """Say whether a take of a lane may be under way whose claims are not known yet."""
        return self._travels or any(one.asking.lane == lane for one in list(self._lost.values()))

    def _next_at(self, now: float) -> float:
        """Return when something may be worth asking for, unless a wake-up comes first."""
        times = [now + _POLL_S, self._turns.next_at, *(lost.at for lost in self._lost.values())]
        gates = (self._gates.get(app) for app in self._turns.apps(now))
        times += (gate.next_at for gate in gates if gate is not None and gate.next_at > now)
        return min(times)

    def _take_in_swapped(self) -> None:
        """Let swapped permits have slots next: they are held already, and their claims grow old."""
        while self._hands.swapped:
            claim = self._hands.swapped.popleft()
            self._stops.claimed([(claim.broadcast, claim.lane)])
            self._waiting.append(claim)

    # -- what is worth a trip ---------------------------------------------------------------

    def _worth_taking(self) -> list[Asking]:
        """Return the takes of one trip: of apps and lanes with something to take, in turn."""
        workers = self._workers()
        if not workers:
            return []  # nobody would know whose the claims are
        asked: list[Asking] = []
        claims: Counter[str] = Counter()
        for app in self._turns.apps(time.monotonic()):
            if len(asked) >= self._abreast:
                break
            try:
                asked += self._takes_of(app, workers, self._abreast - len(asked), claims)
            except Exception as error:  # noqa: BLE001  (the other apps go on)
                self._failed(app, "taking", error)
        return asked

    @property
    def _abreast(self) -> int:
        """How many takes one trip may make: as many as Redis has time for while it lasts."""
        if self._behind and self._are_some_behind():
            return 1  # they would wait for its replicas one after the other
        return min(_MOST_TAKES, 1 + int(self._trip_s / _TAKE_S))

    def _takes_of(
        self, app: str, workers: int, most_takes: int, claims: Counter[str]
    ) -> list[Asking]:
        """Return the takes of one app; the turns of its lanes are over by that.

        Args:
            app: whose ring is served.
            workers: how many there are.
            most_takes: how many there may be.
            claims: app → claims that this trip asks for; it grows.
        """
        gate, token = self._gates.get(app), self._tokens.get(app)
        if gate is None or token is None or token.retired:
            self._turns.forget(app)  # it left the settings, and what is queued waits
            return []
        if token.ready is None:
            return []
        most = gate.most(time.monotonic(), workers)
        if most <= 0 or (gate.probes and any(claim.app == app for claim in self._waiting)):
            return []
        lost = {one.asking.lane for one in self._lost.values() if one.asking.app == app}
        lanes = [lane for lane in self._turns.lanes(app) if lane not in lost]
        if gate.pace:  # what it may have now is shared by the lanes
            most_takes = max(1, min(most_takes, len(lanes), most // _FEWEST))
            most = -(-most // most_takes)
        else:  # a lane that has more than one take brings may be taken from again
            lanes += [lane for lane in lanes if (app, lane) in self._more] * (most_takes - 1)
        found: list[Asking] = []
        for lane in lanes[:most_takes]:
            some = min(most, self._room(app, claims))
            if some <= 0:
                break
            claims[app] += some
            self._turns.begin(app, lane)  # before it: what is added meanwhile wakes the lane anew
            place = sum(one.lane == lane for one in found)
            found.append(Asking.of(app, lane, some, place))
        return found

    def _room(self, app: str, claims: Counter[str]) -> int:
        """Return how many claims of an app find room in hand, and a POST that is free.

        Args:
            app: whose.
            claims: app → those that are asked for already.
        """
        posts = self._posts(app)
        if not posts:
            self._hands.short(app)
            posts = self._posts(app)  # what was let go in between wakes nobody
        return min(posts, self._hands.room(app, claims)) if posts else 0

    def _asked_again(self) -> list[Asking]:
        """Return the takes whose answers were lost, and whose time it is."""
        now = time.monotonic()
        return [lost.asking for lost in self._lost.values() if lost.at <= now]

    # -- a trip -----------------------------------------------------------------------------

    def _travel(self, asked: list[Asking]) -> Batch:
        """Take what is asked for, and reserve for what waits, in one trip; return the batch."""
        trip, asked_at = Trip(self._client), time.monotonic()
        self.unknown = bool(asked or self._lost)
        self._travels = bool(asked)
        takes = self._add_takes(trip, asked)
        waiting, self._waiting = self._waiting, []
        specs = [
            (broadcast, trip.ask(("HGET", key, "spec")))
            for broadcast, key in self._envelopes.lacking(waiting)
        ]
        # the last ones: slots count from when their answer comes
        wanted = [(one, trip.ask(one.call)) for one in self._wanted(waiting)]
        try:
            answers = trip.go()
        except redis.RedisError as error:
            answers = [error] * len(trip)
        given_at = time.monotonic()
        if trip:
            self._note_trip(given_at - asked_at)
        for broadcast, place in specs:
            self._envelopes.learn(broadcast, answers[place])
        batch: Batch = []
        for one, place in wanted:
            batch += self._granted(one, answers[place], asked_at, given_at)
        for asking, place in takes:
            self._taken(asking, answers[place])
        self._travels = False
        self.unknown = bool(self._lost)  # not before all are in hand: a drain looks at both
        return batch

    def _note_trip(self, took_s: float) -> None:
        """Remember how far Redis is: the shortest trip of late; a longer one waited for a core."""
        before_s = self._trip_s or took_s
        self._trip_s = min(took_s, before_s + (took_s - before_s) * _SMOOTH)
        for gate in list(self._gates.values()):
            gate.way_s = 2 * self._trip_s
        self._hands.widen((self._abreast - 1) * _OF_A_TAKE)

    def _failed(self, app: str, during: str, error: Exception) -> None:
        """Let one app wait a second after an error that nobody foresaw."""
        gate = self._gates.get(app)
        if gate is None:
            return
        gate.not_before = max(gate.not_before, time.monotonic() + _FAILED_S)
        logs.emit(AppFailed(app, during, f"{type(error).__name__}: {error}"[:200]))

    # -- takes ------------------------------------------------------------------------------

    def _add_takes(self, trip: Trip, asked: list[Asking]) -> list[tuple[Asking, int]]:
        """Have a trip take; returns each take and the place of its answer."""
        added: list[tuple[Asking, int]] = []
        for asking in asked:
            try:
                added.append((asking, trip.ask(self._call(asking))))
            except Exception as error:  # noqa: BLE001  (the other apps go on)
                self._lost.pop(asking.token, None)
                self._turns.wake(asking.app, asking.lane)
                self._failed(asking.app, "taking", error)
        return added

    def _call(self, asking: Asking) -> Call:
        """Return the call of a take, as what is known of the app's limits is now."""
        app = asking.app
        allowances = self._gates[app].allowances(time.monotonic(), max(1, self._workers()))
        return self._taker.call(
            asking, allowances, self._hours(app), self._bounds(app), self._spent_ms(app)
        )

    def _taken(self, asking: Asking, answer: Any) -> None:
        """Take in hand what a take claimed."""
        app, lane = asking.app, asking.lane
        if self._is_put_off(asking, answer):
            return
        try:
            taken = self._take(asking, answer)
            if taken is None:
                self._turns.wake(app, lane)
                return
            for broadcast in taken.low:
                self._on_low(broadcast, lane)
            for broadcast in taken.complete:
                self._on_complete(broadcast)
            if taken.lacking is not None:
                self._give_back(taken, taken.lacking.have)
                self._turns.wake(app, lane)
                self._leave_alone(lane)
                return
            if self._behind:
                self._behind.pop(self._server(lane), None)
            if taken.claims:
                self._hands.take(taken.claims)
                self._waiting += taken.claims
                self._stops.claimed((broadcast, lane) for broadcast in taken.broadcasts)
                gate, now = self._gates[app], time.monotonic()
                gate.expect(taken.claims, now)
                if gate.breaker.trouble:
                    gate.breaker.probe(now)
            self._leave(app, lane, taken.left)
        except Exception as error:  # noqa: BLE001  (the other apps go on)
            # should it have claimed, the worker finds that in a while
            self._turns.wake(app, lane)
            self._failed(app, "taking", error)

    def _is_put_off(self, asking: Asking, answer: Any) -> bool:
        """Put off a take that one node of a cluster lost: the lanes of the others go on."""
        before = self._lost.pop(asking.token, None)
        if not (self._apart and isinstance(answer, redis.RedisError) and passes(answer)):
            return False
        if isinstance(answer, UnacknowledgedError) or self._hands.closing:
            return False
        attempt = before.attempt + 1 if before else 1
        logs.emit(StoreUnreachable("taking", type(answer).__name__, attempt))
        now = time.monotonic()
        if before is None and isinstance(answer, _NOT_ASKED):
            self._turns.rest(asking.app, asking.lane, now + _FAILED_S)
        else:
            error = before.error if before else answer
            self._lost[asking.token] = _Lost(asking, error, attempt, now + pause_s(attempt))
        return True

    def _give_back(self, taken: Taken, have: int) -> None:
        """Hand back claims that a failover would forget: a POST of theirs could be made twice."""
        logs.emit(ReplicasBehind("taking", have, 1, counted=False))
        if taken.claims:
            self._hands.take(taken.claims)
            self._hand_back(taken.claims)

    def _leave_alone(self, lane: int) -> None:
        """Take nothing for a while where replicas are behind: longer each time, of a cluster."""
        if self._turns.is_held(lane):
            return  # another take of the same trip said so
        server = self._server(lane)
        before = self._behind.get(server) if server else None
        hold_s = min(_BEHIND_S, 2 * before[0]) if before else _FAILED_S
        until = time.monotonic() + hold_s
        self._behind[server] = (hold_s, until)
        lanes = [one for one in range(self._settings.lanes) if self._server(one) == server]
        self._turns.hold(lanes, until)

    def _are_some_behind(self) -> bool:
        """Say whether replicas of a server were behind of late; one may have gone meanwhile."""
        now = time.monotonic()
        self._behind = {
            server: (held_s, until)
            for server, (held_s, until) in self._behind.items()
            if now < until + _BEHIND_S
        }
        return bool(self._behind)

    def _server(self, lane: int) -> Any:
        """Return who serves a lane, of a cluster; None: there is one server."""
        return self._client.place_of(keys.fence(lane)) if self._apart else None

    def _take(self, asking: Asking, answer: Any) -> Taken | None:
        """Read what a take answered; ask again until Redis answers or the worker has stopped."""
        attempt = 0
        lost = False
        while True:
            if isinstance(answer, UnacknowledgedError):
                taken = read(answer.reply, asking)
                taken.lacking = answer
                return taken
            if not isinstance(answer, redis.RedisError):
                return read(answer, asking)
            if not passes(answer):
                raise answer
            # a server that is full, another one, or no primary refuses before it is asked
            lost = lost or not isinstance(answer, _NOT_ASKED)
            attempt += 1
            logs.emit(StoreUnreachable("taking", type(answer).__name__, attempt))
            if self._hands.closed_s > _GIVE_UP_S:
                return None  # recovery finds what it may have claimed
            time.sleep(pause_s(attempt))
            # a worker that stops still asks for an answer that was lost: it may have claimed
            if self._hands.closing and not lost:
                return None  # it was never asked
            try:
                answer = self._call(asking).run()
            except redis.RedisError as error:
                answer = error

    def _leave(self, app: str, lane: int, left: str) -> None:
        """Say when to come back to where something is left."""
        now = time.monotonic()
        if left == MORE:
            self._more.add((app, lane))
            self._turns.wake(app, lane)
            return
        self._more.discard((app, lane))
        if left == SOON:
            self._turns.rest(app, lane, now + _SOON_S)
        elif left == REST:
            self._turns.rest(app, lane, self._gates[app].own_next_at(now))

    def _hours(self, app: str) -> Hours:
        """Return when an app's broadcasts may be sent: now, or next."""
        calendar = self._gates[app].calendar
        return calendar.at(self._server_time()) if calendar else ALWAYS

    def _bounds(self, app: str) -> Bounds:
        """Return what an app's broadcasts leave to each user."""
        bounding = self._gates[app].bounding
        return bounding.at(int(self._server_time() * 1000)) if bounding else NONE

    def _spent_ms(self, app: str) -> tuple[int, int]:
        """Return how long the day of each channel lasts that is used up."""
        gate = self._gates[app]
        if not gate.spent:
            return 0, 0
        now = time.monotonic()
        return gate.spent_ms(Channel.TEMPLATE, now), gate.spent_ms(Channel.SUBSCRIBE, now)

    # -- slots ------------------------------------------------------------------------------

    def _wanted(self, waiting: list[Claim]) -> list[_Wanted]:
        """Return what slots are wanted, by app and channel: one of these, nearly always."""
        groups: dict[tuple[str, str], list[Claim]] = {}
        for claim in waiting:
            groups.setdefault((claim.app, claim.channel), []).append(claim)
        found: list[_Wanted] = []
        for (app, channel), claims in groups.items():
            if app not in self._settings.apps:
                self._hand_back(claims)
                continue
            try:
                found.append(self._want(app, channel, claims))
            except Exception as error:  # noqa: BLE001  (the other apps go on)
                self._hand_back(claims)
                self._failed(app, "reserving", error)
        return found

    def _want(self, app: str, channel: str, claims: list[Claim]) -> _Wanted:
        plain = [claim for claim in claims if not claim.rate]
        own: dict[str, list[Claim]] = {}
        for claim in claims:
            if claim.rate:
                own.setdefault(claim.broadcast, []).append(claim)
        gate = self._gates[app]
        unused = gate.unused.pop(channel, 0)  # told once: twice would let the day have too many
        gate.wasted += unused
        rates = {broadcast: (some[0].rate, len(some)) for broadcast, some in own.items()}
        call = self._limiter.call(
            app,
            self._settings.app(app),
            len(plain),
            rates,
            unused,
            scripts.new_token(),
            channel,
            self._wait_s(claims),
        )
        return _Wanted(app, channel, [plain, *own.values()], rates, call)

    def _granted(self, wanted: _Wanted, answer: Any, asked_at: float, given_at: float) -> Batch:
        """Give claims their slots; those that get none go back to the queue."""
        try:
            groups = len(wanted.groups)
            if isinstance(answer, redis.RedisError):
                grant = self._ask_again(wanted, answer)
            else:
                grant = self._limiter.read(wanted.call, answer, groups, asked_at, given_at)
            if grant is not None:
                return self._with_slots(wanted, grant)
        except Exception as error:  # noqa: BLE001  (the other apps go on)
            self._failed(wanted.app, "reserving", error)
        # twice for some, perhaps: their fences make that harmless
        self._hand_back([claim for claims in wanted.groups for claim in claims])
        return []

    def _ask_again(self, wanted: _Wanted, error: redis.RedisError) -> Grant | None:
        """Reserve, with the same token; None when Redis does not answer for long.

        Of a cluster a node that does not answer, or does nothing, holds its own apps alone: nobody
        waits for it here, and they come back in a second.
        """
        attempt = 0
        while passes(error):
            attempt += 1
            logs.emit(StoreUnreachable("reserving slots", type(error).__name__, attempt))
            if self._apart and (attempt > 1 or isinstance(error, _NOT_ASKED)):
                gate = self._gates[wanted.app]
                gate.not_before = max(gate.not_before, time.monotonic() + _FAILED_S)
                return None
            if attempt > _ASKS:
                return None
            if not self._apart:
                time.sleep(pause_s(attempt))
            try:
                return self._limiter.ask(wanted.call, len(wanted.groups), again=True)
            except redis.RedisError as again:
                error = again
        raise error

    def _with_slots(self, wanted: _Wanted, grant: Grant) -> Batch:
        app, channel, gate = wanted.app, wanted.channel, self._gates[wanted.app]
        if grant.spent_s and channel not in gate.spent:
            logs.emit(QuotaSpent(app, channel, round(grant.spent_s)))
        gate.learn(grant, wanted.rates, time.monotonic(), channel)
        if grant.restored:
            logs.emit(RateRestored(app, grant.rate))
        ends = grant.rate > 0 or grant.limit > 0
        batch: Batch = []
        without: list[Claim] = []
        for claims, slots in zip(wanted.groups, grant.slots, strict=True):
            ready = self._with_envelopes(claims)
            batch += [
                (claim.at(slot, ends=ends or claim.rate > 0), envelope)
                for (claim, envelope), slot in zip(ready, slots, strict=False)
            ]
            without += [claim for claim, _ in ready[len(slots) :]]
            if len(slots) > len(ready):
                gate.waste(channel, len(slots) - len(ready))
        if gate.calendar:
            batch, outside = self._within_hours(batch, self._hours(app), grant.server_ahead)
            without += outside
            gate.waste(channel, len(outside))
        if without:
            self._hand_back(without)
        return batch

    @staticmethod
    def _within_hours(batch: Batch, hours: Hours, server_ahead: float) -> tuple[Batch, list[Claim]]:
        """Part what may start in its slot from what would start outside the window."""
        inside: Batch = []
        outside: list[Claim] = []
        for claim, envelope in batch:
            if not hours.within(claim.broadcast, claim.slot_at, server_ahead):
                outside.append(claim)
                continue
            ends = claim.slot_ends or hours.ends_soon(claim.slot_at, server_ahead)
            inside.append((claim.at(claim.slot_at, ends=ends), envelope))
        return inside, outside

    def _with_envelopes(self, claims: list[Claim]) -> Batch:
        """Return each claim with its message; those whose message cannot be read go back."""
        ready: Batch = []
        unread: list[Claim] = []
        for claim in claims:
            try:
                ready.append((claim, self._envelopes.of(claim)))
            except Exception as error:  # noqa: BLE001  (the other broadcasts go on)
                unread.append(claim)
                failed = error
        if unread:
            self._hand_back(unread)
            self._failed(unread[0].app, f"reading {unread[0].broadcast}", failed)
        return ready
