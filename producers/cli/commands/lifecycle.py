"""``wxbroadcast status, list, pause, resume, cancel, reschedule``: broadcasts seen and moved."""

from datetime import datetime
from typing import Annotated

import typer

from producers.cli.options import App, AsJson, BroadcastId
from producers.cli.session import Session, opened, print_json, print_table, say, table


def status(broadcast_id: BroadcastId, as_json: AsJson = False) -> None:
    """Show what a broadcast is doing, and what keeps it from moving."""
    with opened(as_json=as_json) as session:
        from producers.broadcasts.status import Register
        from producers.cli.statuses import as_table, hindered_by

        without = session.absent.lanes
        found = Register(session.client, session.settings).status(broadcast_id, without)
        hindered = "" if session.absent else hindered_by(session, found)
        if as_json:
            print_json({**found.as_dict(), "hindered": hindered, **session.whole_or_part()})
        else:
            print_table(as_table(found, hindered))
        session.end(as_json=as_json)


def list_(
    app: App,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, at most.")] = 20,
    cursor: Annotated[str, typer.Option(help="Go on where a page before ended.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the newest broadcasts of an app."""
    with opened(as_json=as_json) as session:
        from producers.broadcasts.status import Register
        from producers.cli.statuses import in_words, recipients_of, state_of, to_whom

        without = session.absent.lanes
        page = Register(session.client, session.settings).page(app, cursor, limit, without)
        if as_json:
            print_json({**page.as_dict(), **session.whole_or_part()})
            session.end(as_json=True)
            return
        rows = table("broadcast", "created", "channel", "audience", "state", ">settled", "outcomes")
        for one in page.broadcasts:
            created = datetime.fromtimestamp(one.created_at_ms / 1000).astimezone()
            rows.add_row(
                one.id,
                created.isoformat(" ", "seconds"),
                one.channel,
                to_whom(one),
                state_of(one),
                f"{one.settled:,}/{recipients_of(one):,}",
                in_words(one),
            )
        print_table(rows)
        if page.cursor:
            say(f"there are more: --cursor {page.cursor}")
        session.end(as_json=False)


def pause(broadcast_id: BroadcastId, as_json: AsJson = False) -> None:
    """Stop sending a broadcast; what is in flight is settled."""
    with opened(as_json=as_json) as session:
        _move(session, "pause", broadcast_id, as_json=as_json)


def resume(
    broadcast_id: BroadcastId,
    after_restore: Annotated[
        bool,
        typer.Option(
            "--after-restore", help="Redis came back from an old backup, and you have looked."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Go on sending a paused broadcast where it stopped."""
    with opened(as_json=as_json) as session:
        _move(session, "resume", broadcast_id, as_json=as_json, after_restore=after_restore)


def cancel(broadcast_id: BroadcastId, as_json: AsJson = False) -> None:
    """End a broadcast; whoever was not sent to is `cancelled`, and keeps the permit."""
    with opened(as_json=as_json) as session:
        _move(session, "cancel", broadcast_id, as_json=as_json)


def reschedule(
    broadcast_id: BroadcastId,
    at: Annotated[
        str, typer.Option(help="When it starts now: 2026-12-01 21:00, or with an offset.")
    ],
    until: Annotated[str, typer.Option(help="When the rest is late; else as before.")] = "",
    zone: Annotated[
        str, typer.Option(help="Whose clocks show them; else the zone it was created with.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Have a scheduled broadcast start at another time."""
    with opened(as_json=as_json) as session:
        _move(session, "reschedule", broadcast_id, as_json=as_json, at=at, until=until, zone=zone)


def _move(
    session: Session, move: str, broadcast_id: str, *, as_json: bool, **options: bool | str
) -> None:
    from producers.broadcasts import Broadcasts

    state = getattr(Broadcasts(session.client, session.settings), move)(broadcast_id, **options)
    if as_json:
        print_json({"id": broadcast_id, "state": state})
    else:
        typer.echo(state.value)
