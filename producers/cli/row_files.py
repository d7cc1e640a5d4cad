"""Files of rows: a broadcast that tells each recipient what a row says, sent or only tried."""

from typing import TYPE_CHECKING, Any

from producers.cli.progress import Progress
from producers.cli.rehearsing import run_dry, send_test
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


def test_rows(
    session: Session,
    openids: str,
    given: dict[str, Any],
    file: str,
    follows: dict[str, Any] | None,
    *,
    as_json: bool,
) -> None:
    """Send a test, with the rows of a file if there is one; as `send_test`.

    Args:
        session: the open command.
        openids: the users, with commas between them.
        given: as `Spec.checked` takes it.
        file: the rows, '' for none.
        follows: what goes out afterwards, as `DryRuns.faults` takes it; None: nothing does. If it
            would be refused, that is told before the test spends a permit.
        as_json: print an object in place of the table.
    """
    if follows is not None:
        _check_what_follows(session, follows, file)
    goes_on = follows is not None
    if not file:
        send_test(session, openids, given, as_json=as_json, goes_on=goes_on)
        return
    from producers.rows.reading import MAX_LINE_BYTES

    with source(file, MAX_LINE_BYTES) as lines:
        send_test(session, openids, {**given, "rows": lines}, as_json=as_json, goes_on=goes_on)


def _check_what_follows(session: Session, follows: dict[str, Any], file: str) -> None:
    from producers.errors import InvalidInputError
    from producers.rehearsals import DryRuns
    from producers.rows.reading import MAX_LINE_BYTES

    faults_of = DryRuns(session.client, session.settings).faults
    if file == "-":
        raise InvalidInputError(["rows: stdin cannot be read twice; give --then a file"])
    if file:
        with source(file, MAX_LINE_BYTES) as lines:
            faults = faults_of(**follows, rows=lines)
    else:
        faults = faults_of(**follows)
    if faults:
        raise InvalidInputError(faults)


def count_rows(spec: "Spec", file: str) -> int:
    """Return how many rows of a file are good.

    Raises:
        InvalidInputError: they cannot be read, or not twice.
    """
    from producers.errors import InvalidInputError
    from producers.rows import check_rows
    from producers.rows.reading import MAX_LINE_BYTES

    if file == "-":
        raise InvalidInputError(
            ["rows: stdin cannot be counted before it is sent; give a file, or --yes"]
        )
    with source(file, MAX_LINE_BYTES) as lines:
        return check_rows(spec, lines).good
