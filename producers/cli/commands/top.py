"""``wxbroadcast top``: what all of it is doing, at a terminal."""

import sys
from typing import Annotated

import typer

from producers.cli.options import AsJson
from producers.cli.session import opened, print_json


def top(
    app: Annotated[
        list[str] | None, typer.Option("--app", "-a", help="Only this app; may be given again.")
    ] = None,
    every: Annotated[float, typer.Option(min=0.2, max=60, help="Seconds between two looks.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Watch broadcasts, rates, apps and workers; pause, resume and cancel by key.

    With --json, or where there is no terminal, one look as JSON.
    """
    with opened(as_json=as_json) as session:
        from producers.board import Boards
        from producers.broadcasts import Broadcasts
        from producers.errors import InvalidInputError

        boards = Boards(session.client, session.settings)
        if as_json or not (sys.stdout.isatty() and sys.stdin.isatty()):
            print_json(boards.look(app or None).as_dict())
            return
        try:
            from producers.cli.screen import Top
        except ModuleNotFoundError as error:
            hint = "top needs Textual: pip install 'wxbroadcast[top]'"
            raise InvalidInputError([hint]) from error
        broadcasts = Broadcasts(session.client, session.settings)

        def move(broadcast: str, how: str) -> object:
            return getattr(broadcasts, how)(broadcast)

        Top(lambda: boards.look(app or None), move, every).run()
