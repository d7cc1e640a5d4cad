"""Doubts: recipients whose answer was lost and whom no receipt settled, and messages set aside.

Both wait for an operator, who lists them and settles them in bulk by a decision.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from producers.broadcasts.status import Register
from producers.errors import InvalidInputError
from producers.settings import Settings
from producers.store import Client, keys, scripts
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


class Doubts:
    """Lists what is in doubt or was set aside, and settles it. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._register = Register(client, settings)
        self._resolve = client.register_script(scripts.source(__package__, "resolve"))
        self._aside = client.register_script(scripts.source(__package__, "aside"))

    def of(self, broadcast: str) -> Iterator[Doubt]:
        """Yield the recipients in doubt, in bounded memory.

        Raises:
            NotFoundError: no such broadcast.
        """
        self._register.spec(broadcast)
        for lane in range(self._settings.lanes):
            for item, value in self._scan(lane, broadcast):
                since, until, member = value.split(" ", 2)
                yield Doubt(item.partition(":")[2], member[0], int(since), int(until))

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
        for lane in range(self._settings.lanes):
            items = [item for item, _ in self._scan(lane, broadcast)]
            for start in range(0, len(items), 500):
                args = [
                    keys.lane_prefix(lane),
                    broadcast,
                    outcome,
                    *items[start : start + 500],
                ]
                moved += self._resolve(
                    keys=[keys.lane_broadcast(lane, broadcast), keys.doubts(lane, broadcast)],
                    args=args,
                )
        return moved

    def _scan(self, lane: int, broadcast: str) -> Iterator[tuple[str, str]]:
        yield from self._client.hscan_iter(keys.doubts(lane, broadcast), count=500)

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
        spec = self._register.spec(broadcast)
        found = 0
        for lane in range(self._settings.lanes):
            script_keys = [
                keys.lane_broadcast(lane, broadcast),
                keys.flight(lane, broadcast),
                keys.queue(lane, broadcast),
                keys.sending(lane, spec.app),
                keys.stock(lane, spec.app),
                keys.ledger(lane, spec.app),
            ]
            args = [
                "",
                "",
                broadcast,
                keys.lane_prefix(lane),
                spec.app,
                self._register.ttl_ms,
                "replay" if replay else "doubt",
            ]
            cursor = ""
            while cursor != "0":
                cursor, some = self._aside(keys=script_keys, args=[*args, cursor or "0"])
                found += some
        return found
