"""What mini-programs upload, read into permits: pure parsing, before anything is stored.

An upload is what one phone hands over at once for one user::

    {"openid": "o…", "formIds": [{"formId": "…", "expire": 1577808000000}, "…"]}
    {"openid": "o…", "formId": "…", "expire": 1577808000000}
    {"openid": "o…", "prepayId": "wx…"}          or  "prepayIds": ["wx…", …]
    {"openid": "o…", "subscriptions": {"<template_id>": "accept", …}, "at": 1577808000000}

One upload may carry several of these. ``form_ids``, ``form_id``, ``prepay_ids`` and ``prepay_id``
are the same as the names above. Old clients encode twice: the upload, a list, an element or the
subscriptions may also be JSON text. ``expire`` and ``at`` are epoch times in ms or s, as a number
or as digits; an ``expire`` beside a list serves the elements that have none of their own; an ``id``
or ``at`` serves all subscriptions beside it. Keys that are not named here are left alone.

Each element becomes one item or one refusal, and a bad one never costs its siblings; only the
elements beyond ``MAX_ITEMS`` share one refusal, and an upload of no valid openid is one. Whether an
expiry lies in the past, or further off than the 7 days that WeChat grants, is not judged here: that
takes the server's clock.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import orjson

from producers.openid import OPENID, TEMPLATE_ID
from producers.permits.ids import FORM_IDS, NOTHING, PREPAY_IDS, VISIBLE_ASCII, Naming, bad_id
from producers.permits.refusals import SHOWN_LENGTH, Reason, Refusal, found, shown, sort_of
from producers.words import PermitKind

MAX_ITEMS: Final = 1_000
"""Elements of one upload; a phone gathers a few dozen between two uploads."""

MAX_LINE_BYTES: Final = 1_048_576
"""Bytes of one upload: ``MAX_ITEMS`` of the longest ids fit in a third of it."""

_SECONDS_BELOW: Final = 10**11
"""Epoch times below are seconds: as ms they would lie before March 1973, as s after 5138."""

_LATEST_MS: Final = 2**53 - 1
"""Later times are cut to this, the last whole number that Lua's and JavaScript's numbers carry."""

_JSON_STARTS: Final = ("{", "[", '"')
"""How the JSON text of an object, a list or a string begins, and no id ever seen does."""

_DIGITS: Final = re.compile(r"[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class PermitItem:
    """One permit as a phone reports it.

    Attributes:
        openid: the user.
        kind: which kind of permit.
        id: the form_id, the prepay_id, or for a subscription the template_id.
        expires_at_ms: epoch ms, not yet judged; None: as long as WeChat grants from arrival.
        accepted: False for a subscription that the user rejected.
        source_id: a subscription with the same one, user and template counts once; empty: each
            counts. The upload's ``id``, else ``at:<ms>`` made of its ``at``.
        at_ms: when the user chose, epoch ms by the phone's clock, if the upload says so.
    """

    openid: str
    kind: PermitKind
    id: str
    expires_at_ms: int | None
    accepted: bool = True
    source_id: str = ""
    at_ms: int | None = None


def parse_line(line: bytes | str) -> tuple[list[PermitItem], list[Refusal]]:
    """Read one upload from its JSON text; never raises, whatever the bytes.

    Args:
        line: one line of a file, or the body of one request. A blank one holds nothing.

    Returns:
        The permits, and what was refused.
    """
    if isinstance(line, str):
        line = line.encode("utf-8", "surrogatepass")  # halves of pairs are refused as no JSON
    if len(line) > MAX_LINE_BYTES:
        detail = f"the line has {len(line):,} bytes; accepted: up to {MAX_LINE_BYTES:,}"
        return [], [Refusal(Reason.LINE_TOO_LONG, detail)]
    try:
        upload = orjson.loads(line)
    except orjson.JSONDecodeError:
        if not line.strip():
            return [], []
        start = line[: 4 * SHOWN_LENGTH].decode("utf-8", "replace")
        detail = f"the line is {shown(start)}; accepted: one JSON object"
        return [], [Refusal(Reason.NOT_JSON, detail)]
    return parse_upload(upload)


def parse_upload(upload: object) -> tuple[list[PermitItem], list[Refusal]]:
    """Read one upload that is parsed already; never raises on what JSON can hold.

    Args:
        upload: a dict as in the module's docstring, or its JSON text.

    Returns:
        The permits in the order given, and what was refused.
    """
    if isinstance(upload, str):
        return _parse_twice_encoded(upload)
    if not isinstance(upload, dict):
        detail = f"the upload is {sort_of(upload)}; accepted: a JSON object with an openid"
        return [], [Refusal(Reason.BAD_SHAPE, detail)]
    openid = upload.get("openid")
    if not isinstance(openid, str) or openid in NOTHING or not OPENID.fullmatch(openid):
        detail = (
            f"openid is {found(openid)}; "
            "accepted: 1 to 64 letters, digits, - or _, as code2Session gives it"
        )
        return [], [Refusal(Reason.BAD_OPENID, detail)]
    results: list[PermitItem | Refusal] = []
    beyond = 0
    known = False
    for key, value in upload.items():
        reader = _READERS.get(key)
        if reader is not None:
            known = True
            beyond += reader(upload, openid, value, results)
    if not known:
        names = ", ".join(_READERS)
        detail = f"the upload has an openid and no permits; accepted: one or more of {names}"
        return [], [Refusal(Reason.BAD_SHAPE, detail)]
    items = [result for result in results if type(result) is PermitItem]
    refusals: list[Refusal] = []
    if len(items) < len(results):
        refusals = [result for result in results if type(result) is Refusal]
    if beyond:
        detail = f"{beyond:,} items were left out; accepted: up to {MAX_ITEMS:,} in one upload"
        refusals.append(Refusal(Reason.TOO_MANY_ITEMS, detail))
    return items, refusals


def _parse_twice_encoded(text: str) -> tuple[list[PermitItem], list[Refusal]]:
    """Read an upload that lies as JSON text in a string, and not yet another time encoded."""
    if len(text) > MAX_LINE_BYTES:
        detail = f"the upload has {len(text):,} characters; accepted: up to {MAX_LINE_BYTES:,}"
        return [], [Refusal(Reason.LINE_TOO_LONG, detail)]
    upload = _decoded(text)
    if isinstance(upload, dict):
        return parse_upload(upload)
    detail = f"the upload is the text {shown(text)}; accepted: a JSON object with an openid"
    return [], [Refusal(Reason.BAD_SHAPE, detail)]


def _read_list(
    naming: Naming,
    upload: dict[str, object],
    openid: str,
    value: object,
    results: list[PermitItem | Refusal],
) -> int:
    """Add one result per element, as far as there is room; return how many are beyond."""
    if isinstance(value, str) and value.startswith(_JSON_STARTS):
        value = _decoded(value)
    elements = value if isinstance(value, list) else [value]
    default = upload.get("expire")
    room = MAX_ITEMS - len(results)
    results.extend([_permit(naming, openid, element, default) for element in elements[:room]])
    return max(0, len(elements) - room)


def _read_subscriptions(
    upload: dict[str, object],
    openid: str,
    value: object,
    results: list[PermitItem | Refusal],
) -> int:
    """Add one result per template, as far as there is room; return how many are beyond."""
    choices = _decoded(value) if isinstance(value, str) else value
    room = MAX_ITEMS - len(results)
    if not isinstance(choices, dict):
        if not room:
            return 1
        detail = f"subscriptions is {found(value)}; accepted: an object of template_id → result"
        results.append(Refusal(Reason.BAD_SHAPE, detail))
        return 0
    # errMsg is the call's own word beside the templates (WeChat docs, wx.requestSubscribeMessage).
    chosen = [(template, result) for template, result in choices.items() if template != "errMsg"]
    source = _source(upload)
    for template, result in chosen[:room]:
        results.append(
            source if isinstance(source, Refusal) else _choice(openid, template, result, source)
        )
    return max(0, len(chosen) - room)


def _source(upload: dict[str, object]) -> tuple[str, int | None] | Refusal:
    """Return what makes the upload's subscriptions count once: source_id and at_ms."""
    source_id, at = upload.get("id"), upload.get("at")
    at_ms = None
    if at is not None:
        at_ms = _epoch_ms(at)
        if at_ms is None:
            detail = f"at is {found(at)}; accepted: an epoch time in ms or s"
            return Refusal(Reason.BAD_AT, detail)
    if source_id is None:
        return ("" if at_ms is None else f"at:{at_ms}"), at_ms
    if type(source_id) is int and -_LATEST_MS <= source_id <= _LATEST_MS:
        source_id = str(source_id)
    if not isinstance(source_id, str) or not VISIBLE_ASCII.fullmatch(source_id):
        detail = f"id is {found(source_id)}; accepted: 1 to 128 visible ASCII characters"
        return Refusal(Reason.BAD_SOURCE_ID, detail)
    return source_id, at_ms


