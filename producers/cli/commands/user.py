"""``wxbroadcast user, plan``: one user, what became of what was sent, and what to ask for."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from producers.cli.options import App, AsJson
from producers.cli.session import opened, print_json, print_table, say, table

if TYPE_CHECKING:
    from producers.users import UserCard
    from producers.users.card import Balance

app = typer.Typer(name="user", help="One user: shown, or forgotten.", no_args_is_help=True)

Openid = Annotated[str, typer.Option("--openid", help="The user.")]


@app.command("show")
def show(app: App, openid: Openid, as_json: AsJson = False) -> None:
    """Show what a user gave, and what became of the newest broadcasts."""
    with opened(as_json=as_json) as session:
        from producers.users import Users

        card = Users(session.client, session.settings).show(app, openid)
        if as_json:
            print_json(card.as_dict())
        else:
            _print_card(card)


@app.command("forget")
def forget(app: App, openid: Openid, as_json: AsJson = False) -> None:
    """Forget a user everywhere: permits, audiences, receipts, and the name in every outcome.

    A message that is being sent at this moment is not stopped.
    """
    with opened(as_json=as_json) as session:
        from producers.users import Users

        forgotten = Users(session.client, session.settings).forget(app, openid)
        if as_json:
            print_json(forgotten.as_dict())
            return
        counts = table("forgotten", ">")
        for name, count in forgotten.as_dict().items():
            counts.add_row(name.replace("_", " "), f"{count:,}")
        print_table(counts)


def plan(
    app: App,
    openid: Openid,
    most: Annotated[int, typer.Option(min=1, max=5, help="How many, at most.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Say which subscribe templates to ask a user for now, and why.

    And which to skip: the user has enough of them or withdrew them within a day, or WeChat does
    not know them.
    """
    with opened(as_json=as_json) as session:
        from producers.planning.plan import Planner

        made = Planner(session.client, session.settings).plan(app, openid, most)
        if as_json:
            print_json(made.as_dict())
            return
        if made.skip:
            say(f"to skip: {', '.join(made.skip)}")
        if not made.templates:
            say("nothing to ask for: coming broadcasts find what they need")
            return
        rows = table("template_id", ">missing", "why")
        for ask in made.templates:
            rows.add_row(ask.template_id, f"{ask.shortage:g}", ask.reason)
        print_table(rows)


def _print_card(card: "UserCard") -> None:
    rows = table("user", card.openid)
    rows.add_row("audiences", ", ".join(card.audiences) or "none")
    if card.suppressed:
        rows.add_row("sent nothing", ", ".join(card.suppressed))
    rows.add_row("being sent to", "yes" if card.sending else "no")
    rows.add_row("held", f"{card.held:,}")
    for kind, uses in card.usable.items():
        rows.add_row(f"usable {kind}", f"{uses:,}")
    print_table(rows)
    if card.balance:
        rows = table("permits", ">uses", "end")
        for one in card.balance:
            rows.add_row(one.template_id or one.kind.value, _uses(one), _end(one))
        print_table(rows)
    if card.sends:
        rows = table("broadcast", "created", "template_id", "state", ">errcode", "msgid")
        for send in card.sends:
            rows.add_row(
                send.broadcast,
                _at(send.created_at_ms),
                send.template_id,
                send.outcome or send.state,
                str(send.errcode or ""),
                send.msgid,
            )
        print_table(rows)


def _uses(one: "Balance") -> str:
    return "any number" if one.uses < 0 else f"{one.uses:,}"


def _end(one: "Balance") -> str:
    if one.expires_before_ms:
        return f"before {_at(one.expires_before_ms)}"
    return f"withdrawn {_at(one.withdrawn_at_ms)}" if one.withdrawn_at_ms else ""


def _at(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000).astimezone().isoformat(" ", "seconds")
