"""Events pushed to the app's callback address.

After an accepted subscribe message WeChat pushes ``subscribe_msg_sent_event`` with the final word
on it; popup and change events are pushed on demand. An event that is not answered with 200 within
5 seconds is pushed again, three times at most (that a status other than 200 counts as no answer is
assumed). One item is an object, several are an array, and all numbers are texts, as in the samples.

Sources: https://developers.weixin.qq.com/miniprogram/dev/framework/server-ability/message-push.html,
https://developers.weixin.qq.com/miniprogram/dev/framework/open-ability/subscribe-message.html
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self
from urllib.parse import urlencode
from xml.sax.saxutils import escape

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator

from producers.sandbox.pushes.envelope import encrypt, sign

SENT: Final = "subscribe_msg_sent_event"
_WRAPPERS: Final = {
    SENT: "SubscribeMsgSentEvent",
    "subscribe_msg_popup_event": "SubscribeMsgPopupEvent",
    "subscribe_msg_change_event": "SubscribeMsgChangeEvent",
}


class PushMode(StrEnum):
    """How the body travels."""

    PLAIN = "plain"
    COMPATIBLE = "compatible"
    SECURE = "secure"


class PushFormat(StrEnum):
    """How the body is written."""

    JSON = "json"
    XML = "xml"


class ReceiptRule(BaseModel):
    """Which sent events report a failure; the first rule that matches decides."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    openid: str | None = None
    template_id: str | None = None
    probability: float = Field(default=1, ge=0, le=1)
    error_code: int
    error_status: str = "failed"

    def concerns(self, openid: str, template_id: str, rng: random.Random) -> bool:
        """Whether it decides on this send."""
        return (
            self.openid in (None, openid)
            and self.template_id in (None, template_id)
            and (self.probability >= 1 or rng.random() < self.probability)
        )


class Callback(BaseModel):
    """Where and how events are pushed.

    Attributes:
        url: the callback address.
        token: signs the pushes.
        mode: plain (default), compatible or secure.
        format: json (default) or xml.
        encoding_aes_key: 43 characters; needed unless plain.
        to_user: the account's ``gh_`` id.
        delay_ms: between a send's answer and its event (default 0).
        duplicates: further copies of each event (default 0).
        before_reply: push the event, wait for its answer, and only then answer the send.
        receipts: which sent events report a failure (default none).
        timeout_s: to wait for an answer (default 5, as WeChat).
        redeliveries: after the first try (default 3).
        redelivery_delay_ms: between tries (default 0: the timeout itself spaces them).
        queue: events waiting; further ones are dropped, and counted (default 10,000).
        concurrency: pushes at the same time (default 16).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(pattern=r"^https?://")
    token: str = Field(min_length=1)
    mode: PushMode = PushMode.PLAIN
    format: PushFormat = PushFormat.JSON
    encoding_aes_key: str | None = Field(default=None, pattern=r"^[A-Za-z0-9+/]{43}$")
    to_user: str = "gh_123456789abc"
    delay_ms: int = Field(default=0, ge=0)
    duplicates: int = Field(default=0, ge=0, le=10)
    before_reply: bool = False
    receipts: tuple[ReceiptRule, ...] = ()
    timeout_s: float = Field(default=5, gt=0)
    redeliveries: int = Field(default=3, ge=0, le=10)
    redelivery_delay_ms: int = Field(default=0, ge=0)
    queue: int = Field(default=10_000, ge=1)
    concurrency: int = Field(default=16, ge=1)

    @model_validator(mode="after")
    def _key_is_given(self) -> Self:
        if self.mode is not PushMode.PLAIN and self.encoding_aes_key is None:
            message = f"mode {self.mode} needs encoding_aes_key, 43 characters"
            raise ValueError(message)
        return self


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        appid: whose it is.
        openid: the user.
        name: ``subscribe_msg_sent_event`` and its like.
        items: its ``List``.
        at_s: epoch seconds.
    """

    appid: str
    openid: str
    name: str
    items: Sequence[Mapping[str, str]]
    at_s: float


def make_receipt(
    callback: Callback,
    *,
    appid: str,
    openid: str,
    template_id: str,
    msgid: int,
    at_s: float,
    rng: random.Random,
) -> Event:
    """Make the sent event of an accepted message."""
    rules = (rule for rule in callback.receipts if rule.concerns(openid, template_id, rng))
    rule = next(rules, None)
    item = {
        "TemplateId": template_id,
        "MsgID": str(msgid),
        "ErrorCode": str(rule.error_code) if rule else "0",
        "ErrorStatus": rule.error_status if rule else "success",
    }
    return Event(appid, openid, SENT, (item,), at_s)


@dataclass(frozen=True, slots=True)
class Push:
    """One HTTP request to the callback."""

    url: str
    content_type: str
    body: bytes


def write_push(callback: Callback, event: Event, at_s: float, rng: random.Random) -> Push:
    """Write an event as the request that carries it.

    Args:
        callback: where, and how signed and encrypted.
        event: what.
        at_s: epoch seconds of this try.
        rng: for the nonce and the random bytes.
    """
    timestamp, nonce = str(int(at_s)), str(rng.randrange(10**8, 10**9))
    query = {
        "signature": sign(callback.token, timestamp, nonce),
        "timestamp": timestamp,
        "nonce": nonce,
    }
    fields: dict[str, Any] = {"ToUserName": callback.to_user}
    clear = {
        **fields,
        "FromUserName": event.openid,
        "CreateTime": str(int(event.at_s)),
        "MsgType": "event",
        "Event": event.name,
    }
    if callback.format is PushFormat.JSON:
        items: Any = list(event.items) if len(event.items) != 1 else event.items[0]
        clear["List"] = items
    else:
        wrapper = _WRAPPERS.get(event.name, "List")
        clear[wrapper] = [{"List": item} for item in event.items]
    if callback.mode is PushMode.PLAIN or callback.encoding_aes_key is None:
        fields = clear
    else:
        message = _write(callback.format, clear)
        encrypted = encrypt(callback.encoding_aes_key, rng.randbytes(16), message, event.appid)
        query |= {
            "openid": event.openid,
            "encrypt_type": "aes",
            "msg_signature": sign(callback.token, timestamp, nonce, encrypted),
        }
        fields = clear if callback.mode is PushMode.COMPATIBLE else fields
        fields["Encrypt"] = encrypted
    joint = "&" if "?" in callback.url else "?"
    kind = "application/json" if callback.format is PushFormat.JSON else "text/xml"
    return Push(f"{callback.url}{joint}{urlencode(query)}", kind, _write(callback.format, fields))


def _write(style: PushFormat, fields: Mapping[str, Any]) -> bytes:
    if style is PushFormat.JSON:
        return orjson.dumps(fields)
    return f"<xml>{_xml(fields)}</xml>".encode()


def _xml(fields: Mapping[str, Any]) -> str:
    return "".join(f"<{name}>{_xml_value(value)}</{name}>" for name, value in fields.items())


def _xml_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return _xml(value)
    if isinstance(value, list):
        return "".join(_xml(item) for item in value)
    text = str(value)
    if text.lstrip("-").isdigit():
        return text
    return f"<![CDATA[{text}]]>" if "]]>" not in text else escape(text)
