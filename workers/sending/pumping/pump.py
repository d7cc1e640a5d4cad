"""The pump: goes on trips to Redis for one worker, and gives what they bring to an actor call.

It runs on Dramatiq's consumer thread of the `send` queue. What one *trip* claimed (`intake`) is
reserved for by the next one (`reserver`), which takes again: a trip brings claims and slots at
once, and where it is long several takes ride in it, and there is room in hand for what they bring
(`Hands.widen`): so a unit far from Redis sends as much as a near one. Where a limit could be passed
by what was claimed and has no slot yet, it is reckoned as given (`Gate.expect`).

Where it waits, it waits for one of: room in hand, the limiter's horizon, the slot of a broadcast
with a rate of its own, or work: a wake-up names where, and the look at the lanes a second later
(`Watch`).
"""

import threading
import time
from collections.abc import Collection, Mapping
from typing import Final

import redis

from producers.store import Client
from producers.store.trip import Trip
from workers.limits.gate import BATCH, Gate
from workers.sending.hands import Hands
from workers.sending.pumping.intake import Intake
from workers.sending.pumping.reserver import Batch, Reserver
from workers.sending.take import Asking

_POLL_S: Final = 1.0
_TAKE_S: Final = 0.008
"""A trip so long has room for one take more: 256 claims in so long are 32,000 a second."""
_MOST_TAKES: Final = 4
_OF_A_TAKE: Final = 2 * BATCH
"""In hand for each take more: one trip claims so many while the one before has its slots."""
_SMOOTH: Final = 1 / 16
"""How much of a longer trip counts: Redis may have moved away."""


class Pump:
    """Fetches batches for one worker; used by one thread.

    Args:
        client: Redis, for trips.
        gates: app → what is known of its limits.
        hands: what is in hand.
        intake: what is taken.
        reserver: which slots it gets.

    Attributes:
        unknown: whether a take is under way, or lost, whose claims are not known yet.
        thread: who pumps; None: nobody yet.
    """

    def __init__(
        self,
        client: Client,
        gates: Mapping[str, Gate],
        hands: Hands,
        intake: Intake,
        reserver: Reserver,
    ) -> None:
        self._client = client
        self._gates = gates
        self._hands = hands
        self._intake = intake
        self._reserver = reserver
        self._trip_s = 0.0
        self._travels = False
        self.unknown = False
        self.thread: threading.Thread | None = None

    def next_batch(self, seconds: float) -> Batch | None:
        """Return the next batch with its slots, or None when none came within so long."""
        self.thread = threading.current_thread()
        deadline = time.monotonic() + seconds
        intake = self._intake
        while not self._hands.closing:
            intake.take_in_swapped()
            asked = intake.wanted(self._abreast)
            if asked or intake.waiting:
                if batch := self._travel(asked):
                    return batch
                if intake.waiting or time.monotonic() < deadline:
                    continue  # what was claimed is to have its slots, or there is more to take
            now = time.monotonic()
            if now >= deadline:
                return None
            ends = min(deadline, now + _POLL_S, intake.next_at(now))
            self._hands.wait(max(0.001, ends - now))
        intake.close()
        self.unknown = False
        return None

    def is_unknown(self, lanes: Collection[int]) -> bool:
        """Say whether a take of some lanes may be under way whose claims are not known yet."""
        return self._travels or not self._intake.lost_lanes().isdisjoint(lanes)

    @property
    def _abreast(self) -> int:
        """How many takes one trip may make: as many as Redis has time for while it lasts."""
        if self._intake.behind:
            return 1  # they would wait for its replicas one after the other
        return min(_MOST_TAKES, 1 + int(self._trip_s / _TAKE_S))

    def _travel(self, asked: list[Asking]) -> Batch:
        """Take what is asked for, and reserve for what waits, in one trip; return the batch."""
        intake, reserver = self._intake, self._reserver
        trip, asked_at = Trip(self._client), time.monotonic()
        self.unknown = bool(asked or intake.lost_lanes())
        self._travels = bool(asked)
        takes = intake.ask(trip, asked)
        waiting, intake.waiting = intake.waiting, []
        slots = reserver.ask(trip, waiting)
        try:
            answers = trip.go()
        except redis.RedisError as error:
            answers = [error] * len(trip)
        given_at = time.monotonic()
        if trip:
            self._note_trip(given_at - asked_at)
        batch = reserver.batch(slots, answers, asked_at, given_at)
        intake.take_in(takes, answers)
        self._travels = False
        # not before all are in hand: a drain looks at both
        self.unknown = bool(intake.lost_lanes())
        return batch

    def _note_trip(self, took_s: float) -> None:
        """Remember how far Redis is: the shortest trip of late; a longer one waited for a core."""
        before_s = self._trip_s or took_s
        self._trip_s = min(took_s, before_s + (took_s - before_s) * _SMOOTH)
        for gate in list(self._gates.values()):
            gate.way_s = 2 * self._trip_s
        self._hands.widen((self._abreast - 1) * _OF_A_TAKE)
