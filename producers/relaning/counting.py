"""Counting anew: what each new lane counts of its own, once everything lies where it belongs.

Each number follows from what lies in the lane, so that counting again gives the same. What was
settled is counted by the heir; the sums over all lanes are what they were.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from producers.care.audit import ROW
from producers.care.holdings import Holdings, Part
from producers.relaning.places import Division
from producers.store import Client, keys
from producers.store.buckets import positions, read_bitmaps

_TOGETHER: Final = 100
"""Broadcasts, audiences or apps that ride in one trip."""
_SETS: Final = 5000
"""Buckets of audiences that do."""
_ROWS: Final = 100
"""Buckets of rows that one scan gives."""

T = TypeVar("T")

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

    def broadcasts(self, slots: Mapping[str, Collection[str]]) -> None:
        """Give each lane its copies of broadcasts, and its counts.

        Args:
            slots: of each broadcast the lists of those who go first.
        """
        for some in _batches(sorted(slots)):
            names = [keys.lane_broadcast(self._division.lane, one) for one in some]
            found = self._asked(lambda one, name: one.hgetall(name), names)
            ends = self._asked(lambda one, name: one.pexpiretime(name), names)
            copies = [
                (lane, one, has if lane == self._division.heir else _shared(has), at_ms)
                for one, has, at_ms in zip(some, found, ends, strict=True)
                for lane in self._division.children
            ]
            waiting = self._waiting([(lane, one, slots[one]) for lane, one, _, _ in copies])
            pipeline = self._client.pipeline(transaction=False)
            for (lane, one, has, at_ms), waits in zip(copies, waiting, strict=True):
                name = keys.lane_broadcast(lane, one)
                pipeline.hset(name, mapping=has | _counts(has, waits))
                if at_ms > 0:
                    pipeline.pexpireat(name, at_ms)
                pipeline.zadd(keys.due(lane), {one: 0})  # its keeper finds what it wants
            pipeline.execute()

    def homes(self, broadcasts: Iterable[str]) -> None:
        """Have the keeper look at broadcasts at their homes."""
        for some in _batches(sorted(broadcasts)):
            pipeline = self._client.pipeline(transaction=False)
            for one in some:
                pipeline.zadd(keys.due(self._division.of_home(one)), {f"{one} home": 0})
            pipeline.execute()

    def _waiting(self, copies: Sequence[tuple[int, str, Collection[str]]]) -> list["_Waiting"]:
        """Return who has no outcome in a lane, of each copy of a broadcast."""
        pipeline = self._client.pipeline(transaction=False)
        for lane, one, slots in copies:
            pipeline.llen(keys.queue(lane, one))
            pipeline.zcard(keys.delayed(lane, one))
            pipeline.hlen(keys.flight(lane, one))
            for slot in slots:
                pipeline.llen(keys.soon(lane, one, int(slot)))
        answers = iter(pipeline.execute())
        found = []
        for lane, one, slots in copies:
            queued, delayed, entries = next(answers), next(answers), next(answers)
            soon = sum(next(answers) for _ in slots)
            flights = Counter(
                waits[1] if (waits := _WAITS.match(entry)) else ""
                for entry in (self._entries(lane, one) if entries else ())
            )
            found.append(_Waiting(queued + delayed, flights[""], flights["aside"], soon))
        return found

    def _entries(self, lane: int, broadcast: str) -> Iterator[str]:
        for _, entry in self._client.hscan_iter(keys.flight(lane, broadcast)):
            yield entry

    def sizes(self, audiences: Iterable[tuple[str, str]]) -> None:
        """Count the members of audiences, or their rows, in each lane.

        Args:
            audiences: app and name of each.
        """
        for some in _batches(sorted(audiences)):
            old = [keys.audience_size(self._division.lane, *one) for one in some]
            ends = self._asked(lambda one, name: one.pexpiretime(name), old)
            places = [(lane, *one) for one in some for lane in self._division.children]
            pipeline = self._client.pipeline(transaction=False)
            for (lane, app, name), size, at_ms in zip(
                places,
                self._members(places),
                [at_ms for at_ms in ends for _ in self._division.children],
                strict=True,
            ):
                key = keys.audience_size(lane, app, name)
                pipeline.set(key, str(size))
                if at_ms > 0:
                    pipeline.pexpireat(key, at_ms)
            pipeline.execute()

    def _members(self, places: Sequence[tuple[int, str, str]]) -> list[int]:
        """Return how many members each audience has, or rows, of a lane each."""
        bitmaps = read_bitmaps(self._client, [keys.audience_buckets(*one) for one in places])
        sizes, sets = [0] * len(places), list[tuple[int, str]]()
        for at, (lane, app, name) in enumerate(places):
            if keys.is_rows(name):
                rows = self._client.hscan_iter(keys.rows(lane, app, name), count=_ROWS)
                sizes[at] = sum(text.count(ROW) for _, text in rows)
                continue
            for bucket in positions(bitmaps[at], 0):
                sets.append((at, keys.audience(lane, app, name, bucket)))
        for some in _batches(sets, _SETS):
            counted = self._asked(lambda one, name: one.scard(name), [name for _, name in some])
            for (at, _), members in zip(some, counted, strict=True):
                sizes[at] += members
        return sizes

    def stocks(self, apps: Iterable[str]) -> None:
        """Count what is available in each lane, of some apps."""
        for some in _batches(sorted(apps)):
            old = [keys.stock(self._division.lane, app) for app in some]
            found = self._asked(lambda one, name: one.hgetall(name), old)
            places = [
                (lane, app, has)
                for app, has in zip(some, found, strict=True)
                for lane in self._division.children
            ]
            names = [keys.audience_buckets(lane, app, "all") for lane, app, _ in places]
            pipeline = self._client.pipeline(transaction=False)
            for lane, app, has in places:
                if has:  # it tells which templates to look for
                    pipeline.hset(keys.stock(lane, app), mapping=has)
            pipeline.execute()
            parts = [
                Part(lane, app, int(has.get("trimmed", 0)), positions(bitmap, 0))
                for (lane, app, has), bitmap in zip(
                    places, read_bitmaps(self._client, names), strict=True
                )
            ]
            pipeline = self._client.pipeline(transaction=False)
            for part, available in zip(parts, self._holdings.recount(parts), strict=True):
                available.pop("users", None)
                if part.trimmed:
                    available["trimmed"] = part.trimmed
                pipeline.unlink(keys.stock(part.lane, part.app))
                if available:
                    pipeline.hset(keys.stock(part.lane, part.app), mapping=available)
            pipeline.execute()

    def _asked(self, ask: Callable[[Any, str], object], names: Iterable[str]) -> list[Any]:
        """Ask something of each key, in one trip."""
        pipeline = self._client.pipeline(transaction=False)
        for name in names:
            ask(pipeline, name)
        answers: list[Any] = pipeline.execute()
        return answers


class _Waiting(NamedTuple):
    """Who has no outcome in a lane: of one broadcast.

    Attributes:
        queued: that wait, now or for a moment.
        hands: that are in a worker's hands.
        aside: that were set aside.
        soon: how many of the queued go first.
    """

    queued: int
    hands: int
    aside: int
    soon: int


def _shared(copy: Mapping[str, str]) -> dict[str, str]:
    """Return what a copy of a broadcast says in every lane."""
    return {
        field: value for field, value in copy.items() if field not in _OF_ONE and ":" not in field
    }


def _counts(mine: Mapping[str, str], waits: _Waiting) -> dict[str, Any]:
    """Return what a lane counts, of those who have no outcome too."""
    done, sweeping, swept, hurried, aside = (
        mine.get(field) for field in ("done", "sweeping", "swept", "hurried", "aside")
    )
    unjudged = mine.get("unjudged")
    counts: dict[str, Any] = {
        "total": int(done or 0)
        + int(sweeping or 0)
        - int(swept or 0)
        + waits.queued
        + waits.hands
        + waits.aside,
    }
    if hurried or waits.soon:
        counts["hurried"] = waits.soon
    if aside or waits.aside:
        counts["aside"] = waits.aside
    if unjudged or waits.hands:
        counts["unjudged"] = waits.hands if unjudged is None else min(int(unjudged), waits.hands)
    return counts


def _batches(some: Sequence[T], most: int = _TOGETHER) -> Iterator[Sequence[T]]:
    return (some[start : start + most] for start in range(0, len(some), most))
