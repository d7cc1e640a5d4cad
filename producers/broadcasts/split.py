"""Splitting: from an audience to one message per openid, a window at a time.

A step moves whole buckets into the broadcast's queue and the cursor with them, in one script, and
returns when the window is full; it never waits. Memory stays flat whatever the audience's size.
If the process dies before a step nothing has moved; after it, the cursor has, and the next step
goes on from there. Of a broadcast that takes long, those whose permits would end before their turn
go first (`producers.ordering`).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from producers.audiences.filled import filled_buckets
from producers.broadcasts.spec import Spec
from producers.ordering.passes import FIELDS, Copy, Passes, next_bucket, offered_at_once
from producers.settings import Settings
from producers.store import Client, keys
from producers.store.retry import repeat_all
from producers.store.scripts import Call, Script


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
        self.script = SPLIT.on(client)
        self._passes = Passes(client, settings)

    def fill(self, broadcast: str, lane: int) -> int:
        """Split until the lane's window is full or all of it is split.

        A broadcast that was cancelled or is late only counts what is left.

        Returns:
            How many recipients were moved or counted.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        copy, size = self._read(broadcast, lane)
        if not copy.app or copy.split == "done":
            return 0
        filled = partial(filled_buckets, self._client, lane, copy.app, copy.audience)
        moved, next_copy = self._passes.fill(broadcast, lane, copy, size, filled)
        if next_copy is None:
            return moved
        lane_key, cursor = keys.lane_broadcast(lane, broadcast), next_copy.cursor
        buckets, most = filled(next_bucket(cursor)), offered_at_once(copy.audience)
        while True:
            offered, rest = buckets[:most], buckets[most:]
            status, cursor, pushed, _ = self.script.repeated(
                "splitting",
                SplitKeys(lane_key, keys.queue(lane, broadcast)),
                SplitArgs(broadcast, cursor, "" if rest else "1", keys.lane_prefix(lane)),
                offered,
            )
            if status != 1:
                return moved
            moved += int(pushed)
            cursor = str(cursor)
            done = next_bucket(cursor)
            if not rest and (not offered or done > offered[-1]):
                return moved
            buckets = [bucket for bucket in offered if bucket >= done] + rest

    def is_plain(self, spec: Spec, size: int) -> bool:
        """Say whether a new broadcast is split in the order of its buckets, as settings tell."""
        copy = Copy.read(
            [spec.app, spec.audience, str(spec.channel), str(spec.rate)] + [None] * len(FIELDS[4:])
        )
        return not self._passes.may_be_long(copy, size)

    def first(self, broadcast: str, lane: int, audience: str, buckets: Sequence[int]) -> Call:
        """Return the call that begins to split a new broadcast; `fill` does the rest.

        Args:
            broadcast: its id.
            lane: the lane.
            audience: whose buckets they are, of plain openids.
            buckets: all that there are in the lane, ascending.
        """
        most = offered_at_once(audience)
        return self.script.call(
            SplitKeys(keys.lane_broadcast(lane, broadcast), keys.queue(lane, broadcast)),
            SplitArgs(broadcast, "0", "" if len(buckets) > most else "1", keys.lane_prefix(lane)),
            buckets[:most],
        )

    def _read(self, broadcast: str, lane: int) -> tuple[Copy, int]:
        """Return the lane's copy, and how many recipients all lanes are thought to have."""
        home = keys.home(self._settings.layout.home_of(broadcast), broadcast)

        def ask(pipeline: Any) -> None:
            pipeline.hmget(keys.lane_broadcast(lane, broadcast), FIELDS)
            pipeline.hget(home, "audience_size")

        values, size = repeat_all("reading the split cursor", self._client, ask)
        return Copy.read(values), int(size or 0)
