"""``wxbroadcast audience``: named sets of openids."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from producers.cli.options import App, AsJson, File
from producers.cli.session import Code, opened, print_json, print_table, say, table

if TYPE_CHECKING:
    from producers.cli.source import Source

app = typer.Typer(
    name="audience",
    help="Named sets of openids; `all` is every openid that gave a permit.",
    no_args_is_help=True,
)

_Counts = Mapping[str, tuple[str, str]]
_IMPORTED: _Counts = {"added": ("new", "new members"), "known": ("known", "members before")}
_REPLACED: _Counts = {**_IMPORTED, "removed": ("left out", "left out")}
_REMOVED: _Counts = {"removed": ("removed", "removed"), "unknown": ("unknown", "no members")}
"""Field of a report → its word while the file is read, its title at the end."""

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the audience.")]


@app.command("import")
def import_(
    name: Name,
    file: File,
    app: App,
    replace: Annotated[
        bool, typer.Option("--replace", help="Its only members from then on, in one switch.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Add the openids of a file to an audience.

    The file holds an openid a line; or CSV with a column named openid, or the openid first; or
    JSON lines. Importing is adding: the same file twice changes nothing. When no row holds an
    openid, the exit code is 1, and nothing was replaced.
    """
    with opened(as_json=as_json) as session:
        from producers.audiences import Audiences

        audiences = Audiences(session.client, session.settings)
        verb = audiences.replace_rows if replace else audiences.import_rows
        report = _read(file, "importing", partial(verb, app, name), _IMPORTED)
        counts = _REPLACED if replace else _IMPORTED
        _tell(name, audiences.count(app, name), report, counts, as_json=as_json)


@app.command("remove")
def remove(name: Name, file: File, app: App, as_json: AsJson = False) -> None:
    """Take the openids of a file out of an audience.

    The file is one as for import. Removing twice changes nothing. When no row holds an openid, the
    exit code is 1.
    """
    with opened(as_json=as_json) as session:
        from producers.audiences import Audiences

        audiences = Audiences(session.client, session.settings)
        report = _read(file, "removing", partial(audiences.remove_rows, app, name), _REMOVED)
        _tell(name, audiences.count(app, name), report, _REMOVED, as_json=as_json)


@app.command("delete")
def delete(name: Name, app: App, as_json: AsJson = False) -> None:
    """Delete an audience. A broadcast that runs to it ends with those who were queued until then.

    Cut short, it goes on when it is called again.
    """
    with opened(as_json=as_json) as session:
        from producers.audiences import Audiences
        from producers.cli.progress import Progress

        audiences = Audiences(session.client, session.settings)
        with Progress("deleting", None, "members") as bar:
            members = audiences.delete(app, name, bar.update)
        if as_json:
            print_json({"audience": name, "deleted": members})
        else:
            say(f"{name} is deleted; it had {members:,} members")


@app.command("list")
def list_(
    app: App,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, at most.")] = 1000,
    cursor: Annotated[str, typer.Option(help="Go on where a page before ended.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the audiences of an app with their sizes."""
    with opened(as_json=as_json) as session:
        from producers.audiences import Audiences

        page = Audiences(session.client, session.settings).page(app, cursor, limit)
        if as_json:
            print_json(page.as_dict())
            return
        rows = table("audience", ">members")
        for name, size in page.audiences:
            rows.add_row(name, f"{size:,}")
        print_table(rows)
        if page.cursor:
            say(f"there are more: --cursor {page.cursor}")


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


def _read(
    file: str, label: str, verb: "Callable[[Source, Callable[[Any], None]], Any]", counts: _Counts
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


def _tell(name: str, members: int, report: Any, counts: _Counts, *, as_json: bool) -> None:
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
