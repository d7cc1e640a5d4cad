"""The intake: which takes a trip makes, and what their answers bring in hand.

A take whose answer was lost is asked for again, with its token, until it is known what it claimed:
on one server at once, of a cluster by later trips, so that the lanes of other nodes go on. An error
costs its own app a second (`failures`). A lane that was divided refuses a take before it begins:
that claimed nothing, and the lane is left.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import redis

from producers import logs
from producers.logs.events import ReplicasBehind, StoreUnreachable
from producers.settings import Layout, Settings
from producers.store import Client
from producers.store.connection import is_cluster
from producers.store.lanes.fence import is_refusal
from producers.store.replicas import UnacknowledgedError
from producers.store.retry import passes, pause_s
from producers.store.scripts import Call
from producers.store.trip import Trip
from producers.words import Channel
from workers.limits.gate import Gate
from workers.sending.claim import Claim
from workers.sending.hands import Hands
from workers.sending.pumping.behind import Behind
from workers.sending.pumping.failures import FAILED_S, NOT_ASKED, put_off
from workers.sending.stops import Stops
from workers.sending.take import MORE, REST, SOON, Asking, Taken, Taker, read
from workers.sending.turns import Turns
from workers.wechat.tokens import TokenKeeper

_GIVE_UP_S: Final = 6.5
"""A worker that stops asks so long what a take whose reply was lost has claimed."""
_SOON_S: Final = 0.02
"""Before the next take where many broadcasts gave nothing."""
_FEWEST: Final = 16
"""Claims that are worth a take of their own, where an app's rate allows a few."""


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


