"""``wxbroadcast recipients``: who got which outcome, as lines for a file or a pipe."""

import csv
import io
from collections.abc import Iterable
from typing import Annotated, Final, Literal

import typer

from producers.cli.options import AsJson, BroadcastId
from producers.cli.session import opened, print_json, say

_COLUMNS: Final = ("openid", "outcome", "errcode", "msgid", "settled_by")


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

        found = Recipients(session.client, session.settings).iterate(broadcast_id, outcome or None)
        count = 0
        for count, one in enumerate(found, start=1):
            if form == "jsonl":
                print_json(one.as_dict())
                continue
            if count == 1:
                typer.echo(_csv_line(_COLUMNS))
            typer.echo(_csv_line(one.as_dict().values()))
        if not count and form == "csv":
            typer.echo(_csv_line(_COLUMNS))
        if as_json:
            print_json({"id": broadcast_id, "recipients": count})
        else:
            say(f"{count:,} recipients")


def _csv_line(cells: Iterable[object]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(cells)
    return out.getvalue()
