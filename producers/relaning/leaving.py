"""Leaving: what lies in lanes that were divided, and in those that are not there yet, goes."""

import tempfile
import time
from collections import deque
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple, Self

import orjson

from producers.relaning.carrying import Bearer
from producers.relaning.change import Change
from producers.relaning.looking import Looks
from producers.settings import Layout
from producers.store import Client, keys

COPIED: Final = "copied"
"""What `keys.shut` holds from when all of a lane was copied on: it may be opened, not copied anew,
for the new lanes may have gone on, though the node that was told of it has forgotten that."""
_READERS_S: Final = 3.0
"""Who only reads has looked anew after so long: it does so each second (`fence`)."""


class Names:
    """The names of a lane's keys, on the disk: there may be millions."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (see `close`)
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        self._file.seek(0)
        return map(orjson.loads, self._file)

    def add(self, names: Collection[str]) -> None:
        """Add some."""
        self._file.writelines(orjson.dumps(name) + b"\n" for name in names)
        self._count += len(names)

    def clear(self) -> None:
        """Forget them."""
        self._file.seek(0)
        self._file.truncate()
        self._count = 0

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


class _Left(NamedTuple):
    """What lies in a lane that was divided; from `at` on (monotonic s) nobody reads it."""

    names: Names
    at: float


class Leavings:
    """Takes away what was left behind.

    Args:
        client: Redis, not fenced.
        change: whose turn it is.
        looks: finds it.
        bearer: takes it away.
    """

    def __init__(self, client: Client, change: Change, looks: Looks, bearer: Bearer) -> None:
        self._client = client
        self._change = change
        self._looks = looks
        self._bearer = bearer
        self._left: deque[_Left] = deque()

    def add(self, names: Names) -> None:
        """Have what lay in a lane that was just opened taken away, once nobody reads it."""
        self._left.append(_Left(names, time.monotonic() + _READERS_S))

    def close(self) -> None:
        """Leave what is left to another run."""
        while self._left:
            self._left.popleft().names.close()

    def drop_left(self, most: int) -> None:
        """Take away what lay in lanes that were divided, once nobody reads it any more.

        Args:
            most: so many keys may stay, for now.
        """
        while self._left:
            first = self._left[0]
            wait_s = first.at - time.monotonic()
            if wait_s > 0 and sum(len(one.names) for one in self._left) <= most:
                return
            time.sleep(max(0.0, wait_s))
            self._change.hold_all()
            self._bearer.drop(first.names)
            self._left.popleft().names.close()

    def drop_old(self, layout: Layout) -> None:
        """Take away what a run left that was killed: all of lanes that were divided."""
        gone = set(range(layout.first + layout.divided))
        if not gone:
            return
        time.sleep(_READERS_S)
        for page in self._looks.pages(f"{keys.PREFIX}:{{[0-9]*"):
            self._change.hold()
            for lane in gone & {place.lane for place in page}:
                self._bearer.drop(
                    place.name for place in page if place.lane == lane and place.kind != "shut"
                )

    def drop_unborn(self, layout: Layout) -> None:
        """Take away what lies in lanes that are not there yet.

        A killed run left it, or, where Redis forgot lanes, a process that still knew of them. What
        was whole, and perhaps went on since, stays (`COPIED`).
        """
        left = range(layout.divided, layout.count)
        guards = self._looks.asked(
            left, lambda one, number: one.get(keys.shut(layout.first + number))
        )
        stay = {*layout.lanes}
        for number, guard in zip(left, guards, strict=True):
            stay.update(layout.children(number) if guard == COPIED else ())
        for page in self._looks.pages(f"{keys.PREFIX}:{{[0-9]*"):
            for lane in {place.lane for place in page} - stay:
                if lane >= layout.first + layout.count:
                    self._change.hold()
                    self._bearer.drop(place.name for place in page if place.lane == lane)