class Intake:
    """Takes for one worker; used by one thread.

    Args:
        settings: which lanes there are.
        client: Redis, for trips.
        taker: the script.
        gates: app → what is known of its limits.
        tokens: app → its token keeper; nothing is taken while there is no good token.
        hands: what is in hand.
        workers: how many workers there are; 0 while this one is not known as alive.
        hand_back: returns claims that may not be posted, from any thread.
        on_low: called with (broadcast, lane) when a queue wants a split.
        on_complete: called with (broadcast) when a lane has settled everyone.
        turns: where there may be something to take.
        stops: told of every claim that is made.
        posts: how many POSTs an app may begin.
        server_time: epoch seconds by the Redis server's clock.

    Attributes:
        behind: servers that are left alone for a while.
        waiting: claims in hand that have no slot yet.
    """

    def __init__(
        self,
        settings: Settings,
        client: Client,
        taker: Taker,
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
        self._is_cluster = is_cluster(client)
        self._layout: Layout | None = None
        self._more: set[tuple[str, int]] = set()
        self._lost: dict[str, _Lost] = {}
        self.behind = Behind(client, settings, turns)
        self.waiting: list[Claim] = []

    def next_at(self, now: float) -> float:
        """Return when something may be worth asking for, unless a wake-up comes first."""
        times = [self._turns.next_at, *(lost.at for lost in self._lost.values())]
        gates = (self._gates.get(app) for app in self._turns.apps(now))
        times += (gate.next_at for gate in gates if gate is not None and gate.next_at > now)
        return min(times)

    def lost_lanes(self) -> set[int]:
        """Return the lanes of takes whose answers were lost; from any thread."""
        return {one.asking.lane for one in list(self._lost.values())}

    def take_in_swapped(self) -> None:
        """Let swapped permits have slots next: they are held already, and their claims grow old."""
        while self._hands.swapped:
            claim = self._hands.swapped.popleft()
            self._stops.claimed([(claim.broadcast, claim.lane)])
            self.waiting.append(claim)

    def close(self) -> None:
        """Hand back what has no slot, and ask what lost takes have claimed, for a while."""
        waiting, self.waiting = self.waiting, []
        self._hand_back(waiting)
        for lost in [self._lost.pop(token) for token in list(self._lost)]:
            self._taken(lost.asking, lost.error)

    # -- what is worth a trip ---------------------------------------------------------------

    def wanted(self, most: int) -> list[Asking]:
        """Return the takes of the next trip: those to be asked for again, and so many others."""
        self._follow()
        return self._asked_again() + self._worth_taking(most)

    def _follow(self) -> None:
        """Leave the lanes that were divided, and the one that is being divided."""
        layout = self._settings.layout
        if layout is self._layout:
            return
        self._layout = layout
        self._turns.follow(layout)
        left = frozenset(layout.lanes) - {layout.shut}
        self._more = {(app, lane) for app, lane in self._more if lane in left}

    def _worth_taking(self, most: int) -> list[Asking]:
        """Return at most so many takes: of apps and lanes with something to take, in turn."""
        workers = self._workers()
        if not workers:
            return []  # nobody would know whose the claims are
        asked: list[Asking] = []
        claims: Counter[str] = Counter()
        for app in self._turns.apps(time.monotonic()):
            if len(asked) >= most:
                break
            try:
                asked += self._takes_of(app, workers, most - len(asked), claims)
            except Exception as error:  # noqa: BLE001  (the other apps go on)
                put_off(self._gates, app, "taking", error)
        return asked

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
        if most <= 0 or (gate.probes and any(claim.app == app for claim in self.waiting)):
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

    def ask(self, trip: Trip, asked: list[Asking]) -> list[tuple[Asking, int]]:
        """Have a trip take; returns each take and the place of its answer."""
        added: list[tuple[Asking, int]] = []
        for asking in asked:
            try:
                added.append((asking, trip.ask(self._call(asking))))
            except Exception as error:  # noqa: BLE001  (the other apps go on)
                self._lost.pop(asking.token, None)
                self._turns.wake(asking.app, asking.lane)
                put_off(self._gates, asking.app, "taking", error)
        return added

    def _call(self, asking: Asking) -> Call:
        """Return the call of a take, as what is known of the app's limits is now."""
        gate = self._gates[asking.app]
        return self._taker.call(
            asking,
            gate.allowances(time.monotonic(), max(1, self._workers())),
            gate.hours(self._server_time),
            gate.bounds(self._server_time),
            self._spent_ms(gate),
        )

    def take_in(self, takes: list[tuple[Asking, int]], answers: list[Any]) -> None:
        """Take in hand what takes claimed; they have no slots yet.

        Args:
            takes: as `ask` returned them.
            answers: of the trip, errors among them.
        """
        for asking, place in takes:
            self._taken(asking, answers[place])

    def _taken(self, asking: Asking, answer: Any) -> None:
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
                self.behind.add(lane)
                return
            self.behind.remove(lane)
            if taken.claims:
                self._hands.take(taken.claims)
                self.waiting += taken.claims
                self._stops.claimed((broadcast, lane) for broadcast in taken.broadcasts)
                gate, now = self._gates[app], time.monotonic()
                gate.expect(taken.claims, now)
                if gate.breaker.trouble:
                    gate.breaker.probe(now)
            self._leave(app, lane, taken.left)
        except Exception as error:  # noqa: BLE001  (the other apps go on)
            # should it have claimed, the worker finds that in a while
            if is_refusal(error):
                return
            self._turns.wake(app, lane)
            put_off(self._gates, app, "taking", error)

    def _is_put_off(self, asking: Asking, answer: Any) -> bool:
        """Put off a take that one node of a cluster lost: the lanes of the others go on.

        One that was refused is over: it claimed nothing, or did so before its lane was divided.
        """
        before = self._lost.pop(asking.token, None)
        if is_refusal(answer):
            return True
        if not (self._is_cluster and isinstance(answer, redis.RedisError) and passes(answer)):
            return False
        if isinstance(answer, UnacknowledgedError) or self._hands.closing:
            return False
        attempt = before.attempt + 1 if before else 1
        logs.emit(StoreUnreachable("taking", type(answer).__name__, attempt))
        now = time.monotonic()
        if before is None and isinstance(answer, NOT_ASKED):
            self._turns.rest(asking.app, asking.lane, now + FAILED_S)
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
            lost = lost or not isinstance(answer, NOT_ASKED)
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

    @staticmethod
    def _spent_ms(gate: Gate) -> tuple[int, int]:
        """Return how long the day of each channel lasts that is used up."""
        if not gate.spent:
            return 0, 0
        now = time.monotonic()
        return gate.spent_ms(Channel.TEMPLATE, now), gate.spent_ms(Channel.SUBSCRIBE, now)
