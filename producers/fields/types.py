"""Types of fields: WeChat's table of what a value may be, row by row."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType
from typing import Final

MAX_VALUE_UNITS: Final = 1024
"""UTF-16 units in a value whose type has no limit of its own.

The bound is ours: WeChat documents none for ``keywordN``, and answers 45014 to what is too large.
"""

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


@dataclass(frozen=True, slots=True)
class FieldType:
    """One row of WeChat's table of value limits.

    Attributes:
        accepts: what a value may be, to follow the word "accepted:".
        fits: whether a value, not empty and free of control characters, is within the limits.
    """

    accepts: str
    fits: Callable[[str], bool]


def has_han(text: str) -> bool:
    """Say whether a text has a Han character."""
    return _HAS_HAN.search(text) is not None


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
    return utf16_units(value) <= 32 and not has_han(value)


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
    return utf16_units(value) <= (10 if has_han(value) else 20)


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

KEYWORD: Final = FieldType(
    f"up to {MAX_VALUE_UNITS:,} characters of any sort", _at_most(MAX_VALUE_UNITS)
)
