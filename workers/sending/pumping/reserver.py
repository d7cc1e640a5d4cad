"""The reserver: asks for a slot for each claim, and gives out what it gets, with the messages.

Claims of one app and channel are asked for together. Whoever gets no slot, or whose message cannot
be read, goes back to its queue. An error costs its own app a second (`failures`).
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import redis

from producers import logs
from producers.broadcasts.status import Register
from producers.errors import StoreUnavailableError
from producers.logs.events import QuotaSpent, RateRestored, StoreUnreachable
from producers.settings import Settings
from producers.store import Client, deadline, scripts
from producers.store.connection import is_cluster
from producers.store.retry import passes, pause_s
from producers.store.scripts import Call
from producers.store.trip import Trip
from workers.limits.gate import Gate
from workers.limits.hours import Hours
from workers.limits.limiter import Grant, Limiter
from workers.sending.claim import Claim
from workers.sending.pumping.envelopes import Envelopes
from workers.sending.pumping.failures import NOT_ASKED, hold, put_off
from workers.wechat.envelope import Envelope

_ASKS: Final = 3
"""How often slots are asked for again whose answer was lost: permits are held meanwhile."""
_READ_S: Final = 0.1
"""So long a message is waited for that a node of a cluster did not give to the trip."""

Batch = list[tuple[Claim, Envelope]]


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


class Asked(NamedTuple):
    """What a trip asks for, and the places of its answers.

    Attributes:
        specs: broadcasts whose message is not known yet.
        slots: the slots.
    """

    specs: list[tuple[str, int]]
    slots: list[tuple[_Wanted, int]]


class Reserver:
    """Reserves for one worker; used by one thread.

    Args:
        settings: the apps and their limits.
        client: Redis, for trips.
        limiter: the script.
        register: where specs are read.
        gates: app → what is known of its limits.
        hand_back: returns claims that got no slot, from any thread.
        wait_s: how far ahead the slots of some claims must lie.
        server_time: epoch seconds by the Redis server's clock.
    """

    def __init__(
        self,
        settings: Settings,
        client: Client,
        limiter: Limiter,
        register: Register,
        gates: Mapping[str, Gate],
        hand_back: Callable[[list[Claim]], None],
        wait_s: Callable[[list[Claim]], float],
        server_time: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._is_cluster = is_cluster(client)
        self._limiter = limiter
        self._envelopes = Envelopes(register)
        self._gates = gates
        self._hand_back = hand_back
        self._wait_s = wait_s
        self._server_time = server_time

    def ask(self, trip: Trip, claims: list[Claim]) -> Asked:
        """Have a trip ask for the slots of claims.

        It asks last: slots count from when their answer comes.
        """
        specs = [
            (broadcast, trip.ask(("HGET", key, "spec")))
            for broadcast, key in self._envelopes.lacking(claims)
        ]
        return Asked(specs, [(one, trip.ask(one.call)) for one in self._wanted(claims)])

    def batch(self, asked: Asked, answers: list[Any], asked_at: float, given_at: float) -> Batch:
        """Return the claims that have slots, with their messages; the others go back.

        Args:
            asked: what the trip asked for.
            answers: of the trip, errors among them.
            asked_at: when it began (monotonic s).
            given_at: when it ended.
        """
        for broadcast, place in asked.specs:
            self._envelopes.learn(broadcast, answers[place])
        batch: Batch = []
        for one, place in asked.slots:
            batch += self._granted(one, answers[place], asked_at, given_at)
        return batch

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
                put_off(self._gates, app, "reserving", error)
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
            put_off(self._gates, wanted.app, "reserving", error)
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
            if self._is_cluster and (attempt > 1 or isinstance(error, NOT_ASKED)):
                hold(self._gates[wanted.app])
                return None
            if attempt > _ASKS:
                return None
            if not self._is_cluster:
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
            batch, outside = self._within_hours(
                batch, gate.hours(self._server_time), grant.server_ahead
            )
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

    def _envelope(self, claim: Claim) -> Envelope:
        if not self._is_cluster:
            return self._envelopes.of(claim)
        with deadline.within(_READ_S):
            return self._envelopes.of(claim)

    def _with_envelopes(self, claims: list[Claim]) -> Batch:
        """Return each claim with its message; those whose message cannot be read go back.

        What Redis does not answer is asked for once a broadcast, and of a cluster hardly waited
        for: all other nodes' apps wait as well.
        """
        ready: Batch = []
        unread: list[Claim] = []
        away: set[str] = set()
        for claim in claims:
            if claim.broadcast in away:
                unread.append(claim)
                continue
            try:
                ready.append((claim, self._envelope(claim)))
            except Exception as error:  # noqa: BLE001  (the other broadcasts go on)
                if isinstance(error, redis.RedisError | StoreUnavailableError):
                    away.add(claim.broadcast)
                unread.append(claim)
                failed = error
        if unread:
            self._hand_back(unread)
            put_off(self._gates, unread[0].app, f"reading {unread[0].broadcast}", failed)
        return ready
