"""Moving: bring one key of a lane to where it belongs; again is harmless.

Nobody else reaches the keys meanwhile (`fence`). A key goes whole (`carrying`); items are put where
they belong, some at a time, and then taken away where they were; a list is built beside, and put in
place by one command: who is killed leaves each item in one place, or a copy that the next run makes
anew. Nothing is done in two slots by one call, for on a cluster they may lie on two nodes.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final

import redis

from producers.relaning.carrying import Bearer, Renaming
from producers.relaning.places import Map, Place, Way
from producers.store import Client, keys
from producers.store.buckets import positions

PAGE: Final = 500
"""Items that one command moves: far below 5 ms of Redis."""


class Mover:
    """Moves keys.

    Args:
        client: Redis; not fenced.
        before, after: where everything lies, and is to lie.
    """

    def __init__(self, client: Client, before: Map, after: Map) -> None:
        self._client = client
        self._bearer = Bearer(client)
        self._before = before
        self._after = after

    def whole(self, places: Iterable[Place]) -> int:
        """Move keys that go whole; returns how many did."""
        ways: list[Renaming] = []
        looks = self._client.pipeline(transaction=False)
        for place in places:
            lane = self._after.of_whole(place)
            if lane == place.lane:
                continue
            ways.append(Renaming(place.name, place.at(lane)))
            if place.way is Way.HOME:
                broadcast = place.rest.partition(":")[2]
                for queue in (keys.due, keys.doing):
                    looks.zrem(queue(place.lane), f"{broadcast} home")
                looks.zadd(keys.due(lane), {f"{broadcast} home": 0})
        looks.execute()  # before they move: then the next run would find nothing to do
        self._bearer.move(ways)
        return len(ways)

    def copied(self, place: Place) -> None:
        """Give each lane a copy of a key."""
        lanes = self._after.shares(place.lane, self._before.lanes)
        ways = [Renaming(place.name, place.at(lane)) for lane in lanes if lane != place.lane]
        self._bearer.copy(ways)

    def divided(self, place: Place) -> None:
        """Deal out what a key holds.

        Raises:
            redis.ResponseError: somebody put something else there.
        """
        ways: dict[Way, Callable[[Place], None]] = {
            Way.LIST: self._list,
            Way.HASH: self._hash,
            Way.ZSET: self._zset,
            Way.BITS: self._bits,
        }
        assert place.way is not None  # noqa: S101
        ways[place.way](place)

    def _expires(self, place: Place) -> int:
        return int(self._client.pexpiretime(place.name))

    @staticmethod
    def _expire(pipeline: Any, name: str, at_ms: int) -> None:
        if at_ms > 0:
            pipeline.pexpireat(name, at_ms)

    def _hash(self, place: Place) -> None:
        self._deal(place, self._client.hscan_iter(place.name, count=PAGE), _put_fields, "hdel")

    def _zset(self, place: Place) -> None:
        self._deal(place, self._client.zscan_iter(place.name, count=PAGE), _put_members, "zrem")

    def _deal(
        self,
        place: Place,
        items: Iterator[tuple[str, Any]],
        put: Callable[[Any, str, dict[str, Any]], None],
        drop: str,
    ) -> None:
        lane_of, at_ms = self._after.of_items(place), self._expires(place)
        while page := list(islice(items, PAGE)):
            by_lane: dict[int, dict[str, Any]] = {}
            for item, value in page:
                if (lane := lane_of(item)) != place.lane:
                    by_lane.setdefault(lane, {})[item] = value
            if not by_lane:
                continue
            pipeline = self._client.pipeline(transaction=False)
            for lane, some in by_lane.items():
                put(pipeline, place.at(lane), some)
                self._expire(pipeline, place.at(lane), at_ms)
            pipeline.execute()
            self._bearer.await_replicas()
            getattr(self._client, drop)(
                place.name, *(one for some in by_lane.values() for one in some)
            )

    def _list(self, place: Place) -> None:
        lane_of, at_ms = self._after.of_items(place), self._expires(place)
        if all(lane_of(item) == place.lane for page in self._pages(place) for item in page):
            return  # it is done already
        kept = f"{keys.lane_prefix(place.lane)}relaning:{place.rest}"
        others = set(self._after.shares(place.lane, self._before.lanes)) - {place.lane}
        self._client.delete(kept, *map(place.at, others))
        mine = False
        for page in self._pages(place):
            by_lane: dict[int, list[str]] = {}
            for item in page:
                by_lane.setdefault(lane_of(item), []).append(item)
            pipeline = self._client.pipeline(transaction=False)
            for lane, some in by_lane.items():
                name = kept if lane == place.lane else place.at(lane)
                mine = mine or lane == place.lane
                pipeline.rpush(name, *some)
                self._expire(pipeline, name, at_ms)
            pipeline.execute()
        self._bearer.await_replicas()
        if mine:
            self._client.rename(kept, place.name)
        else:
            self._client.unlink(place.name)

    def _pages(self, place: Place) -> Iterator[list[str]]:
        start = 0
        while page := self._client.lrange(place.name, start, start + PAGE - 1):
            yield page
            start += PAGE

    def _bits(self, place: Place) -> None:
        at_ms = self._expires(place)
        bits = positions(self._read(place.name), 0)
        lanes = self._after.shares(place.lane, self._before.lanes)
        for some in (set(lanes) - {place.lane}, {place.lane}):  # its own are taken away last
            pipeline = self._client.pipeline(transaction=False)
            for lane in some:
                mine = [bit for bit in bits if self._after.of_bucket(bit) == lane]
                if lane != place.lane:
                    mine += positions(self._read(place.at(lane)), 0)
                if mine:
                    value = _bitmap(mine)
                    if at_ms > 0:
                        pipeline.set(place.at(lane), value, pxat=at_ms)
                    else:
                        pipeline.set(place.at(lane), value)
                else:
                    pipeline.unlink(place.at(lane))
            pipeline.execute()
            self._bearer.await_replicas()

    def _read(self, name: str) -> bytes:
        return self._client.execute_command("GET", name, NEVER_DECODE=True) or b""


def _put_fields(pipeline: Any, name: str, some: dict[str, Any]) -> None:
    pipeline.hset(name, mapping=some)


def _put_members(pipeline: Any, name: str, some: dict[str, Any]) -> None:
    pipeline.zadd(name, some)


def _bitmap(bits: list[int]) -> bytes:
    found = bytearray(max(bits) // 8 + 1)
    for bit in bits:
        found[bit // 8] |= 0x80 >> bit % 8
    return bytes(found)


def is_foreign(error: redis.ResponseError) -> bool:
    """Say whether a key holds something that nobody of us put there."""
    return str(error).startswith("WRONGTYPE")
