"""Spoken: a line as words for people: time, level, process, event, field=value.

What strangers wrote cannot steer the terminal: whatever is no printable text is escaped.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

HEADS: Final = ("time", "level", "process", "event")
"""Fields that each line begins with; what follows is the event's own."""

_LEFT_OUT: Final = frozenset({*HEADS, "schema"})
_PLAIN: Final = re.compile(r"[^\s\"=\\\x00-\x1f\x7f-\x9f]+")
"""A value that is a word."""
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def dumps(value: object) -> bytes:
    """Return JSON, whatever a line holds."""
    try:
        return orjson.dumps(value, default=str)
    except (TypeError, ValueError):  # a lone surrogate, or an integer beyond 64 bits
        return json.dumps(value, default=str).encode()


def fields(line: Mapping[str, Any]) -> str:
    """Return the event's own fields, as ``name=value``; those that are empty are left out."""
    return " ".join(
        f"{printable(str(name))}={_value(value)}"
        for name, value in line.items()
        if name not in _LEFT_OUT and str(value)
    )


def head(line: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Return a line's time of day (UTC), level, process and event; '' for what it lacks."""
    at, level, process, event = (printable(str(line.get(name, ""))) for name in HEADS)
    return at[11:23], level, process, event


def spoken(line: Mapping[str, Any]) -> str:
    """Return a line for people."""
    at, level, process, event = head(line)
    return f"{at} {level:7} {process} {event} {fields(line)}".rstrip()


def _value(value: object) -> str:
    text = str(value)
    if isinstance(value, str | int | float) and _PLAIN.fullmatch(text):
        return text
    return printable(dumps(value).decode("utf-8", "replace"))


def printable(text: str) -> str:
    """Return a text of a stranger's, unable to steer a terminal."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
