"""Places: where each key of a lane belongs when there are more lanes, read off its name.

A lane is divided evenly: of its buckets each goes to the lane that the new number gives it. So a
key goes whole, by its openid or bucket; or it holds something of many, and is divided; or it says
something of all, and each gets a copy; or the heir has it, for it is one of several in which
something is counted or waits; or it is of no more use.
"""

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Final, NamedTuple

from producers.settings import Layout
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
    HEIR = "heir"
    """It goes whole to the first of the new lanes."""
    GOES = "goes"
    """It is not needed any more."""


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
    "doubted": Way.HASH,
    "leaving": Way.HASH,
    "rows": Way.HASH,
    "recipients": Way.BITS,
    "buckets": Way.BITS,
    "posted": Way.ALL,
    "dropped": Way.ALL,
    "shares": Way.ALL,
    "fence": Way.ALL,
    "forgot": Way.ALL,
    "hooks": Way.ALL,
    "lane": Way.COUNTED,
    "size": Way.COUNTED,
    "stock": Way.COUNTED,
    "ledger": Way.HEIR,
    "pace": Way.HEIR,
    "ring": Way.ALL,
    "first": Way.ALL,
    "busy": Way.ALL,
    "due": Way.GOES,
    "doing": Way.GOES,
    "flying": Way.ALL,
    "keeper": Way.GOES,
    "never": Way.GOES,
    "reply": Way.GOES,
    "relaning": Way.GOES,
    "shut": Way.GOES,
}
"""The first word of a key's name after its lane → what becomes of it."""

_ITEM: Final = re.compile(r"(?:\S+ )?(\d+):")
"""``bucket:openid``, after a broadcast's id or not."""
_OPENID: Final = {"suspects", "sending", "dead", "doubted"}
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
        way = Way.HEIR if rest.startswith("hooks:") else WAYS.get(kind)
        return cls(name, int(found[1]), rest, kind, way)

    def at(self, lane: int) -> str:
        """Return the same key of another lane."""
        return f"{keys.lane_prefix(lane)}{self.rest}"


class Whereabouts:
    """Where everything lies in a layout.

    Args:
        layout: which lanes there are.
        heir: the lane that has what belongs to none.
    """

    def __init__(self, layout: Layout, heir: int) -> None:
        self._layout = layout
        self.heir = heir

    def of_bucket(self, bucket: int) -> int:
        """Return the lane of a bucket."""
        return self._layout.of_number(bucket)

    def of_openid(self, openid: str) -> int:
        """Return the lane of a user."""
        return self._layout.of_openid(openid)

    def of_home(self, broadcast: str) -> int:
        """Return the home lane of a broadcast."""
        return self._layout.home_of(broadcast)

    def of_whole(self, place: Place) -> int:
        """Return the lane of a key that goes whole."""
        last = place.rest.rpartition(":")[2]
        if place.way is Way.HEIR:
            return self.heir
        if place.way is Way.HOME:
            return self.of_home(last)
        return self.of_bucket(int(last)) if place.way is Way.BUCKET else self.of_openid(last)

    def of_items(self, place: Place) -> Callable[[str], int]:
        """Return what says of an item of a key in which lane it belongs; the heir if unknown."""
        if place.kind in _OPENID:
            return lambda item: self.of_openid(item.partition(" ")[0])
        if place.kind in _PLAIN:
            return lambda item: self.of_bucket(int(item)) if item.isdecimal() else self.heir

        def of(item: str) -> int:
            found = _ITEM.match(item)
            return self.of_bucket(int(found[1])) if found else self.heir

        return of


class Division(Whereabouts):
    """Where everything of one lane goes that is divided.

    Args:
        layout: which lanes there are before.
        number: of the lane among those of its generation.

    Attributes:
        lane: the lane.
        children: those that it is divided into, its heir the first.
    """

    def __init__(self, layout: Layout, number: int) -> None:
        self.lane = layout.first + number
        self.children = layout.children(number)
        after = Layout(layout.buckets, (*layout.counts, layout.towards))
        super().__init__(after, self.children[0])
