"""``wxbroadcast events``: the catalogue of log events."""

from typing import Annotated, Any

import typer

from producers.cli.options import AsJson
from producers.cli.session import print_json


def events(
    schema: Annotated[
        bool, typer.Option("--schema", help="Print a JSON Schema of a log line instead.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print the catalogue of log events, and what their fields say, as Markdown tables."""
    import orjson

    from producers.logs import events as catalogue
    from producers.logs.meanings import HEAD, MEANINGS

    if schema:
        indent = orjson.OPT_INDENT_2 if not as_json else 0
        typer.echo(orjson.dumps(catalogue.json_schema(), option=indent).decode())
    elif as_json:
        print_json(
            {"schema": catalogue.SCHEMA, "events": [_describe(e) for e in catalogue.catalogue()]}
        )
    else:
        typer.echo(f"Catalogue {catalogue.SCHEMA}: fields are only added.\n")
        typer.echo("| event | level | when | fields |\n|---|---|---|---|")
        for model in catalogue.catalogue():
            row = _describe(model)
            fields = ", ".join(f"`{name}` {kind}" for name, kind in row["fields"].items())
            typer.echo(f"| `{row['event']}` | {row['level']} | {row['when']} | {fields} |")
        typer.echo("\n| field | says | unit |\n|---|---|---|")
        for name, (text, unit) in {**HEAD, **dict(sorted(MEANINGS.items()))}.items():
            typer.echo(f"| `{name}` | {text} | {unit} |")


def _describe(model: Any) -> dict[str, Any]:
    from dataclasses import fields

    when = " ".join((model.__doc__ or "").split())
    return {
        "event": model.name(),
        "level": model.LEVEL,
        "when": when,
        "fields": {
            field.name: str(getattr(field.type, "__name__", field.type)) for field in fields(model)
        },
    }
