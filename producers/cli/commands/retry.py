"""``wxbroadcast retry``: a broadcast once more, to some of its recipients alone."""

from pathlib import Path
from typing import Annotated

import typer

from producers.cli.options import AsJson, BroadcastId, duration, read_data
from producers.cli.rehearsing import ConfirmAbove, Yes, confirm
from producers.cli.session import opened, print_json, say


def retry(
    broadcast_id: BroadcastId,
    outcome: Annotated[
        str, typer.Option(metavar="OUTCOME,…", help="Whose outcome was one of these.")
    ],
    errcode: Annotated[
        str, typer.Option(metavar="CODE,…", help="And WeChat's code one of these; 0: none.")
    ] = "",
    even_in_doubt: Annotated[
        bool,
        typer.Option("--even-in-doubt", help="With in_doubt: some may get it twice."),
    ] = False,
    template_id: Annotated[str | None, typer.Option(help="Another template.")] = None,
    data: Annotated[str | None, typer.Option(help="Other data, as for `broadcast`.")] = None,
    data_file: Annotated[
        Path | None, typer.Option(help="A file with the data instead.", metavar="FILE")
    ] = None,
    page: Annotated[str | None, typer.Option(help="Another page that a tap opens.")] = None,
    rate: Annotated[
        float | None, typer.Option(help="Sends per second; default: as it was.")
    ] = None,
    expires_in: Annotated[
        str, typer.Option(help="After so long the rest is late: 90s, 30m, 2h; default: as it was.")
    ] = "",
    key: Annotated[
        str, typer.Option(help="Idempotency key: the same key again is the same retry.")
    ] = "",
    confirm_above: ConfirmAbove = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Send a broadcast once more, to those of its recipients alone who had one of these outcomes.

    Nobody is among them whom it, or another retry of it, was delivered to. It and all its retries
    must have ended. `cancelled` and `late` are whom its audience has now without an outcome of it.
    """
    with opened(as_json=as_json) as session:
        from producers.retries import Retries

        retries = Retries(session.client, session.settings)

        def at_most() -> int:
            had = retries.status(broadcast_id).outcomes
            return sum(had.get(one.strip(), 0) for one in {*outcome.split(",")})

        confirm(session, at_most, confirm_above, yes=yes, as_json=as_json)
        made = retries.retry(
            broadcast_id,
            outcome,
            _codes(errcode),
            even_in_doubt=even_in_doubt,
            key=key,
            template_id=template_id,
            data=None if data is None and data_file is None else read_data(data, data_file),
            page=page,
            rate=rate,
            expires_in=duration(expires_in) if expires_in else None,
        )
        if made.known:
            say(f"key {key!r} created this retry before; nothing new was created")
        say(f"{made.recipients:,} recipients")
        if as_json:
            print_json({"id": made.id, "known": made.known, "recipients": made.recipients})
        else:
            typer.echo(made.id)


def _codes(text: str) -> list[int]:
    from producers.errors import InvalidInputError

    try:
        return [int(one) for one in text.split(",") if one.strip()]
    except ValueError:
        raise InvalidInputError([f"errcode {text!r}: whole numbers, with commas between"]) from None
