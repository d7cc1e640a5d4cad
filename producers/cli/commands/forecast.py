"""``wxbroadcast forecast``: whom a broadcast would reach, and what will end unsent."""

from typing import Annotated

import typer

from producers.cli.options import WHOM, App, AsJson
from producers.cli.session import opened, print_json, print_table, say, table

_WHEN = {0: "now", 3600: "in 1 hour", 86_400: "in 1 day", 604_800: "in 7 days"}
_METHODS = {
    "stock": "counted by expiry hour: exact but for the hour at hand",
    "scan": "every member was looked at: exact",
    "sample": "estimated from whole buckets drawn by lot",
}


def forecast(
    app: App,
    channel: Annotated[
        str, typer.Option(metavar="template|subscribe", help="Which WeChat API would send it.")
    ],
    template_id: Annotated[str, typer.Option(help="subscribe: the template.")] = "",
    audience: Annotated[str, typer.Option(help=WHOM)] = "all",
    rate: Annotated[
        float | None, typer.Option(help="Sends per second; default: the app's own, lately.")
    ] = None,
    purpose: Annotated[
        str, typer.Option(help="What it would be for: one of the app's per_user_per_day.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Show whom a broadcast would reach now and later, and how many uses will end unsent."""
    with opened(as_json=as_json) as session:
        from producers.planning.forecast import Forecaster

        found = Forecaster(session.client, session.settings).forecast(
            app, channel, template_id, audience, rate, purpose
        )
        if as_json:
            print_json(found.as_dict())
            return
        rows = table("", ">reachable", ">from", ">to", ">ended unsent")
        for one in found.horizons:
            rows.add_row(
                _WHEN.get(one.in_s, f"in {one.in_s:,} s"),
                f"{one.users:,}",
                f"{one.users_low:,}",
                f"{one.users_high:,}",
                f"{one.expiring:,}",
            )
        print_table(rows)
        counts = {
            "suppressed": found.suppressed,
            "kept": found.kept,
            "capped": found.capped,
        }
        said = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
        silent = f" ({said})" if said else ""
        say(
            f"{found.members:,} members{silent} with {found.uses:,} uses; "
            f"{_METHODS[found.method]}; at {found.rate:,.1f} sends/s ({found.rate_from})"
        )
