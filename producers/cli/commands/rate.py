"""``wxbroadcast rate``, ``weight`` and ``limits``: how fast, by which share, and how much."""

from typing import TYPE_CHECKING, Annotated

import typer

from producers.cli.options import App, AsJson
from producers.cli.session import opened, print_json, print_table, say, table

if TYPE_CHECKING:
    from producers.quotas import AppLimits


def rate(
    per_second: Annotated[
        str,
        typer.Argument(
            metavar="[RATE]",
            help="Sends per second, 0: no limit; `settings`: as WXB_APPS says. Without it: show.",
        ),
    ] = "",
    app: Annotated[str, typer.Option("--app", "-a", help="Of all that this app sends.")] = "",
    broadcast_id: Annotated[
        str, typer.Option("--broadcast", metavar="ID", help="Of this broadcast, within the app's.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Show or change how many sends start per second; all workers follow within a second.

    An app's rate that is set here stays, whatever the settings say, until `settings` is given.
    """
    with opened(as_json=as_json) as session:
        from producers.broadcasts import Broadcasts
        from producers.errors import InvalidInputError
        from producers.quotas import Quotas
        from producers.quotas.rates import Rates

        if bool(app) == bool(broadcast_id):
            raise InvalidInputError(["rate: give one of --app and --broadcast"])
        if app:
            rates = Rates(session.client, session.settings)
            if not per_second:
                found = rates.get(app)
            else:
                found = rates.set(app, None if per_second == "settings" else _number(per_second))
            below = Quotas(session.client, session.settings).limits(app).limit
            answer = {"app": app, "rate": found, "limit": below}
            if below and not as_json:
                say(f"WeChat takes less: {below:g} now, and more by and by; see `limits`")
        else:
            broadcasts = Broadcasts(session.client, session.settings)
            if per_second:
                broadcasts.set_rate(broadcast_id, _number(per_second))
            found = broadcasts.rate(broadcast_id)
            answer = {"broadcast": broadcast_id, "rate": found}
        if as_json:
            print_json(answer)
        else:
            typer.echo(f"{found:g}")


def weight(
    broadcast_id: Annotated[str, typer.Argument(metavar="ID", help="The broadcast.")],
    to: Annotated[
        int | None,
        typer.Argument(metavar="[WEIGHT]", help="1 to 100. Without it: show.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show or change a broadcast's weight: its share of what its app sends.

    While several broadcasts of an app run, one of weight 3 gets three sends when one of weight 1
    gets one. What one does not use goes to the others. Workers follow within a second.
    """
    with opened(as_json=as_json) as session:
        from producers.broadcasts import Broadcasts

        broadcasts = Broadcasts(session.client, session.settings)
        if to is not None:
            broadcasts.set_weight(broadcast_id, to)
        found = broadcasts.weight(broadcast_id)
        if as_json:
            print_json({"broadcast": broadcast_id, "weight": found})
        else:
            typer.echo(f"{found}")


def limits(app: App, as_json: AsJson = False) -> None:
    """Show how much an app may send now: its rate, what WeChat's errors left of it, the day."""
    with opened(as_json=as_json) as session:
        from producers.quotas import Quotas
        from producers.times.moments import in_words, local
        from producers.times.zones import zone_of

        found = Quotas(session.client, session.settings).limits(app)
        if as_json:
            print_json(found.as_dict())
            return
        zone = zone_of(session.settings.app(app).day_zone)
        rows = table("app", app)
        rows.add_row("rate", f"{found.rate:g} per second" if found.rate else "unlimited")
        if found.limit:
            rows.add_row("now", f"{found.limit:g} per second: WeChat takes less; it climbs back")
        if found.held_until_ms:
            rows.add_row("held until", in_words(local(found.held_until_ms, zone)))
        for channel, quota in found.quotas.items():
            if quota.read_at_ms or quota.error:
                rows.add_row(f"WeChat, {channel}", _said(found, channel))
        most = f" of {found.daily_limit:,}" if found.daily_limit else ""
        rows.add_row("sent today", f"{found.sent_today:,}{most}")
        rows.add_row("next day", found.resets)
        for one in found.diagnoses:
            rows.add_row(f"errcode {one.errcode}", f"{one.text} (rid {one.rid})")
        print_table(rows)


def _said(limits: "AppLimits", channel: str) -> str:
    """Return what WeChat said of a channel's quota, in words."""
    quota = limits.quotas[channel]
    parts = []
    if quota.read_at_ms:
        left = quota.remain if quota.left is None else quota.left
        ago_s = (limits.at_ms - quota.read_at_ms) // 1000
        day = "" if quota.left is not None else " then; it holds no more"
        parts.append(f"{left:,} of {quota.limit:,} left{day} (read {ago_s:,} s ago)")
    if quota.per:
        parts.append(f"{quota.per:,} in {quota.per_s} s")
    if quota.error:
        parts.append(f"does not say more: {quota.error}")
    return ", ".join(parts)


def _number(text: str) -> float:
    from producers.errors import InvalidInputError

    try:
        return float(text)
    except ValueError:
        raise InvalidInputError([f"rate {text!r}: a number, or `settings` (--app)"]) from None
