"""Taking: a worker fetches a batch of messages and claims their permits, in one atomic step.

See take.lua for what it guarantees. If the worker dies just before it, nothing has happened; just
after it, the claims lie under its name in Redis and recovery gives them to others.
"""

import time
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from producers.lanes.bounds import NONE, Bounds
from producers.settings import Settings, kept_rate, ms
from producers.store import Client, keys
from producers.store.replicas import UnacknowledgedError
from producers.store.scripts import Call, Script, new_token
from workers.limits.gate import HORIZON_MS
from workers.limits.hours import ALWAYS, FOREVER_MS, Hours
from workers.sending.claim import Claim, parse_row

MORE, SOON, REST, NOTHING = "more", "soon", "rest", ""
"""What a take leaves: more to take at once, or soon, or at its time, or nothing."""

_LEFT = frozenset({MORE, SOON, REST})

CLAIM_LIFE_S = 3.0
"""A POST is never started later than this after its claim: the lease of a worker is 8 s."""


class TakeKeys(NamedTuple):
    """KEYS of take.lua."""

    reply: str
    first: str
    ring: str
    sending: str
    fence: str
    stock: str
    ledger: str

    @classmethod
    def of(cls, lane: int, app: str, worker: str, place: int = 0) -> "TakeKeys":
        """Return those of one worker's takes of an app in a lane.

        Args:
            lane: in which lane.
            app: whose ring is served.
            worker: who takes.
            place: tells takes apart that are under way at once: each has an answer that is kept.
        """
        return cls(
            keys.reply(lane, f"take:{app}:{place}" if place else f"take:{app}", worker),
            keys.priority_ring(lane, app),
            keys.ring(lane, app),
            keys.sending(lane, app),
            keys.fence(lane),
            keys.stock(lane, app),
            keys.ledger(lane, app),
        )


class TakeArgs(NamedTuple):
    """ARGV of take.lua; of each broadcast with a rate of its own four more."""

    worker: str
    prefix: str
    app: str
    max: int
    lease_ms: int
    margin_ms: int
    ttl_ms: int
    horizon_ms: int
    opens_ms: int = 0
    closes_ms: int = FOREVER_MS
    holds: int = 0
    keep: str = ""
    caps: str = ""
    spent_template_ms: int = 0
    spent_subscribe_ms: int = 0


TAKE: Final = Script(
    __package__, "take", TakeKeys, TakeArgs, token=True, clock=True, replicated=True
)


@dataclass(slots=True)
class Taken:
    """One batch of one lane and app.

    Attributes:
        claims: the messages, permits held.
        low: broadcasts whose queue wants a split.
        closed: broadcasts whose canary waits for its first delivery.
        complete: broadcasts whose lane has settled everyone.
        broadcasts: of which something was claimed, or might have been.
        left: what is left in the rings, of `MORE`, `SOON`, `REST` and `NOTHING`.
        lacking: replicas have too little of it: none of it may be posted, for a failover would
            forget the claims; None: nothing.
    """

    claims: list[Claim] = field(default_factory=list)
    low: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    complete: list[str] = field(default_factory=list)
    broadcasts: list[str] = field(default_factory=list)
    left: str = ""
    lacking: UnacknowledgedError | None = None


class Asking(NamedTuple):
    """A take that is asked for, as often as it is: its answer is the first one.

    Attributes:
        app: whose ring is served.
        lane: in which lane.
        most: claims at the most, 1-1000.
        place: tells it apart from others that are under way in this lane.
        token: the same token again returns the first answer.
        asked_at: monotonic seconds of the first time: not later than the claims.
    """

    app: str
    lane: int
    most: int
    place: int
    token: str
    asked_at: float

    @classmethod
    def of(cls, app: str, lane: int, most: int, place: int = 0) -> "Asking":
        """Return a new one."""
        return cls(app, lane, most, place, new_token(), time.monotonic())


class Taker:
    """Takes batches for one worker; used by one thread at a time."""

    def __init__(self, client: Client, settings: Settings, worker: str, ttl_ms: int) -> None:
        self._script = TAKE.on(client)
        self._worker = worker
        self._fixed = (sending_lease_ms(settings), ms(settings.permit_margin), ttl_ms, HORIZON_MS)

    def call(
        self,
        asking: Asking,
        allowances: dict[str, tuple[int, float, int]],
        hours: Hours = ALWAYS,
        bounds: Bounds = NONE,
        spent_ms: tuple[int, int] = (0, 0),
    ) -> Call:
        """Return the call that claims what is asked for; `read` reads its answer.

        Args:
            asking: how much, where.
            allowances: broadcast with a rate of its own → how many it may have now, the rate for
                which that holds, and ms until it may have one.
            hours: when the app's broadcasts may be taken.
            bounds: what they leave to each user.
            spent_ms: how long the day lasts of the channels template and subscribe, where that is
                used up; 0: it is not.
        """
        own: list[str | int] = []
        for broadcast, (allowance, own_rate, wait_ms) in allowances.items():
            own += (broadcast, allowance, repr(own_rate), wait_ms)
        return self._script.call(
            TakeKeys.of(asking.lane, asking.app, self._worker, asking.place),
            TakeArgs(
                self._worker,
                keys.lane_prefix(asking.lane),
                asking.app,
                asking.most,
                *self._fixed,
                *hours,
                *bounds,
                *spent_ms,
            ),
            own,
            token=asking.token,
        )

    def take(
        self,
        asking: Asking,
        allowances: dict[str, tuple[int, float, int]],
        hours: Hours = ALWAYS,
        bounds: Bounds = NONE,
        spent_ms: tuple[int, int] = (0, 0),
    ) -> Taken:
        """Make the call alone; as `call`.

        Raises:
            redis.ConnectionError, redis.TimeoutError: the answer was lost; ask the same again.
        """
        return read(self.call(asking, allowances, hours, bounds, spent_ms).run(), asking)


def read(rows: list[str], asking: Asking) -> Taken:
    """Read the answer to a take."""
    app, lane, claimed_at = asking.app, asking.lane, asking.asked_at
    taken = Taken()
    broadcast, rate = "", 0.0
    for row in rows:
        if row.startswith("B "):
            _, broadcast, low, closed, rate_text = row.split(" ")
            rate = kept_rate(float(rate_text))
            taken.broadcasts.append(broadcast)
            if low == "1":
                taken.low.append(broadcast)
            if closed == "1":
                taken.closed.append(broadcast)
        elif row.startswith("Q "):
            taken.complete.append(row[2:])
        elif row in _LEFT:
            taken.left = row
        else:
            taken.claims.append(parse_row(row, app, lane, broadcast, rate, claimed_at))
    return taken


def sending_lease_ms(settings: Settings) -> int:
    """How long one user's turn lasts at most: until the POST must start, the POST, and 1 s."""
    return round(CLAIM_LIFE_S * 1000) + ms(settings.post_timeout) + 1000
