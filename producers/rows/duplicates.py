"""Duplicates: who has more than one row, known from 12 bytes a row.

Two openids are taken for one when their digests of 64 bits are equal: once in a million files of
five million rows.
"""

import hashlib
from array import array
from collections.abc import Iterator
from typing import Final

_PARTS: Final = 256


class Seen:
    """The openids of a file."""

    def __init__(self) -> None:
        self._digests = [array("Q") for _ in range(_PARTS)]
        self._numbers = [array("I") for _ in range(_PARTS)]

    def note(self, number: int, openid: str) -> None:
        """A row has this openid."""
        digest = int.from_bytes(hashlib.blake2b(openid.encode(), digest_size=8).digest(), "big")
        part = digest % _PARTS
        self._digests[part].append(digest)
        self._numbers[part].append(number)

    def again(self) -> Iterator[int]:
        """Yield the numbers of the rows whose openid had one before."""
        for digests, numbers in zip(self._digests, self._numbers, strict=True):
            known: set[int] = set()
            for digest, number in zip(digests, numbers, strict=True):
                if digest in known:
                    yield number
                known.add(digest)
