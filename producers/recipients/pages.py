"""Recipients: who got which outcome, page by page, and in constant memory for exports.

Outcomes are read bucket by bucket, in a fixed order. What the pages promise, also while the
broadcast runs: a recipient whose outcome was recorded before the first page comes at least once,
with the outcome of that moment (a receipt may move it later), and twice only if a bucket of more
than some hundred recipients grew meanwhile. One whose outcome is recorded while the pages are
turned may come or not. Of an ended broadcast everybody comes exactly once.

``queued`` and ``in_flight`` are looks at what moves: such a page shows who was there at that
moment. Recipients who were cancelled or late are counted, not recorded one by one; nobody can list
them. A user who was forgotten stays as a name that begins with ``~``.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from producers.broadcasts.outcomes import Recorded
from producers.broadcasts.status import Register
from producers.errors import InvalidInputError
from producers.settings import Settings
from producers.store import Client, keys
from producers.store.buckets import next_recipient_buckets
from producers.store.lanes.following import steady
from producers.store.retry import repeat, repeat_all
from producers.words import Outcome

QUEUED: Final = "queued"
"""Waits in a queue or for its delay."""
IN_FLIGHT: Final = "in_flight"
"""May have been posted, and is not answered yet; or set aside for an operator."""

MOST: Final = 10_000
"""Recipients on one page."""

_COUNTED: Final = frozenset({Outcome.CANCELLED, Outcome.LATE})
_LISTABLE: Final = (*(one for one in Outcome if one not in _COUNTED), QUEUED, IN_FLIGHT)

_BUCKETS: Final = 512
"""Buckets read for one page at the most; a rare outcome's page may be empty, and not the last."""
_TRIP: Final = 64
"""Buckets read in one trip, at the most: as many as give the rows that are still wanted."""
_LANES: Final = 64
"""Looks into a lane for one page of those who move, at the most."""
_IN_A_BUCKET: Final = 64
"""Recipients of a bucket, as long as none was read (see `Settings.buckets`)."""

