"""Exports: recipients as lines of CSV or of JSON, in constant memory."""

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Final

import orjson

from producers.recipients.pages import Recipient

COLUMNS: Final = tuple(field.name for field in fields(Recipient))


def csv_lines(rows: Iterable[Recipient], newline: str = "\r\n") -> Iterator[bytes]:
    """Yield a header and a line for each recipient; what reading the first raises comes before.

    Args:
        rows: the recipients.
        newline: ends each line; by default as RFC 4180 has it.
    """
    line = io.StringIO()
    writer = csv.writer(line, lineterminator=newline)

    def written(cells: Iterable[object]) -> bytes:
        line.seek(0)
        line.truncate()
        writer.writerow(cells)
        return line.getvalue().encode()

    left = iter(rows)
    first = next(left, None)
    yield written(COLUMNS)
    if first is not None:
        yield written(first.as_dict().values())
    for row in left:
        yield written(row.as_dict().values())


def json_lines(rows: Iterable[Recipient]) -> Iterator[bytes]:
    """Yield a JSON object for each recipient."""
    for row in rows:
        yield orjson.dumps(row.as_dict(), option=orjson.OPT_APPEND_NEWLINE)
