"""``wxbroadcast audience``: named sets of openids."""

from typing import Annotated

import typer

from producers.cli.options import App, AsJson, File
from producers.cli.session import Code, opened, print_json, print_table, table

app = typer.Typer(
    name="audience",
    help="Named sets of openids; `all` is every openid that gave a permit.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the audience.")]


@app.command("import")
def import_(name: Name, file: File, app: App, as_json: AsJson = False) -> None:
    """Add the openids of a file to an audience.

    The file holds an openid a line; or CSV with a column named openid, or the openid first; or
    JSON lines. Importing is adding: the same file twice changes nothing. When no row holds an
    openid, the exit code is 1.
    """
    with opened(as_json=as_json) as session:
        from producers.audiences import Audiences, ImportReport
        from producers.cli.progress import Progress
        from producers.cli.source import source
        from producers.uploads import MAX_LINE_BYTES

        with source(file, MAX_LINE_BYTES) as lines, Progress("importing", lines.size) as bar:

            def show(report: ImportReport) -> None:
                note = f"{report.added:,} new, {report.known:,} known, {report.bad:,} bad"
                bar.update(lines.position, note, counted=f"{report.rows:,} rows")

            audiences = Audiences(session.client, session.settings)
            report = audiences.import_rows(app, name, lines, show)
        members = audiences.count(app, name)
        if as_json:
            print_json({"audience": name, "members": members, **report.as_dict()})
        else:
            counts = table("", ">rows")
            counts.add_row("new members", f"{report.added:,}")
            counts.add_row("members before", f"{report.known:,}")
            counts.add_row("without an openid", f"{report.bad:,}")
            counts.add_section()
            counts.add_row(f"members of {name} now", f"{members:,}")
            print_table(counts)
            for row, detail in report.listed[:10]:
                print_table(f"row {row}: {detail}")
        if report.bad and not report.added and not report.known:
            raise typer.Exit(Code.WRONG)


@app.command("list")
def list_(app: App, as_json: AsJson = False) -> None:
    """List the audiences of an app with their sizes."""
    with opened(as_json=as_json) as session:
        from producers.audiences import Audiences

        audiences = Audiences(session.client, session.settings)
        sizes = {name: audiences.count(app, name) for name in audiences.names(app)}
        if as_json:
            print_json({"audiences": [{"name": n, "members": size} for n, size in sizes.items()]})
            return
        rows = table("audience", ">members")
        for name, size in sizes.items():
            rows.add_row(name, f"{size:,}")
        print_table(rows)


@app.command("count")
def count(name: Name, app: App, as_json: AsJson = False) -> None:
    """Print how many members an audience has."""
    with opened(as_json=as_json) as session:
        from producers.audiences import Audiences

        members = Audiences(session.client, session.settings).count(app, name)
        if as_json:
            print_json({"audience": name, "members": members})
        else:
            typer.echo(members)
