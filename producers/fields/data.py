"""Data: what a broadcast says, read in any shape that a caller may give it, and checked."""

import json
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Any, Final, NoReturn

from producers.errors import InvalidInputError
from producers.fields import rules
from producers.fields.rules import FieldFault, field_type, shown
from producers.words import Channel

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


def _check(channel: Channel, data: Mapping[str, str]) -> list[str]:
    return [fault.reason for fault in rules.check(channel, data)]


def parse_data(
    channel: Channel,
    raw: object,
    check: Callable[[Channel, Mapping[str, str]], list[str]] = _check,
) -> dict[str, str]:
    """Read a broadcast's data in any accepted shape, and check it.

    Args:
        channel: whose rules.
        raw: ``{"thing1": "…"}``, or WeChat's own ``{"thing1": {"value": "…"}}``, or the JSON text
            of either; for template also a comma list, ``"a,b"`` being ``keyword1`` and
            ``keyword2`` (blanks around a part are dropped, and the full-width comma separates
            nothing). Numbers become their text; in JSON text they keep their digits as written.
            ``color`` beside ``value`` is dropped for template: WeChat's older samples carry it.
        check: returns the faults of keys and values; default: of WeChat's rules.

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
            bad_key = field_type(channel, key)
            if isinstance(bad_key, FieldFault):
                faults.append(bad_key.reason)
        else:
            data[key] = value
    faults += check(channel, data)
    if faults:
        raise InvalidInputError(faults)
    return data


def _parse_text(channel: Channel, text: str) -> object:
    if text.lstrip().startswith("{"):
        return _parse_json(text)
    if channel is Channel.TEMPLATE:
        parts = text.split(",")
        return {f"keyword{place}": part.strip() for place, part in enumerate(parts, start=1)}
    raise InvalidInputError(
        [f"data is the text {shown(text)}; accepted: an object of field → value, or its JSON text"]
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
        raise ValueError(f"the key {shown(twice)} stands there twice")
    return unique


def _parse_value(channel: Channel, key: str, given: object) -> tuple[str, str]:
    """Return the value as text, or the fault that keeps it from being one."""
    if isinstance(given, Mapping):
        if "value" not in given:
            return "", f'{shown(key)} has no "value"; accepted: {{"value": "…"}}'
        known = {"value", "color"} if channel is Channel.TEMPLATE else {"value"}
        if any(name not in known for name in given):
            return "", f'{shown(key)} has more than its "value"; accepted: {{"value": "…"}}'
        given = given["value"]
    if isinstance(given, str):
        return given, ""
    if isinstance(given, bool) or not isinstance(given, int | float):
        return "", f"{shown(key)} is {_sort_of(given)}; accepted: a string or a number"
    if not -_NUMBER_BOUND < given < _NUMBER_BOUND:  # nor is NaN within
        return "", f"{shown(key)} is a number out of range; accepted: up to 32 digits"
    return str(given), ""


def _sort_of(thing: object) -> str:
    for sort, name in _SORTS:
        if isinstance(thing, sort):
            return name
    return f"of type {type(thing).__name__}"
