"""``wxbroadcast deploy``: files that run it, and what is around it."""

from pathlib import Path
from typing import Annotated

import typer

from producers.cli.options import AsJson
from producers.cli.session import guarded, print_json, say


def deploy(
    kind: Annotated[
        str, typer.Argument(metavar="compose|kubernetes|systemd|observability", help="Which files.")
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write them.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write over files that were changed there.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write out files that run it, START.md among them, which says what to put in.

    compose, kubernetes and systemd run the service and workers; observability is Prometheus, Loki,
    Vector and Grafana, with dashboards and alerts.
    """
    with guarded(as_json=as_json):
        from producers.deploy import write

        written = write(kind, folder, overwrite=overwrite)
        if as_json:
            print_json({"files": [str(path) for path in written]})
            return
        for path in written:
            typer.echo(path)
        say(f"{folder / 'START.md'} says what to set")