_CURSOR: Final = re.compile(r"([0-9]{1,4})\.([0-9]{1,8})\.([0-9]{1,18})")
"""Lane, place, scan; none beyond the integers that Redis takes."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """One recipient.

    Attributes:
        openid: who; ``~…`` when forgotten.
        outcome: the outcome, or ``queued`` or ``in_flight``.
        errcode: WeChat's code; 0 when none belongs to it.
        msgid: while it is kept (one day), else ''.
        settled_by: ``answer``, ``receipt`` or ``operator``; '' while there is no outcome.
    """

    openid: str
    outcome: str
    errcode: int = 0
    msgid: str = ""
    settled_by: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the recipient as JSON-ready fields."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of recipients.

    Attributes:
        rows: the recipients. Buckets are given whole, so there may be some more than asked for;
            there may be fewer, or none, on a page that is not the last.
        cursor: of the next page; '' when this is the last.
    """

    rows: list[Recipient]
    cursor: str

    def as_dict(self) -> dict[str, Any]:
        """Return the page as JSON-ready fields."""
        return {"recipients": [row.as_dict() for row in self.rows], "cursor": self.cursor}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the next page begins: in a bucket and its scan, or in a list of what moves."""

    lane: int
    at: int = 0
    scan: int = 0

    def __str__(self) -> str:
        return f"{self.lane}.{self.at}.{self.scan}"


class Recipients:
    """The recipients of every broadcast. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._register = Register(client, settings)

    @steady
    def page(
        self, broadcast: str, outcome: str | None = None, cursor: str = "", limit: int = 1000
    ) -> Page:
        """Return one page of a broadcast's recipients; its work is bounded.

        Args:
            broadcast: its id.
            outcome: of this outcome alone; or ``queued`` or ``in_flight``; None: everyone who
                has an outcome.
            cursor: of the page before, of the same broadcast and outcome; '' for the first.
            limit: how many are wanted, 1 to 10,000; see `Page`.

        Raises:
            NotFoundError: no such broadcast.
            InvalidInputError: the outcome, the cursor or the limit is none.
            StoreUnavailableError: Redis did not answer.
        """
        place = self._checked(outcome, cursor, limit)
        self._register.spec(broadcast)
        if outcome in {QUEUED, IN_FLIGHT}:
            return self._moving(broadcast, str(outcome), place, limit)
        return self._settled(broadcast, outcome, place, limit)

    def iterate(self, broadcast: str, outcome: str | None = None) -> Iterator[Recipient]:
        """Yield the recipients of a broadcast, in constant memory; as `page`.

        Raises:
            NotFoundError, InvalidInputError, StoreUnavailableError: as `page`, when first asked.
        """
        cursor = ""
        while True:
            page = self.page(broadcast, outcome, cursor)
            yield from page.rows
            cursor = page.cursor
            if not cursor:
                return

    def _checked(self, outcome: str | None, cursor: str, limit: int) -> _Place:
        faults = []
        if outcome in _COUNTED:
            faults.append(
                f"outcome {outcome}: such recipients are counted (see the status), "
                "not recorded one by one"
            )
        elif outcome is not None and outcome not in _LISTABLE:
            faults.append(f"outcome {outcome!r}: take one of {', '.join(_LISTABLE)}")
        if not 1 <= limit <= MOST:
            faults.append(f"limit {limit}: 1 to {MOST:,}")
        found = _CURSOR.fullmatch(cursor) if cursor else None
        layout = self._settings.layout
        try:
            place = _Place(*map(int, found.groups())) if found else _Place(layout.lanes[0])
            if place.lane not in layout.lanes:  # it was divided since: a scan is of one key
                layout.heir(place.lane)
                place = _Place(place.lane, place.at)
        except ValueError:
            found = None
        if cursor and found is None:
            faults.append("cursor: give the one that the page before ended with")
        if faults:
            raise InvalidInputError(faults)
        return place

    # -- who has an outcome -----------------------------------------------------------------

    def _settled(self, broadcast: str, outcome: str | None, place: _Place, limit: int) -> Page:
        rows: list[Recipient] = []
        read, trip = 0, math.ceil(limit / _IN_A_BUCKET)
        lane, scan = place.lane, place.scan
        buckets = self._next_buckets(lane, broadcast, place.at)
        while True:
            while not buckets:
                following = self._after(lane)
                if following is None:
                    return Page(rows, "")
                lane = following
                buckets, scan = self._next_buckets(lane, broadcast), 0
            if read >= _BUCKETS or len(rows) >= limit:
                return Page(rows, str(_Place(lane, buckets[0], scan)))
            if scan and place.at != buckets[0]:
                scan = 0  # that bucket is no longer there
            some = buckets[: 1 if scan else min(trip, _TRIP)]
            done, scan, found = self._read(broadcast, some, scan, outcome, limit - len(rows))
            place = _Place(lane, some[done] if done < len(some) else 0, scan)
            rows += found
            read += max(1, done)
            left = limit - len(rows)
            trip = max(1, math.ceil(left * read / len(rows))) if rows else _TRIP
            buckets = buckets[done:] or self._next_buckets(lane, broadcast, some[-1] + 1)

    def _heirs(self, lane: int) -> list[int]:
        """Return a lane, or those that it was divided into since a page ended in it."""
        layout = self._settings.layout
        if lane in layout.lanes:
            return [lane]
        return [one for one in layout.lanes if lane in layout.ancestors(one)]

    def _after(self, lane: int) -> int | None:
        """Return the lane that follows one, and all that it was divided into."""
        return self._settings.layout.after(self._heirs(lane)[-1])

    def _next_buckets(self, lane: int, broadcast: str, cursor: int = 0) -> list[int]:
        """Return some buckets of a lane from one on, ascending; none when there are no more."""
        found = [
            next_recipient_buckets(self._client, one, broadcast, cursor)
            for one in self._heirs(lane)
        ]
        whole = min((some[-1] for some in found if some), default=0)  # beyond it one has more
        return sorted(bucket for some in found for bucket in some if bucket <= whole)

    def _read(
        self,
        broadcast: str,
        buckets: list[int],
        scan: int,
        outcome: str | None,
        wanted: int,
    ) -> tuple[int, int, list[Recipient]]:
        """Read buckets until there are enough rows.

        Returns:
            How many buckets are done, the scan of the one that follows (0: not begun), the rows.
        """
        layout = self._settings.layout

        def ask(pipeline: Any) -> None:
            for bucket in buckets:
                key = keys.outcomes(layout.of_number(bucket), broadcast, bucket)
                pipeline.hscan(key, scan, count=max(wanted, 100))

        answers = repeat_all("reading recipients", self._client, ask)
        chosen: list[tuple[int, list[tuple[str, Recorded]]]] = []
        found = done = following = 0
        for bucket, (following, values) in zip(buckets, answers, strict=True):
            mine = [(openid, Recorded.read(value)) for openid, value in values.items()]
            if outcome is not None:
                mine = [one for one in mine if one[1].outcome == outcome]
            if mine:
                chosen.append((bucket, mine))
                found += len(mine)
            if following:
                break
            done += 1
            if found >= wanted:
                break
        return done, int(following), self._with_msgids(broadcast, chosen)

    def _with_msgids(
        self, broadcast: str, chosen: list[tuple[int, list[tuple[str, Recorded]]]]
    ) -> list[Recipient]:
        layout = self._settings.layout

        def ask(pipeline: Any) -> None:
            for bucket, mine in chosen:
                key = keys.msgids(layout.of_number(bucket), broadcast, bucket)
                pipeline.hmget(key, [openid for openid, _ in mine])

        msgids = repeat_all("reading msgids", self._client, ask) if chosen else []
        return [
            Recipient(openid, one.outcome, one.errcode, msgid or "", one.settled_by)
            for (_, mine), known in zip(chosen, msgids, strict=True)
            for (openid, one), msgid in zip(mine, known, strict=True)
        ]

    # -- who moves --------------------------------------------------------------------------

    def _moving(self, broadcast: str, state: str, place: _Place, limit: int) -> Page:
        read = self._queued if state == QUEUED else self._in_flight
        rows: list[Recipient] = []
        heirs = self._heirs(place.lane)
        following: _Place | None = place if heirs == [place.lane] else _Place(heirs[0])
        for _ in range(_LANES):
            if following is None or len(rows) >= limit:
                break
            lane = following.lane
            items, following = read(broadcast, following, limit - len(rows))
            rows += [Recipient(item.partition(":")[2], state) for item in items]
            after = self._settings.layout.after(lane)
            if following is None and after is not None:
                following = _Place(after)
        return Page(rows, str(following) if following else "")

    def _queued(self, broadcast: str, place: _Place, limit: int) -> tuple[list[str], _Place | None]:
        """Return what waits: first (0) the queue from a place on, then (1) the delayed ones."""
        first, last = place.scan, place.scan + limit - 1
        if place.at == 0:
            key = keys.queue(place.lane, broadcast)
            items = repeat("reading the queue", lambda: self._client.lrange(key, first, last))
            more = len(items) == limit
            return items, _Place(place.lane, 0, last + 1) if more else _Place(place.lane, 1)
        key = keys.delayed(place.lane, broadcast)
        items = repeat("reading the delayed", lambda: self._client.zrange(key, first, last))
        return items, _Place(place.lane, 1, last + 1) if len(items) == limit else None

    def _in_flight(
        self, broadcast: str, place: _Place, limit: int
    ) -> tuple[list[str], _Place | None]:
        key = keys.flight(place.lane, broadcast)
        following, entries = repeat(
            "reading what is in flight",
            lambda: self._client.hscan(key, place.scan, count=limit),
        )
        # a resumed one that waits is queued or delayed
        items = [item for item, entry in entries.items() if not entry.startswith("- ")]
        return items, _Place(place.lane, 0, int(following)) if following else None
