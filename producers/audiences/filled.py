"""Filled buckets: which buckets of a lane hold members of an audience, or of an expression."""

from collections.abc import Callable, Mapping
from typing import Final

from producers.audiences.expressions import evaluate, names_of
from producers.store import Client, keys
from producers.store.buckets import positions, read_bitmaps

_OPERATORS: Final[Mapping[str, Callable[[int, int], int]]] = {
    "|": lambda left, right: left | right,
    "&": lambda left, right: left & right,
    "-": lambda left, _: left,
}


def filled_buckets(
    client: Client, lane: int, app: str, audience: str, cursor: int = 0
) -> list[int]:
    """Return the buckets in one lane that may have members, ascending.

    Args:
        client: Redis.
        lane: the lane.
        app: alias of the app.
        audience: whose, as Redis reads it (`Expression.postfix`).
        cursor: the first bucket that matters.

    Raises:
        StoreUnavailableError: Redis did not answer.
    """
    names = names_of(audience)
    found = read_bitmaps(client, [keys.audience_buckets(lane, app, name) for name in names])
    length = max(map(len, found))
    # a bucket's bit is its place from the left: all are made as long as the longest
    bits = {
        name: int.from_bytes(one.ljust(length, b"\0"), "big")
        for name, one in zip(names, found, strict=True)
    }
    whole = evaluate(audience, bits.__getitem__, _OPERATORS)
    return positions(whole.to_bytes(length, "big"), cursor)
