"""The reply: what came back from one POST, and what it says about the message.

A business error comes with HTTP 200; the content type says nothing. What an errcode means is the
table's (`errcodes`).

Source: the rid tail of errmsg as seen since August 2020.
"""

import re
from enum import StrEnum
from typing import Final, NamedTuple

import orjson

from producers.logs.redaction import redacted

_RID: Final = re.compile(
    r"(?:[,\s]*rid:\s*(?P<rid>[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8})?\s*$)|(?:[,\s]*hints?:\s*\[.*\])"
)


class Fate(StrEnum):
    """What happened to a POST."""

    ANSWERED = "answered"
    """WeChat answered with an errcode."""
    UNANSWERED = "unanswered"
    """Perhaps sent: timeout, cut, HTTP 5xx, or not JSON."""
    UNSENT = "unsent"
    """Surely not sent: no connection came up."""
    FORGOTTEN = "forgotten"
    """Perhaps sent, and settled: Redis was restarted and does not know any more."""


class Reply(NamedTuple):
    """What came back from one POST.

    Attributes:
        fate: answered, unanswered or unsent.
        errcode: WeChat's code, 0 = accepted; 0 too when there was no answer.
        errmsg: WeChat's text without its rid, or what went wrong instead.
        rid: WeChat's request id, or ''.
        msgid: the accepted message's id, or ''.
        latency_ms: from the start of the POST to its end.
    """

    fate: Fate
    errcode: int = 0
    errmsg: str = ""
    rid: str = ""
    msgid: str = ""
    latency_ms: float = 0.0


def parse(status: int, raw: bytes, latency_ms: float = 0.0) -> Reply:
    """Return what a reply to a send says.

    Args:
        status: HTTP status; anything but 200 says nothing about the message.
        raw: the body; anything but a JSON object says nothing either.
        latency_ms: how long it took.
    """
    if status != 200:
        return Reply(Fate.UNANSWERED, 0, f"HTTP {status}", "", "", latency_ms)
    try:
        answer = orjson.loads(raw)
        errcode = int(answer.get("errcode") or 0)
        if abs(errcode) >= 2**63:
            raise ValueError("no errcode")  # noqa: TRY301
    except (orjson.JSONDecodeError, AttributeError, TypeError, ValueError, OverflowError):
        return Reply(Fate.UNANSWERED, 0, "not JSON", "", "", latency_ms)
    if errcode == 0:
        return Reply(Fate.ANSWERED, 0, "", "", _msgid(answer.get("msgid")), latency_ms)
    text = str(answer.get("errmsg", ""))
    found = _RID.search(text)
    rid = (found["rid"] or "") if found else ""
    errmsg = redacted(_RID.sub("", text))[:200]
    return Reply(Fate.ANSWERED, errcode, errmsg, rid, "", latency_ms)


def _msgid(value: object) -> str:
    """Return a msgid as digits; it is a 64-bit integer and must never become a float."""
    return str(value) if isinstance(value, int | str) and str(value).isdigit() else ""
