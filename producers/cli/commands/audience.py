"""``wxbroadcast audience``: named sets of openids."""

from functools import partial
from typing import Annotated

import typer

from producers.cli.file_rows import IMPORTED, REMOVED, REPLACED, read, tell
from producers.cli.options import App, AsJson, File
from producers.cli.session import opened, print_json, print_table, say, table

app = typer.Typer(
    name="audience",
    help="Named sets of openids; `all` is every openid that gave a permit.",
    no_args_is_help=True,
)

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
        report = read(file, "importing", partial(verb, app, name), IMPORTED)
        counts = REPLACED if replace else IMPORTED
        tell(name, audiences.count(app, name), report, counts, as_json=as_json)


@app.command("remove")
def remove(name: Name, file: File, app: App, as_json: AsJson = False) -> None:
    """Take the openids of a file out of an audience.

    The file is one as for import. Removing twice changes nothing. When no row holds an openid, the
    exit code is 1.
    """
    with opened(as_json=as_json) as session:
        from producers.audiences import Audiences

        audiences = Audiences(session.client, session.settings)
        report = read(file, "removing", partial(audiences.remove_rows, app, name), REMOVED)
        tell(name, audiences.count(app, name), report, REMOVED, as_json=as_json)


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
def count(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help='An audience, or "vip & active - churned".')
    ],
    app: App,
    as_json: AsJson = False,
) -> None:
    """Print how many members an audience, or an expression of audiences, has.

    `a & b`: who is in both; `a | b`: who is in one or the other; `a - b`: who is in a and not in b.
    An expression is counted one by one, about a second for a million.
    """
    with opened(as_json=as_json) as session:
        from producers.audiences import Audiences
        from producers.cli.progress import Progress

        with Progress("counting", None, "members") as bar:
            members = Audiences(session.client, session.settings).count(app, name, bar.update)
        if as_json:
            print_json({"audience": name, "members": members})
        else:
            typer.echo(members)
