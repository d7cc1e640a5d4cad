"""Relaning: another number of lanes for a deployment that lives, as one announced standstill.

1. It is announced, in Redis: workers drain and end, and each new connection is refused (`fence`).
2. When they are gone, or 30 s later, all older connections are closed: nobody reaches the keys. On
   a cluster each lane is told before to refuse the scripts of whoever has so many lanes.
3. What a cancelled broadcast leaves is counted, as the keeper would.
4. All keys are looked at once, and each is brought to where it belongs.
5. Each lane is counted anew, from what lies in it.
6. The deployment has the new number; workers and services that start again, or were never told one,
   go on with it.

Killed anywhere, it is run again with the same number, and goes on: until then the deployment stands
still. Whoever runs it last takes over at once, and closes all older connections; of an earlier run
that lives still each new one asks whose turn it is (`fence.Turn`), and so does each step: it ends.
Nothing is sent or stored meanwhile, and nothing lost: a broadcast goes on where it was. The number
is a multiple of the lanes that there are. While slots of a cluster are resharded it waits.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Final

import redis

from producers import logs
from producers.broadcasts import Broadcasts
from producers.errors import InvalidInputError
from producers.logs.events import LanesChanged, LanesChanging
from producers.relaning.carrying import Bearer, cut_off
from producers.relaning.counting import Recounter
from producers.relaning.moving import Mover, is_foreign
from producers.relaning.places import Map, Place, Way
from producers.settings import Settings
from producers.store import Client, connect, is_cluster, keys
from producers.store.clock import now_ms
from producers.store.lanes.fence import RELANING, FencedError, Turn
from producers.store.scripts import new_token

_MOVING: Final = "moving"
"""Field of `keys.DEPLOYMENT` from the first key that is moved on."""
_RUNNER: Final = "relaner"
"""Field of `keys.DEPLOYMENT`: which run changes the lanes; the last one that began."""
_DRAIN_S: Final = 30.0
"""Units that drain are waited for so long: they take 10 s."""
_SILENT_MS: Final = 10_000
"""One whose last beat is older is dead, and not waited for."""
_LOOK_S: Final = 0.1
_PAGE: Final = 1000
"""Keys of one look."""
_MOST: Final = 1024

Progress = Callable[[str, int], None]
"""Called with what is being done, and how much of it was."""

_WHOLE: Final = {Way.USER, Way.BUCKET, Way.HOME}
_DIVIDED: Final = {Way.LIST, Way.HASH, Way.ZSET, Way.BITS}


@dataclass
class Relaned:
    """What was done, or is to be.

    Attributes:
        before, after: lanes.
        keys: looked at.
        moved: keys that went whole to another lane.
        divided: keys of which each lane got its share.
        broadcasts, audiences, stocks: counted anew, one for each old lane.
        strange: keys that hold what nobody of us put there; they are left where they were.
        standstill_s: how long nothing was stored or sent, of this run.
        resumed: an earlier run was killed, and this one went on.
    """

    before: int
    after: int
    keys: int = 0
    moved: int = 0
    divided: int = 0
    broadcasts: int = 0
    audiences: int = 0
    stocks: int = 0
    strange: list[str] = field(default_factory=list)
    standstill_s: float = 0.0
    resumed: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready fields."""
        return asdict(self)


@dataclass
class _Counted:
    """What is to be counted anew, by old lane; and the slots of those who go first."""

    broadcasts: set[tuple[int, str]] = field(default_factory=set)
    audiences: set[tuple[int, str, str]] = field(default_factory=set)
    stocks: set[tuple[int, str]] = field(default_factory=set)
    slots: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def note(self, place: Place, before: int) -> None:
        """Note a key, where it is one of these."""
        rest = place.rest.partition(":")[2]
        if place.kind == "soon":
            broadcast, _, slot = rest.rpartition(":")
            self.slots[broadcast].add(slot)
        elif place.lane >= before:
            return
        elif place.kind == "lane":
            self.broadcasts.add((place.lane, rest))
        elif place.kind == "size":
            app, _, name = rest.partition(":")
            self.audiences.add((place.lane, app, name))
        elif place.kind == "stock":
            self.stocks.add((place.lane, rest))