def _choice(
    openid: str, template: object, result: object, source: tuple[str, int | None]
) -> PermitItem | Refusal:
    """Read what the user chose for one template (WeChat docs, wx.requestSubscribeMessage)."""
    if not isinstance(template, str) or not TEMPLATE_ID.fullmatch(template):
        detail = (
            f"a template_id is {found(template)}; "
            "accepted: 1 to 128 visible ASCII characters without blanks and colons"
        )
        return Refusal(Reason.BAD_TEMPLATE_ID, detail)
    if isinstance(result, str):
        # acceptWithAudio and its like differ in how the phone rings, not in what is allowed.
        accepted = result.startswith("accept")
        if accepted or result == "reject":
            return PermitItem(openid, PermitKind.SUBSCRIPTION, template, None, accepted, *source)
        if result == "ban":
            return Refusal(Reason.USER_BAN, "the result is ban: WeChat has blocked the template")
        if result == "filter":
            detail = "the result is filter: WeChat left out a template with another one's title"
            return Refusal(Reason.USER_FILTER, detail)
    detail = f"the result is {found(result)}; accepted: accept, reject, ban or filter"
    return Refusal(Reason.UNKNOWN_RESULT, detail)


def _permit(naming: Naming, openid: str, element: object, default: object) -> PermitItem | Refusal:
    """Read one element of a list of form_ids or prepay_ids."""
    if isinstance(element, str) and element.startswith(_JSON_STARTS):
        element = _decoded(element)
    permit_id, expire = element, None
    if isinstance(element, dict):
        camel, snake = naming.names
        permit_id = element.get(camel)
        if permit_id is None:
            permit_id = element.get(snake)
        expire = element.get("expire")
    if not isinstance(permit_id, str):
        reason = naming.empty if permit_id is None else Reason.BAD_SHAPE
        name = naming.names[0]
        detail = f'a {name} is {sort_of(permit_id)}; accepted: "…" or {{"{name}": "…"}}'
        return Refusal(reason, detail)
    if permit_id.startswith(_JSON_STARTS):
        return bad_id(naming, permit_id)
    judged = naming.judge(permit_id)
    if isinstance(judged, Refusal):
        return judged
    if expire is None:
        expire = default
    expires_at_ms = None
    if expire is not None:
        expires_at_ms = _epoch_ms(expire)
        if expires_at_ms is None:
            detail = f"expire is {found(expire)}; accepted: an epoch time in ms or s"
            return Refusal(Reason.BAD_EXPIRE, detail)
    return PermitItem(openid, naming.kind, judged, expires_at_ms)


