"""Holdings: what the users of some buckets hold, recounted beside whatever goes on.

The openids are paged (SSCAN), and counted about a hundred in a script: none holds Redis for long,
however crowded a bucket is. SSCAN may give a member twice where a set is resized meanwhile, so the
openids of a bucket are remembered until it is through.

A recount is a level. Each user is looked at once, and whole; whoever is in the audience ``all``
from the first page to the last is counted, and whoever comes or goes in between is counted or not.
So it is exact at rest, and beside work it differs from any one moment by what changed meanwhile.
"""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from producers.store import Client, keys
from producers.store.retry import repeat_all
from producers.store.scripts import Script

BUCKETS: Final = 50
"""Buckets whose openids are paged together, and remembered meanwhile."""

_PAGE: Final = 500
"""Openids that one SSCAN is asked for: some 50 µs of Redis."""

USERS: Final = 100
"""Openids of one script: below 2 ms, with what they may hold."""

_TRIP: Final = 20 * USERS
"""Openids that are counted in one trip to Redis."""

_SCRIPTS: Final = 200
"""Scripts of one trip, where each has few openids."""


class UsersKeys(NamedTuple):
    """KEYS of audit_users.lua."""

    stock: str


class UsersArgs(NamedTuple):
    """ARGV of audit_users.lua; the openids follow."""

    prefix: str
    app: str
    trimmed: int


AUDIT_USERS: Final = Script(__package__, "audit_users", UsersKeys, UsersArgs)


class Part(NamedTuple):
    """Some buckets of an app in a lane.

    Attributes:
        lane: the lane.
        app: alias of the app.
        trimmed: the first hour that the stock holds.
        buckets: of the lane.
    """

    lane: int
    app: str
    trimmed: int
    buckets: Sequence[int]


class Holdings:
    """Recounts users. It changes nothing."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._users = AUDIT_USERS.on(client)

    def recount(self, parts: Sequence[Part]) -> list[Counter[str]]:
        """Return what the users of each part hold.

        Args:
            parts: which ones; small ones ride together.

        Returns:
            Uses by the fields of the stock (`keys.stock`), and ``users``: how many there were.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        found = [Counter[str]() for _ in parts]
        waiting: deque[tuple[int, list[str]]] = deque()
        places = [(at, bucket) for at, part in enumerate(parts) for bucket in part.buckets]
        for start in range(0, len(places), BUCKETS):
            for at, openids in self._pages(parts, places[start : start + BUCKETS]):
                found[at]["users"] += len(openids)
                if waiting and waiting[-1][0] == at:
                    waiting[-1][1].extend(openids)
                elif openids:
                    waiting.append((at, openids))
                while sum(len(some) for _, some in waiting) >= _TRIP:
                    self._count(parts, waiting, found)
        while waiting:
            self._count(parts, waiting, found)
        return found

    def _pages(
        self, parts: Sequence[Part], places: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[int, list[str]]]:
        """Yield the openids of some buckets, each once, with the place of their part."""
        known: dict[tuple[int, int], set[str]] = {place: set() for place in places}
        cursors = dict.fromkeys(places, 0)
        while cursors:
            asked = list(cursors.items())

            def fill(pipeline: Any, asked: list[tuple[tuple[int, int], int]] = asked) -> None:
                for (at, bucket), cursor in asked:
                    name = keys.audience(parts[at].lane, parts[at].app, "all", bucket)
                    pipeline.sscan(name, cursor, count=_PAGE)

            answers = repeat_all("reading openids", self._client, fill)
            for (place, _), (cursor, openids) in zip(asked, answers, strict=True):
                fresh = set(openids) - known[place]
                known[place] |= fresh
                yield place[0], list(fresh)
                if int(cursor) == 0:
                    del cursors[place], known[place]
                else:
                    cursors[place] = int(cursor)

    def _count(
        self,
        parts: Sequence[Part],
        waiting: deque[tuple[int, list[str]]],
        found: Sequence[Counter[str]],
    ) -> None:
        """Add what the first openids hold, in one trip, and leave the others."""
        asked: list[tuple[int, list[str]]] = []
        left = _TRIP
        while waiting and left > 0 and len(asked) < _SCRIPTS:
            at, some = waiting[0]
            asked.append((at, some[:USERS]))
            left -= min(USERS, len(some))
            waiting[0] = at, some[USERS:]
            if len(some) <= USERS:
                waiting.popleft()

        def fill(pipeline: Any) -> None:
            for at, some in asked:
                lane, app, trimmed, _ = parts[at]
                args = UsersArgs(keys.lane_prefix(lane), app, trimmed)
                self._users(UsersKeys(keys.stock(lane, app)), args, some, into=pipeline)

        rows = repeat_all("recounting permits", self._client, fill)
        for (at, some), (counted, *sums) in zip(asked, rows, strict=True):
            found[at].update(dict(zip(sums[0::2], map(int, sums[1::2]), strict=True)))
            if uncounted := some[int(counted) :]:
                waiting.append((at, uncounted))
