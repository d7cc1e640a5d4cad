"""Pushes as WeChat would make them, written by the sandbox, and what they leave behind."""

import random
import time
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from producers.callbacks import Callbacks
from producers.sandbox import Callback
from producers.sandbox.pushes.events import Event, write_push
from producers.settings import Settings
from producers.store import keys

APPID = "wx0000000000000001"
TOKEN = "callbacktoken"
AES_KEY = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
POPUP, CHANGE, SENT = (
    "subscribe_msg_popup_event",
    "subscribe_msg_change_event",
    "subscribe_msg_sent_event",
)
NOW_S = int(time.time())
"""When the run began: recent by any clock of this machine."""

Request = tuple[dict[str, str], bytes]


def choice(status: str, template: str = "T") -> dict[str, str]:
    return {"TemplateId": template, "SubscribeStatusString": status, "PopupScene": "0"}


def sent(msgid: str = "17", code: str = "0", template: str = "T") -> dict[str, str]:
    status = "success" if code == "0" else "failed"
    return {"TemplateId": template, "MsgID": msgid, "ErrorCode": code, "ErrorStatus": status}


def push(
    name: str,
    *items: dict[str, str],
    openid: str = "oAnna",
    at_s: float | None = None,
    mode: str = "plain",
    style: str = "json",
    signed_s: float | None = None,
    nonce: int = 0,
    **more: Any,
) -> Request:
    """Return query and body of one push."""
    fields = {"url": "http://h/", "token": TOKEN, "encoding_aes_key": AES_KEY, **more}
    appid = fields.pop("appid", APPID)
    callback = Callback.model_validate({**fields, "mode": mode, "format": style})
    event = Event(appid, openid, name, items, NOW_S if at_s is None else at_s)
    rng = random.Random(nonce or random.random())
    written = write_push(callback, event, time.time() if signed_s is None else signed_s, rng)
    return dict(parse_qsl(urlsplit(written.url).query, strict_parsing=True)), written.body


class Desk:
    """The callbacks of the app `shop`, and what its users have."""

    def __init__(self, client: Any, settings: Settings) -> None:
        self.client, self.settings = client, settings
        self.callbacks = Callbacks(client, settings)

    def take(self, *requests: Request) -> None:
        """Receive pushes, and act on them."""
        for query, body in requests:
            self.callbacks.receive("shop", query, body)
        self.callbacks.work("shop")

    def subs(self, openid: str = "oAnna") -> dict[str, str]:
        lane, _, _ = keys.place_of(openid, self.settings)
        return self.client.hgetall(keys.subscriptions(lane, "shop", openid))

    def marks(self, openid: str = "oAnna") -> dict[str, str]:
        lane = keys.place_of(openid, self.settings)[0]
        return self.client.hgetall(keys.marks(lane, "shop", openid))

    def count(self, template: str = "T", openid: str = "oAnna") -> int:
        return int(self.subs(openid).get(template, 0))

    def counts(self) -> dict[str, str]:
        return self.client.hgetall(keys.inbox_counts("shop"))
