"""Reports: what the log lines tell of a run, without asking Redis."""

from producers.reports.lines import Choice
from producers.reports.report import Report, read_report

__all__ = ["Choice", "Report", "read_report"]
