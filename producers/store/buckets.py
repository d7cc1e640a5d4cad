"""Buckets: which parts of a lane hold members of an audience, or recipients of a broadcast.

Each lies as a bitmap of the lane's buckets; whoever walks an audience visits those alone.
"""

from functools import partial
from typing import Final

from producers.store import Client, keys
from producers.store.retry import repeat

_BITMAP_BYTES: Final = 2048
"""Bytes of a bitmap that a page reads at a time: the default deployment's whole."""


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
