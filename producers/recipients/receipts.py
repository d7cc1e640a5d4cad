"""Receipts: WeChat's final word on a send.

`subscribe_msg_sent_event` says what became of an accepted subscribe message. It is matched by msgid
before anything else; one whose msgid no answer gave settles a doubt by openid, template and time
within the POST's interval, unless another message of that user could be meant. An outcome moves at
most once by receipt: in_doubt to delivered or failed, delivered to failed. Receipts may come before
the answer, twice, or in disorder; one that finds no recipient yet is kept for a day.

What no receipt settles stays in doubt (`producers.recipients.doubts`).

Source of the event: WeChat docs, subscribe-message, subscribe_msg_sent_event.
"""

from typing import Final, NamedTuple

from producers import logs
from producers.broadcasts.status import Register
from producers.errors import NotFoundError
from producers.logs.events import ReceiptSettled
from producers.settings import Settings
from producers.store import Client, keys
from producers.store.lanes.following import following
from producers.store.scripts import Script
from producers.words import Channel

_LISTED: Final = 500
"""Newest broadcasts of an app, carriers of single messages too, that are looked at, …"""
_CANDIDATES: Final = 50
"""… and of the receipt's template among them, in which its recipient is looked for."""

_REMEMBERED: Final = 5000


class ReceiptKeys(NamedTuple):
    """KEYS of receipt.lua."""

    receipts: str


class ReceiptArgs(NamedTuple):
    """ARGV of receipt.lua."""

    prefix: str
    item: str
    template: str
    msgid: str
    errcode: int
    at_ms: int
    ttl_ms: int


RECEIPT: Final = Script(__package__, "receipt", ReceiptKeys, ReceiptArgs)


class Receipts:
    """Settles by receipt. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._register = Register(client, settings)
        self._receipt = RECEIPT.on(client)
        self._known: dict[str, tuple[str, str]] = {}

    @following
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
        lane, _, item = keys.place_of(openid, self._settings)
        candidates = self._candidates(app, template_id)
        args = ReceiptArgs(
            prefix=keys.lane_prefix(lane),
            item=item,
            template=template_id,
            msgid=msgid,
            errcode=errcode,
            at_ms=at_ms,
            ttl_ms=self._register.ttl_ms,
        )
        broadcast, result = self._receipt.repeated(
            "settling a receipt", ReceiptKeys(keys.receipts(lane, app, openid)), args, candidates
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
        for broadcast in self._register.latest(app, _LISTED):
            if broadcast not in self._known:
                try:
                    spec = self._register.spec(broadcast)
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
