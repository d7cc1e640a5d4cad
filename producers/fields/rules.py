"""Rules: the keys and values of a message's data, its page, template and keyword to enlarge."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from producers.errors import InvalidInputError
from producers.fields.types import FIELD_TYPES, KEYWORD, FieldType, utf16_units
from producers.openid import TEMPLATE_ID
from producers.words import Channel

MAX_PAGE_UNITS: Final = 1024
"""UTF-16 units in ``page``, query included. The bound is ours; WeChat documents none."""

_SHOWN_LENGTH: Final = 40
"""Characters of a value that a fault repeats: enough to find it, not enough to flood a log."""

_SUBSCRIBE_KEY: Final = re.compile(r"(?P<type>[a-z_]+)(?P<index>[0-9]+)")
_TEMPLATE_KEY: Final = re.compile(r"keyword[1-9][0-9]*")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:|//")


@dataclass(frozen=True, slots=True)
class FieldFault:
    """One thing that is wrong with one field.

    Attributes:
        key: the field, as given.
        kind: ``key`` (no such field can exist), ``empty`` or ``invalid`` (WeChat's own two words,
            in the 47003 texts ``data.thing1.value is empty`` and ``data.thing1.value invalid``).
        reason: one sentence: what was found, what is accepted.
    """

    key: str
    kind: str
    reason: str


def check(channel: Channel, data: Mapping[str, str]) -> list[FieldFault]:
    """Check the keys and values of a message's data against WeChat's rules.

    Args:
        channel: whose rules: typed keys (``thing1``) for subscribe, ``keyword1`` for template.
        data: key → value, keys without ``.DATA``.

    Returns:
        One fault per faulty key, in the order of ``data``; none if all is well or data is empty.
    """
    faults = []
    for key, value in data.items():
        found = field_type(channel, key)
        fault = found if isinstance(found, FieldFault) else _value_fault(channel, key, value, found)
        if fault is not None:
            faults.append(fault)
    return faults


def check_page(page: str) -> list[str]:
    """Check the page that a message opens.

    WeChat docs, subscribe-message sendMessage: a page of this mini-program, a query allowed
    (``index?foo=bar``). Whether a leading slash is welcome is not documented, so it passes.

    Args:
        page: the page; a message that opens nothing has none, rather than an empty one.

    Returns:
        One sentence per fault.
    """
    faults = []
    if not page:
        faults.append("page is empty; accepted: a page such as index?foo=bar, or no page at all")
    if _SCHEME.match(page):
        faults.append(
            f"page {shown(page)} is an address with a scheme or host; "
            "accepted: a page of the mini-program itself"
        )
    if any(char.isspace() for char in page) or _unprintable(page):
        faults.append(
            f"page {shown(page)} holds blanks or control characters; "
            "accepted: a page with its query percent-encoded"
        )
    units = utf16_units(page)
    if units > MAX_PAGE_UNITS:
        faults.append(f"page has {units:,} characters; accepted: up to {MAX_PAGE_UNITS:,}")
    return faults


def check_template_id(template_id: str) -> list[str]:
    """Check the shape of a template_id; whether it exists only WeChat knows (40037).

    Args:
        template_id: as the mini-program's console shows it.

    Returns:
        One sentence per fault.
    """
    if TEMPLATE_ID.fullmatch(template_id):
        return []
    fault = (
        f"template_id is {shown(template_id)} ({len(template_id):,} characters); "
        f"accepted: 1 to 128 visible ASCII characters without blanks and colons"
    )
    return [fault]


def check_emphasis_keyword(keyword: str, data: Mapping[str, str]) -> str:
    """Check the keyword to enlarge, and write it as WeChat wants it.

    Args:
        keyword: ``keyword1.DATA``, or ``keyword1`` for short.
        data: the message's data, which must have that keyword.

    Returns:
        The keyword with ``.DATA`` (WeChat docs of 2018, templateMessage.send).

    Raises:
        InvalidInputError: it is not a keyword of the data.
    """
    key = keyword.removesuffix(".DATA")
    if _TEMPLATE_KEY.fullmatch(key) is None or key not in data:
        keys = ", ".join(data) or "none"
        raise InvalidInputError(
            [f"emphasis_keyword is {shown(keyword)}; accepted: a keyword of the data ({keys})"]
        )
    return f"{key}.DATA"


def field_type(channel: Channel, key: str) -> FieldType | FieldFault:
    """Return the rule of a key, or why there is none."""
    if key.endswith(".DATA"):
        reason = f"the key {shown(key)} ends in .DATA; accepted: the key without it"
        return FieldFault(key, "key", reason)
    if channel is Channel.TEMPLATE:
        if _TEMPLATE_KEY.fullmatch(key):
            return KEYWORD
        reason = f"the key {shown(key)} is unknown; accepted: keyword1, keyword2 and so on"
        return FieldFault(key, "key", reason)
    found = _SUBSCRIBE_KEY.fullmatch(key)
    if found is not None and found["type"] in FIELD_TYPES:
        return FIELD_TYPES[found["type"]]
    types = ", ".join(FIELD_TYPES)
    reason = f"the key {shown(key)} is unknown; accepted: one of {types}, and then its number"
    return FieldFault(key, "key", reason)


def _value_fault(channel: Channel, key: str, value: str, rule: FieldType) -> FieldFault | None:
    if not value:
        return FieldFault(key, "empty", f"{key} is empty; accepted: {rule.accepts}")
    allowed = "\n" if channel is Channel.TEMPLATE else ""
    if _unprintable(value, allowed):
        reason = f"{key} is {shown(value)}; accepted: no control characters such as line feeds"
        return FieldFault(key, "invalid", reason)
    if rule.fits(value):
        return None
    units = utf16_units(value)
    reason = f"{key} is {shown(value)} ({units:,} characters); accepted: {rule.accepts}"
    return FieldFault(key, "invalid", reason)


def _unprintable(text: str, allowed: str = "") -> bool:
    """Tell if a text holds control characters, or half a surrogate pair (no UTF-8 carries one)."""
    return any(unicodedata.category(char) in {"Cc", "Cs"} and char not in allowed for char in text)


def shown(text: str) -> str:
    """Return a text as a fault repeats it."""
    return repr(text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 1] + "…")