def _epoch_ms(raw: object) -> int | None:
    """Return an epoch time in ms, or None if it is none; a boolean is no number here."""
    if type(raw) is str:
        if not _DIGITS.fullmatch(raw):
            return None
        raw = int(raw)
    if (type(raw) is not int and type(raw) is not float) or not raw >= 0:  # NaN is not >= 0
        return None
    if raw < _SECONDS_BELOW:
        raw *= 1000
    return int(min(raw, _LATEST_MS))


def _decoded(text: str) -> object:
    """Return what a JSON text holds, or the text itself if it is none."""
    try:
        decoded: object = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return decoded


_Reader = Callable[[dict[str, object], str, object, list[PermitItem | Refusal]], int]

_READERS: Final[dict[str, _Reader]] = {
    **dict.fromkeys(("formIds", "form_ids", "formId", "form_id"), partial(_read_list, FORM_IDS)),
    **dict.fromkeys(
        ("prepayIds", "prepay_ids", "prepayId", "prepay_id"), partial(_read_list, PREPAY_IDS)
    ),
    "subscriptions": _read_subscriptions,
}
"""Key of an upload → what reads it."""

PERMIT_KEYS: Final = frozenset(_READERS) - {"subscriptions"}
"""Keys of an upload that hold form_ids and prepay_ids."""
