"""Splitting: from an audience to one message per openid, a window at a time.

A step moves whole buckets into the broadcast's queue and the cursor with them, in one script, and
returns when the window is full; it never waits. Memory stays flat whatever the audience's size.
If the process dies before a step nothing has moved; after it, the cursor has, and the next step
goes on from there.
"""

from typing import Final, NamedTuple

from producers.audiences.expressions import names_of
from producers.audiences.filled import filled_buckets
from producers.settings import Settings
from producers.store import Client, keys
from producers.store.retry import repeat
from producers.store.scripts import Script

_BUCKETS: Final = 256
"""Buckets offered to one script run, by the names that each is looked up under."""
_BUCKETS_OF_ROWS: Final = 32
"""The same of rows, which are read whole to be counted."""


class SplitKeys(NamedTuple):
    """KEYS of split.lua."""

    lane: str
    queue: str


class SplitArgs(NamedTuple):
    """ARGV of split.lua; the buckets follow."""

    broadcast: str
    cursor: str
    last: str
    prefix: str


SPLIT: Final = Script(__package__, "split", SplitKeys, SplitArgs)


class Splitter:
    """Fills the windows of broadcasts. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._script = SPLIT.on(client)

    def fill(self, broadcast: str, lane: int) -> int:
        """Split until the lane's window is full or all of it is split.

        A broadcast that was cancelled or is late only counts what is left.

        Returns:
            How many recipients were moved or counted.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        moved: int = 0
        lane_key = keys.lane_broadcast(lane, broadcast)
        has = repeat(
            "reading the split cursor",
            lambda: self._client.hmget(lane_key, ["app", "audience", "cursor", "split"]),
        )
        app, audience, cursor, split = has
        if app is None or split == "done":
            return 0
        most = max(1, _BUCKETS // len(names_of(audience)))
        if keys.is_rows(audience):
            most = _BUCKETS_OF_ROWS
        buckets = filled_buckets(self._client, lane, app, audience, _bucket(cursor))
        while True:
            offered, rest = buckets[:most], buckets[most:]
            status, cursor, pushed, _ = self._script.repeated(
                "splitting",
                SplitKeys(lane_key, keys.queue(lane, broadcast)),
                SplitArgs(broadcast, cursor, "" if rest else "1", keys.lane_prefix(lane)),
                offered,
            )
            if status != 1:
                return moved
            moved += pushed
            done = _bucket(cursor)
            if not rest and (not offered or done > offered[-1]):
                return moved
            buckets = [bucket for bucket in offered if bucket >= done] + rest


def _bucket(cursor: str | int) -> int:
    """Return the bucket that a cursor is at; that of rows begins with an r."""
    return int(str(cursor).removeprefix("r"))
