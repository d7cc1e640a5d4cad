"""Posting marks: what Redis knows of a claim before it is posted, so that recovery can tell.

A form_id is repeated after its worker died, for WeChat takes it once; a prepay_id or a subscription
must not be, and its recipient is in doubt. So that only those are in doubt who may have been posted
to, such a claim is marked in its flight entry (posting.lua) just before its POST: as late as its
slot and a free poster allow, many at a time. What is found unmarked was surely never sent.

If the worker dies after the mark and before the POST, the recipient is in doubt though nothing was
sent; few are, for few are marked ahead. A claim that is no longer this worker's is not posted; nor
is one whose lane is being divided just now.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import redis

from producers import logs
from producers.logs.events import StoreUnreachable
from producers.store import Client, keys
from producers.store.lanes.fence import is_refusal
from producers.store.retry import LOST
from producers.store.scripts import Script
from workers.limits.hours import SLOT_LIFE_S
from workers.sending.claim import Claim
from workers.sending.heirs import Heirs
from workers.sending.lines import Line, Lines
from workers.wechat.envelope import Envelope


class PostingKeys(NamedTuple):
    """KEYS of posting.lua: the flights, of broadcasts of one lane, alone."""


class PostingArgs(NamedTuple):
    """ARGV of posting.lua; per flight one more."""

    worker: str


POSTING: Final = Script(__package__, "posting", PostingKeys, PostingArgs)

Pair = tuple[Claim, Envelope]

SPARE: Final = 32
"""Marked beyond the posters that are free, so that none waits for a mark."""

_MOST: Final = 256
_LINGER_S: Final = 0.004
"""Claims whose slots lie so near each other are marked together."""

_LEAD_S: Final = 0.004
_SPARE_S: Final = 0.002
_LONGEST_LEAD_S: Final = 0.2
"""Marked no earlier than this before its slot: whoever is marked and not posted ends in doubt."""


def needs_mark(claim: Claim) -> bool:
    """Say whether a repeat of the claim's POST could deliver it twice."""
    return claim.member[0] != "f"


def _claim_of(pair: Pair) -> Claim:
    return pair[0]


class Marker:
    """Marks claims for one worker; belongs to one event loop.

    Args:
        client: Redis.
        worker: this worker's id.
        heirs: knows where claims lie.
        room: how many more may be marked now; `freed` tells that there is some again.
        marked: given each claim that may be posted at its slot.
        refused: given those that must not be posted.
    """

    def __init__(
        self,
        client: Client,
        worker: str,
        heirs: Heirs,
        room: Callable[[], int],
        marked: Callable[[Claim, Envelope], None],
        refused: Callable[[list[Claim]], None],
    ) -> None:
        self._script = POSTING.on(client)
        self._worker = worker
        self._heirs = heirs
        self._room = room
        self._marked = marked
        self._refused = refused
        self._lines: Lines[int, Pair] = Lines(self._run)
        self._took_s = 0.0
        self._space = asyncio.Event()
        self.starved = False
        """Whether claims wait for room."""

    @property
    def lead_s(self) -> float:
        """How long before its slot a claim is to be put here."""
        # half as long again as a mark takes: one that comes late costs its claim the slot
        return min(_LONGEST_LEAD_S, _LEAD_S + _LINGER_S + 1.5 * self._took_s)

    @property
    def wait_s(self) -> float:
        """How far ahead a slot must lie at least, so that a claim is marked before it is void."""
        return min(_LONGEST_LEAD_S, max(0.0, 1.5 * self._took_s + _SPARE_S - SLOT_LIFE_S))

    def put(self, claim: Claim, envelope: Envelope) -> None:
        """Take one claim to mark."""
        self._lines.put(claim.lane, (claim, envelope))

    def freed(self) -> None:
        """There is room again."""
        self.starved = False
        self._space.set()

    def drain(self) -> list[Claim]:
        """Return what waits, and forget it."""
        claims = [claim for line in self._lines for claim, _ in line.items]
        for line in self._lines:
            line.items.clear()
        return claims

    async def close(self) -> None:
        """Stop."""
        await self._lines.close()

    async def _run(self, lane: int, line: Line[Pair]) -> None:
        while True:
            if not await line.wait():
                return
            if 0 < len(line.items) < SPARE and line.items[-1][0].slot_at > time.monotonic():
                await asyncio.sleep(_LINGER_S)  # others have their slots soon
            room = min(_MOST, len(line.items), self._room())
            if room <= 0 and line.items:
                self.starved = True
                self._space.clear()
                await self._space.wait()
                continue
            batch = line.pop(room)
            for where, some in self._heirs.parted(lane, batch, _claim_of).items():
                await self._mark(where, some)

    async def _mark(self, lane: int, batch: list[Pair]) -> None:
        rows: dict[str, list[str]] = {}
        for claim, _ in batch:
            rows.setdefault(claim.broadcast, []).append(f"{claim.item} {claim.fence}")
        flights = [keys.flight(lane, broadcast) for broadcast in rows]
        started = time.monotonic()
        try:
            marks = self._script(
                PostingKeys(),
                PostingArgs(self._worker),
                map(" ".join, rows.values()),
                more_keys=flights,
            )
            refused = set(await marks)
        except (*LOST, redis.ResponseError) as error:
            # perhaps marked, surely not posted: back to the queue, once Redis answers
            if not is_refusal(error):
                logs.emit(StoreUnreachable("marking", type(error).__name__, 1))
            self._refused([claim for claim, _ in batch])
            return
        took_s = time.monotonic() - started
        known_s = self._took_s or took_s
        self._took_s = known_s + (took_s - known_s) / 8  # smoothed, as TCP does its round trips
        for claim, envelope in batch:
            if claim.fence in refused:
                self._refused([claim])
            else:
                self._marked(claim, envelope)
