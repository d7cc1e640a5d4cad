"""``wxbroadcast apps``: the apps of the settings, and a file of them before it is deployed."""

from pathlib import Path
from typing import Annotated, Any

import typer

from producers.cli.options import AsJson
from producers.cli.session import guarded, opened, print_json, print_table, say, table

app = typer.Typer(name="apps", help="The apps, and the file that they come from.")


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the apps of the settings, with what is no secret."""
    with guarded(as_json=as_json):
        from producers import settings

        loaded = settings.load()
        rows = [
            {
                "app": alias,
                "appid": one.appid,
                "rate_per_second": one.rate_per_second,
                "send_window": one.send_window,
                "webhooks": one.webhook_url is not None,
            }
            for alias, one in loaded.apps.items()
        ]
        if as_json:
            print_json({"apps": rows, "digest": loaded.apps.digest})
            return
        shown = table("app", "appid", ">rate", "send window", "webhooks")
        for row in rows:
            shown.add_row(*(_cell(value) for value in row.values()))
        print_table(shown)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="TOML or JSON, as WXB_APPS_FILE names it.")],
    instead_of: Annotated[
        Path | None, typer.Option(help="The file in use: say also what would change.")
    ] = None,
    private_webhooks: Annotated[
        bool, typer.Option(help="WXB_WEBHOOK_NETWORKS is set there: http:// may be.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check a file of apps before it is deployed; exit code 2 with every fault.

    Nothing needs to be set for it, and nothing that is secret is said.
    """
    with guarded(as_json=as_json):
        from producers.settings.apps_file import Change, check_appids, read

        apps = read(file, private=private_webhooks)
        answer: dict[str, Any] = {"file": str(file), "apps": len(apps)}
        said = f"{len(apps):,} apps, no fault"
        if instead_of is not None:
            before = read(instead_of, private=private_webhooks)
            check_appids(apps, {alias: one.appid for alias, one in before.items()})
            change = Change.of(before, apps)
            answer |= {
                "added": change.added,
                "changed": change.changed,
                "removed": change.removed,
            }
            said += f"; {_in_words(change)}"
        if as_json:
            print_json(answer)
        else:
            say(said)


@app.command()
def reassign(
    alias: Annotated[str, typer.Argument(help="Of the app.")], as_json: AsJson = False
) -> None:
    """Let an alias stand for the appid of the settings, where `doctor` says that it did not.

    For an appid that was a typing error: of another mini-program nothing that is stored is good.
    """
    with opened(as_json=as_json) as session:
        from producers.care.appids import Appids

        before = Appids(session.client, session.settings).reassign(alias)
        appid = session.settings.app(alias).appid
        if as_json:
            print_json({"app": alias, "before": before, "appid": appid})
        else:
            say(f"{alias} is {appid}, and was {before or 'nobody'}")


def _in_words(change: Any) -> str:
    fields = [f"{alias} ({', '.join(names)})" for alias, names in change.changed.items()]
    parts = {"added": change.added, "changed": fields, "removed": change.removed}
    said = [f"{what}: {', '.join(names)}" for what, names in parts.items() if names]
    return "; ".join(said) or "nothing would change"


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return f"{value:,g}" if isinstance(value, float | int) else str(value)
