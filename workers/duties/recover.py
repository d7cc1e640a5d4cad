"""Recovering: a dead worker's messages go back to work.

See recover.lua for what it guarantees. If the recovering worker dies before it, another recovers;
in the middle, the rest is still under the dead one's name.

Two kinds of entries no peer would ever be buried for are found by looking at what is in flight:
*orphans*, whose worker nobody knows as alive (it was killed before its first beat came through, or
a restarted Redis forgot the beat), and *forgotten* ones, which lie under a living worker's name and
not in its hands (the reply of its take was lost for so long that the token no longer answers, or a
restarted Redis forgot that they were settled).
"""

from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

import redis

from producers.broadcasts.status import Register
from producers.settings import Layout, Settings
from producers.store import Client, keys
from producers.store.clock import clocks_apart_ms
from producers.store.connection import is_cluster
from producers.store.lanes.fence import is_refusal
from producers.store.lanes.reach import members_or_errors
from producers.store.paging import sums
from producers.store.scripts import Script
from workers.sending.claim import Claim
from workers.sending.take import sending_lease_ms

ORPHAN_MS: Final = 9000
"""An entry of an unknown worker is left alone so long: as a silent peer, a lease and a beat."""

_PLACES: Final = 500
"""Broadcasts whose app is asked for in one trip."""

FORGOTTEN_MS: Final = 15_000
"""An entry that is not in hand is left alone so long: no take or swap that is only late to be
known may still be posted then, for a claim's life is 3 s."""


class RecoverKeys(NamedTuple):
    """KEYS of recover.lua."""

    lane: str
    flight: str
    queue: str
    sending: str
    stock: str
    ledger: str

    @classmethod
    def of(cls, lane: int, app: str, broadcast: str) -> "RecoverKeys":
        """Return those of a broadcast in a lane."""
        return cls(
            keys.lane_broadcast(lane, broadcast),
            keys.flight(lane, broadcast),
            keys.queue(lane, broadcast),
            keys.sending(lane, app),
            keys.stock(lane, app),
            keys.ledger(lane, app),
        )


class RecoverArgs(NamedTuple):
    """ARGV of recover.lua."""

    dead: str
    broadcast: str
    prefix: str
    ttl_ms: int
    attempts: int
    lease_ms: int
    cursor: str


class LandedKeys(NamedTuple):
    """KEYS of landed.lua."""

    flying: str
    flight: str


class LandedArgs(NamedTuple):
    """ARGV of landed.lua."""

    broadcast: str


RECOVER: Final = Script(__package__, "recover", RecoverKeys, RecoverArgs, clock=True)
LANDED: Final = Script(__package__, "landed", LandedKeys, LandedArgs)


class Entry(NamedTuple):
    """One message in flight; see flight.lua."""

    item: str
    worker: str
    fence: str
    member: str
    expires_at_ms: int
    since_ms: int
    tries: int
    resumed: bool

    def claim(self, app: str, lane: int, broadcast: str) -> Claim:
        """Return it as the claim that its worker would have in hand."""
        return Claim(
            app,
            lane,
            broadcast,
            self.item,
            self.member,
            self.expires_at_ms,
            self.fence,
            self.tries,
            self.resumed,
            claimed_at=0.0,
            unsure=True,
        )


