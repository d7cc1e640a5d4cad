"""Rows: the openids of a file, in whatever form people keep them.

Lines of: an openid each; or CSV, with a header that names a column ``openid``, or the openid first;
or JSON lines, a string or an object with ``openid``. Blank lines and a header are no rows.
"""

import csv
from collections.abc import Iterable, Iterator
from typing import Final

import orjson

from producers.errors import InvalidInputError
from producers.openid import OPENID

FAULT: Final = "no openid: 1-64 letters, digits, _ or -"


def openids(rows: Iterable[bytes | str]) -> Iterator[tuple[int, str | None]]:
    """Yield (row number from 1, openid or None for a bad row), in constant memory.

    Args:
        rows: lines, as bytes or text; anything else is a bad row.

    Raises:
        InvalidInputError: it is one text, of which each letter would be an openid.
    """
    if isinstance(rows, str | bytes):
        raise InvalidInputError(["rows: a list of openids, or the lines of a file; not one text"])
    column = 0
    at_start = True
    for number, row in enumerate(rows, start=1):
        if isinstance(row, str):
            row = row.encode("utf-8", "replace")  # noqa: PLW2901
        elif not isinstance(row, bytes):
            yield number, None
            continue
        line = row.strip().removeprefix(b"\xef\xbb\xbf")  # spreadsheets write a byte order mark
        if not line:
            continue
        if line[:1] in b'{"' and (found := _from_json(line)) is not None:
            is_header = at_start and found.lower() == "openid"
            at_start = False
            if is_header:
                continue  # of a CSV of one quoted column
            yield number, found if OPENID.fullmatch(found) else None
            continue
        try:
            cells = next(csv.reader([line.decode("utf-8", "replace")]))
        except csv.Error:
            cells = []
        if at_start and "openid" in (names := [cell.strip().lower() for cell in cells]):
            column, at_start = names.index("openid"), False
            continue
        at_start = False
        cell = cells[column].strip() if column < len(cells) else ""
        yield number, cell if OPENID.fullmatch(cell) else None


def _from_json(line: bytes) -> str | None:
    """Return the openid of a JSON row, '' for JSON without one, None for what is not JSON."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    value = row.get("openid") if isinstance(row, dict) else row
    return value if isinstance(value, str) else ""
