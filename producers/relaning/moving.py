"""Moving: a lane that is shut, or is about to be, into those that it is divided into."""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from producers.broadcasts import Broadcasts
from producers.relaning.counting import Recounter
from producers.relaning.dividing import DIVIDED, Divider
from producers.relaning.leaving import Names
from producers.relaning.looking import LOOK_S, Looks, Progress
from producers.relaning.places import Division, Place
from producers.settings import Settings
from producers.store import Client, keys
from producers.words import ENDED

_DRAIN_S: Final = 10.0
"""What is in flight is waited for so long: a POST takes at most 6.5 s."""
_WAITS: Final = ("- ", "aside ")
"""How an entry of `keys.flight` begins that is in no worker's hands."""


@dataclass
class Relaned:
    """What was done, or is to be.

    Attributes:
        before, after: lanes.
        divided: lanes that were divided, of this run.
        keys: that went whole to another lane.
        shared: keys of which each lane got its share.
        broadcasts, audiences, stocks: counted anew, one for each old lane.
        strange: keys that hold what nobody of us put there; they are left where they were.
        standstill_s: for how long nothing was sent or stored in the lane where it took longest.
        took_s: how long all of it took.
        resumed: an earlier run was killed, and this one went on.
    """

    before: int
    after: int
    divided: int = 0
    keys: int = 0
    shared: int = 0
    broadcasts: int = 0
    audiences: int = 0
    stocks: int = 0
    strange: list[str] = field(default_factory=list)
    standstill_s: float = 0.0
    took_s: float = 0.0
    resumed: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready fields."""
        return asdict(self)


@dataclass
class _Counted:
    """What of a lane is to be counted anew; and the slots of those who go first."""

    homes: set[str] = field(default_factory=set)
    broadcasts: set[str] = field(default_factory=set)
    audiences: set[tuple[str, str]] = field(default_factory=set)
    stocks: set[str] = field(default_factory=set)
    slots: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def note(self, place: Place) -> None:
        """Note a key, where it is one of these."""
        rest = place.rest.partition(":")[2]
        if place.kind == "soon":
            broadcast, _, slot = rest.rpartition(":")
            self.slots[broadcast].add(slot)
        elif place.kind == "home":
            self.homes.add(rest)
        elif place.kind == "lane":
            self.broadcasts.add(rest)
        elif place.kind == "size":
            app, _, name = rest.partition(":")
            self.audiences.add((app, name))
        elif place.kind == "stock":
            self.stocks.add(rest)


class Mover:
    """Empties lanes into others.

    Args:
        client: Redis, not fenced.
        hold: called before each step; it raises where it is no longer this run's turn.
        looks: finds what lies in a lane.
        on_progress: is told how far it is.
    """

    def __init__(
        self, client: Client, hold: Callable[[], None], looks: Looks, on_progress: Progress
    ) -> None:
        self._client = client
        self._hold = hold
        self._looks = looks
        self._on_progress = on_progress

    def await_flights(self, lane: int) -> None:
        """Wait until nothing of a lane is in a worker's hands."""
        until = time.monotonic() + _DRAIN_S
        while self._is_flying(lane) and time.monotonic() < until:
            time.sleep(LOOK_S)

    def settle_drops(self, settings: Settings, lane: int) -> None:
        """Bring a lane what it has not heard of, and count what was dropped there."""
        broadcasts = Broadcasts(self._client, settings)
        apps = sorted({*settings.apps, *self._client.zrange(keys.APPS, 0, -1)})
        # one that is in no settings any more has its broadcasts too
        pages = self._looks.asked(apps, lambda one, app: one.zrange(keys.active(app), 0, -1))
        ids = [broadcast for page in pages for broadcast in page]
        homes = self._looks.asked(
            ids,
            lambda one, broadcast: one.hmget(
                keys.home(settings.layout.home_of(broadcast), broadcast),
                ["state", "drop", "generation"],
            ),
        )
        copies = self._looks.asked(
            ids,
            lambda one, broadcast: one.hmget(
                keys.lane_broadcast(lane, broadcast), ["generation", "sweeping"]
            ),
        )
        for broadcast, (state, drop, generation), (known, sweeping) in zip(
            ids, homes, copies, strict=True
        ):
            is_behind = known != generation or sweeping is not None
            if state is not None and (drop or state in ENDED) and is_behind:
                self._hold()
                broadcasts.bring(broadcast, lane)

    def divide(self, division: Division, done: Relaned, names: Names) -> None:
        """Copy all of a lane to the new ones, and count it there.

        Args:
            division: into which.
            done: grows.
            names: given those of the lane's keys.
        """
        divider = Divider(self._client, division)
        whole = False
        while not whole:
            before = done.keys, done.shared
            counted = _Counted()
            names.clear()
            served = self._looks.served()
            for page in self._looks.pages(f"{keys.lane_prefix(division.lane)}*"):
                done.keys += divider.copies(page)
                self._on_progress("keys", done.keys)
                for place in page:
                    counted.note(place)
                shared, strange = divider.divide([one for one in page if one.way in DIVIDED])
                done.shared += shared
                done.strange += [name for name in strange if name not in done.strange]
                left = {keys.shut(division.lane), *done.strange}
                names.add([place.name for place in page if place.name not in left])
            whole = (
                served == self._looks.served()
            )  # else a slot has gone where all was seen already
            if not whole:
                done.keys, done.shared = before
        recounter = Recounter(self._client, division)
        self._hold()
        recounter.broadcasts({one: counted.slots[one] for one in counted.broadcasts})
        recounter.homes(counted.homes)
        self._hold()
        recounter.sizes(counted.audiences)
        recounter.stocks(counted.stocks)
        done.broadcasts += len(counted.broadcasts)
        done.audiences += len(counted.audiences)
        done.stocks += len(counted.stocks)

    def _is_flying(self, lane: int) -> bool:
        for broadcast in self._client.smembers(keys.flying(lane)):
            for entry in self._client.hvals(keys.flight(lane, broadcast)):
                if not entry.startswith(_WAITS):
                    return True
        return False
