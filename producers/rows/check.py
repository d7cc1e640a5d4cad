"""Checks: rows against WeChat's field rules, each as it would be sent."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol

from producers import fields
from producers.rows.duplicates import Seen
from producers.rows.reading import Row, read_rows
from producers.rows.report import RowsReport
from producers.words import Channel

_NAMED: Final = 5
"""Values that a fault names."""


class Said(Protocol):
    """What is to be said: a `Spec` made with ``rows=True``."""

    @property
    def channel(self) -> Channel:
        """Whose rules."""

    @property
    def data(self) -> Mapping[str, str]:
        """The fields, with holes."""

    @property
    def page(self) -> str:
        """The page, with holes."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What the holes are for."""


Listed = Mapping[str, frozenset[str]]
"""Field → the only values that the template lets it have (`Templates.values_of`)."""


class Checker:
    """Checks rows for one message.

    Args:
        said: what is to be said.
        listed: of its template.
    """

    def __init__(self, said: Said, listed: Listed = MappingProxyType({})) -> None:
        self._channel = said.channel
        self._columns = said.columns
        # what is the same for everybody was checked when the message was made
        self._data = {key: text for key, text in said.data.items() if fields.columns_of([text])}
        self._listed = {key: only for key, only in listed.items() if key in self._data}
        self._page = said.page if fields.columns_of([said.page]) else ""

    def fault(self, values: Sequence[str]) -> tuple[str, str] | None:
        """Return the rule that a row's values break, and one sentence; None for none."""
        if not self._columns:
            return None
        named = dict(zip(self._columns, values, strict=True))
        data = {key: fields.filled(text, named) for key, text in self._data.items()}
        faults = fields.check(self._channel, data)
        if faults:
            return f"{faults[0].key} {faults[0].kind}", "; ".join(one.reason for one in faults)
        for key, only in self._listed.items():
            if data[key] not in only:
                some = ", ".join(sorted(only)[:_NAMED])
                return f"{key} unlisted", f"{key} is {data[key][:40]!r}; the template has {some}"
        page = self._page and fields.check_page(fields.filled_page(self._page, named))
        return ("page", page[0]) if page else None


def checked(
    said: Said,
    rows: Iterable[object] | str | Path,
    report: RowsReport,
    listed: Listed = MappingProxyType({}),
) -> Iterable[Row]:
    """Yield the rows that can be sent, in constant memory; the others go to the report.

    Raises:
        InvalidInputError: as `read_rows`.
    """
    checker = Checker(said, listed)
    for row in read_rows(rows, said.columns):
        report.rows += 1
        if row.rule:
            report.note(row.number, row.rule, row.detail)
            continue
        fault = checker.fault(row.values)
        if fault:
            report.note(row.number, *fault)
            continue
        yield row


def check_rows(
    said: Said,
    rows: Iterable[object] | str | Path,
    on_good: Callable[[str], None] | None = None,
    listed: Listed = MappingProxyType({}),
) -> RowsReport:
    """Return what is wrong with rows; nothing is stored, and Redis is not asked.

    It needs 12 bytes a row, to know who comes twice.

    Args:
        said: what is to be said, a `Spec` made with ``rows=True``.
        rows: as `read_rows` takes them.
        on_good: called with the openid of each row that can be sent, a duplicate too.
        listed: the values that its template lets fields have.

    Raises:
        InvalidInputError: as `read_rows`.
    """
    report, seen = RowsReport(), Seen()
    for row in checked(said, rows, report, listed):
        seen.note(row.number, row.openid)
        if on_good:
            on_good(row.openid)
    for number in seen.again():
        report.note(number, *DUPLICATE)
    return report


DUPLICATE: Final = ("duplicate", "the openid has a row before")
