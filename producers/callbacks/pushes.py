"""What a push says: a genuine message read into a `Push`, or into nothing that concerns us.

Three events are acted on, of mini-programs and of official accounts alike. Their ``List`` is one
object or an array, at the top (JSON) or in a wrapper named after the event (XML); numbers may be
texts; a msgid is kept as its digits, exactly. A bad item never costs its siblings.

Source: https://developers.weixin.qq.com/miniprogram/dev/framework/open-ability/subscribe-message.html.
"""

import re
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

import orjson

from producers.errors import InvalidInputError
from producers.openid import OPENID, TEMPLATE_ID

MAX_ITEMS: Final = 100
"""Items of one push; a popup asks for five templates, a sent event reports one send."""

_WORD: Final = re.compile(r"[A-Za-z]{1,32}")
_MSGID: Final = re.compile(r"[\x21-\x7e]{1,64}")
_DIGITS: Final = re.compile(r"-?[0-9]{1,18}")
_SHOWN: Final = 64
_FAILED: Final = -1
"""What an ErrorCode that is no number is taken for: any code but 0 is a failure."""


class Happening(StrEnum):
    """The events that are acted on."""

    POPUP = "subscribe_msg_popup_event"
    CHANGE = "subscribe_msg_change_event"
    SENT = "subscribe_msg_sent_event"


_WRAPPERS: Final = {
    Happening.POPUP: "SubscribeMsgPopupEvent",
    Happening.CHANGE: "SubscribeMsgChangeEvent",
    Happening.SENT: "SubscribeMsgSentEvent",
}


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of a push's ``List``.

    Attributes:
        template_id: TemplateId.
        status: SubscribeStatusString (``accept``, ``reject``), or ErrorStatus.
        msgid: MsgID of a sent event, '' if it has none.
        errcode: ErrorCode of a sent event; 0 is success.
    """

    template_id: str
    status: str
    msgid: str = ""
    errcode: int = 0


@dataclass(frozen=True, slots=True)
class Push:
    """One event of one user.

    Attributes:
        event: what happened.
        openid: FromUserName.
        created_s: CreateTime, epoch seconds.
        items: the valid entries of its ``List``.
    """

    event: Happening
    openid: str
    created_s: int
    items: tuple[Item, ...]

    def packed(self) -> str:
        """Return the push as text, for the inbox."""
        return orjson.dumps(asdict(self)).decode()


def unpack(text: str) -> Push:
    """Read what `Push.packed` wrote.

    Raises:
        ValueError, KeyError, TypeError: something else wrote it.
    """
    fields = orjson.loads(text)
    items = tuple(Item(**item) for item in fields["items"])
    return Push(Happening(fields["event"]), fields["openid"], fields["created_s"], items)


def read(message: dict[str, Any]) -> Push | str:
    """Read a message.

    Returns:
        The push; or what the message is, for the log, when nothing here acts on it.

    Raises:
        InvalidInputError: one of the three events, and it lacks what makes it one.
    """
    name, kind = message.get("Event"), message.get("MsgType")
    if not isinstance(name, str) or name not in set(Happening) or kind != "event":
        for word in (name, kind, message.get("action")):
            if isinstance(word, str) and word:
                return word[:_SHOWN]
        return "nothing"
    event, openid = Happening(name), message.get("FromUserName")
    if not isinstance(openid, str) or not OPENID.fullmatch(openid):
        raise InvalidInputError([f"{name}: FromUserName is no openid"])
    created_s = _integer(message.get("CreateTime"))
    if created_s is None or not 0 < created_s < 10**11:
        raise InvalidInputError([f"{name}: CreateTime is no epoch time in seconds"])
    entries = _entries(event, message)
    if len(entries) > MAX_ITEMS:
        raise InvalidInputError([f"{name}: {len(entries)} items; accepted: {MAX_ITEMS}"])
    items = tuple(item for entry in entries if (item := _item(event, entry)) is not None)
    if not items:
        raise InvalidInputError([f"{name}: its List holds no item"])
    return Push(event, openid, created_s, items)


def _entries(event: Happening, message: dict[str, Any]) -> list[Any]:
    """Return the entries of the List, wherever it is and of whatever shape."""
    wrapper = message.get(_WRAPPERS[event])
    holders = [message, *(wrapper if isinstance(wrapper, list) else [wrapper])]
    entries: list[Any] = []
    for holder in holders:
        found = holder.get("List") if isinstance(holder, dict) else None
        entries += found if isinstance(found, list) else [found] if found else []
    return entries


def _item(event: Happening, entry: object) -> Item | None:
    """Read one entry; None if it says nothing."""
    if not isinstance(entry, dict):
        return None
    template = entry.get("TemplateId")
    if not isinstance(template, str) or not TEMPLATE_ID.fullmatch(template):
        return None
    if event is not Happening.SENT:
        word = entry.get("SubscribeStatusString")
        return Item(template, word) if isinstance(word, str) and _WORD.fullmatch(word) else None
    code, status = entry.get("ErrorCode"), entry.get("ErrorStatus")
    if code is None or code == "":
        return None
    errcode = _integer(code)
    shown = [str(code)] if errcode is None else []
    shown += [status] if isinstance(status, str) else []
    text = " ".join(shown)[:_SHOWN].encode("utf-8", "replace").decode()
    return Item(template, text, _msgid(entry), _FAILED if errcode is None else errcode)


def _msgid(entry: dict[str, Any]) -> str:
    """Return the msgid, which need not be a number; '' for one that is not exact."""
    raw = entry.get("MsgID", entry.get("MsgId"))
    text = str(raw) if isinstance(raw, str) or type(raw) is int else ""
    return text if _MSGID.fullmatch(text) else ""


def _integer(raw: object) -> int | None:
    """Return a number that may be a text; a boolean and a fraction are none."""
    text = str(raw) if type(raw) is int else raw
    return int(text) if isinstance(text, str) and _DIGITS.fullmatch(text) else None
