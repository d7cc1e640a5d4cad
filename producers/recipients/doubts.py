"""Doubts: recipients whose answer was lost and whom no receipt settled, and messages set aside.

Both wait for an operator, who lists them and settles them in bulk by a decision.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from producers.broadcasts.status import Register
from producers.errors import InvalidInputError
from producers.settings import Settings
from producers.store import Client, keys
from producers.store.lanes.following import Watch, each_lane
from producers.store.paging import pages
from producers.store.retry import repeat
from producers.store.scripts import Script
from producers.words import Outcome


@dataclass(frozen=True, slots=True)
class Doubt:
    """A recipient in doubt.

    Attributes:
        openid: the recipient.
        kind: letter of the permit: f, p or s.
        since_ms, until_ms: the attempt lay between them (server epoch ms).
    """

    openid: str
    kind: str
    since_ms: int
    until_ms: int

    def as_dict(self) -> dict[str, Any]:
        """Return the doubt as JSON-ready fields."""
        return {name: getattr(self, name) for name in self.__slots__}


class ResolveKeys(NamedTuple):
    """KEYS of resolve.lua."""

    lane: str
    doubts: str


class ResolveArgs(NamedTuple):
    """ARGV of resolve.lua."""

    prefix: str
    broadcast: str
    outcome: str


class AsideKeys(NamedTuple):
    """KEYS of aside.lua."""

    lane: str
    flight: str
    queue: str
    sending: str
    stock: str
    ledger: str

    @classmethod
    def of(cls, lane: int, app: str, broadcast: str) -> "AsideKeys":
        """Return those of a broadcast in a lane."""
        return cls(
            keys.lane_broadcast(lane, broadcast),
            keys.flight(lane, broadcast),
            keys.queue(lane, broadcast),
            keys.sending(lane, app),
            keys.stock(lane, app),
            keys.ledger(lane, app),
        )


class AsideArgs(NamedTuple):
    """ARGV of aside.lua."""

    broadcast: str
    prefix: str
    app: str
    ttl_ms: int
    verb: str
    cursor: str


RESOLVE: Final = Script(__package__, "resolve", ResolveKeys, ResolveArgs)
ASIDE: Final = Script(__package__, "aside", AsideKeys, AsideArgs, clock=True)


class Doubts:
    """Lists what is in doubt or was set aside, and settles it. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._register = Register(client, settings)
        self._resolve = RESOLVE.on(client)
        self._aside = ASIDE.on(client)

    def of(self, broadcast: str) -> Iterator[Doubt]:
        """Yield the recipients in doubt, in bounded memory.

        Raises:
            NotFoundError: no such broadcast.
            LaneDividedError: at the end: some may be missing; list them again.
        """
        self._register.spec(broadcast)
        watch = Watch(self._client, self._settings)
        for lane in watch.lanes:
            for item, value in self._scan(lane, broadcast):
                since, until, member = value.split(" ", 2)
                yield Doubt(item.partition(":")[2], member[0], int(since), int(until))
        watch.check("list them again")

    def decide(self, broadcast: str, outcome: str) -> int:
        """Settle all recipients in doubt by an operator's decision.

        Args:
            broadcast: its id.
            outcome: delivered or failed.

        Returns:
            How many moved.

        Raises:
            NotFoundError: no such broadcast.
            InvalidInputError: another outcome.
        """
        if outcome not in {Outcome.DELIVERED, Outcome.FAILED}:
            raise InvalidInputError([f"outcome {outcome!r}: take delivered or failed"])
        self._register.spec(broadcast)
        moved = 0

        def decide(lane: int) -> None:
            nonlocal moved
            items = [item for item, _ in self._scan(lane, broadcast)]
            script_keys = ResolveKeys(
                keys.lane_broadcast(lane, broadcast), keys.doubts(lane, broadcast)
            )
            args = ResolveArgs(keys.lane_prefix(lane), broadcast, outcome)
            for start in range(0, len(items), 500):
                moved += self._resolve.repeated(
                    "settling what is in doubt", script_keys, args, items[start : start + 500]
                )

        each_lane(self._client, self._settings, decide)
        return moved

    def _scan(self, lane: int, broadcast: str) -> Iterator[tuple[str, str]]:
        name = keys.doubts(lane, broadcast)

        def page(cursor: str) -> tuple[str, dict[str, str]]:
            following, some = repeat(
                "looking at what is in doubt",
                lambda: self._client.hscan(name, int(cursor), count=500),
            )
            return str(following), some

        for (some,) in pages(page):
            yield from some.items()

    def aside(self, broadcast: str, *, replay: bool) -> int:
        """Say what becomes of messages that were set aside.

        Args:
            broadcast: its id.
            replay: True: back to the queue, with the same form_id; False: in doubt.

        Returns:
            How many there were.

        Raises:
            NotFoundError: no such broadcast.
        """
        app = self._register.spec(broadcast).app
        verb = "replay" if replay else "doubt"
        found = 0

        def settle(lane: int) -> None:
            nonlocal found
            for some in self._aside_in(lane, app, broadcast, verb):
                found += some

        each_lane(self._client, self._settings, settle)
        return found

    def _aside_in(self, lane: int, app: str, broadcast: str, verb: str) -> Iterator[int]:
        """Yield how many there were, a page at a time."""
        script_keys = AsideKeys.of(lane, app, broadcast)
        first = AsideArgs(
            broadcast=broadcast,
            prefix=keys.lane_prefix(lane),
            app=app,
            ttl_ms=self._register.ttl_ms,
            verb=verb,
            cursor="0",
        )

        def page(cursor: str) -> Any:
            args = first._replace(cursor=cursor)
            return self._aside.repeated("settling what was set aside", script_keys, args)

        for (found,) in pages(page):
            yield int(found)
