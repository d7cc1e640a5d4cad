"""The figures of a run: values over rounds beside their baseline, as a table and as JSON."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table


class WrongSumError(Exception):
    """Something was delivered twice, or not at all, or counted wrongly: no figure counts."""


def must(holds: object, what: str) -> None:
    """Fail the benchmark unless a sum is right."""
    if not holds:
        raise WrongSumError(what)


@dataclass
class Figure:
    """One row of the table.

    Attributes:
        what: what was measured, in a few words.
        unit: of the values.
        values: one per round.
        baseline: name of what it is compared with, or ''.
        beside: the baseline's values, round by round.
        goal: what was aimed at, or ''.
        reached: whether it is; None when there is no goal.
        note: what the reader must know.
    """

    what: str
    unit: str
    values: Sequence[float]
    baseline: str = ""
    beside: Sequence[float] = ()
    goal: str = ""
    reached: bool | None = None
    note: str = ""

    @property
    def median(self) -> float:
        """The middle round."""
        return statistics.median(self.values)

    @property
    def ratio(self) -> float | None:
        """The median of value / baseline over the rounds; each pair ran side by side."""
        pairs = [one / other for one, other in zip(self.values, self.beside, strict=False) if other]
        return statistics.median(pairs) if pairs else None

    def judge(self, good: Callable[[float], bool]) -> "Figure":
        """Note whether the ratio to the baseline reaches the goal."""
        self.reached = self.ratio is not None and good(self.ratio)
        return self

    def judge_median(self, good: Callable[[float], bool | None]) -> "Figure":
        """Note whether the median reaches the goal."""
        self.reached = good(self.median)
        return self

    def judge_all(self, good: Callable[[float], bool]) -> "Figure":
        """Note whether every round reaches the goal."""
        self.reached = all(good(value) for value in self.values)
        return self

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready fields."""
        return {
            "what": self.what,
            "unit": self.unit,
            "median": self.median,
            "values": list(self.values),
            "baseline": self.baseline,
            "beside": list(self.beside),
            "ratio": self.ratio,
            "goal": self.goal,
            "reached": self.reached,
            "note": self.note,
        }


@dataclass
class Report:
    """What one benchmark found.

    Attributes:
        name: of the benchmark.
        figures: its rows.
        sums: sentences: what was checked, with the numbers.
        seconds: how long it took.
    """

    name: str
    figures: list[Figure] = field(default_factory=list)
    sums: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready fields."""
        return {
            "name": self.name,
            "seconds": round(self.seconds, 1),
            "figures": [figure.as_dict() for figure in self.figures],
            "sums": self.sums,
        }


def show(reports: Sequence[Report], out: TextIO, title: str) -> None:
    """Print one table of all figures, and the sums that were checked."""
    console = Console(file=out)
    if not console.is_terminal:
        console = Console(file=out, width=220)  # a pipe has no width; rows stay whole
    table = Table(title=title)
    table.add_column("benchmark")
    table.add_column("figure", max_width=64)
    for name in ("median", "min … max"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("baseline", max_width=34)
    table.add_column("×", justify="right", no_wrap=True)
    table.add_column("goal", max_width=30)
    table.add_column("", no_wrap=True)
    for report in reports:
        for place, figure in enumerate(report.figures):
            ratio = figure.ratio
            beside = ""
            if figure.beside:
                beside = f"{figure.baseline} {number(statistics.median(figure.beside))}"
            table.add_row(
                "" if place else report.name,
                figure.what + (f" ({figure.note})" if figure.note else ""),
                f"{number(figure.median)} {figure.unit}",
                f"{number(min(figure.values))} … {number(max(figure.values))}",
                beside,
                "" if ratio is None else f"{ratio:.2f}",
                figure.goal,
                {None: "", True: "ok", False: "missed"}[figure.reached],
            )
        table.add_section()
    console.print(table)
    for report in reports:
        for sentence in report.sums:
            console.print(f"{report.name}: {sentence}", markup=False, highlight=False)


def number(value: float) -> str:
    """Write a number with three or four digits that matter."""
    if value != value:  # noqa: PLR0124 - not a number
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
