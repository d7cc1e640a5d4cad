"""Effects: what a push does to permits and outcomes, once, however often it comes.

- popup, accept: one accept more, if the app's `subscription_source` is ``events`` (else the phone's
  own result counts it); its time and kind are its identity, so a push that comes again is known.
- popup or change, reject: accepts given until then are void; later ones stay, in whatever order
  the pushes come.
- change, anything else: nothing, WeChat pushes only withdrawals.
- sent: the receipt of one send.

A template is the app's own if its settings or WeChat's list of them have it, or one of its
broadcasts sends it; an event of another does nothing but leave a log line. Where the settings list
none, any is, as at the mini-program's door.
"""

from typing import Any

from producers import logs
from producers.callbacks.pushes import Happening, Item, Push
from producers.logs.events import PushActed, PushStrange
from producers.permits.collect import Collector
from producers.permits.refusals import Reason
from producers.recipients.receipts import Receipts
from producers.settings import Settings
from producers.store import Client
from producers.templates import Templates


class Effects:
    """Acts on pushes. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._settings = settings
        self._collector = Collector(client, settings)
        self._receipts = Receipts(client, settings)
        self._templates = Templates(client, settings)

    def act(self, app: str, push: Push, arrived_ms: int) -> None:
        """Act on one push.

        If the process dies in the middle, acting again does the rest and doubles nothing.

        Args:
            app: alias of the app.
            push: what happened.
            arrived_ms: when we were told; nothing happened later than that.

        Raises:
            UnknownAppError: no such app.
            StoreUnavailableError: Redis did not answer.
        """
        at_ms = min(push.created_s * 1000, arrived_ms)
        items = [item for item in push.items if self._is_own(app, push, item)]
        if push.event is Happening.SENT:
            for item in items:
                self._receipts.settle(
                    app,
                    push.openid,
                    item.template_id,
                    msgid=item.msgid,
                    errcode=item.errcode,
                    status=item.status,
                    at_ms=at_ms,
                )
            return
        if not items:
            return
        uploads = [_upload(push, item, at_ms) for item in items if _counts(push.event, item)]
        report = self._collector.collect(app, uploads, source="events")
        logs.emit(
            PushActed(
                app,
                push.event,
                push.openid,
                at_ms,
                len(items),
                report.new,
                report.known,
                report.refused[Reason.USER_REJECT],
            )
        )

    def _is_own(self, app: str, push: Push, item: Item) -> bool:
        """Say whether an item is about a template of the app; log one that is not."""
        settings = self._settings.app(app)
        listed = settings.subscribe_templates
        if not listed or item.template_id in {*listed, *settings.long_term_templates}:
            return True
        if self._receipts.is_sent(app, item.template_id):
            return True
        if item.template_id in self._templates.look(app).templates:
            return True
        logs.emit(PushStrange(app, push.event, push.openid, item.template_id))
        return False


def _counts(event: Happening, item: Item) -> bool:
    return event is Happening.POPUP or item.status == "reject"


def _upload(push: Push, item: Item, at_ms: int) -> dict[str, Any]:
    """Return a choice as an upload whose id is the same whenever the push comes again."""
    word = "accept" if item.status.startswith("accept") else item.status
    kind = "popup" if push.event is Happening.POPUP else "change"
    return {
        "openid": push.openid,
        "subscriptions": {item.template_id: word},
        "id": f"{kind}:{word}:{push.created_s}",
        "at": at_ms,
    }
