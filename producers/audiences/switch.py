"""The switch: an audience's members become others, which were built beside, in one turn.

Each bucket changes at once, and nobody who stays is missing meanwhile. If the process dies before,
the audience is as it was, and what was built beside ends by itself after a day; if it dies in the
middle, some buckets are the new ones: replace it again.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from functools import partial
from typing import Final

from producers.audiences.batches import AudienceKeys
from producers.audiences.reports import ImportReport
from producers.errors import InvalidInputError, StoreUnavailableError
from producers.settings import Settings, ms
from producers.store import Client, deadline, keys
from producers.store.buckets import filled_buckets
from producers.store.lanes.following import each_lane
from producers.store.lanes.plain import PLAIN, PlainArgs, PlainKeys
from producers.store.retry import repeat
from producers.store.scripts import NoArgs, Script, new_token

_COMPARED: Final = 2000
"""Members per script run of a replacement, on average: half a millisecond."""
_BUCKETS: Final = 100
"""Buckets per step, at most."""
_BESIDE: Final = "~"
"""What the name of sets begins with that are built beside; no audience's does."""
BESIDE_LIFE: Final = timedelta(days=1)
_TURN: Final = timedelta(minutes=1)
"""How long one call may switch an audience without a word, and how long another one waits."""
_STEPS: Final = 500
"""Steps of a switch after which its turn is prolonged."""
_AGAIN_S: Final = 0.05

SWAP: Final = Script(__package__, "swap", AudienceKeys, NoArgs)


class Switch:
    """Switches audiences of every app. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._swap = SWAP.on(client)
        self._plain = PLAIN.on(client)

    def new_name(self) -> str:
        """Return a name of sets to be built beside; let them live for `BESIDE_LIFE`."""
        return _BESIDE + new_token()

    def make(self, app: str, name: str, beside: str, report: ImportReport) -> None:
        """Put what was built beside in the audience's place; the report says who is new.

        Raises:
            InvalidInputError: another call goes on replacing it.
            StoreUnavailableError: Redis did not answer.
        """
        with self._turn(app, name):
            self._swap_all(app, name, beside, report)

    def discard(self, app: str, beside: str) -> None:
        """Remove what is left of sets that were built beside.

        Raises:
            StoreUnavailableError: Redis did not answer; they end by themselves.
        """
        each_lane(self._client, self._settings, lambda lane: self._discard(lane, app, beside))

    @contextlib.contextmanager
    def _turn(self, app: str, name: str) -> Iterator[None]:
        """Wait until no other call switches this audience: the last one is to stand whole."""
        key, mine = keys.audience_turn(app, name), new_token()
        give_up_at = time.monotonic() + _TURN.total_seconds()
        take = partial(self._client.set, key, mine, nx=True, px=ms(_TURN), get=True)
        while repeat("replacing the audience", take) not in {None, mine}:
            left_s = deadline.left_s()
            if time.monotonic() > give_up_at or (left_s is not None and left_s < _AGAIN_S):
                raise InvalidInputError([f"audience {name!r} is being replaced by another call"])
            time.sleep(_AGAIN_S)
        try:
            yield
        finally:
            with contextlib.suppress(StoreUnavailableError):
                repeat("replacing the audience", lambda: self._client.delete(key))

    def _swap_all(self, app: str, name: str, beside: str, report: ImportReport) -> None:
        turn, switched = keys.audience_turn(app, name), set[int]()

        def swap(lane: int) -> None:
            built = set(filled_buckets(self._client, lane, app, beside))
            all_of_them = built.union(filled_buckets(self._client, lane, app, name))
            buckets = sorted(all_of_them - switched)  # in a lane that was divided since
            most = self._buckets_at_once(lane, app, (name, beside), len(buckets))
            for step, start in enumerate(deadline.paced(range(0, len(buckets), most))):
                sets: list[str] = []
                which: list[int] = []
                some = buckets[start : start + most]
                for bucket in some:
                    sets += (
                        keys.audience(lane, app, name, bucket),
                        keys.audience(lane, app, beside, bucket),
                    )
                    which += (bucket, int(bucket in built))
                added, removed = self._swap.repeated(
                    "replacing the audience",
                    AudienceKeys.of(lane, app, name),
                    NoArgs(),
                    which,
                    more_keys=sets,
                )
                switched.update(some)
                report.added += added
                report.removed += removed
                if step % _STEPS == 0:
                    repeat("replacing the audience", partial(self._client.pexpire, turn, ms(_TURN)))

        each_lane(self._client, self._settings, swap)
        report.known = report.rows - report.bad - report.added

    def _buckets_at_once(self, lane: int, app: str, names: Iterable[str], buckets: int) -> int:
        """Return how many buckets one step may compare: they hold some thousand members."""
        sizes = [keys.audience_size(lane, app, name) for name in names]
        found = repeat("replacing the audience", partial(self._client.mget, sizes))
        members = sum(int(size or 0) for size in found)
        return max(1, min(_BUCKETS, _COMPARED * buckets // max(1, members)))

    def _discard(self, lane: int, app: str, beside: str) -> None:
        """Remove what is left of sets that were built beside."""
        buckets = filled_buckets(self._client, lane, app, beside)
        gone = [keys.audience(lane, app, beside, bucket) for bucket in buckets]
        gone += [keys.audience_size(lane, app, beside), keys.audience_buckets(lane, app, beside)]
        for start in deadline.paced(range(0, len(gone), _BUCKETS)):
            some = gone[start : start + _BUCKETS]
            self._plain.repeated(
                "replacing the audience",
                PlainKeys(some[0]),
                PlainArgs("UNLINK"),
                more_keys=some[1:],
            )
