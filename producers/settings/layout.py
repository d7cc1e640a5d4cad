"""The layout: which lanes there are, and in which of them something lies; it grows while all lives.

Lanes are numbered through, and no number is ever used again: a deployment that was born with 16 has
0 to 15, and 16 to 79 once it has 64. A lane whose number is *n* of *m* has what lies in the buckets
that leave the remainder *n* by *m*. So a lane is divided into others without any other one noticing
(W. Litwin, Linear hashing, VLDB 1980): half of the way through such a change some lanes are of the
old number, some of the new. What names a lane to others, and lies elsewhere, stays right: it means
its heir.
"""

import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, Final

FIELDS: Final = ("lanes", "buckets", "earlier", "relaning", "divided", "shut")
"""Of `keys.DEPLOYMENT`: what a layout is read from."""


class Layout:
    """One layout; it never changes itself, and compares by what it says.

    Args:
        buckets: in how many of them everybody lies.
        counts: how many lanes there were at first, after each change, and at last.
        towards: how many there will be after the change that is under way; 0: there is none.
        divided: how many lanes were divided in it; in the order of their numbers.
        shut: whether the next one is being divided just now: nobody may write into it.

    Attributes:
        first: the number of the first lane that was not there before the last change.
        shut: the lane that is being divided just now, None: there is none.
    """

    def __init__(
        self,
        buckets: int,
        counts: Sequence[int],
        towards: int = 0,
        divided: int = 0,
        *,
        shut: bool = False,
    ) -> None:
        self.buckets = buckets
        self.counts = tuple(counts)
        self.towards = towards
        self.divided = divided
        self.first = sum(self.counts[:-1])
        self._count = self.counts[-1]
        self.shut = self.first + divided if shut else None

    @classmethod
    def read(cls, found: Mapping[str, str | None]) -> "Layout":
        """Return it from `FIELDS`."""
        earlier = [int(count) for count in (found.get("earlier") or "").split()]
        return cls(
            int(found["buckets"] or 0),
            [*earlier, int(found["lanes"] or 0)],
            int(found.get("relaning") or 0),
            int(found.get("divided") or 0),
            shut=bool(found.get("shut")),
        )

    def written(self) -> dict[str, str]:
        """Return `FIELDS`; '' for those that are not to be there."""
        return {
            "lanes": str(self._count),
            "buckets": str(self.buckets),
            "earlier": " ".join(map(str, self.counts[:-1])),
            "relaning": str(self.towards or ""),
            "divided": str(self.divided or ""),
            "shut": "1" if self.shut is not None else "",
        }

    @property
    def count(self) -> int:
        """How many lanes it was told to have; in the middle of a change there are others."""
        return self._count

    @cached_property
    def lanes(self) -> tuple[int, ...]:
        """The lanes, in an order that a division keeps: the new ones where the old one was."""
        numbers = list(range(self.counts[0]))
        for fewer, count in pairwise(self.counts):
            numbers = [one for number in numbers for one in range(number, count, fewer)]
        found: list[int] = []
        for number in numbers:
            found += self.children(number) if number < self.divided else [self.first + number]
        return tuple(found)

    @property
    def age(self) -> tuple[int, ...]:
        """What is greater for whatever the deployment has later."""
        towards, shut = bool(self.towards), self.shut is not None
        return (len(self.counts), towards, self.divided, shut)

    def children(self, number: int) -> list[int]:
        """Return the lanes that the lane of a number is divided into, its heir the first."""
        first = self.first + self._count
        return list(range(first + number, first + self.towards, self._count))

    def of_number(self, number: int) -> int:
        """Return the lane of a bucket, or of the digest of a name."""
        at = number % self._count
        if at < self.divided:
            return self.first + self._count + number % self.towards
        return self.first + at

    def of_openid(self, openid: str) -> int:
        """Return the lane of a user."""
        return self.of_number(self.bucket_of(openid))

    def bucket_of(self, openid: str) -> int:
        """Return the bucket of a user."""
        return zlib.crc32(openid.encode()) % self.buckets

    def home_of(self, name: str) -> int:
        """Return the home lane of a broadcast."""
        return self.of_number(zlib.crc32(name.encode()))

    def number_of(self, lane: int) -> int:
        """Return the number of a lane among those of its generation.

        Of all that there are at any moment no two have the same, and an heir has that of the lane
        that it came out of: it names a lane to others for ever (`of_number`).

        Raises:
            ValueError: there never was such a lane.
        """
        return self._placed(lane)[-1][1]

    def heir(self, lane: int) -> int:
        """Return the lane that has now what lies in no bucket, of one that there was at any time.

        Raises:
            ValueError: there never was such a lane.
        """
        return self.of_number(self.number_of(lane))

    def ancestors(self, lane: int) -> list[int]:
        """Return the lanes out of which one came, those that it was divided from; itself the last.

        Raises:
            ValueError: there never was such a lane.
        """
        return [first + number for first, number in self._placed(lane)]

    def _placed(self, lane: int) -> list[tuple[int, int]]:
        """Return of each generation up to a lane's own its first lane, and this one's number."""
        firsts: list[tuple[int, int]] = []
        first = 0
        for count in (*self.counts, *([self.towards] if self.towards else [])):
            firsts.append((first, count))
            if first <= lane < first + count:
                return [(one, (lane - first) % many) for one, many in firsts]
            first += count
        raise ValueError(f"there is no lane {lane}")

    def after(self, lane: int) -> int | None:
        """Return the lane that follows one of these in their order; None: it is the last."""
        at = self.lanes.index(lane) + 1
        return self.lanes[at] if at < len(self.lanes) else None

    def heirs(self, bucket: int) -> list[int]:
        """Return the lanes that may have what lies in no bucket, and was written about a bucket.

        It went whole with the heirs of the lane that the bucket was in then; or stayed where it
        was, when an earlier version of ours made more lanes of the same numbers.
        """
        born = [few for few in range(1, self.counts[0] + 1) if self.counts[0] % few == 0]
        counts = (*born, *self.counts[1:], *([self.towards] if self.towards else []))
        return sorted({self.of_number(bucket % count) for count in counts})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self._all == other._all

    def __hash__(self) -> int:
        return hash(self._all)

    def __repr__(self) -> str:
        return f"Layout{self._all}"

    @property
    def _all(self) -> tuple[Any, ...]:
        return (self.buckets, self.counts, self.towards, self.divided, self.shut)
