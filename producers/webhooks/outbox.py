"""The outbox: events that wait to be posted, given out under leases, oldest first of a broadcast.

Kept in Redis, each in the lane of what it tells of. Whoever dies with an event in hand leaves it to
the end of its lease, after which it is given out again: an event is posted at least once.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import redis

from producers.settings import Settings
from producers.store import Client, keys
from producers.store.lanes.reach import is_split, learn
from producers.store.scripts import Script
from producers.webhooks.events import Event


class Letter(NamedTuple):
    """An event that is given out.

    Attributes:
        event: what is told.
        lease_end_ms: until then it is nobody else's, by Redis's clock.
        attempts: posted so often before.
        taken_at_ms: when it was given out, by Redis's clock.
    """

    event: Event
    lease_end_ms: int
    attempts: int
    taken_at_ms: int


class DueKeys(NamedTuple):
    """KEYS of each script here."""

    due: str


class TakeArgs(NamedTuple):
    """ARGV of outbox_take.lua; apps and their places follow."""

    prefix: str
    lease_ms: int
    most: int


class DoneArgs(NamedTuple):
    """ARGV of outbox_done.lua."""

    prefix: str
    app: str
    event: str
    lease_end_ms: int
    verdict: str
    delay_ms: int
    attempts: int
    why: str


TAKE: Final = Script(__package__, "outbox_take", DueKeys, TakeArgs, clock=True)
DONE: Final = Script(__package__, "outbox_done", DueKeys, DoneArgs, clock=True)


class Outbox:
    """Gives events out; belongs to one event loop.

    Args:
        client: Redis, for the loop.
        settings: which lanes there are.
        places: app → how many of its events may be out at once, in each lane.
        lease_ms: longer than posting one takes.

    Attributes:
        places: as given, in pairs; others may be put in their place.
    """

    def __init__(
        self, client: Client, settings: Settings, places: dict[str, int], lease_ms: int
    ) -> None:
        self._client = client
        self._settings = settings
        self._take, self._done = TAKE.on(client), DONE.on(client)
        self.places = [*places.items()]
        self._lease_ms = lease_ms
        self._turn = 0

    async def lanes(self, lanes: Sequence[int]) -> list[int]:
        """Return those of some lanes in which anything waits; one call where nothing does.

        Raises:
            redis.RedisError: Redis did not answer.
        """
        names = [keys.hooks_due(lane) for lane in lanes]
        if len(names) > 1 and not is_split(self._client):
            try:
                return [*lanes] if await self._client.exists(*names) else []
            except redis.ResponseError as error:
                if not learn(self._client, error):
                    raise
        return [*lanes]

    async def take(self, lane: int, most: int) -> list[Letter]:
        """Return events to post; each app in its turn is asked first.

        Raises:
            redis.RedisError: Redis did not answer; what was given out comes again.
        """
        if not self.places:
            return []
        self._turn += 1
        turn = self._turn % len(self.places)
        more = [value for one in (*self.places[turn:], *self.places[:turn]) for value in one]
        args = TakeArgs(keys.lane_prefix(lane), self._lease_ms, most)
        number = self._settings.layout.number_of(lane)
        now_ms, *rows = await self._take(DueKeys(keys.hooks_due(lane)), args, more)
        return [
            Letter(
                Event.read(app, lane, number, name, text),
                int(lease_end_ms),
                _attempts(tried),
                int(now_ms),
            )
            for app, name, lease_end_ms, tried, text in zip(*[iter(rows)] * 5, strict=True)
        ]

    async def delivered(self, letter: Letter) -> None:
        """An event arrived. Raises as `take`; the same call again changes nothing."""
        await self._end(letter, "delivered")

    async def failed(self, letter: Letter, why: str, delay_ms: int) -> None:
        """An event waits, and holds back those after it; as `delivered`."""
        await self._end(letter, "again", delay_ms, why)

    async def died(self, letter: Letter, why: str) -> None:
        """An event is given up: a dead letter; as `delivered`."""
        await self._end(letter, "dead", 0, why)

    async def _end(self, letter: Letter, verdict: str, delay_ms: int = 0, why: str = "") -> Any:
        event = letter.event
        args = DoneArgs(
            prefix=keys.lane_prefix(event.lane),
            app=event.app,
            event=event.name,
            lease_end_ms=letter.lease_end_ms,
            verdict=verdict,
            delay_ms=delay_ms,
            attempts=letter.attempts + 1,
            why=why,
        )
        return await self._done(DueKeys(keys.hooks_due(event.lane)), args)


def _attempts(tried: str) -> int:
    number = tried.partition(" ")[0]
    return int(number) if number.isdecimal() else 0
