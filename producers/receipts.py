"""Receipts and doubts: WeChat's final word on a send, and what stays without one.

`subscribe_msg_sent_event` says what became of an accepted subscribe message. It is matched by msgid
before anything else; one whose msgid no answer gave goes to the nearest doubt by openid, template
and time within the POST's interval, unless another message could be meant. An outcome moves at most
once by receipt: in_doubt to delivered or failed, delivered to failed. Receipts may come before the
answer, twice, or in disorder; one that finds no recipient yet is kept for a day.

What no receipt settles can be listed, and settled in bulk by an operator's decision.

Source of the event: WeChat docs, subscribe-message, subscribe_msg_sent_event.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from producers import keys, logs, scripts
from producers.broadcasts import Broadcasts
from producers.errors import InvalidInputError, NotFoundError
from producers.events import ReceiptSettled
from producers.retry import repeat
from producers.settings import Settings
from producers.store import Client
from producers.words import Channel, Outcome

_LISTED: Final = 500
"""Newest broadcasts of an app, carriers of single messages too, that are looked at, …"""
_CANDIDATES: Final = 50
"""… and of the receipt's template among them, in which its recipient is looked for."""

_REMEMBERED: Final = 5000


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


class Receipts:
    """Settles by receipt, and by decision. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._broadcasts = Broadcasts(client, settings)
        self._receipt = client.register_script(scripts.source("producers", "receipt"))
        self._resolve = client.register_script(scripts.source("producers", "resolve"))
        self._aside = client.register_script(scripts.source("producers", "aside"))
        self._known: dict[str, tuple[str, str]] = {}

    def settle(
        self,
        app: str,
        openid: str,
        template_id: str,
        *,
        msgid: str,
        errcode: int,
        status: str = "",
        at_ms: int,
    ) -> str:
        """Settle one send by its receipt.

        Args:
            app: alias of the app.
            openid: FromUserName of the event.
            template_id: TemplateId.
            msgid: MsgID, '' if it is none.
            errcode: ErrorCode; 0 is success, any other a failure.
            status: ErrorStatus, for the log.
            at_ms: CreateTime, in ms.

        Returns:
            delivered or failed (an outcome moved), confirmed (nothing to change) or kept (for a
            recipient that is not known yet).

        Raises:
            UnknownAppError: no such app.
            StoreUnavailableError: Redis did not answer; the same receipt again is harmless.
        """
        self._settings.app(app)
        bucket = keys.bucket_of(openid, self._settings.buckets)
        lane = bucket % self._settings.lanes
        candidates = self._candidates(app, template_id)
        args = [
            "",
            "",
            keys.lane_prefix(lane),
            f"{bucket}:{openid}",
            template_id,
            msgid,
            errcode,
            at_ms,
            self._broadcasts.ttl_ms,
            *candidates,
        ]
        broadcast, result = repeat(
            "settling a receipt",
            lambda: self._receipt(keys=[keys.receipts(lane, app, openid)], args=args),
        )
        logs.emit(
            ReceiptSettled(app, broadcast, openid, template_id, msgid, errcode, status, result)
        )
        return str(result)

    def is_sent(self, app: str, template_id: str) -> bool:
        """Say whether one of the app's newest broadcasts sends this template.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        return bool(self._candidates(app, template_id))

    def _candidates(self, app: str, template_id: str) -> list[str]:
        """Return the app's newest subscribe broadcasts of this template."""
        found = []
        for broadcast in self._broadcasts.latest(app, _LISTED):
            if broadcast not in self._known:
                try:
                    spec = self._broadcasts.spec(broadcast)
                except NotFoundError:
                    continue
                if len(self._known) >= _REMEMBERED:
                    self._known.clear()
                self._known[broadcast] = (spec.channel, spec.template_id)
            if self._known[broadcast] == (Channel.SUBSCRIBE, template_id):
                found.append(broadcast)
                if len(found) == _CANDIDATES:
                    break
        return found

    # -- what stays in doubt ----------------------------------------------------------------

    def doubts(self, broadcast: str) -> Iterator[Doubt]:
        """Yield the recipients in doubt, in bounded memory.

        Raises:
            NotFoundError: no such broadcast.
        """
        self._broadcasts.spec(broadcast)
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
        self._broadcasts.spec(broadcast)
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

    # -- what was set aside -----------------------------------------------------------------

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
        spec = self._broadcasts.spec(broadcast)
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
                self._broadcasts.ttl_ms,
                "replay" if replay else "doubt",
            ]
            cursor = ""
            while cursor != "0":
                cursor, some = self._aside(keys=script_keys, args=[*args, cursor or "0"])
                found += some
        return found
