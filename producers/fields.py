"""WeChat's field rules as data: what a broadcast's data, page and template_id may hold.

A broadcast is checked whole before anything is stored, so that a value that WeChat would refuse
for every recipient costs one clear error instead of a thousand 47003 answers. Nothing here touches
Redis or WeChat.

The rules are those of the documented table, read leniently: what the table forbids is refused,
what it leaves open is accepted, because WeChat itself has the last word (a phrase of five Han
characters and a date with leading zeros were both seen refused, though the table allows them).
The list of an ``enum_string`` belongs to the template and is not known here.

Sources: WeChat docs, subscribe-message sendMessage, the table of parameter value limits, for the
types; WeChat docs of 2018, templateMessage.send, for ``keywordN`` and ``emphasis_keyword``. The
docs do not say what a "character" is: UTF-16 units are counted, the strictest reading (an emoji is
two).
"""

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Final, NoReturn

from producers.errors import InvalidInputError
from producers.openid import TEMPLATE_ID
from producers.words import Channel

MAX_VALUE_UNITS: Final = 1024
"""UTF-16 units in a value whose type has no limit of its own.

The bound is ours: WeChat documents none for ``keywordN``, and answers 45014 to what is too large.
"""

MAX_PAGE_UNITS: Final = 1024
"""UTF-16 units in ``page``, query included. The bound is ours; WeChat documents none."""

"""Characters in a template_id. The bound is ours; those seen have 43."""

_SHOWN_LENGTH: Final = 40
"""Characters of a value that a fault repeats: enough to find it, not enough to flood a log."""

_NUMBER_BOUND: Final = 10**32
"""Numbers have up to 32 digits (the table's own limit for ``number``)."""

_SORTS: Final[tuple[tuple[type | UnionType, str], ...]] = (
    (NoneType, "null"),
    (bool, "a boolean"),
    (int | float, "a number"),
    (str, "a text"),
    (Mapping, "an object"),
    (list | tuple, "a list"),
)
"""What a fault calls a value of the wrong type; a boolean is an int too, so it comes first."""

_HAN: Final = (
    "\u3005\u3007"  # 々 and 〇 are written in names and numerals
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_HAS_HAN: Final = re.compile(f"[{_HAN}]")
_ONLY_HAN: Final = re.compile(f"[{_HAN}]+")
_ONLY_LETTERS: Final = re.compile(r"[A-Za-z]+")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)")
_AMOUNT: Final = re.compile(r"(?P<symbol>[^0-9]?)[0-9]{1,10}(?:\.[0-9]+)?元?")
_CAR_NUMBER: Final = re.compile(f"[{_HAN}A-Za-z0-9](?:[A-Za-z0-9]*[{_HAN}A-Za-z0-9])?")

_TIME: Final = re.compile(r"(?:(?:[01]?[0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9])?|24:00(?::00)?)")
_DATE: Final = re.compile(
    r"(?P<y1>[0-9]{4})年(?P<m1>[0-9]{1,2})月(?:(?P<d1>[0-9]{1,2})日)?"
    r"|(?P<m2>[0-9]{1,2})月(?P<d2>[0-9]{1,2})日"
    r"|(?P<y3>[0-9]{4})(?P<mark>[-/.])(?P<m3>[0-9]{1,2})(?:(?P=mark)(?P<d3>[0-9]{1,2}))?"
    r"|(?P<m4>[0-9]{1,2})[-/.](?P<d4>[0-9]{1,2})"
)
_LEAP_YEAR: Final = "2000"
"""Stands in for the year of a month-day form, so that February has its 29 days."""

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


@dataclass(frozen=True, slots=True)
class FieldType:
    """One row of WeChat's table of value limits.

    Attributes:
        accepts: what a value may be, to follow the word "accepted:".
        fits: whether a value, not empty and free of control characters, is within the limits.
    """

    accepts: str
    fits: Callable[[str], bool]


