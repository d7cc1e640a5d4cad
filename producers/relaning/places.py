"""Places: where each key of a lane belongs when there are more lanes, read off its name.

A lane is divided evenly: of its buckets each goes to the lane that the new number gives it, and
the lane itself keeps its share. So a key goes whole, by its openid or bucket; or it holds something
of many, and is divided; or it says something of all, and each gets a copy; or it stays, for it is
one of several in which something is counted or waits.
"""

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Final, NamedTuple

from producers.store import keys


class Way(StrEnum):
    """What becomes of a key."""

    USER = "user"
    """It goes whole, by the openid that its name ends with."""
    BUCKET = "bucket"
    """It goes whole, by the bucket that its name ends with."""
    HOME = "home"
    """It goes whole, by the broadcast that its name ends with."""
    LIST = "list"
    """Its items are dealt out, in their order."""
    HASH = "hash"
    """Its fields are dealt out."""
    ZSET = "zset"
    """Its members are dealt out."""
    BITS = "bits"
    """Each lane gets the bits of its buckets."""
    ALL = "all"
    """Each lane gets a copy."""
    COUNTED = "counted"
    """It is counted anew, in each lane."""
    STAYS = "stays"
    """It is left as it is."""


WAYS: Final = {
    "permits": Way.USER,
    "subs": Way.USER,
    "marks": Way.USER,
    "receipts": Way.USER,
    "flood": Way.USER,
    "daily": Way.BUCKET,
    "hurried": Way.BUCKET,
    "outcomes": Way.BUCKET,
    "msgids": Way.BUCKET,
    "audience": Way.BUCKET,
    "home": Way.HOME,
    "queue": Way.LIST,
    "soon": Way.LIST,
    "suspects": Way.LIST,
    "delayed": Way.ZSET,
    "sending": Way.ZSET,
    "flight": Way.HASH,
    "tries": Way.HASH,
    "doubts": Way.HASH,
    "mail": Way.HASH,
    "dead": Way.HASH,
    "leaving": Way.HASH,
    "rows": Way.HASH,
    "recipients": Way.BITS,
    "buckets": Way.BITS,
    "posted": Way.ALL,
    "dropped": Way.ALL,
    "shares": Way.ALL,
    "fence": Way.ALL,
    "hooks": Way.ALL,
    "lane": Way.COUNTED,
    "size": Way.COUNTED,
    "stock": Way.COUNTED,
    "ledger": Way.STAYS,
    "pace": Way.STAYS,
    "ring": Way.STAYS,
    "first": Way.STAYS,
    "busy": Way.STAYS,
    "due": Way.STAYS,
    "doing": Way.STAYS,
    "flying": Way.STAYS,
    "keeper": Way.STAYS,
    "never": Way.STAYS,
    "reply": Way.STAYS,
    "relaning": Way.STAYS,
}
"""The first word of a key's name after its lane → what becomes of it."""

_ITEM: Final = re.compile(r"(?:\S+ )?(\d+):")
"""``bucket:openid``, after a broadcast's id or not."""
_OPENID: Final = {"suspects", "sending", "dead"}
"""Kinds whose items begin with the openid; …"""
_PLAIN: Final = {"rows"}
"""… and those of which each is a bucket."""
_NAME: Final = re.compile(rf"{keys.PREFIX}:\{{(\d+)\}}:(([^:]+).*)", re.DOTALL)


class Place(NamedTuple):
    """A key of a lane.

    Attributes:
        name: the whole of it.
        lane: its lane.
        rest: what follows the lane's prefix.
        kind: the first word of that.
        way: what becomes of it; None for what no version of ours has written.
    """

    name: str
    lane: int
    rest: str
    kind: str
    way: Way | None

    @classmethod
    def of(cls, name: str) -> "Place | None":
        """Return it; None for a key of no lane."""
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        rest, kind = found[2], found[3]
        way = Way.STAYS if rest.startswith("hooks:") else WAYS.get(kind)
        return cls(name, int(found[1]), rest, kind, way)

    def at(self, lane: int) -> str:
        """Return the same key of another lane."""
        return f"{keys.lane_prefix(lane)}{self.rest}"


class Map(NamedTuple):
    """Where everything lies with a number of lanes."""

    lanes: int
    buckets: int

    def of_bucket(self, bucket: int) -> int:
        """Return the lane of a bucket."""
        return bucket % self.lanes

    def of_openid(self, openid: str) -> int:
        """Return the lane of a user."""
        return self.of_bucket(keys.bucket_of(openid, self.buckets))

    def of_whole(self, place: Place) -> int:
        """Return the lane of a key that goes whole."""
        last = place.rest.rpartition(":")[2]
        if place.way is Way.HOME:
            return keys.lane_of(last, self.lanes)
        return self.of_bucket(int(last)) if place.way is Way.BUCKET else self.of_openid(last)

    def of_items(self, place: Place) -> Callable[[str], int]:
        """Return what says of an item of a key in which lane it belongs; where it is if unknown."""
        if place.kind in _OPENID:
            return lambda item: self.of_openid(item.partition(" ")[0])
        if place.kind in _PLAIN:
            return lambda item: self.of_bucket(int(item)) if item.isdecimal() else place.lane

        def of(item: str) -> int:
            found = _ITEM.match(item)
            return self.of_bucket(int(found[1])) if found else place.lane

        return of

    def shares(self, lane: int, before: int) -> range:
        """Return the lanes that one of so many is divided into, itself the first."""
        return range(lane % before, self.lanes, before)
