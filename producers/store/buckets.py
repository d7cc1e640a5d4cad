"""Buckets: which parts of a lane hold members of an audience, or recipients of a broadcast.

Each lies as a bitmap of the lane's buckets; whoever walks an audience visits those alone.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from producers.store import Client, keys
from producers.store.retry import repeat, repeat_all

_BITMAP_BYTES: Final = 2048
"""Bytes of a bitmap that a page reads at a time: the default deployment's whole."""


def filled_buckets(client: Client, lane: int, app: str, audience: str) -> list[int]:
    """Return the buckets of an audience in one lane that may have members, ascending.

    Args:
        client: Redis.
        lane: the lane.
        app: alias of the app.
        audience: its name; of an expression see `audiences.filled`.

    Raises:
        StoreUnavailableError: Redis did not answer.
    """
    return _set_bits(client, keys.audience_buckets(lane, app, audience))


def read_bitmaps(client: Client, names: Sequence[str]) -> list[bytes]:
    """Return bitmaps of buckets, in one trip; b'' for one that there is none of.

    Raises:
        StoreUnavailableError: Redis did not answer.
    """

    def read(name: str, asked: Any = client) -> Any:
        return asked.execute_command("GET", name, NEVER_DECODE=True)  # bytes, not text

    def read_all(pipeline: Any) -> None:
        for name in names:
            read(name, pipeline)

    if len(names) == 1:
        return [repeat("reading buckets", partial(read, names[0])) or b""]
    return [bitmap or b"" for bitmap in repeat_all("reading buckets", client, read_all)]


def recipient_buckets(client: Client, lane: int, broadcast: str) -> list[int]:
    """Return the buckets in which a broadcast has recipients in one lane, ascending.

    They stay what they are when the audience changes, or is deleted.

    Raises:
        StoreUnavailableError: Redis did not answer.
    """
    return _set_bits(client, keys.recipients(lane, broadcast))


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


def positions(bitmap: bytes, cursor: int) -> list[int]:
    """Return the positions of a whole bitmap's bits that are set, from one on."""
    first = cursor // 8
    return _positions(bitmap[first:], first, cursor)


def _set_bits(client: Client, key: str) -> list[int]:
    """Return the positions of a bitmap's bits that are set."""
    return positions(read_bitmaps(client, [key])[0], 0)


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
