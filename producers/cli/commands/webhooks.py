"""``wxbroadcast webhooks``: what your service did not take, and posting it again."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from producers.cli.options import App, AsJson
from producers.cli.session import opened, print_json, print_table, say, table

app = typer.Typer(
    name="webhooks",
    help="Webhooks that were given up: listed, posted again.",
    no_args_is_help=True,
)


@app.command("list")
def list_(
    app: App,
    limit: Annotated[int, typer.Option(help="Dead letters at the most, 1 to 1,000.")] = 100,
    cursor: Annotated[str, typer.Option(help="Of the page before.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the dead letters of an app, the oldest first, and say what waits."""
    with opened(as_json=as_json) as session:
        from producers.webhooks import DeadLetters

        page = DeadLetters(session.client, session.settings).page(app, cursor, limit)
        if as_json:
            print_json(page.as_dict())
            return
        if page.letters:
            rows = table("id", "type", "given up", ">times", "why")
            for one in page.letters:
                died = datetime.fromtimestamp(one.died_at_ms / 1000, UTC)
                times = f"{one.attempts:,}"
                rows.add_row(one.id, one.type, f"{died:%Y-%m-%d %H:%M} UTC", times, one.why)
            print_table(rows)
        box = page.box
        say(f"{box.waiting:,} wait, {box.dead:,} dead letters, {box.dropped:,} without room")
        if page.cursor:
            say(f"more: --cursor {page.cursor}")


@app.command()
def replay(
    app: App,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Which, as `list` shows them.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let dead letters be posted again, under the same ids."""
    with opened(as_json=as_json) as session:
        from producers.errors import InvalidInputError
        from producers.webhooks import DeadLetters

        if everything == bool(ids):
            raise InvalidInputError(["name the ids, or --all"])
        replayed = DeadLetters(session.client, session.settings).replay(app, ids or None)
        if as_json:
            print_json({"app": app, "replayed": replayed})
        else:
            say(f"{replayed:,} are posted again")
