"""Dividing: give the lanes that one is divided into what lies in it, key by key.

Nobody writes into the lane meanwhile, and of the new ones nobody knows yet. Nothing is taken away
where it was: whoever still looks there sees it as it was, and who is killed is simply run again,
for each key is made anew, and comes out the same. Nothing is done in two slots by one call, for on
a cluster they may lie on two nodes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

import redis

from producers.relaning.carrying import Bearer, Copying
from producers.relaning.places import Division, Place, Way
from producers.store import Client
from producers.store.buckets import positions

PAGE: Final = 500
"""Items that one command brings: far below 5 ms of Redis."""

_TOGETHER: Final = 100
"""Small keys that are divided in one trip."""

WHOLE: Final = {Way.USER, Way.BUCKET, Way.HOME, Way.HEIR}
DIVIDED: Final = {Way.LIST, Way.HASH, Way.ZSET, Way.BITS}

_SIZES: Final[Mapping[Any, Callable[[Any, str], object]]] = {
    Way.LIST: lambda one, name: one.llen(name),
    Way.HASH: lambda one, name: one.hlen(name),
    Way.ZSET: lambda one, name: one.zcard(name),
    Way.BITS: lambda one, name: one.strlen(name),
}
_READS: Final[Mapping[Any, Callable[[Any, str], object]]] = {
    Way.LIST: lambda one, name: one.lrange(name, 0, -1),
    Way.HASH: lambda one, name: one.hgetall(name),
    Way.ZSET: lambda one, name: one.zrange(name, 0, -1, withscores=True),
    Way.BITS: lambda one, name: one.execute_command("GET", name, NEVER_DECODE=True),
}
_SMALL: Final[Mapping[Any, int]] = {
    Way.LIST: PAGE,
    Way.HASH: PAGE,
    Way.ZSET: PAGE,
    Way.BITS: 8192,
}
"""Items, or bytes of a bitmap, of a key that rides with others."""


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

    def divide(self, places: Sequence[Place]) -> tuple[int, list[str]]:
        """Deal out what keys hold; small ones ride together.

        Returns:
            How many there were, and those that hold what nobody of us put there.
        """
        done, strange = 0, list[str]()
        for start in range(0, len(places), _TOGETHER):
            some = places[start : start + _TOGETHER]
            pipeline = self._client.pipeline(transaction=False)
            for place in some:
                pipeline.pexpiretime(place.name)
                _SIZES[place.way](pipeline, place.name)
            answers = pipeline.execute(raise_on_error=False)
            small: list[tuple[Place, int]] = []
            for place, at_ms, size in zip(some, answers[::2], answers[1::2], strict=True):
                for error in (at_ms, size):
                    if isinstance(error, Exception) and not _is_foreign(error):
                        raise error
                if isinstance(size, Exception):
                    strange.append(place.name)
                    continue
                done += 1
                if size <= _SMALL[place.way]:
                    small.append((place, int(at_ms)))
                else:
                    self._divide_large(place, int(at_ms))
            self._divide_small(small)
        return done, strange

    def _divide_small(self, places: Sequence[tuple[Place, int]]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for place, _ in places:
            _READS[place.way](pipeline, place.name)
        answers = pipeline.execute()
        pipeline = self._client.pipeline(transaction=False)
        for (place, at_ms), found in zip(places, answers, strict=True):
            self._clear(pipeline, place)
            self._deal(pipeline, place, at_ms, dict(found) if place.way is Way.ZSET else found)
        pipeline.execute()

    def _divide_large(self, place: Place, at_ms: int) -> None:
        """Deal out one key, some of it in each trip."""
        pipeline = self._client.pipeline(transaction=False)
        self._clear(pipeline, place)
        for some in self._pages(place):
            self._deal(pipeline, place, at_ms, some)
            pipeline.execute()
            pipeline = self._client.pipeline(transaction=False)

    def _pages(self, place: Place) -> Iterator[Any]:
        if place.way is Way.BITS:
            yield self._client.execute_command("GET", place.name, NEVER_DECODE=True)
        elif place.way is Way.LIST:
            start = 0
            while page := self._client.lrange(place.name, start, start + PAGE - 1):
                yield page
                start += PAGE
        else:
            scan = self._client.hscan_iter if place.way is Way.HASH else self._client.zscan_iter
            items = scan(place.name, count=PAGE)
            while some := list(islice(items, PAGE)):
                yield dict(some)

    def _clear(self, pipeline: Any, place: Place) -> None:
        """Take away what an earlier run put there that was killed, where it would be put twice."""
        if place.way is Way.LIST:
            for lane in self._division.children:
                pipeline.unlink(place.at(lane))

    def _deal(self, pipeline: Any, place: Place, at_ms: int, found: Any) -> None:
        """Put some of what a key holds where it belongs."""
        for lane, some in self._dealt(place, found).items():
            name = place.at(lane)
            if place.way is Way.BITS:
                pipeline.set(name, _bitmap(some))
            elif place.way is Way.LIST:
                pipeline.rpush(name, *some)
            elif place.way is Way.HASH:
                pipeline.hset(name, mapping={item: found[item] for item in some})
            else:
                pipeline.zadd(name, {item: found[item] for item in some})
            if at_ms > 0:
                pipeline.pexpireat(name, at_ms)

    def _dealt(self, place: Place, found: Any) -> dict[int, list[Any]]:
        """Return items by their lane, in their order."""
        bits = place.way is Way.BITS
        lane_of: Callable[[Any], int] = (
            self._division.of_bucket if bits else self._division.of_items(place)
        )
        by_lane: dict[int, list[Any]] = {}
        for item in positions(found or b"", 0) if bits else found:
            by_lane.setdefault(lane_of(item), []).append(item)
        return by_lane


def _bitmap(bits: list[int]) -> bytes:
    found = bytearray(max(bits) // 8 + 1)
    for bit in bits:
        found[bit // 8] |= 0x80 >> bit % 8
    return bytes(found)


def _is_foreign(error: Exception) -> bool:
    """Say whether a key holds something that nobody of us put there."""
    return isinstance(error, redis.ResponseError) and str(error).startswith("WRONGTYPE")
