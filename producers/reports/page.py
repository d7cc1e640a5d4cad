"""The page of a report: one HTML file that needs nothing else, neither scripts nor a network."""

from importlib.resources import files
from typing import Any

from producers.reports import charts
from producers.reports.report import Report


def page(report: Report) -> str:
    """Return a report as an HTML document; whatever the lines hold is shown as text."""
    from jinja2 import Environment, FunctionLoader  # noqa: PLC0415 - nothing else needs it
    from markupsafe import Markup  # noqa: PLC0415

    named = {name for counts in report.outcomes.values() for name in counts}
    order = [*charts.ORDER, *sorted(named.difference(charts.ORDER))]
    templates = Environment(loader=FunctionLoader(_text), autoescape=True)
    templates.filters["n"] = _number
    templates.filters["at"] = _at
    return templates.get_template("page.html").render(
        report=report,
        outcomes=order,
        present=charts.outcomes_of(report),
        colours=charts.COLOURS,
        over_time=Markup(charts.over_time(report)),  # noqa: S704 - pygal's, escaped by it
        of_latency=Markup(charts.of_latency(report)),  # noqa: S704
        total={name: _sum(report, name) for name in order},
    )


def _sum(report: Report, outcome: str) -> int:
    return sum(counts.get(outcome, 0) for counts in report.outcomes.values())


def _number(value: Any) -> str:
    return "" if value is None else f"{value:,}"


def _at(text: str) -> str:
    return text[:19].replace("T", " ")


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")
