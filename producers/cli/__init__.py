"""The command line: ``wxbroadcast``. One module per group of commands.

A command imports what it needs when it runs, so that ``--help`` answers at once.
"""

from typing import Annotated

import typer

from producers.cli.commands import (
    audience,
    broadcast,
    care,
    collect,
    exports,
    forecast,
    lifecycle,
    logs,
    message,
    rate,
    recipients,
    report,
    retry,
    series,
    suppression,
    templates,
    top,
    user,
    webhooks,
)
from producers.cli.setup import apps, deploy, events, keys, lanes, settings
from producers.cli.trying import chaos, demo, miniprogram, sandbox, up, web

_EPILOG = """
Exit codes: 0 fine; 1 the data is wrong (every item refused, a sum of the demo or
the audit, a bad check of the doctor, a test that not all have); 2 wrong usage,
input or settings; 3 the broadcast was aborted or cancelled (--wait), or not meant
(--confirm-above); 4 Redis does not answer; 5 a node of the cluster does not, and
what is shown is a part (status, list, audit); 130 Ctrl-C.

With --json the last line on stdout is one JSON object, also for an error:
{"error": "…", "faults": ["…"]}; only wrong usage (an option, a value, a command
that there is not) is answered on stderr alone.
Sentences for people, progress and log lines go to stderr.

Settings come from WXB_ variables and from .env in this directory.
"""

app = typer.Typer(
    name="wxbroadcast",
    help="Broadcast WeChat mini-program messages: permits collected, spent once, never wasted.",
    epilog=_EPILOG.replace("\n\n", "\0").replace("\n", " ").replace("\0", "\n\n").strip(),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"wxbroadcast {version('wxbroadcast')}")
        raise typer.Exit


_SETUP = "Try it"
_WORK = "Permits and audiences"
_BROADCASTS = "Broadcasts"
_CARE = "Looking after it"

app.command(rich_help_panel=_SETUP)(demo.demo)
app.command(rich_help_panel=_SETUP)(up.up)
app.command(rich_help_panel=_SETUP)(web.web)
app.command(rich_help_panel=_SETUP)(miniprogram.miniprogram)
app.command(rich_help_panel=_SETUP)(chaos.chaos)
app.command(rich_help_panel=_SETUP)(sandbox.sandbox)
app.command(rich_help_panel=_WORK)(collect.collect)
app.add_typer(audience.app, rich_help_panel=_WORK)
app.add_typer(suppression.app, rich_help_panel=_WORK)
app.add_typer(user.app, rich_help_panel=_WORK)
app.command(rich_help_panel=_WORK)(user.plan)
app.command(rich_help_panel=_WORK)(forecast.forecast)
app.command(rich_help_panel=_WORK)(exports.export)
app.command("import", rich_help_panel=_WORK)(exports.import_)
app.command(rich_help_panel=_WORK)(templates.templates)
app.command(rich_help_panel=_BROADCASTS)(broadcast.broadcast)
app.command(rich_help_panel=_BROADCASTS)(lifecycle.status)
app.command("list", rich_help_panel=_BROADCASTS)(lifecycle.list_)
app.command(rich_help_panel=_BROADCASTS)(recipients.recipients)
app.command(rich_help_panel=_BROADCASTS)(lifecycle.pause)
app.command(rich_help_panel=_BROADCASTS)(lifecycle.resume)
app.command(rich_help_panel=_BROADCASTS)(lifecycle.cancel)
app.command(rich_help_panel=_BROADCASTS)(lifecycle.reschedule)
app.add_typer(series.app, rich_help_panel=_BROADCASTS)
app.command(rich_help_panel=_BROADCASTS)(rate.rate)
app.command(rich_help_panel=_BROADCASTS)(rate.limits)
app.command(rich_help_panel=_BROADCASTS)(rate.weight)
app.command(rich_help_panel=_BROADCASTS)(retry.retry)
app.add_typer(message.app, name="message", rich_help_panel=_BROADCASTS)
app.command(rich_help_panel=_BROADCASTS)(care.doubts)
app.command(rich_help_panel=_BROADCASTS)(care.aside)
app.command(rich_help_panel=_CARE)(care.audit)
app.command(rich_help_panel=_CARE)(care.doctor)
app.command(rich_help_panel=_CARE)(lanes.lanes)
app.add_typer(webhooks.app, rich_help_panel=_CARE)
app.add_typer(keys.app, rich_help_panel=_CARE)
app.command(rich_help_panel=_CARE)(top.top)
app.command(rich_help_panel=_CARE)(logs.logs)
app.command(rich_help_panel=_CARE)(report.report)
app.command(rich_help_panel=_CARE)(deploy.deploy)
app.command(rich_help_panel=_CARE)(events.events)
app.command(rich_help_panel=_CARE)(settings.settings)
app.add_typer(apps.app, rich_help_panel=_CARE)


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; the entry point of the distribution."""
    app()
