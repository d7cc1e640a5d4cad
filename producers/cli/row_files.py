"""Files of rows: a broadcast that tells each recipient what a row says, sent or only tried."""

from typing import TYPE_CHECKING, Any

from producers.cli.progress import Progress
from producers.cli.rehearsing import run_dry
from producers.cli.session import Code, Session, say
from producers.cli.source import source

if TYPE_CHECKING:
    from producers.broadcasts import Broadcasts, Created
    from producers.broadcasts.spec import Spec
    from producers.rows import RowsReport


def send_rows(
    broadcasts: "Broadcasts", spec: "Spec", file: str, key: str, *, skip_bad: bool
) -> "Created":
    """Create a broadcast with the rows of a file, and tell which were bad."""
    from producers.rows.reading import MAX_LINE_BYTES

    with source(file, MAX_LINE_BYTES) as lines, Progress("rows", lines.size) as bar:

        def show(report: "RowsReport") -> None:
            bar.update(lines.position, f"{report.bad:,} bad", counted=f"{report.rows:,} rows")

        created = broadcasts.create_with_rows(spec, lines, key, skip_bad=skip_bad, on_progress=show)
    report = created.rows
    if report and report.bad:
        say(f"{report.bad:,} of {report.rows:,} rows are bad, and left out:")
        for row, detail in sorted(report.listed)[:10]:
            say(f"row {row}: {detail}")
    return created


def try_rows(
    session: Session, given: dict[str, Any], file: str, *, skip_bad: bool, as_json: bool
) -> Code:
    """Show what a broadcast would do, with the rows of a file if there is one; as `run_dry`."""
    if not file:
        return run_dry(session, given, as_json=as_json)
    from producers.rows.reading import MAX_LINE_BYTES

    with source(file, MAX_LINE_BYTES) as lines:
        return run_dry(session, {**given, "rows": lines, "skip_bad": skip_bad}, as_json=as_json)
