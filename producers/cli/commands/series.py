"""``wxbroadcast series``: broadcasts that are made again and again, seen and moved."""

from typing import Annotated

import typer

from producers.cli.options import App, AsJson
from producers.cli.session import Session, opened, print_json, print_table, table

app = typer.Typer(
    name="series",
    help="Broadcasts made at each tick of `broadcast --every`: listed, shown, paused, deleted.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The --key that it was made with.")]


@app.command("list")
def list_(alias: App, as_json: AsJson = False) -> None:
    """List an app's series."""
    with opened(as_json=as_json) as session:
        from producers.series import Series

        found = Series(session.client, session.settings).list(alias)
        if as_json:
            print_json({"series": [one.as_dict() for one in found]})
            return
        rows = table("series", "every", "state", "next", "last broadcast", "note")
        for one in found:
            next_at = _when(one.next_at_ms, one.zone)
            rows.add_row(one.name, one.every, one.state, next_at, one.last_broadcast, one.note)
        print_table(rows)


@app.command()
def show(name: Name, alias: App, as_json: AsJson = False) -> None:
    """Show what a series is doing."""
    with opened(as_json=as_json) as session:
        _do(session, "show", alias, name, as_json=as_json)


@app.command()
def pause(name: Name, alias: App, as_json: AsJson = False) -> None:
    """Let a series make nothing; what it made goes on."""
    with opened(as_json=as_json) as session:
        _do(session, "pause", alias, name, as_json=as_json)


@app.command()
def resume(name: Name, alias: App, as_json: AsJson = False) -> None:
    """Let a paused series go on, with its next tick from now."""
    with opened(as_json=as_json) as session:
        _do(session, "resume", alias, name, as_json=as_json)


@app.command()
def delete(name: Name, alias: App, as_json: AsJson = False) -> None:
    """Delete a series; what it made goes on."""
    with opened(as_json=as_json) as session:
        _do(session, "delete", alias, name, as_json=as_json)


def _do(session: Session, verb: str, alias: str, name: str, *, as_json: bool) -> None:
    from producers.series import Series

    found = getattr(Series(session.client, session.settings), verb)(alias, name)
    if as_json:
        print_json(found.as_dict())
        return
    rows = table("series", found.name)
    rows.add_row("every", f"{found.every} ({found.zone})")
    rows.add_row("missed ticks", found.missed)
    rows.add_row("state", "deleted" if verb == "delete" else found.state)
    rows.add_row("to", f"{found.audience}, {found.channel} {found.template_id}")
    rows.add_row("next", _when(found.next_at_ms, found.zone))
    rows.add_row("last", _when(found.last_at_ms, found.zone))
    rows.add_row("last broadcast", found.last_broadcast)
    if found.note:
        rows.add_row("note", found.note)
    print_table(rows)


def _when(at_ms: int, zone: str) -> str:
    from producers.times.moments import in_words, local
    from producers.times.zones import zone_of

    return in_words(local(at_ms, zone_of(zone))) if at_ms else ""
