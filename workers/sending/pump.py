"""The pump: decides when to take, takes, reserves slots, and gives the batch to an actor call.

It runs on Dramatiq's consumer thread of the `send` queue. Where it waits, it waits for one of:
room in hand, the limiter's horizon, the slot of a broadcast with a rate of its own, or work: a
wake-up names where, and the look at the lanes a second later (`Watch`).
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

import redis

from producers import logs
from producers.broadcasts.status import Register
from producers.lanes.bounds import NONE, Bounds
from producers.logs.events import AppFailed, QuotaSpent, RateRestored, StoreUnreachable
from producers.settings import Settings
from producers.store import scripts
from producers.store.primary import NotDoneError
from producers.store.retry import LOST, passes, pause_s
from producers.words import Channel
from workers.limits.gate import Gate
from workers.limits.hours import ALWAYS, Hours
from workers.limits.limiter import Grant, Limiter
from workers.sending.claim import Claim
from workers.sending.envelopes import Envelopes
from workers.sending.hands import Hands
from workers.sending.stops import Stops
from workers.sending.take import MORE, REST, SOON, Taken, Taker
from workers.sending.turns import Turns
from workers.wechat.envelope import Envelope
from workers.wechat.tokens import TokenKeeper

_POLL_S: Final = 1.0
_FAILED_S: Final = 1.0
_GIVE_UP_S: Final = 6.5
"""A worker that stops asks so long what a take whose reply was lost has claimed."""

_NOT_ASKED: Final = (NotDoneError, redis.OutOfMemoryError)
_SOON_S: Final = 0.02
"""Before the next take where many broadcasts gave nothing."""
_ASKS: Final = 3
"""How often slots are asked for again whose answer was lost: permits are held meanwhile."""

Batch = list[tuple[Claim, Envelope]]


class Pump:
    """Fetches batches for one worker; used by one thread.

    Args:
        settings: apps, lanes, limits.
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
        server_time: epoch seconds by the Redis server's clock.
    """

    def __init__(
        self,
        settings: Settings,
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
        server_time: Callable[[], float],
    ) -> None:
        self._settings = settings
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
        self._server_time = server_time
        self.unknown = False
        """Whether a take is under way whose claims are not known yet."""
        self.thread: threading.Thread | None = None
        """Who pumps."""

    def next_batch(self, seconds: float) -> Batch | None:
        """Return the next batch with its slots, or None when none came within so long."""
        self.thread = threading.current_thread()
        deadline = time.monotonic() + seconds
        while not self._hands.closing:
            # swapped permits first: they are held already, and their claims grow old
            batch = self._swapped() or self._take_round()
            if batch:
                return batch
            now = time.monotonic()
            if now >= deadline:
                return None
            self._hands.wait(max(0.001, min(deadline, self._next_at(now)) - now))
        return None

    def _next_at(self, now: float) -> float:
        """Return when something may be worth asking for, unless a wake-up comes first."""
        times = [now + _POLL_S, self._turns.next_at]
        gates = (self._gates.get(app) for app in self._turns.apps(now))
        times += (gate.next_at for gate in gates if gate is not None and gate.next_at > now)
        return min(times)

    def _take_round(self) -> Batch | None:
        """Try each app and lane with something to take once, in turn, until one gives a batch."""
        for app in self._turns.apps(time.monotonic()):
            for lane in self._turns.lanes(app):
                workers = self._workers()
                if not workers:
                    return None  # nobody would know whose the claims are
                if not self._may_take(app, workers):
                    break
                try:
                    batch = self._turn(app, lane, workers)
                except Exception as error:  # noqa: BLE001  (the other apps go on)
                    self.unknown = False  # should it have claimed, the worker finds that in a while
                    self._turns.wake(app, lane)
                    self._failed(app, "taking", error)
                    break
                if batch:
                    return batch
        return None

    def _may_take(self, app: str, workers: int) -> bool:
        """Say whether anything may be taken for an app now."""
        gate, token = self._gates.get(app), self._tokens.get(app)
        if gate is None or token is None or token.retired:
            self._turns.forget(app)  # it left the settings, and what is queued waits
            return False
        if token.ready is None:
            return False
        try:
            return gate.most(time.monotonic(), workers) > 0 and self._room(app) > 0
        except Exception as error:  # noqa: BLE001  (the other apps go on)
            self._failed(app, "taking", error)
            return False

    def _room(self, app: str) -> int:
        """Return how many claims of an app find room in hand, and a POST that is free."""
        posts = self._posts(app)
        if not posts:
            self._hands.short(app)
            posts = self._posts(app)  # what was let go in between wakes nobody
        return min(posts, self._hands.room(app)) if posts else 0

    def _turn(self, app: str, lane: int, workers: int) -> Batch:
        """Take for one app in one lane, and reserve."""
        now = time.monotonic()
        gate = self._gates[app]
        most = min(gate.most(now, workers), self._room(app))
        if most <= 0:
            return []
        self._turns.begin(app, lane)  # before it: what is added meanwhile wakes the lane anew
        taken = self._take(app, lane, most, gate.allowances(now))
        if taken is None:
            self._turns.wake(app, lane)
            return []
        for broadcast in taken.low:
            self._on_low(broadcast, lane)
        for broadcast in taken.complete:
            self._on_complete(broadcast)
        if taken.claims:
            self._hands.take(taken.claims)
            self._stops.claimed((broadcast, lane) for broadcast in taken.broadcasts)
            if gate.breaker.trouble:
                gate.breaker.probe(now)
        self.unknown = False  # not before they are in hand: a drain looks at both
        batch = self._reserve(app, taken.claims) if taken.claims else []
        self._leave(app, lane, taken.left)
        return batch

    def _failed(self, app: str, during: str, error: Exception) -> None:
        """Let one app wait a second after an error that nobody foresaw."""
        gate = self._gates.get(app)
        if gate is None:
            return
        gate.not_before = max(gate.not_before, time.monotonic() + _FAILED_S)
        logs.emit(AppFailed(app, during, f"{type(error).__name__}: {error}"[:200]))

    def _leave(self, app: str, lane: int, left: str) -> None:
        """Say when to come back to where something is left."""
        now = time.monotonic()
        if left == MORE:
            self._turns.wake(app, lane)
        elif left == SOON:
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

    def _swapped(self) -> Batch | None:
        """Reserve slots for permits that were claimed in place of dead ones."""
        by_app: dict[str, list[Claim]] = {}
        while self._hands.swapped:
            claim = self._hands.swapped.popleft()
            by_app.setdefault(claim.app, []).append(claim)
        batch: Batch = []
        for app, claims in by_app.items():
            self._stops.claimed({(claim.broadcast, claim.lane) for claim in claims})
            batch += self._reserve(app, claims)
        return batch or None

    def _take(
        self, app: str, lane: int, most: int, allowances: dict[str, tuple[int, float, int]]
    ) -> Taken | None:
        """Take, asking again with the same token until Redis answers or the worker has stopped."""
        token = scripts.new_token()
        attempt = 0
        lost = False
        self.unknown = True
        # a worker that stops still asks for an answer that was lost: it may have claimed
        while not self._hands.closing or lost:
            try:
                hours, bounds, spent_ms = self._hours(app), self._bounds(app), self._spent_ms(app)
                return self._taker.take(app, lane, most, allowances, token, hours, bounds, spent_ms)
            except (*LOST, redis.ResponseError) as error:
                if not passes(error):
                    raise
                # a server that is full, another one, or no primary refuses before it is asked
                lost = lost or not isinstance(error, _NOT_ASKED)
                attempt += 1
                logs.emit(StoreUnreachable("taking", type(error).__name__, attempt))
                if self._hands.closed_s > _GIVE_UP_S:
                    return None  # recovery finds what it may have claimed
                time.sleep(pause_s(attempt))
        self.unknown = False  # it was never asked
        return None

    def _reserve(self, app: str, claims: list[Claim]) -> Batch:
        """Give claims their slots; those that get none go back to the queue."""
        if app not in self._settings.apps:
            self._hand_back(claims)
            return []
        try:
            return self._granted(app, claims)
        except Exception as error:  # noqa: BLE001  (the other apps go on)
            self._hand_back(claims)  # twice for some, perhaps: their fences make that harmless
            self._failed(app, "reserving", error)
            return []

    def _granted(self, app: str, claims: list[Claim]) -> Batch:
        by_channel: dict[str, Batch] = {}
        for pair in self._with_envelopes(claims):
            by_channel.setdefault(pair[0].channel, []).append(pair)
        batch: Batch = []
        for channel, ready in by_channel.items():  # one, for nearly all apps
            batch += self._granted_of(app, channel, ready)
        return batch

    def _granted_of(self, app: str, channel: str, ready: Batch) -> Batch:
        plain = [pair for pair in ready if not pair[0].rate]
        own: dict[str, Batch] = {}
        for pair in ready:
            if pair[0].rate:
                own.setdefault(pair[0].broadcast, []).append(pair)
        rates = {broadcast: (pairs[0][0].rate, len(pairs)) for broadcast, pairs in own.items()}
        grant = self._slots(app, channel, len(plain), rates)
        if grant is None:
            self._hand_back([claim for claim, _ in ready])
            return []
        gate = self._gates[app]
        if grant.spent_s and channel not in gate.spent:
            logs.emit(QuotaSpent(app, channel, round(grant.spent_s)))
        gate.learn(grant, rates, time.monotonic(), channel)
        if grant.restored:
            logs.emit(RateRestored(app, grant.rate))
        ends = grant.rate > 0 or grant.limit > 0
        batch: Batch = []
        without: list[Claim] = []
        for pairs, slots in zip([plain, *own.values()], grant.slots, strict=True):
            for (claim, envelope), slot in zip(pairs, slots, strict=False):
                batch.append((claim.at(slot, ends=ends or claim.rate > 0), envelope))
            without += [claim for claim, _ in pairs[len(slots) :]]
        if gate.calendar:
            batch, outside = self._within_hours(batch, self._hours(app), grant.server_ahead)
            gate.waste(channel, len(outside))
            without += outside
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

    def _slots(
        self, app: str, channel: str, plain: int, own: dict[str, tuple[float, int]]
    ) -> Grant | None:
        """Reserve, asking again with the same token; None when Redis does not answer for long."""
        gate = self._gates[app]
        unused = gate.unused.pop(channel, 0)  # told once: twice would let the day have too many
        gate.wasted += unused
        token = scripts.new_token()
        attempt = 0
        while True:
            try:
                return self._limiter.reserve(
                    app, self._settings.app(app), plain, own, unused, token, channel
                )
            except (*LOST, redis.ResponseError) as error:
                if not passes(error):
                    raise
                attempt += 1
                logs.emit(StoreUnreachable("reserving slots", type(error).__name__, attempt))
                if attempt > _ASKS:
                    return None
                time.sleep(pause_s(attempt))

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
