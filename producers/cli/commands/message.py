"""``wxbroadcast message``: one message to one user, posted or looked at."""

from typing import Annotated

import typer

from producers.cli.options import App, AsJson, duration
from producers.cli.session import Session, opened, print_json, print_table, say, table

app = typer.Typer(help="Single messages: one user, one message, now.", no_args_is_help=True)


@app.command()
def post(
    app: App,
    channel: Annotated[
        str, typer.Option(metavar="template|subscribe", help="Which WeChat API sends it.")
    ],
    template_id: Annotated[str, typer.Option(help="The template.")],
    openid: Annotated[str, typer.Option(help="The user.")],
    data: Annotated[
        str, typer.Option(help='JSON {"thing1": "…"}; for the template channel also a,b,c.')
    ],
    page: Annotated[str, typer.Option(help="Page that a tap opens.")] = "",
    expires_in: Annotated[
        str, typer.Option(help="Not sent within so long, it is late: 90s, 30m, 2h, at most 1d.")
    ] = "1h",
    key: Annotated[
        str, typer.Option(help="Idempotency key: the same key again is the same message.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Post a message before all broadcasts, and print its id."""
    with opened(as_json=as_json) as session:
        from producers.broadcasts.messages import Messages

        posted = Messages(session.client, session.settings).post(
            app=app,
            channel=channel,
            template_id=template_id,
            openid=openid,
            data=data,
            page=page,
            expires_in=duration(expires_in),
            key=key,
        )
        if posted.known:
            say(f"key {key!r} posted this message before; nothing new was posted")
        if as_json:
            print_json({"id": posted.id, "known": posted.known})
        else:
            typer.echo(posted.id)


@app.command()
def show(
    message_id: Annotated[str, typer.Argument(metavar="ID", help="As `message post` printed it.")],
    as_json: AsJson = False,
) -> None:
    """Show what became of a message, or what it waits for."""
    with opened(as_json=as_json) as session:
        from producers.broadcasts.messages import Messages

        status = Messages(session.client, session.settings).show(message_id)
        waits = status.state != "ended"
        found = status.as_dict() | {"hindered": _hindered_by(session, status.id) if waits else ""}
        if as_json:
            print_json(found)
            return
        rows = table("", "")
        for name, value in found.items():
            rows.add_row(name, str(value))
        print_table(rows)


def _hindered_by(session: Session, message: str) -> str:
    """Return why a message that waits does not move; '' when its turn is to come."""
    from producers.broadcasts.status import Register
    from producers.cli.statuses import hindered_by, state_of
    from producers.words import State

    carrier = message.partition(".")[0]
    status = Register(session.client, session.settings).status(carrier)
    if status.state is State.RUNNING:
        return hindered_by(session, status)
    after = f"; `wxbroadcast resume {carrier}`" if status.state is State.PAUSED else ""
    return f"its carrier is {state_of(status)}{after}"
