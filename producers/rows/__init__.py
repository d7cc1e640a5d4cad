"""Rows: whom a broadcast is for, and what it says to each of them: read, checked, kept packed."""

from producers.rows.check import check_rows
from producers.rows.report import BadRowsError, RowsReport
from producers.rows.store import Rows

__all__ = ["BadRowsError", "Rows", "RowsReport", "check_rows"]
