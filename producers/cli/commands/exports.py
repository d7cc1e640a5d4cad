"""``wxbroadcast export`` and ``import``: one app as a file, for elsewhere or as a backup."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from producers.cli.options import App, AsJson, File
from producers.cli.session import Code, opened, print_json, print_table, say, table

if TYPE_CHECKING:
    from producers.exports.importing import ImportReport
    from producers.exports.lines import Sums

_KINDS = {"f": "form_ids", "p": "uses of prepay_ids", "s": "accepts"}


def export(
    app: App,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Where to write it; - is stdout.")
    ] = "-",
    as_json: AsJson = False,
) -> None:
    """Write one app as JSON lines: users with their permits, audiences, who is suppressed.

    `import` takes them elsewhere, also with other lanes and buckets. Sums are exact when nobody
    collects and nothing is sent meanwhile. The file is worth as much care as the database; no
    secret is in it.
    """
    if file == "-" and as_json:
        raise typer.BadParameter("--json needs a FILE: stdout has the lines")
    with opened(as_json=as_json) as session:
        from producers.audiences import ALL, Audiences
        from producers.cli.progress import Progress
        from producers.exports import Exporter

        users = Audiences(session.client, session.settings).count(app, ALL)
        exporter = Exporter(session.client, session.settings)
        with _written(file) as out, Progress("exporting", users, "users") as bar:
            last: list[Sums] = []

            def show(sums: "Sums") -> None:
                last[:] = [sums]
                bar.update(sums.users)

            for line in exporter.export(app, show):
                out.write(line)
        sums = last[0]
        if as_json:
            print_json(sums.as_dict())
            return
        say(
            f"{sums.users:,} users, {sum(sums.uses.values()):,} uses and accepts, "
            f"{sum(sums.gone.values()):,} that are gone, {len(sums.audiences):,} audiences, "
            f"{sum(sums.suppressed.values()):,} suppressed"
        )


def import_(
    file: File,
    app: App,
    again: Annotated[
        bool,
        typer.Option(
            "--again", help="Count accepts that were counted before: after Redis forgot them."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Store what a file of `export` holds. The same file twice changes nothing.

    When a line says nothing, or the file is not whole, the rest is stored, and the exit code is 1;
    a file that is none, or another app's, is refused with 2.
    """
    with opened(as_json=as_json) as session:
        from producers.cli.progress import Progress
        from producers.cli.source import source
        from producers.exports import Importer
        from producers.permits.uploads import MAX_LINE_BYTES

        importer = Importer(session.client, session.settings)
        with source(file, MAX_LINE_BYTES) as lines, Progress("importing", lines.size) as bar:

            def show(report: "ImportReport") -> None:
                note = f"{report.added:,} new, {report.known:,} known, {report.bad:,} bad"
                bar.update(lines.position, note, counted=f"{report.lines:,} lines")

            report = importer.load(app, lines, show, again=again)
        if as_json:
            print_json(report.as_dict())
        else:
            _tell(report)
    if not report.whole:
        raise typer.Exit(Code.WRONG)


@contextlib.contextmanager
def _written(name: str) -> Iterator[IO[bytes]]:
    """Open a file that is there when it is whole, for its owner alone; or stdout."""
    if name == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    from producers.errors import InvalidInputError

    part = Path(f"{name}.part")
    try:
        out = open(part, "wb", opener=lambda path, flags: os.open(path, flags, 0o600))  # noqa: SIM115
    except OSError as error:
        raise InvalidInputError([f"cannot write {part}: {error.strerror}"]) from error
    try:
        with out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        part.replace(name)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _tell(report: "ImportReport") -> None:
    rows = table("", ">new")
    for letter, what in _KINDS.items():
        rows.add_row(what, f"{report.new[letter]:,}")
    rows.add_row("users", f"{report.users:,}")
    for name, added in sorted(report.audiences.items()):
        rows.add_row(f"audience {name}", f"{added:,}")
    for reason, added in report.suppressed.items():
        rows.add_row(f"suppressed, {reason}", f"{added:,}")
    rows.add_section()
    for what, count in (
        ("known before", report.known),
        ("ended", report.ended),
        ("gone: not to be collected again", report.gone + report.lost),
        ("accepts left out", report.left_out),
        ("accepts withdrawn since", report.withdrawn),
        ("lines that say nothing", report.bad),
    ):
        rows.add_row(what, f"{count:,}")
    print_table(rows)
    for line, detail in report.listed[:10]:
        print_table(f"line {line}: {detail}")
    for key in report.keys:
        scopes = ",".join(key.get("scopes", ()))
        say(f"an API key to be made anew: {key.get('name')} ({scopes})")
    for problem in report.problems:
        say(f"wxbroadcast: {problem}")
