"""Reading: rows as people keep them, CSV or JSON lines or Python's own, in constant memory.

CSV begins with a header that names its columns, ``openid`` one of them. JSON lines are objects.
UTF-8 alone, with or without a byte order mark: of another encoding nobody could say surely what a
name means, so the whole is refused with how to convert it. A row that is wrong is told by its
number, the header being number 1 of CSV; what makes all rows wrong ends the reading.
"""

import csv
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from producers.errors import InvalidInputError
from producers.fields import MAX_VALUE_UNITS
from producers.openid import OPENID

MAX_LINE_BYTES: Final = 65_536
"""Bytes of a row: far more than WeChat's fields hold."""

OPENID_COLUMN: Final = "openid"
_CONTROL: Final = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_BOM: Final = "\ufeff"
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_MOST_COLUMNS: Final = 200
_OTHERS: Final = {";": "semicolons", "\t": "tabs", "|": "bars", "，": "full-width commas"}


class Row(NamedTuple):
    """One row.

    Attributes:
        number: from 1.
        openid: whose, '' of a bad one.
        values: of the columns that are asked for, in their order.
        rule: what it breaks, '' for nothing.
        detail: in one sentence.
    """

    number: int
    openid: str
    values: tuple[str, ...] = ()
    rule: str = ""
    detail: str = ""


def read_rows(rows: Iterable[object] | str | Path, columns: Sequence[str]) -> Iterator[Row]:
    """Yield rows with the values of some columns; blank ones are left out.

    Args:
        rows: the path of a file; or lines of CSV or JSON, as bytes or text; or mappings of column
            to value.
        columns: which are wanted.

    Raises:
        InvalidInputError: there is nothing, it is not UTF-8, or there is no such column.
    """
    if isinstance(rows, str | Path):
        try:
            with Path(rows).open("rb") as file:
                yield from read_rows(_bounded(file), columns)
        except OSError as error:
            raise InvalidInputError([f"cannot read {rows}: {error.strerror}"]) from error
        return
    numbered = _filled(rows)
    first = next(numbered, None)
    if first is None:
        raise InvalidInputError(["rows: there are none, the file is empty"])
    numbered = itertools.chain([first], numbered)
    if isinstance(first[1], Mapping):
        yield from (_of_mapping(number, row, columns) for number, row in numbered)
        return
    lines = _texts(numbered)
    if _text(*first).lstrip(_BOM).lstrip().startswith("{"):
        yield from (_of_json(number, line, columns) for number, line in lines)
    else:
        yield from _of_csv(lines, columns)


def _bounded(file: Any) -> Iterator[bytes]:
    while line := file.readline(MAX_LINE_BYTES + 1):
        yield line


def _filled(rows: Iterable[object]) -> Iterator[tuple[int, object]]:
    """Yield what is not blank, with its number."""
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, bytes | str) or row.strip():
            yield number, row


def _texts(numbered: Iterable[tuple[int, object]]) -> Iterator[tuple[int, str]]:
    is_first = True
    for number, row in numbered:
        text = _text(number, row)
        yield number, text.removeprefix(_BOM) if is_first else text
        is_first = False


def _text(number: int, row: object) -> str:
    """Return a line as text.

    Raises:
        InvalidInputError: it is none, of another encoding, or too long.
    """
    if not isinstance(row, bytes | str):
        raise InvalidInputError(
            [f"row {number} is of type {type(row).__name__}; accepted: a line, or a mapping"]
        )
    if len(row) > MAX_LINE_BYTES:
        raise InvalidInputError([f"row {number} is longer than {MAX_LINE_BYTES:,} bytes"])
    if isinstance(row, str):
        return row
    if row.startswith(_UTF16) or b"\x00" in row:
        _refuse_encoding("row 1 looks like UTF-16", "UTF-16")
    try:
        return row.decode()
    except UnicodeDecodeError:
        pass
    try:
        row.decode("gb18030")
    except UnicodeDecodeError:
        raise InvalidInputError([f"row {number} is not UTF-8; save the file as UTF-8"]) from None
    return _refuse_encoding(f"row {number} is not UTF-8 and looks like GBK", "GB18030")


def _refuse_encoding(what: str, encoding: str) -> NoReturn:
    raise InvalidInputError(
        [f"{what}; convert it: iconv -f {encoding} -t UTF-8 rows.csv > rows-utf8.csv"]
    )


