"""``wxbroadcast recipients``: who got which outcome, as lines for a file or a pipe."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from producers.cli.options import AsJson, BroadcastId
from producers.cli.session import opened, print_json, say

if TYPE_CHECKING:
    from producers.recipients.pages import Recipient


def recipients(
    broadcast_id: BroadcastId,
    outcome: Annotated[
        str,
        typer.Option(
            help="Of this outcome alone: delivered, no_permit, …; or queued, in_flight.",
        ),
    ] = "",
    form: Annotated[
        Literal["csv", "jsonl"], typer.Option("--format", help="Form of the lines.")
    ] = "jsonl",
    as_json: AsJson = False,
) -> None:
    """Export the recipients of a broadcast that have an outcome, in constant memory.

    With --json the last line on stdout says how many there were.
    """
    with opened(as_json=as_json) as session:
        from producers.recipients import Recipients
        from producers.recipients.exports import csv_lines, json_lines

        count = 0

        def counted() -> "Iterator[Recipient]":
            nonlocal count
            found = Recipients(session.client, session.settings)
            for one in found.iterate(broadcast_id, outcome or None):
                count += 1
                yield one

        for line in csv_lines(counted(), "\n") if form == "csv" else json_lines(counted()):
            typer.echo(line, nl=False)
        if as_json:
            print_json({"id": broadcast_id, "recipients": count})
        else:
            say(f"{count:,} recipients")