def utf16_units(text: str) -> int:
    """Count the UTF-16 units of a text, the unit in which lengths are measured here."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _at_most(limit: int) -> Callable[[str], bool]:
    return lambda value: utf16_units(value) <= limit


def _is_number(value: str) -> bool:
    digits = sum(char.isdigit() for char in value)
    return digits <= 32 and _NUMBER.fullmatch(value) is not None


def _is_letters(value: str) -> bool:
    return len(value) <= 32 and _ONLY_LETTERS.fullmatch(value) is not None


def _is_symbols(value: str) -> bool:
    return utf16_units(value) <= 5 and not any(char.isalnum() for char in value)


def _is_character_string(value: str) -> bool:
    return utf16_units(value) <= 32 and _HAS_HAN.search(value) is None


def _is_clock(text: str) -> bool:
    return _TIME.fullmatch(text) is not None


def _is_calendar_day(text: str) -> bool:
    found = _DATE.fullmatch(text)
    if found is None:
        return False
    year = found["y1"] or found["y3"] or _LEAP_YEAR
    month = found["m1"] or found["m2"] or found["m3"] or found["m4"]
    day = found["d1"] or found["d2"] or found["d3"] or found["d4"] or "1"
    try:
        date(int(year), int(month), int(day))
    except ValueError:
        return False
    return True


def _is_day_with_clock(text: str) -> bool:
    day, blank, clock = text.rpartition(" ")
    if not blank:  # 2019年10月1日15:01: only 日 ends the date without a blank
        day, mark, clock = text.rpartition("日")
        day += mark
    return _is_calendar_day(day.strip(" ")) and _is_clock(clock)


def _is_time(value: str) -> bool:
    ends = value.split("~")
    return len(ends) <= 2 and all(
        _is_clock(end) or _is_day_with_clock(end) for end in map(_stripped, ends)
    )


def _is_date(value: str) -> bool:
    first, *rest = map(_stripped, value.split("~"))
    return (
        (_is_calendar_day(first) or _is_day_with_clock(first))
        and len(rest) <= 1
        # A range within one day may name the day once: 2019年10月1日 15:01~16:30.
        and all(_is_calendar_day(end) or _is_day_with_clock(end) or _is_clock(end) for end in rest)
    )


def _stripped(text: str) -> str:
    return text.strip(" ")


def _is_amount(value: str) -> bool:
    found = _AMOUNT.fullmatch(value)
    return found is not None and (
        not found["symbol"] or unicodedata.category(found["symbol"]) == "Sc"
    )


def _is_phone_number(value: str) -> bool:
    return utf16_units(value) <= 17 and not any(char.isalpha() for char in value)


def _is_car_number(value: str) -> bool:
    return utf16_units(value) <= 8 and _CAR_NUMBER.fullmatch(value) is not None


def _is_name(value: str) -> bool:
    # The table names letters, symbols and Han only; names with digits were seen refused.
    if any(char.isdigit() for char in value):
        return False
    return utf16_units(value) <= (10 if _HAS_HAN.search(value) else 20)


def _is_phrase(value: str) -> bool:
    return utf16_units(value) <= 5 and _ONLY_HAN.fullmatch(value) is not None


FIELD_TYPES: Final[Mapping[str, FieldType]] = MappingProxyType(
    {
        "thing": FieldType("up to 20 characters of any sort", _at_most(20)),
        "number": FieldType("up to 32 digits, with or without decimals", _is_number),
        "letter": FieldType("up to 32 letters A to Z", _is_letters),
        "symbol": FieldType("up to 5 symbols, no letters, digits or Han", _is_symbols),
        "character_string": FieldType(
            "up to 32 digits, letters or symbols, no Han", _is_character_string
        ),
        "time": FieldType(
            "a 24-hour time such as 15:01 or 2019年10月1日 15:01, or two joined by ~", _is_time
        ),
        "date": FieldType(
            "a date such as 2019年10月1日, 2019-10-01 or 2019年10月1日 15:01, or two joined by ~",
            _is_date,
        ),
        "amount": FieldType(
            "one currency symbol, up to 10 digits, decimals, 元 at the end or not, such as ￥100",
            _is_amount,
        ),
        "phone_number": FieldType("up to 17 digits or symbols", _is_phone_number),
        "car_number": FieldType(
            "up to 8 letters or digits, the first and the last may be Han, such as 粤A8Z888挂",
            _is_car_number,
        ),
        "name": FieldType("up to 10 characters with Han, up to 20 without, no digits", _is_name),
        "phrase": FieldType("up to 5 Han characters and nothing else", _is_phrase),
        "enum_string": FieldType(
            "one of the values listed for the template", _at_most(MAX_VALUE_UNITS)
        ),
        "const": FieldType("up to 20 characters of any sort", _at_most(20)),
    }
)
"""Field type → what its values may be.

