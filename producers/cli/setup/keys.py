"""``wxbroadcast keys``: API keys of the HTTP service."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from producers.cli.options import AsJson
from producers.cli.session import opened, print_json, print_table, say, table

app = typer.Typer(
    name="keys", help="API keys of the HTTP service: made, listed, revoked.", no_args_is_help=True
)

KeyId = Annotated[str, typer.Argument(metavar="ID", help="Id of the key, as `keys list` shows it.")]


@app.command()
def create(
    apps: Annotated[
        list[str],
        typer.Option("--app", "-a", help="Alias of an app, several by commas; * is every app."),
    ],
    scopes: Annotated[
        list[str],
        typer.Option("--scope", "-s", help="collect, send, read, admin: several by commas."),
    ],
    name: Annotated[str, typer.Option("--name", "-n", help="For people: whose key this is.")],
    rate: Annotated[int, typer.Option("--rate", help="Requests per second, as many at once.")] = (
        1000
    ),
    as_json: AsJson = False,
) -> None:
    """Make a key, and print it: this once and never again."""
    with opened(as_json=as_json) as session:
        from producers.access.api_keys import ApiKeys

        made = ApiKeys(session.client, session.settings).create(
            name, _split(apps), _split(scopes), rate
        )
        if as_json:
            print_json({**made.key.as_dict(), "key": made.token})
        else:
            say(f"key {made.key.id} ({name}); it is shown this once:")
            typer.echo(made.token)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the keys, without what is secret in them."""
    with opened(as_json=as_json) as session:
        from producers.access.api_keys import ApiKeys

        found = ApiKeys(session.client, session.settings).list()
        if as_json:
            print_json({"keys": [key.as_dict() for key in found]})
            return
        rows = table("id", "name", "apps", "scopes", ">rate", "created")
        for key in found:
            shown = key.as_dict()
            made = datetime.fromtimestamp(key.created_at_ms / 1000, UTC)
            rows.add_row(
                key.id,
                key.name,
                ", ".join(shown["apps"]),
                ", ".join(shown["scopes"]),
                f"{key.rate:,}",
                f"{made:%Y-%m-%d %H:%M} UTC",
            )
        print_table(rows)


@app.command()
def revoke(key_id: KeyId, as_json: AsJson = False) -> None:
    """Take a key back; running services refuse it within two seconds."""
    with opened(as_json=as_json) as session:
        from producers.access.api_keys import ApiKeys

        key = ApiKeys(session.client, session.settings).revoke(key_id)
        if as_json:
            print_json({"id": key.id, "name": key.name, "revoked": True})
        else:
            say(f"key {key.id} ({key.name}) is revoked")


def _split(given: list[str]) -> list[str]:
    """Read ``a,b`` and repeated options alike."""
    return [part.strip() for text in given for part in text.split(",") if part.strip()]
