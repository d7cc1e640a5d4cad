"""Splitting: from an audience to one message per openid, a window at a time.

A step moves whole buckets into the broadcast's queue and the cursor with them, in one script, and
returns when the window is full; it never waits. Memory stays flat whatever the audience's size.
If the process dies before a step nothing has moved; after it, the cursor has, and the next step
goes on from there.
"""

from functools import partial
from typing import Final

from producers import keys, scripts
from producers.retry import repeat
from producers.settings import Settings
from producers.store import Client

_BUCKETS: Final = 256
"""Buckets offered to one script run."""
_BITMAP_BYTES: Final = 2048
"""Bytes of a bitmap that a page reads at a time: the default deployment's whole."""


class Splitter:
    """Fills the windows of broadcasts. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._script = client.register_script(scripts.source("producers", "split"))

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
        buckets = filled_buckets(self._client, lane, app, audience, int(cursor))
        while True:
            offered, rest = buckets[:_BUCKETS], buckets[_BUCKETS:]
            script_keys = [
                lane_key,
                keys.queue(lane, broadcast),
                *(keys.audience(lane, app, audience, bucket) for bucket in offered),
            ]
            args = [broadcast, cursor, "" if rest else "1", keys.lane_prefix(lane), *offered]
            status, cursor, pushed, _ = repeat(
                "splitting", partial(self._script, keys=script_keys, args=args)
            )
            if status != 1:
                return moved
            moved += pushed
            done = int(cursor)
            if not rest and (not offered or done > offered[-1]):
                return moved
            buckets = [bucket for bucket in offered if bucket >= done] + rest


def filled_buckets(client: Client, lane: int, app: str, audience: str, cursor: int) -> list[int]:
    """Return the buckets of an audience in one lane that may have members, ascending.

    Args:
        client: Redis.
        lane: the lane.
        app: alias of the app.
        audience: its name.
        cursor: the first bucket that matters.

    Raises:
        StoreUnavailableError: Redis did not answer.
    """
    return _set_bits(client, keys.audience_buckets(lane, app, audience), cursor)


def recipient_buckets(client: Client, lane: int, broadcast: str) -> list[int]:
    """Return the buckets in which a broadcast has recipients in one lane, ascending.

    They stay what they are when the audience changes, or is deleted.

    Raises:
        StoreUnavailableError: Redis did not answer.
    """
    return _set_bits(client, keys.recipients(lane, broadcast), 0)


def next_recipient_buckets(client: Client, lane: int, broadcast: str, cursor: int = 0) -> list[int]:
    """Return some of a lane's `recipient_buckets` from a cursor on; none when there are no more.

    However many buckets there are, a few thousand are read at a time.

    Raises:
        StoreUnavailableError: Redis did not answer.
    """
    key = keys.recipients(lane, broadcast)
    first, found = cursor // 8, list[int]()
    while not found:
        last = first + _BITMAP_BYTES - 1
        some = repeat(
            "reading buckets",
            partial(client.execute_command, "GETRANGE", key, first, last, NEVER_DECODE=True),
        )
        found = _positions(some, first, cursor)
        if len(some) < _BITMAP_BYTES:
            break
        first += _BITMAP_BYTES
    return found


def _set_bits(client: Client, key: str, cursor: int) -> list[int]:
    """Return the positions of a bitmap's bits that are set, from one on."""
    bitmap = repeat(
        "reading buckets",
        lambda: client.execute_command("GET", key, NEVER_DECODE=True),  # bytes, not text
    )
    first = cursor // 8
    return _positions(bitmap[first:], first, cursor) if bitmap else []


def _positions(bitmap: bytes, first: int, cursor: int) -> list[int]:
    """Return the positions from a cursor on of a bitmap's bits that are set.

    Args:
        bitmap: a piece of it.
        first: at which byte the piece begins.
        cursor: the first position that matters.
    """
    return [
        place * 8 + bit
        for place, byte in enumerate(bitmap, start=first)
        if byte
        for bit in range(8)
        if byte & (0x80 >> bit) and place * 8 + bit >= cursor
    ]