def _of_mapping(number: int, row: object, columns: Sequence[str]) -> Row:
    if not isinstance(row, Mapping):
        return Row(number, "", rule="columns", detail="no object of column to value")
    openid = row.get(OPENID_COLUMN)
    if not isinstance(openid, str) or not OPENID.fullmatch(openid):
        return Row(number, "", rule="openid", detail="no openid: 1-64 letters, digits, _ or -")
    values = []
    for column in columns:
        value = row.get(column)
        # NaN is how tables of numbers say that there is nothing: nobody is to be told "nan"
        if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
            value = str(value)
        if not isinstance(value, str):
            what = "no column" if column not in row else "neither text nor number in column"
            return Row(number, openid, rule="columns", detail=f"{what} {column!r}")
        values.append(value)
    return _checked(number, openid, tuple(values), columns)


def _checked(number: int, openid: str, values: tuple[str, ...], columns: Sequence[str]) -> Row:
    """Return a row whose values may be kept."""
    for column, value in zip(columns, values, strict=True):
        if len(value) > MAX_VALUE_UNITS:
            detail = f"column {column!r} has more than {MAX_VALUE_UNITS:,} characters"
            return Row(number, openid, rule="columns", detail=detail)
        if _CONTROL.search(value):
            return Row(
                number, openid, rule="columns", detail=f"column {column!r} has control characters"
            )
    return Row(number, openid, values)


def _of_json(number: int, line: str, columns: Sequence[str]) -> Row:
    try:
        row = json.loads(line, parse_int=str, parse_float=str)  # numbers stay as written
    except (ValueError, RecursionError):
        return Row(number, "", rule="columns", detail="no JSON object")
    return _of_mapping(number, row, columns)


def _of_csv(lines: Iterator[tuple[int, str]], columns: Sequence[str]) -> Iterator[Row]:
    at = 0

    def feed() -> Iterator[str]:
        nonlocal at
        for number, line in lines:
            at = number
            yield line.rstrip("\r\n") + "\n"

    reader = csv.reader(feed(), strict=True)
    try:
        header = [cell.strip() for cell in next(reader)]
        openid_at, places = _places(header, columns)
        for cells in reader:
            if len(cells) != len(header):
                detail = f"{len(cells)} cells; the header names {len(header)} columns"
                yield Row(at, "", rule="columns", detail=detail)
                continue
            openid = cells[openid_at].strip()
            if not OPENID.fullmatch(openid):
                detail = "no openid: 1-64 letters, digits, _ or -"
                yield Row(at, "", rule="openid", detail=detail)
                continue
            yield _checked(at, openid, tuple([cells[place] for place in places]), columns)
    except csv.Error as error:
        raise InvalidInputError([f"row {at} is no CSV: {error}"]) from error


def _places(header: list[str], columns: Sequence[str]) -> tuple[int, list[int]]:
    """Return where the openid and the columns are.

    Raises:
        InvalidInputError: they are not.
    """
    named = [OPENID_COLUMN if cell.lower() == OPENID_COLUMN else cell for cell in header]
    if OPENID_COLUMN not in named:
        raise InvalidInputError([_no_openid(header)])
    if len(named) > _MOST_COLUMNS:
        raise InvalidInputError([f"the header names {len(named)} columns; up to {_MOST_COLUMNS}"])
    twice = [name for name in dict.fromkeys(named) if name and named.count(name) > 1]
    if twice:
        raise InvalidInputError([f"the header names {', '.join(map(repr, twice))} twice"])
    lacking = [column for column in columns if column not in named]
    if lacking:
        shown = ", ".join(named[:20])
        raise InvalidInputError(
            [f"no column {column!r} for {{{column}}}; the rows have {shown}" for column in lacking]
        )
    return named.index(OPENID_COLUMN), [named.index(column) for column in columns]


def _no_openid(header: list[str]) -> str:
    text = ",".join(header)
    for sign, what in _OTHERS.items():
        if OPENID_COLUMN in (cell.strip().lower() for cell in text.split(sign)):
            return f"the header's columns are parted by {what}; take commas"
    if len(header) == 1 and OPENID.fullmatch(text):
        return "no header: the first row must name the columns, openid one of them"
    return f"no column openid; the header names {text[:80]!r}"
