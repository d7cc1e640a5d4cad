"""Dividing: give the lanes that one is divided into what lies in it, key by key.

Nobody writes into the lane meanwhile, and of the new ones nobody knows yet. Nothing is taken away
where it was: whoever still looks there sees it as it was, and who is killed is simply run again,
for each key is made anew, and comes out the same. Nothing is done in two slots by one call, for on
a cluster they may lie on two nodes.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final

import redis

from producers.relaning.carrying import Bearer, Copying
from producers.relaning.places import Division, Place, Way
from producers.store import Client
from producers.store.buckets import positions

PAGE: Final = 500
"""Items that one command brings: far below 5 ms of Redis."""

WHOLE: Final = {Way.USER, Way.BUCKET, Way.HOME, Way.HEIR}
DIVIDED: Final = {Way.LIST, Way.HASH, Way.ZSET, Way.BITS}


class Divider:
    """Divides one lane.

    Args:
        client: Redis; no lane refuses it.
        division: into which lanes.
    """

    def __init__(self, client: Client, division: Division) -> None:
        self._client = client
        self._bearer = Bearer(client)
        self._division = division

    def copies(self, places: Iterable[Place]) -> int:
        """Copy keys that go whole, or to all; returns how many go whole."""
        ways: list[Copying] = []
        whole = 0
        for place in places:
            if place.way in WHOLE:
                ways.append(Copying(place.name, place.at(self._division.of_whole(place))))
                whole += 1
            elif place.way is Way.ALL:
                ways += (Copying(place.name, place.at(lane)) for lane in self._division.children)
        self._bearer.copy(ways)
        return whole

    def divide(self, place: Place) -> None:
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

    def _expire(self, pipeline: Any, name: str, at_ms: int) -> None:
        if at_ms > 0:
            pipeline.pexpireat(name, at_ms)

    def _hash(self, place: Place) -> None:
        items = self._client.hscan_iter(place.name, count=PAGE)
        self._deal(place, items, lambda one, name, some: one.hset(name, mapping=some))

    def _zset(self, place: Place) -> None:
        items = self._client.zscan_iter(place.name, count=PAGE)
        self._deal(place, items, lambda one, name, some: one.zadd(name, some))

    def _deal(
        self,
        place: Place,
        items: Iterator[tuple[str, Any]],
        put: Callable[[Any, str, dict[str, Any]], object],
    ) -> None:
        lane_of, at_ms = self._division.of_items(place), int(self._client.pexpiretime(place.name))
        while page := list(islice(items, PAGE)):
            by_lane: dict[int, dict[str, Any]] = {}
            for item, value in page:
                by_lane.setdefault(lane_of(item), {})[item] = value
            pipeline = self._client.pipeline(transaction=False)
            for lane, some in by_lane.items():
                put(pipeline, place.at(lane), some)
                self._expire(pipeline, place.at(lane), at_ms)
            pipeline.execute()

    def _list(self, place: Place) -> None:
        lane_of, at_ms = self._division.of_items(place), int(self._client.pexpiretime(place.name))
        pipeline = self._client.pipeline(transaction=False)
        for lane in self._division.children:  # an earlier run may have been killed here
            pipeline.unlink(place.at(lane))
        start = 0
        while page := self._client.lrange(place.name, start, start + PAGE - 1):
            by_lane: dict[int, list[str]] = {}
            for item in page:
                by_lane.setdefault(lane_of(item), []).append(item)
            for lane, some in by_lane.items():
                pipeline.rpush(place.at(lane), *some)
                self._expire(pipeline, place.at(lane), at_ms)
            pipeline.execute()
            pipeline = self._client.pipeline(transaction=False)
            start += PAGE

    def _bits(self, place: Place) -> None:
        at_ms = int(self._client.pexpiretime(place.name))
        found = self._client.execute_command("GET", place.name, NEVER_DECODE=True) or b""
        by_lane: dict[int, list[int]] = {}
        for bit in positions(found, 0):
            by_lane.setdefault(self._division.of_bucket(bit), []).append(bit)
        pipeline = self._client.pipeline(transaction=False)
        for lane, bits in by_lane.items():
            pipeline.set(place.at(lane), _bitmap(bits))
            self._expire(pipeline, place.at(lane), at_ms)
        pipeline.execute()


def _bitmap(bits: list[int]) -> bytes:
    found = bytearray(max(bits) // 8 + 1)
    for bit in bits:
        found[bit // 8] |= 0x80 >> bit % 8
    return bytes(found)


def is_foreign(error: redis.ResponseError) -> bool:
    """Say whether a key holds something that nobody of us put there."""
    return str(error).startswith("WRONGTYPE")
