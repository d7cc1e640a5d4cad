"""Passes: before a broadcast is split, its buckets are looked through for those who cannot wait.

Only a broadcast on the template channel that takes so long that permits would end before their turn
(`plan`) has passes; any other is split as ever, at no cost. A pass looks at each recipient once,
and puts those whose last use ends within the broadcast's length into slots of time, in Redis
(hurried.lua). The queue is filled from the slots, the soonest first, while the pass still looks;
when they are empty another pass begins, if there were too many for one, or it takes longer than was
thought. After at most `PASSES` the rest is split, bucket by bucket, without those who went first.

What is kept of a pass is in Redis alone. If the process dies, whoever fills next goes on.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from producers import logs
from producers.audiences import ALL
from producers.audiences.expressions import names_of
from producers.logs.events import SplitOrdered
from producers.ordering.plan import SHORTEST_S, SLOTS, Outlook, planned
from producers.settings import Settings, ms
from producers.store import Client, keys
from producers.store.clock import ms_of
from producers.store.retry import repeat, repeat_all
from producers.store.scripts import Script
from producers.words import Channel

PASSES: Final = 4
"""Each looks at all who are left: about 1 µs of Redis a recipient, 2.5 of one who is hurried."""

_BUCKETS: Final = 256
"""Buckets offered to one script run, by the names that each is looked up under."""
_BUCKETS_OF_ROWS: Final = 32
"""The same of rows, which are read whole to be counted."""

_LOOKED_AT: Final = 600
"""Recipients that one script run looks at: about 2 ms of Redis, 4 amid a bucket of 10,000."""

_FED: Final = 2000
"""Recipients that one script run moves: about a millisecond of Redis."""

_LOOK_S: Final = 0.25
"""A call looks no longer: the rest is looked at as the queue empties, or a second later."""

DONE, REST = "done", "rest"
"""Of a lane's copy, `look`: all were looked at; no pass is left."""

_STEPPED: Final = 1


class BeginKeys(NamedTuple):
    """KEYS of pass_begin.lua."""

    lane: str


class BeginArgs(NamedTuple):
    """ARGV of pass_begin.lua."""

    broadcast: str
    prefix: str
    cursor: str
    number: int
    from_ms: int
    width_ms: int


class LookKeys(NamedTuple):
    """KEYS of pass_look.lua."""

    lane: str


class LookArgs(NamedTuple):
    """ARGV of pass_look.lua; the buckets follow."""

    broadcast: str
    look: str
    last: str
    prefix: str
    margin_ms: int
    most: int


class FeedKeys(NamedTuple):
    """KEYS of pass_feed.lua."""

    lane: str
    queue: str


class FeedArgs(NamedTuple):
    """ARGV of pass_feed.lua."""

    broadcast: str
    prefix: str
    most: int


BEGIN: Final = Script(__package__, "pass_begin", BeginKeys, BeginArgs)
LOOK: Final = Script(__package__, "pass_look", LookKeys, LookArgs, clock=True)
FEED: Final = Script(__package__, "pass_feed", FeedKeys, FeedArgs)


@dataclass(frozen=True, slots=True)
class Copy:
    """What a lane's copy says of a broadcast, as far as its order is concerned.

    Attributes:
        app, audience, channel, rate, drop: of the broadcast.
        cursor: of the split: a number, or ``ordered BUCKET``.
        split: '' while there is more to split.
        total: recipients queued so far.
        look: see hurried.lua; '' when it is in no order.
        number: of the pass.
        slots: of the pass, ``FROM_MS WIDTH_MS``, or ''.
        hurried: recipients in the slots.
    """

    app: str
    audience: str
    channel: str
    rate: float
    drop: str
    cursor: str
    split: str
    total: int
    look: str
    number: int
    slots: str
    hurried: int

    @classmethod
    def read(cls, values: Sequence[str | None]) -> "Copy":
        """Read what lies in `FIELDS`."""
        of = dict(zip(FIELDS, (value or "" for value in values), strict=True))
        return cls(
            app=of["app"],
            audience=of["audience"],
            channel=of["channel"],
            rate=float(of["rate"] or 0),
            drop=of["drop"],
            cursor=of["cursor"],
            split=of["split"],
            total=int(of["total"] or 0),
            look=of["look"],
            number=int(of["pass"] or 0),
            slots=of["slots"],
            hurried=int(of["hurried"] or 0),
        )

    @property
    def until_ms(self) -> int:
        """Whoever's last use ends before that went first; 0: nobody did."""
        from_ms, width_ms = map(int, (self.slots or "0 0").split(" "))
        return from_ms + SLOTS * width_ms

    @property
    def is_looking(self) -> bool:
        """Whether the pass has recipients left to look at."""
        return self.look not in {"", DONE, REST}

    @property
    def is_begun(self) -> bool:
        """Whether it was split, or put in order, before."""
        return bool(self.look) or self.total > 0 or next_bucket(self.cursor) > 0


