"""Counting anew: what each new lane counts of its own, once everything lies where it belongs.

Each number follows from what lies in the lane, so that counting again gives the same. What was
settled is counted by the heir; the sums over all lanes are what they were.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from producers.care.audit import ROW
from producers.care.holdings import Holdings
from producers.relaning.places import Division
from producers.store import Client, keys
from producers.store.buckets import filled_buckets

_BUCKETS: Final = 100
"""Buckets recounted in one trip."""

_OF_ONE: Final = {
    "total",
    "done",
    "sweeping",
    "swept",
    "unjudged",
    "canary",
    "template_errors",
    "refusals",
    "unknowns",
    "recent",
    "recent_errors",
    "hurried",
    "aside",
    "paced_ms",
    "questioned",
}
"""Fields of a lane's copy of a broadcast that say what happened in that lane."""

_WAITS: Final = re.compile(r"(-|aside) ")
"""How an entry of `keys.flight` begins that is in no worker's hands."""


class Recounter:
    """Counts the lanes that one is divided into.

    Args:
        client: Redis; no lane refuses it.
        division: which ones.
    """

    def __init__(self, client: Client, division: Division) -> None:
        self._client = client
        self._division = division
        self._holdings = Holdings(client)

    def broadcast(self, broadcast: str, slots: Iterable[str]) -> None:
        """Give each lane its copy of a broadcast, and its counts.

        Args:
            broadcast: its id.
            slots: of the lists of those who go first.
        """
        name = keys.lane_broadcast(self._division.lane, broadcast)
        found = self._client.hgetall(name)
        copied = {
            field: value
            for field, value in found.items()
            if field not in _OF_ONE and ":" not in field
        }
        at_ms = self._client.pexpiretime(name)
        for one in self._division.children:
            mine = found if one == self._division.heir else copied
            pipeline = self._client.pipeline(transaction=True)
            pipeline.hset(
                keys.lane_broadcast(one, broadcast),
                mapping=mine | self._counts(one, broadcast, mine, slots),
            )
            if at_ms > 0:
                pipeline.pexpireat(keys.lane_broadcast(one, broadcast), at_ms)
            pipeline.zadd(keys.due(one), {broadcast: 0})  # its keeper finds what it wants
            pipeline.execute()

    def home(self, broadcast: str, lane: int) -> None:
        """Have the keeper look at a broadcast at its home."""
        self._client.zadd(keys.due(lane), {f"{broadcast} home": 0})

    def _counts(
        self, lane: int, broadcast: str, mine: Mapping[str, str], slots: Iterable[str]
    ) -> dict[str, Any]:
        """Return what a lane counts of those who have no outcome."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.llen(keys.queue(lane, broadcast))
        pipeline.zcard(keys.delayed(lane, broadcast))
        for slot in slots:
            pipeline.llen(keys.soon(lane, broadcast, int(slot)))
        queued, delayed, *soon = pipeline.execute()
        done, sweeping, swept, hurried, aside = (
            mine.get(field) for field in ("done", "sweeping", "swept", "hurried", "aside")
        )
        unjudged = mine.get("unjudged")
        flights = Counter(
            found[1] if (found := _WAITS.match(entry)) else ""
            for _, entry in self._client.hscan_iter(keys.flight(lane, broadcast))
        )
        hands = flights[""] + flights["aside"]
        counts: dict[str, Any] = {
            "total": int(done or 0)
            + queued
            + int(sweeping or 0)
            - int(swept or 0)
            + delayed
            + hands,
        }
        if hurried or sum(soon):
            counts["hurried"] = sum(soon)
        if aside or flights["aside"]:
            counts["aside"] = flights["aside"]
        if unjudged or flights[""]:
            at_most = flights[""] if unjudged is None else min(int(unjudged), flights[""])
            counts["unjudged"] = at_most
        return counts

    def size(self, app: str, name: str) -> None:
        """Count the members of an audience, or its rows, in each lane."""
        at_ms = self._client.pexpiretime(keys.audience_size(self._division.lane, app, name))
        for one in self._division.children:
            size = self._size(one, app, name)
            pipeline = self._client.pipeline(transaction=True)
            pipeline.set(keys.audience_size(one, app, name), str(size))
            if at_ms > 0:
                pipeline.pexpireat(keys.audience_size(one, app, name), at_ms)
            pipeline.execute()

    def _size(self, lane: int, app: str, name: str) -> int:
        if keys.is_rows(name):
            found = self._client.hscan_iter(keys.rows(lane, app, name), count=_BUCKETS)
            return sum(text.count(ROW) for _, text in found)
        pipeline = self._client.pipeline(transaction=False)
        for bucket in filled_buckets(self._client, lane, app, name):
            pipeline.scard(keys.audience(lane, app, name, bucket))
        return sum(map(int, pipeline.execute()))

    def stock(self, app: str) -> None:
        """Count what is available in each lane."""
        mine = self._client.hgetall(keys.stock(self._division.lane, app))
        trimmed = int(mine.get("trimmed", 0))
        for one in self._division.children:
            name = keys.stock(one, app)
            if mine:
                self._client.hset(name, mapping=mine)  # it tells which templates to look for
            found = self._available(one, app, trimmed)
            if trimmed:
                found["trimmed"] = trimmed
            pipeline = self._client.pipeline(transaction=True)
            pipeline.unlink(name)
            if found:
                pipeline.hset(name, mapping=found)
            pipeline.execute()

    def _available(self, lane: int, app: str, trimmed: int) -> Counter[str]:
        buckets = filled_buckets(self._client, lane, app, "all")
        found = self._holdings.recount(lane, app, buckets, trimmed)
        found.pop("users", None)
        return found
