"""Holdings: what the users of some buckets hold, recounted beside whatever goes on.

The openids are paged (SSCAN), and counted about a hundred in a script: none holds Redis for long,
however crowded a bucket is. SSCAN may give a member twice where a set is resized meanwhile, so the
openids of a bucket are remembered until it is through.

A recount is a level. Each user is looked at once, and whole; whoever is in the audience ``all``
from the first page to the last is counted, and whoever comes or goes in between is counted or not.
So it is exact at rest, and beside work it differs from any one moment by what changed meanwhile.
"""

from collections import Counter
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


class UsersKeys(NamedTuple):
    """KEYS of audit_users.lua."""

    stock: str


class UsersArgs(NamedTuple):
    """ARGV of audit_users.lua; the openids follow."""

    prefix: str
    app: str
    trimmed: int


AUDIT_USERS: Final = Script(__package__, "audit_users", UsersKeys, UsersArgs)


class Holdings:
    """Recounts users. It changes nothing."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._users = AUDIT_USERS.on(client)

    def recount(self, lane: int, app: str, buckets: Sequence[int], trimmed: int) -> Counter[str]:
        """Return what the users of some buckets of a lane hold.

        Args:
            lane: the lane.
            app: alias of the app.
            buckets: of the lane.
            trimmed: the first hour that the stock holds.

        Returns:
            Uses by the fields of the stock (`keys.stock`), and ``users``: how many there were.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        found: Counter[str] = Counter()
        waiting: list[str] = []
        for start in range(0, len(buckets), BUCKETS):
            for openids in self._pages(lane, app, buckets[start : start + BUCKETS]):
                found["users"] += len(openids)
                waiting += openids
                while len(waiting) >= _TRIP:
                    waiting = self._count(lane, app, trimmed, waiting, found)
        while waiting:
            waiting = self._count(lane, app, trimmed, waiting, found)
        return found

    def _pages(self, lane: int, app: str, buckets: Sequence[int]) -> Iterator[list[str]]:
        """Yield the openids of some buckets, each once."""
        known: dict[int, set[str]] = {bucket: set() for bucket in buckets}
        cursors = dict.fromkeys(buckets, 0)
        while cursors:
            asked = list(cursors.items())

            def fill(pipeline: Any, asked: list[tuple[int, int]] = asked) -> None:
                for bucket, cursor in asked:
                    name = keys.audience(lane, app, "all", bucket)
                    pipeline.sscan(name, cursor, count=_PAGE)

            answers = repeat_all("reading openids", self._client, fill)
            for (bucket, _), (cursor, openids) in zip(asked, answers, strict=True):
                fresh = set(openids) - known[bucket]
                known[bucket] |= fresh
                yield list(fresh)
                if int(cursor) == 0:
                    del cursors[bucket], known[bucket]
                else:
                    cursors[bucket] = int(cursor)

    def _count(
        self, lane: int, app: str, trimmed: int, openids: list[str], found: Counter[str]
    ) -> list[str]:
        """Add what the first openids hold, in one trip; return those that are left."""
        trip, left = openids[:_TRIP], openids[_TRIP:]
        parts = [trip[at : at + USERS] for at in range(0, len(trip), USERS)]
        name = UsersKeys(keys.stock(lane, app))
        args = UsersArgs(keys.lane_prefix(lane), app, trimmed)

        def fill(pipeline: Any) -> None:
            for part in parts:
                self._users(name, args, part, into=pipeline)

        rows = repeat_all("recounting permits", self._client, fill)
        for part, (counted, *sums) in zip(parts, rows, strict=True):
            found.update(dict(zip(sums[0::2], map(int, sums[1::2]), strict=True)))
            left += part[int(counted) :]
        return left
