"""``wxbroadcast suppression``: who is sent nothing, whatever audience has them."""

from functools import partial
from typing import Annotated, Literal

import typer

from producers.cli.file_rows import IMPORTED, REMOVED, REPLACED, read, tell
from producers.cli.options import App, AsJson, File
from producers.cli.session import opened, print_json, print_table, say, table

app = typer.Typer(
    name="suppression",
    help="Who is sent nothing, whatever audience has them.",
    no_args_is_help=True,
)

Openid = Annotated[str, typer.Option("--openid", help="The user.")]


@app.command("import")
def import_(
    file: File,
    app: App,
    reason: Annotated[
        Literal["imported", "opted_out"],
        typer.Option(help="opted_out: users who told you, and may opt in again by themselves."),
    ] = "imported",
    replace: Annotated[
        bool, typer.Option("--replace", help="The only ones of this reason, in one switch.")
    ] = False,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="--replace by a file without a row is meant.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put the openids of a file on the suppression list.

    The file is one as for `audience import`. The same file twice changes nothing.
    """
    with opened(as_json=as_json) as session:
        from producers.suppressions import Suppressions

        found = Suppressions(session.client, session.settings)
        replacing = partial(found.replace_rows, allow_empty=allow_empty)
        verb = replacing if replace else found.import_rows
        report = read(file, "importing", partial(verb, app, reason), IMPORTED)
        counts = REPLACED if replace else IMPORTED
        tell(reason, found.counts(app)[reason], report, counts, as_json=as_json)


@app.command("remove")
def remove(file: File, app: App, as_json: AsJson = False) -> None:
    """Take the openids of a file off the list, whatever the reason."""
    with opened(as_json=as_json) as session:
        from producers.suppressions import Suppressions

        found = Suppressions(session.client, session.settings)
        report = read(file, "removing", partial(found.remove_rows, app), REMOVED)
        tell("the list", sum(found.counts(app).values()), report, REMOVED, as_json=as_json)


@app.command("export")
def export(app: App) -> None:
    """Print who is on the list as CSV: openid,reason. Of the forgotten nobody has the openid."""
    with opened(as_json=False) as session:
        from producers.suppressions import Suppressions

        for line in Suppressions(session.client, session.settings).csv_lines(app):
            typer.echo(line, nl=False)


@app.command("show")
def show(app: App, as_json: AsJson = False) -> None:
    """Count who is on the list, by reason; why one user is, `user show` says."""
    with opened(as_json=as_json) as session:
        from producers.suppressions import Suppressions

        counts = Suppressions(session.client, session.settings).counts(app)
        if as_json:
            print_json(counts)
            return
        rows = table("reason", ">users")
        for reason, count in counts.items():
            rows.add_row(reason, f"{count:,}")
        print_table(rows)


@app.command("opt-out")
def opt_out(app: App, openid: Openid, as_json: AsJson = False) -> None:
    """Send a user nothing more, as the user told you."""
    with opened(as_json=as_json) as session:
        from producers.suppressions import Suppressions

        Suppressions(session.client, session.settings).opt_out(app, openid)
        _say(openid, "sent nothing more", out=True, as_json=as_json)


@app.command("opt-in")
def opt_in(app: App, openid: Openid, as_json: AsJson = False) -> None:
    """Send a user messages again; whoever was imported stays on the list."""
    with opened(as_json=as_json) as session:
        from producers.suppressions import Suppressions

        Suppressions(session.client, session.settings).opt_in(app, openid)
        _say(openid, "sent messages again, unless imported", out=False, as_json=as_json)


def _say(openid: str, what: str, *, out: bool, as_json: bool) -> None:
    if as_json:
        print_json({"openid": openid, "out": out})
    else:
        say(f"{openid} is {what}")