From WeChat docs, subscribe-message sendMessage; ``const`` alone is from WxJava's table of lengths.
"""

_KEYWORD: Final = FieldType(
    f"up to {MAX_VALUE_UNITS:,} characters of any sort", _at_most(MAX_VALUE_UNITS)
)


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
        found = _field_type(channel, key)
        fault = found if isinstance(found, FieldFault) else _value_fault(channel, key, value, found)
        if fault is not None:
            faults.append(fault)
    return faults


def parse_data(channel: Channel, raw: object) -> dict[str, str]:
    """Read a broadcast's data in any accepted shape, and check it.

    Args:
        channel: whose rules.
        raw: ``{"thing1": "…"}``, or WeChat's own ``{"thing1": {"value": "…"}}``, or the JSON text
            of either; for template also a comma list, ``"a,b"`` being ``keyword1`` and
            ``keyword2`` (blanks around a part are dropped, and the full-width comma separates
            nothing). Numbers become their text; in JSON text they keep their digits as written.
            ``color`` beside ``value`` is dropped for template: WeChat's older samples carry it.

    Returns:
        Key → value, in the order given, free of faults.

    Raises:
        InvalidInputError: the shape is none of these, or keys or values break a rule; lists all.
    """
    if isinstance(raw, str):
        raw = _parse_text(channel, raw)
    if not isinstance(raw, Mapping):
        raise InvalidInputError(
            [f"data is {_sort_of(raw)}; accepted: an object of field → value, or its JSON text"]
        )
    if not raw:
        raise InvalidInputError(["data has no fields; accepted: at least one field → value"])
    data: dict[str, str] = {}
    faults: list[str] = []
    for key, given in raw.items():
        if not isinstance(key, str):
            faults.append(f"a key is {_sort_of(key)}; accepted: strings")
            continue
        value, fault = _parse_value(channel, key, given)
        if fault:
            faults.append(fault)
            # The key is still checked, so that one answer names everything there is to mend.
            bad_key = _field_type(channel, key)
            if isinstance(bad_key, FieldFault):
                faults.append(bad_key.reason)
        else:
            data[key] = value
    faults += [fault.reason for fault in check(channel, data)]
    if faults:
        raise InvalidInputError(faults)
    return data


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
            f"page {_shown(page)} is an address with a scheme or host; "
            "accepted: a page of the mini-program itself"
        )
    if any(char.isspace() for char in page) or _unprintable(page):
        faults.append(
            f"page {_shown(page)} holds blanks or control characters; "
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
        f"template_id is {_shown(template_id)} ({len(template_id):,} characters); "
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
            [f"emphasis_keyword is {_shown(keyword)}; accepted: a keyword of the data ({keys})"]
        )
    return f"{key}.DATA"


def _field_type(channel: Channel, key: str) -> FieldType | FieldFault:
    if key.endswith(".DATA"):
        reason = f"the key {_shown(key)} ends in .DATA; accepted: the key without it"
        return FieldFault(key, "key", reason)
    if channel is Channel.TEMPLATE:
        if _TEMPLATE_KEY.fullmatch(key):
            return _KEYWORD
        reason = f"the key {_shown(key)} is unknown; accepted: keyword1, keyword2 and so on"
        return FieldFault(key, "key", reason)
    found = _SUBSCRIBE_KEY.fullmatch(key)
    if found is not None and found["type"] in FIELD_TYPES:
        return FIELD_TYPES[found["type"]]
    types = ", ".join(FIELD_TYPES)
    reason = f"the key {_shown(key)} is unknown; accepted: one of {types}, and then its number"
    return FieldFault(key, "key", reason)


def _value_fault(channel: Channel, key: str, value: str, rule: FieldType) -> FieldFault | None:
    if not value:
        return FieldFault(key, "empty", f"{key} is empty; accepted: {rule.accepts}")
    allowed = "\n" if channel is Channel.TEMPLATE else ""
    if _unprintable(value, allowed):
        reason = f"{key} is {_shown(value)}; accepted: no control characters such as line feeds"
        return FieldFault(key, "invalid", reason)
    if rule.fits(value):
        return None
    units = utf16_units(value)
    reason = f"{key} is {_shown(value)} ({units:,} characters); accepted: {rule.accepts}"
    return FieldFault(key, "invalid", reason)


def _unprintable(text: str, allowed: str = "") -> bool:
    """Tell if a text holds control characters, or half a surrogate pair (no UTF-8 carries one)."""
    return any(unicodedata.category(char) in {"Cc", "Cs"} and char not in allowed for char in text)


def _parse_text(channel: Channel, text: str) -> object:
    if text.lstrip().startswith("{"):
        return _parse_json(text)
    if channel is Channel.TEMPLATE:
        parts = text.split(",")
        return {f"keyword{place}": part.strip() for place, part in enumerate(parts, start=1)}
    raise InvalidInputError(
        [f"data is the text {_shown(text)}; accepted: an object of field → value, or its JSON text"]
    )


def _parse_json(text: str) -> object:
    try:
        # Numbers stay as written: 12.50 is an amount, and 12.5 another one.
        return json.loads(
            text,
            parse_int=str,
            parse_float=str,
            parse_constant=_refuse_constant,
            object_pairs_hook=_unique_pairs,
        )
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(
            [f"data is no JSON object ({error}); accepted: the JSON text of field → value"]
        ) from error


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in unique if keys.count(key) > 1)
        raise ValueError(f"the key {_shown(twice)} stands there twice")
    return unique


def _parse_value(channel: Channel, key: str, given: object) -> tuple[str, str]:
    """Return the value as text, or the fault that keeps it from being one."""
    if isinstance(given, Mapping):
        if "value" not in given:
            return "", f'{_shown(key)} has no "value"; accepted: {{"value": "…"}}'
        known = {"value", "color"} if channel is Channel.TEMPLATE else {"value"}
        if any(name not in known for name in given):
            return "", f'{_shown(key)} has more than its "value"; accepted: {{"value": "…"}}'
        given = given["value"]
    if isinstance(given, str):
        return given, ""
    if isinstance(given, bool) or not isinstance(given, int | float):
        return "", f"{_shown(key)} is {_sort_of(given)}; accepted: a string or a number"
    if not -_NUMBER_BOUND < given < _NUMBER_BOUND:  # nor is NaN within
        return "", f"{_shown(key)} is a number out of range; accepted: up to 32 digits"
    return str(given), ""


def _sort_of(thing: object) -> str:
    for sort, name in _SORTS:
        if isinstance(thing, sort):
            return name
    return f"of type {type(thing).__name__}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 1] + "…")