FIELDS: Final = (
    "app",
    "audience",
    "channel",
    "rate",
    "drop",
    "cursor",
    "split",
    "total",
    "look",
    "pass",
    "slots",
    "hurried",
)
"""Of a lane's copy, what `Copy` is read from."""


def next_bucket(cursor: str) -> int:
    """Return the next bucket to be split, of a cursor: ``7``, ``r7`` in rows, or ``ordered 7``."""
    return int(cursor.removeprefix("ordered ").removeprefix("r") or 0)


def offered_at_once(audience: str) -> int:
    """Return how many buckets of an audience may be offered to one script run."""
    if keys.is_rows(audience):
        return _BUCKETS_OF_ROWS
    return max(1, _BUCKETS // len(names_of(audience)))


class Passes:
    """Lets those go first who cannot wait. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._begin = BEGIN.on(client)
        self._look = LOOK.on(client)
        self._feed = FEED.on(client)

    def fill(
        self, broadcast: str, lane: int, copy: Copy, size: int, buckets: Callable[[int], list[int]]
    ) -> tuple[int, Copy | None]:
        """Fill the lane's window with those who go first, as far as there are any.

        Args:
            broadcast: its id.
            lane: the lane.
            copy: what the lane knows of it.
            size: recipients that are expected in all lanes.
            buckets: gives the audience's buckets from one on, ascending.

        Returns:
            How many were queued; and the copy by which the rest is split, None: not now.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        if copy.drop or copy.look == REST or not self.may_be_long(copy, size):
            return 0, copy
        moved, until = 0, time.monotonic() + _LOOK_S
        while True:
            if copy.look in {"", DONE} and not copy.hurried:
                left = max(0, size // len(self._settings.layout.lanes) - copy.total)
                if not self._begin_next(broadcast, lane, copy, left) and not copy.look:
                    return moved, copy
                before, copy = copy, self._read(broadcast, lane)
                if copy.look in {"", REST}:
                    return moved, copy
                if copy.number == before.number:  # it does not run
                    return moved, None
            if copy.is_looking:
                self._look_around(broadcast, lane, copy, buckets, until)
            some, is_empty = self._feed_all(broadcast, lane)
            moved += some
            copy = self._read(broadcast, lane)
            if copy.drop or copy.look == REST:  # another one who fills it went on to the rest
                return moved, copy
            if not is_empty or copy.is_looking:
                return moved, None

    def _read(self, broadcast: str, lane: int) -> Copy:
        key = keys.lane_broadcast(lane, broadcast)
        return Copy.read(repeat("reading the passes", lambda: self._client.hmget(key, FIELDS)))

    def may_be_long(self, copy: Copy, size: int) -> bool:
        """Say whether it is worth a look at the stock: as the settings are, without a call."""
        if copy.look:
            return True
        app = self._settings.apps.get(copy.app)
        if copy.channel != Channel.TEMPLATE or app is None or copy.is_begun:
            return False
        rates = [rate for rate in (copy.rate, app.rate_per_second) if rate]
        return size >= SHORTEST_S * min(rates, default=float("inf"))

    def _begin_next(self, broadcast: str, lane: int, copy: Copy, left: int) -> bool:
        """Begin the next pass, or let the rest be split; returns whether there is a plan."""
        number = copy.number + 1
        plan = planned(self._outlook(lane, copy, left)) if number <= PASSES else None
        if plan is None and not copy.look:
            return False
        begun = self._begin.repeated(
            "beginning a pass",
            BeginKeys(keys.lane_broadcast(lane, broadcast)),
            BeginArgs(
                broadcast=broadcast,
                prefix=keys.lane_prefix(lane),
                cursor=copy.cursor,
                number=number,
                from_ms=plan.from_ms if plan else 0,
                width_ms=plan.width_ms if plan else 0,
            ),
        )
        if begun and plan:
            logs.emit(
                SplitOrdered(
                    copy.app,
                    broadcast,
                    lane,
                    number,
                    left,
                    plan.at_stake,
                    plan.length_s,
                    plan.until_ms,
                )
            )
        return plan is not None

    def _outlook(self, lane: int, copy: Copy, left: int) -> Outlook:
        """Read what a plan is made of."""
        app, lanes = copy.app, len(self._settings.layout.lanes)

        def ask(pipeline: Any) -> None:
            pipeline.time()
            pipeline.hgetall(keys.stock(lane, app))
            pipeline.get(keys.audience_size(lane, app, ALL))
            pipeline.hget(keys.limiter(app), "rate")
            pipeline.llen(keys.ring(lane, app))

        clock, stock, everybody, milli, beside = repeat_all("reading the stock", self._client, ask)
        rate = self._settings.app(app).rate_per_second if milli is None else int(milli) / 1000
        # others of the ring have their turns: this one's own place in it is counted once only
        shared = rate / max(1, beside if copy.look else beside + 1)
        rates = [one for one in (copy.rate, shared) if one]
        return Outlook(
            now_ms=ms_of(clock),
            members=left,
            rate=min(rates, default=0.0) / lanes,
            ending={
                int(field[2:]): int(users)
                for field, users in stock.items()
                if field.startswith("u:") and field[2:].isdecimal() and users.isdecimal()
            },
            everybody=int(everybody or 0),
            all_of_them=copy.audience == ALL,
            window=self._settings.window_of(app),
            since_ms=copy.until_ms,
            margin_ms=ms(self._settings.permit_margin),
        )

    def _look_around(
        self,
        broadcast: str,
        lane: int,
        copy: Copy,
        buckets: Callable[[int], list[int]],
        until: float,
    ) -> None:
        """Look at recipients until all were looked at, or the time is over."""
        look, most = copy.look, _BUCKETS // 4
        waiting = buckets(int(look.partition(" ")[0]))
        while True:
            offered, rest = waiting[:most], waiting[most:]
            status, look, looked, _ = self._look.repeated(
                "looking at permits",
                LookKeys(keys.lane_broadcast(lane, broadcast)),
                LookArgs(
                    broadcast=broadcast,
                    look=look,
                    last="" if rest else "1",
                    prefix=keys.lane_prefix(lane),
                    margin_ms=ms(self._settings.permit_margin),
                    most=_LOOKED_AT,
                ),
                offered,
            )
            if status != _STEPPED or look == DONE or time.monotonic() > until:
                return
            at = int(look.partition(" ")[0])
            left = [bucket for bucket in offered if bucket >= at]
            # what is offered is checked first: not many more than are looked at
            per_bucket = looked / max(1, len(offered) - len(left))
            most = min(_BUCKETS, max(1, math.ceil(_LOOKED_AT / max(1, per_bucket))))
            waiting = left + rest

    def _feed_all(self, broadcast: str, lane: int) -> tuple[int, bool]:
        """Queue from the slots up to the window; returns how many, and whether none is left."""
        moved = 0
        while True:
            status, some, left = self._feed.repeated(
                "queueing the hurried",
                FeedKeys(keys.lane_broadcast(lane, broadcast), keys.queue(lane, broadcast)),
                FeedArgs(broadcast, keys.lane_prefix(lane), _FED),
            )
            moved += some
            if status != _STEPPED or not left:
                return moved, not left
