"""Counting: how many an audience or an expression has.

An audience's size is kept. An expression is counted bucket by bucket, in steps that each look at
some thousand members; a large one can be estimated from buckets drawn by lot instead, whose number
does not depend on its size.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from producers.audiences.expressions import MOST_NAMES, Expression
from producers.audiences.filled import filled_buckets
from producers.settings import Settings
from producers.store import Client, deadline, keys
from producers.store.lanes.following import each_lane, steady
from producers.store.retry import repeat_all
from producers.store.scripts import Script

LOOKED_AT: Final = 2000
"""Members that one script reads or looks up before it begins no further bucket: a millisecond."""
BUCKETS: Final = 256
"""Buckets offered to one script run, by the names that each is looked up under."""
COUNTED: Final = 50_000
"""Up to so many members are read and looked up one by one: some 50 ms of Redis, in small steps."""
_SAMPLED: Final = 20_000
"""Members that an estimate reads and looks up."""
_FEWEST: Final = 30
"""Buckets that an estimate has at the least."""


class CountKeys(NamedTuple):
    """KEYS of count.lua."""

    buckets: str


class CountArgs(NamedTuple):
    """ARGV of count.lua; the buckets follow."""

    prefix: str
    app: str
    audience: str
    most: int


COUNT: Final = Script(__package__, "count", CountKeys, CountArgs)


class Size(NamedTuple):
    """How many an audience has.

    Attributes:
        members: how many.
        exact: they were counted; else estimated, from some of the buckets.
        reads: members that Redis reads and looks up for all of it, at the most.
    """

    members: int
    exact: bool
    reads: int


class Counter:
    """Counts. Safe to share between threads.

    Every call may raise `StoreUnavailableError`: Redis did not answer.
    """

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._count = COUNT.on(client)

    @steady
    def sizes(self, app: str, names: Sequence[str]) -> dict[str, int]:
        """Return name → members, of audiences."""
        lanes = self._settings.layout.lanes
        each = len(lanes)

        def fill(pipeline: Any) -> None:
            for name in names:
                for lane in lanes:
                    pipeline.get(keys.audience_size(lane, app, name))

        sizes = repeat_all("counting the audience", self._client, fill) if names else []
        return {
            name: sum(int(size or 0) for size in sizes[place * each : (place + 1) * each])
            for place, name in enumerate(names)
        }

    def count(
        self, app: str, audience: Expression, on_progress: Callable[[int], None] | None = None
    ) -> int:
        """Return how many it has, each of them looked at.

        Args:
            app: alias of the app.
            audience: whose.
            on_progress: called with the members counted so far.
        """
        if audience.is_name:
            return self.sizes(app, audience.names)[audience.text]
        counted: dict[int, int] = {}

        def count(lane: int) -> int:
            counted[lane] = 0
            buckets = filled_buckets(self._client, lane, app, audience.postfix)
            for some in self._walk(lane, app, audience, buckets):
                counted[lane] += some
                if on_progress:
                    on_progress(sum(counted.values()))
            return counted[lane]

        return sum(each_lane(self._client, self._settings, count).values())

    @steady
    def measure(self, app: str, audience: Expression) -> Size:
        """Return how many it has, counted up to some ten thousand looks, else estimated."""
        sizes = self.sizes(app, audience.names)
        if audience.is_name:
            return Size(sizes[audience.text], exact=True, reads=sizes[audience.text])
        return self._measure(app, audience, sizes)

    def _measure(self, app: str, audience: Expression, sizes: Mapping[str, int]) -> Size:
        found = {
            lane: filled_buckets(self._client, lane, app, audience.postfix)
            for lane in self._settings.layout.lanes
        }
        of, reads = sum(map(len, found.values())), audience.reads(sizes)
        drawn = of if reads <= COUNTED else max(_FEWEST, math.ceil(_SAMPLED * of / reads))
        if drawn < of:
            places = [(lane, bucket) for lane, buckets in found.items() for bucket in buckets]
            found = {lane: [] for lane in found}
            for lane, bucket in random.sample(places, drawn):
                found[lane].append(bucket)
        members = sum(
            sum(self._walk(lane, app, audience, buckets)) for lane, buckets in found.items()
        )
        if drawn >= of:
            return Size(members, exact=True, reads=reads)
        return Size(round(members * of / drawn), exact=False, reads=reads)

    def _walk(self, lane: int, app: str, audience: Expression, buckets: list[int]) -> Iterator[int]:
        """Yield the members of some buckets at a time."""
        offered = BUCKETS // min(len(audience.names), MOST_NAMES)
        for _ in deadline.paced(itertools.count()):
            if not buckets:
                return
            counted, members, _ = self._count.repeated(
                "counting the audience",
                CountKeys(keys.audience_buckets(lane, app, audience.names[0])),
                CountArgs(keys.lane_prefix(lane), app, audience.postfix, LOOKED_AT),
                buckets[:offered],
            )
            buckets = buckets[counted:]
            yield members