class Relaner:
    """Changes the lanes of a deployment.

    Args:
        client: Redis, not fenced (`store.connect`); no other of this process may be open.
        settings: its apps; its lanes are read from the deployment.
        on_progress: is told how far it is.
    """

    def __init__(
        self, client: Client, settings: Settings, on_progress: Progress = lambda _what, _n: None
    ) -> None:
        self._client = client
        self._settings = settings
        self._on_progress = on_progress
        self._token = ""
        self._turn: Turn = client.connection_pool.connection_kwargs["fence"]

    def plan(self, lanes: int) -> Relaned:
        """Return what `run` would do; nothing is changed.

        Raises:
            InvalidInputError: as `run`.
            redis.RedisError: Redis did not answer.
        """
        before, after, resumed = self._checked(lanes)
        found = Relaned(before.lanes, after.lanes, resumed=resumed)
        for page in self._pages(found):
            for place in page:
                if place.way in _WHOLE:
                    found.moved += after.of_whole(place) != place.lane
                elif place.lane < before.lanes:
                    found.divided += place.way in _DIVIDED
                    found.broadcasts += place.kind == "lane"
                    found.audiences += place.kind == "size"
                    found.stocks += place.kind == "stock"
        return found

    def run(self, lanes: int) -> Relaned:
        """Change them; the same again after it was killed goes on.

        Raises:
            InvalidInputError: it is no multiple of what there is, does not divide the buckets, or a
                change to another number is under way; or another run has taken over.
            redis.RedisError: Redis did not answer; run it again.
        """
        before, after, resumed = self._checked(lanes)
        done = Relaned(before.lanes, after.lanes, resumed=resumed)
        if before == after:
            return done
        logs.emit(LanesChanging(before.lanes, after.lanes, resumed))
        apart = connect(self._settings, 1, role="cli", fenced=False)
        self._token = new_token()
        try:
            self._begin(before, after)
            self._turn.held = lambda: self._hold(apart)
            return self._run(before, after, done)
        except FencedError as error:
            raise InvalidInputError([str(error)]) from error
        finally:
            self._turn.held = None
            apart.connection_pool.disconnect()

    def _run(self, before: Map, after: Map, done: Relaned) -> Relaned:
        began = time.monotonic()
        self._await_units()
        self._hold()
        self._shut(before)
        if not self._client.hexists(keys.DEPLOYMENT, _MOVING):
            self._settle_drops(before)
            self._client.hset(keys.DEPLOYMENT, _MOVING, "1")
        self._move(before, after, done)
        self._hold()
        pipeline = self._client.pipeline(transaction=True)
        pipeline.hset(keys.DEPLOYMENT, "lanes", str(after.lanes))
        pipeline.hdel(keys.DEPLOYMENT, RELANING, _MOVING, _RUNNER)
        pipeline.execute()
        self._turn.held = None
        Bearer(self._client).await_replicas()
        done.standstill_s = round(time.monotonic() - began, 3)
        logs.emit(LanesChanged(before.lanes, after.lanes, done.moved, done.standstill_s))
        return done

    def _checked(self, lanes: int) -> tuple[Map, Map, bool]:
        """Return where everything lies and is to lie, and whether that is under way."""
        has = self._client.hgetall(keys.DEPLOYMENT)
        if not {"lanes", "buckets"} <= has.keys():
            raise InvalidInputError(["there is no deployment yet: set WXB_LANES before its birth"])
        before, buckets, towards = int(has["lanes"]), int(has["buckets"]), has.get(RELANING)
        if towards and int(towards) != lanes:
            raise InvalidInputError(
                [f"a change from {before} to {towards} lanes is under way: finish it first"]
            )
        if not is_cluster(self._client) and self._client.info("cluster").get("cluster_enabled"):
            raise InvalidInputError(
                ["this is a node of a cluster: set WXB_REDIS_URL to redis+cluster://host:port"]
            )
        faults = []
        if not before <= lanes <= _MOST or lanes % before:
            faults.append(
                f"lanes {lanes}: a multiple of the {before} that there are, {_MOST} at most"
            )
        if lanes < 1 or buckets % lanes:
            faults.append(f"lanes {lanes}: they must divide the {buckets} buckets evenly")
        if faults:
            raise InvalidInputError(faults)
        return Map(before, buckets), Map(lanes, buckets), towards is not None

    def _begin(self, before: Map, after: Map) -> None:
        """Announce it, and take over from any run that is under way."""
        mine = {RELANING: str(after.lanes), _RUNNER: self._token}
        self._client.hset(keys.DEPLOYMENT, mapping=mine)
        if int(self._client.hget(keys.DEPLOYMENT, "lanes")) != before.lanes:  # another has ended it
            self._client.hdel(keys.DEPLOYMENT, *mine)
        self._hold()

    def _hold(self, client: Client | None = None) -> None:
        """Check that no other run has taken over.

        Raises:
            FencedError: one has, and goes on with it, or has ended it.
        """
        mine = self._token
        if mine and (client or self._client).hget(keys.DEPLOYMENT, _RUNNER) != mine:
            raise FencedError(
                "another `wxbroadcast lanes` began later, and goes on with it: look at that one", 0
            )

    def _await_units(self) -> None:
        """Wait until the workers have drained: each reads the announcement within seconds."""
        until = time.monotonic() + _DRAIN_S
        while time.monotonic() < until:
            since_ms = now_ms(self._client) - _SILENT_MS
            living = int(self._client.zcount(keys.WORKERS, since_ms, "+inf"))
            self._on_progress("workers that drain", living)
            if not living:
                return
            time.sleep(_LOOK_S)

    def _shut(self, before: Map) -> None:
        """Let nobody else reach the keys of lanes, from now on and with so many lanes ever."""
        if is_cluster(self._client):
            pipeline = self._client.pipeline(transaction=False)
            for lane in range(before.lanes):
                pipeline.set(keys.fenced(lane, before.lanes), "1")
            pipeline.execute()
            Bearer(self._client).await_replicas()
        cut_off(self._client)

    def _settle_drops(self, before: Map) -> None:
        """Bring what lanes have not heard of to them, and count what was dropped."""
        living = self._settings.model_copy(update={"lanes": before.lanes})
        broadcasts = Broadcasts(self._client, living)
        apps = {*self._settings.apps, *self._client.zrange(keys.APPS, 0, -1)}
        for app in sorted(apps):  # one that is in no settings any more has its broadcasts too
            for broadcast in self._client.zrange(keys.active(app), 0, -1):
                broadcasts.adopt(broadcast)

    def _pages(self, done: Relaned) -> Iterator[list[Place]]:
        """Yield all keys of lanes, some at a time."""
        found = self._client.scan_iter(match=f"{keys.PREFIX}:{{[0-9]*", count=_PAGE)
        while names := list(islice(found, _PAGE)):
            places = [place for name in names if (place := Place.of(name)) and place.way]
            done.keys += len(names)
            self._on_progress("keys", done.keys)
            self._hold()
            yield places

    def _served(self) -> list[dict[str, Any]]:
        """Return who serves which slots of a cluster, once none of them is on its way."""
        while is_cluster(self._client):
            nodes = self._client.nodes().values()
            told = [_own(node.execute_command("CLUSTER NODES")) for node in nodes]
            under_way = sum(len(one["migrations"]) for one in told)
            if not under_way:
                return told
            self._on_progress("slots that are resharded", under_way)
            time.sleep(_LOOK_S)
        return []

    def _move(self, before: Map, after: Map, done: Relaned) -> None:
        mover = Mover(self._client, before, after)
        counted = _Counted()
        whole = False
        while not whole:
            served = self._served()
            for page in self._pages(done):
                done.moved += mover.whole(place for place in page if place.way in _WHOLE)
                for place in page:
                    counted.note(place, before.lanes)
                    if place.lane < before.lanes and place.way in {*_DIVIDED, Way.ALL}:
                        self._divide(mover, place, done)
            whole = served == self._served()  # else a slot has gone where all was seen already
        recounter = Recounter(self._client, before, after)
        for lane, broadcast in sorted(counted.broadcasts):
            self._hold()
            recounter.broadcast(lane, broadcast, sorted(counted.slots[broadcast]))
            done.broadcasts += 1
            self._on_progress("broadcasts", done.broadcasts)
        for lane, app, name in sorted(counted.audiences):
            self._hold()
            recounter.size(lane, app, name)
            done.audiences += 1
            self._on_progress("audiences", done.audiences)
        for lane, app in sorted(counted.stocks):
            self._hold()
            recounter.stock(lane, app)
            done.stocks += 1
            self._on_progress("stocks", done.stocks)

    def _divide(self, mover: Mover, place: Place, done: Relaned) -> None:
        self._hold()
        try:
            if place.way is Way.ALL:
                mover.copied(place)
            else:
                mover.divided(place)
                done.divided += 1
        except redis.ResponseError as error:
            if not is_foreign(error):
                raise
            done.strange.append(place.name)


def _own(told: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what a node says of itself: its id, its slots, and those that are on their way."""
    [own] = [one for one in told.values() if "myself" in one["flags"]]
    return {field: own[field] for field in ("node_id", "slots", "migrations")}
