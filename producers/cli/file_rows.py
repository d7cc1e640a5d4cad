"""Rows of a file: read with a verb while progress shows, and told what became of them."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import typer

from producers.cli.session import Code, print_json, print_table, table

if TYPE_CHECKING:
    from producers.cli.source import Source

Counts = Mapping[str, tuple[str, str]]
IMPORTED: Counts = {"added": ("new", "new members"), "known": ("known", "members before")}
REPLACED: Counts = {**IMPORTED, "removed": ("left out", "left out")}
REMOVED: Counts = {"removed": ("removed", "removed"), "unknown": ("unknown", "no members")}
"""Field of a report → its word while the file is read, its title at the end."""


def read(
    file: str, label: str, verb: "Callable[[Source, Callable[[Any], None]], Any]", counts: Counts
) -> Any:
    """Do it with every row of the file; return the report."""
    from producers.cli.progress import Progress
    from producers.cli.source import source
    from producers.permits.uploads import MAX_LINE_BYTES

    with source(file, MAX_LINE_BYTES) as lines, Progress(label, lines.size) as bar:

        def show(report: Any) -> None:
            words = [f"{getattr(report, one):,} {word}" for one, (word, _) in counts.items()]
            note = ", ".join((*words, f"{report.bad:,} bad"))
            bar.update(lines.position, note, counted=f"{report.rows:,} rows")

        return verb(lines, show)


def tell(name: str, members: int, report: Any, counts: Counts, *, as_json: bool) -> None:
    """Tell what became of the rows.

    Raises:
        typer.Exit: not one held an openid.
    """
    found = {title: getattr(report, one) for one, (_, title) in counts.items()}
    if as_json:
        print_json({"audience": name, "members": members, **report.as_dict()})
    else:
        rows = table("", ">rows")
        for title, count in (*found.items(), ("without an openid", report.bad)):
            rows.add_row(title, f"{count:,}")
        rows.add_section()
        rows.add_row(f"members of {name} now", f"{members:,}")
        print_table(rows)
        for row, detail in report.listed[:10]:
            print_table(f"row {row}: {detail}")
    if report.bad and not any(found.values()):
        raise typer.Exit(Code.WRONG)