class Recoverer:
    """Takes back what dead workers had in flight."""

    def __init__(self, client: Client, settings: Settings, register: Register) -> None:
        self._client = client
        self.clocks_apart_ms = clocks_apart_ms(client)
        self.apart = is_cluster(client)
        self._settings = settings
        self._ttl_ms = register.ttl_ms
        self._script = RECOVER.on(client)
        self._landed = LANDED.on(client)

    @property
    def layout(self) -> Layout:
        """Which lanes there are now."""
        return self._settings.layout

    def places(self, failed: list[Exception]) -> Iterator[tuple[str, str, int]]:
        """Yield (app, broadcast, lane) of everything that is in flight.

        Args:
            failed: given what a node of a cluster lost or refused; its lanes are left out.
        """
        pipeline = self._client.pipeline(transaction=False)
        lanes = self._settings.layout.lanes
        names = [keys.flying(lane) for lane in lanes]
        found = members_or_errors(self._client, names)
        failed += [some for some in found if isinstance(some, Exception)]
        flying = [
            (broadcast, lane)
            for lane, some in zip(lanes, found, strict=True)
            if not isinstance(some, Exception)
            for broadcast in some
        ]
        for start in range(0, len(flying), _PLACES):
            some = flying[start : start + _PLACES]
            for broadcast, lane in some:
                pipeline.hget(keys.lane_broadcast(lane, broadcast), "app")
            answers = pipeline.execute(raise_on_error=False)
            for (broadcast, lane), app in zip(some, answers, strict=True):
                if isinstance(app, Exception):
                    failed.append(app)
                elif app is None:
                    self._land(broadcast, lane)
                else:
                    yield app, broadcast, lane

    def _land(self, broadcast: str, lane: int) -> None:
        """Nothing of a broadcast is in flight in a lane, unless something is again."""
        try:
            self._landed(
                LandedKeys(keys.flying(lane), keys.flight(lane, broadcast)), LandedArgs(broadcast)
            )
        except redis.ResponseError as error:
            if not is_refusal(error):  # it was divided meanwhile
                raise

    def entries(self, broadcast: str, lane: int) -> list[Entry]:
        """Return what is in flight; never more than all workers together may hold."""
        rows = self._client.hgetall(keys.flight(lane, broadcast))
        if not rows:
            self._land(broadcast, lane)
        return [_entry(item, row.split(" ")) for item, row in rows.items()]

    def orphans(self, entries: Collection[Entry], now_ms: int) -> set[str]:
        """Return workers that hold something old and that nobody knows as alive."""
        holders = {
            entry.worker
            for entry in entries
            if entry.since_ms < now_ms - ORPHAN_MS and entry.worker not in {"-", "aside"}
        }
        if not holders:
            return set()
        return holders - set(self._client.zrange(keys.WORKERS, 0, -1))

    def recover(self, app: str, broadcast: str, lane: int, dead: str) -> tuple[int, int, int, int]:
        """Take back one dead worker's messages of one broadcast in one lane.

        Args:
            app: alias of the app.
            broadcast: where to look.
            lane: in which lane.
            dead: the worker.

        Returns:
            Messages that were resumed, those now in doubt, those set aside, and those that were
            surely not sent.

        Raises:
            redis.ConnectionError, redis.TimeoutError: repeat it; it finds what is left.
        """
        first = RecoverArgs(
            dead=dead,
            broadcast=broadcast,
            prefix=keys.lane_prefix(lane),
            ttl_ms=self._ttl_ms,
            attempts=self._settings.attempts,
            lease_ms=sending_lease_ms(self._settings),
            cursor="0",
        )
        script_keys = RecoverKeys.of(lane, app, broadcast)
        resumed, doubted, aside, unsent = sums(
            lambda cursor: self._script(script_keys, first._replace(cursor=cursor))
        )
        return resumed, doubted, aside, unsent


def forgotten(
    entries: Collection[Entry], worker: str, in_hand: Collection[str], now_ms: int
) -> list[Entry]:
    """Return what lies under a worker's name and not in its hands.

    Args:
        entries: as read *before* ``in_hand``: what is settled in between is stale, and harmless.
        worker: the worker itself; no other knows what is in its hands.
        in_hand: the fence tokens in its hands, of the same lane and those that it came from.
        now_ms: by the server's clock.
    """
    return [
        entry
        for entry in entries
        if entry.worker == worker
        and entry.since_ms < now_ms - FORGOTTEN_MS
        and entry.fence not in in_hand
    ]


def _entry(item: str, row: list[str]) -> Entry:
    worker, fence, member, expires, since, tries, resumed = row
    return Entry(item, worker, fence, member, int(expires), int(since), int(tries), resumed == "1")
