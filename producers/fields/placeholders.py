"""Placeholders: texts with holes, which each recipient's own values fill.

``{name}`` is a hole for the column ``name``, ``{{`` and ``}}`` are the braces themselves.
``{name|thing}`` shortens the value, so that the field that it stands in has no more characters than
WeChat allows for that type; of a page it shortens the value alone. What stands in a page is
percent-encoded. Characters are UTF-16 units, as everywhere here, and none is cut in half.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import quote

from producers.errors import InvalidInputError
from producers.fields.rules import FieldFault, check, check_page, field_type, shown
from producers.fields.types import MAX_VALUE_UNITS, has_han, utf16_units
from producers.words import Channel

_SHORTENS: Final[Mapping[str, int]] = {
    "thing": 20,
    "const": 20,
    "character_string": 32,
    "letter": 32,
    "name": 20,
    "phrase": 5,
    "symbol": 5,
    "keyword": MAX_VALUE_UNITS,
}
"""Type → characters that it may have. What another type says is another thing once it is cut."""

_NAME_WITH_HAN: Final = 10
_PIECE: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_JOINER: Final = "\u200d"
_FOLLOWS: Final = re.compile(
    "[\u0300-\u036f\u200d\u20d0-\u20ff\ufe00-\ufe0f\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]"
)
"""Marks, joiners, variants, colours of skin, tags: part of the sign before them."""
_FLAG_LETTERS: Final = "".join(map(chr, range(0x1F1E6, 0x1F200)))
_MOST_COLUMN: Final = 64
_SAMPLE: Final = "x"
"""Stands in for a value where only the text around it is looked at."""


@dataclass(frozen=True, slots=True)
class Hole:
    """Where a value goes.

    Attributes:
        column: whose value.
        kind: the type that shortens it, or ''.
    """

    column: str
    kind: str = ""


Pieces = tuple[str | Hole, ...]


@lru_cache(maxsize=4096)
def pieces(text: str) -> Pieces:
    """Return what a text is made of: constant parts, their braces undone, and holes.

    Raises:
        InvalidInputError: a brace stands alone, or a hole is none.
    """
    found: list[str | Hole] = []
    constant, end = "", 0
    for match in _PIECE.finditer(text):
        constant += text[end : match.start()]
        end = match.end()
        if match[0] in {"{{", "}}"}:
            constant += match[0][0]
        elif match[1] is None:
            raise InvalidInputError(
                [f"{shown(text)} has a lone {match[0]}; write {match[0] * 2} for the brace itself"]
            )
        else:
            if constant:
                found.append(constant)
            found.append(_hole(match[1]))
            constant = ""
    constant += text[end:]
    return (*found, constant) if constant else tuple(found)


def _hole(inside: str) -> Hole:
    column, bar, kind = (part.strip() for part in inside.partition("|"))
    if not column or len(column) > _MOST_COLUMN:
        raise InvalidInputError(
            [f"{{{inside}}} names no column; accepted: {{name}}, or {{{{ for the brace itself"]
        )
    if bar and kind not in _SHORTENS:
        raise InvalidInputError(
            [f"{{{inside}}}: {shown(kind)} shortens nothing; take one of {', '.join(_SHORTENS)}"]
        )
    return Hole(column, kind)


def columns_of(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the columns that texts have holes for, each once.

    Raises:
        InvalidInputError: as `pieces`.
    """
    holes = (one for text in texts for one in pieces(text) if isinstance(one, Hole))
    return tuple(dict.fromkeys(one.column for one in holes))


def filled(text: str, values: Mapping[str, str]) -> str:
    """Return a field's text with the values in its holes, each shortened to what is left for it.

    Raises:
        KeyError: a column has no value.
    """
    found = pieces(text)
    parts = [
        one if isinstance(one, str) else "" if one.kind else values[one.column] for one in found
    ]
    for place, one in enumerate(found):
        if isinstance(one, Hole) and one.kind:
            around = "".join(parts)
            value = values[one.column]
            parts[place] = cut(value, _most(one.kind, around + value) - utf16_units(around))
    return "".join(parts)


def filled_page(page: str, values: Mapping[str, str]) -> str:
    """Return a page with the values in its holes, percent-encoded; raises as `filled`."""
    parts = []
    for one in pieces(page):
        if isinstance(one, str):
            parts.append(one)
            continue
        value = values[one.column]
        parts.append(quote(cut(value, _most(one.kind, value)) if one.kind else value, safe=""))
    return "".join(parts)


def _most(kind: str, whole: str) -> int:
    """Return how many characters a type may have, of which a name's depend on what it is."""
    if kind == "name" and has_han(whole):
        return _NAME_WITH_HAN
    return _SHORTENS[kind]


def cut(text: str, units: int) -> str:
    """Return a text's first UTF-16 units; nothing that is seen as one sign is parted.

    A sign is a letter with its marks, an emoji with its colour, a family, a flag; one that has more
    units than there may be is cut between its characters.
    """
    if utf16_units(text) <= units:
        return text
    first = text.encode("utf-16-le")[: 2 * max(0, units)].decode("utf-16-le", "ignore")
    end = len(first)
    while end and _belongs(text, end):
        end -= 1
    return first[:end] or first


def _belongs(text: str, place: int) -> bool:
    """Say whether the character at a place is seen as one sign with what stands before it."""
    if text[place - 1] == _JOINER or _FOLLOWS.match(text, place):
        return True
    before = len(text[:place]) - len(text[:place].rstrip(_FLAG_LETTERS))
    return before % 2 == 1 and text[place] in _FLAG_LETTERS  # a flag is two of them


def check_templates(channel: Channel, data: Mapping[str, str], page: str = "") -> list[str]:
    """Check what can be known of texts with holes before there are values.

    Returns:
        One sentence per fault: keys that cannot exist, holes that are none, texts without a hole
        that break a rule, an impossible page.
    """
    faults = []
    for key, text in data.items():
        try:
            found = pieces(text)
        except InvalidInputError as error:
            faults += [f"{key}: {fault}" for fault in error.faults]
            continue
        if any(isinstance(one, Hole) for one in found):
            kind = field_type(channel, key)
            faults += [kind.reason] if isinstance(kind, FieldFault) else []
        else:
            faults += [fault.reason for fault in check(channel, {key: "".join(map(str, found))})]
    try:
        sample = dict.fromkeys(columns_of([page]), _SAMPLE)
        faults += check_page(filled_page(page, sample)) if page else []
    except InvalidInputError as error:
        faults += [f"page: {fault}" for fault in error.faults]
    return faults
