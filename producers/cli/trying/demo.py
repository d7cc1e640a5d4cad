"""``wxbroadcast demo``: everything on one machine, with its sums checked."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from producers.cli.options import AsJson
from producers.cli.session import Code, fail, guarded, print_json, print_table, table

if TYPE_CHECKING:
    from producers.local.demo.run import Result


def demo(
    recipients: Annotated[int, typer.Option(min=1, help="Users in the audience.")] = 2000,
    rate: Annotated[float, typer.Option(min=0, help="Sends per second; 0: unlimited.")] = 300,
    channel: Annotated[
        str, typer.Option(metavar="template|subscribe", help="Which WeChat API.")
    ] = "template",
    units: Annotated[int, typer.Option(min=1, max=64, help="Worker units.")] = 2,
    lanes: Annotated[int, typer.Option(min=1, max=1024, help="Lanes in Redis.")] = 1,
    latency_ms: Annotated[
        float, typer.Option(min=0, help="Milliseconds that the sandbox takes to answer.")
    ] = 20,
    logs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep the workers' log lines here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the whole system at work, without any configuration.

    Starts an embedded Valkey, the sandbox and the Procfile's workers in a temporary directory,
    collects the permits of invented users, broadcasts to them, and compares every sum with what
    the sandbox saw. A wrong sum makes the exit code 1. Nothing stays behind.

    Kill a worker meanwhile (kill -9): it starts again, and nobody gets a message twice.
    """
    with guarded(as_json=as_json):
        from producers.cli.interrupts import Interrupted, Interrupts
        from producers.cli.progress import Progress
        from producers.cli.watcher import ShownWatcher, kept
        from producers.errors import InvalidInputError
        from producers.local.demo.run import DemoError, Plan, run
        from producers.words import Channel

        if channel not in set(Channel):
            raise InvalidInputError([f"channel {channel!r}: take template or subscribe"])
        plan = Plan(recipients, rate, Channel(channel), units, lanes, latency_ms, kept(logs))
        try:
            with Interrupts() as interrupts, Progress("demo", recipients) as bar:
                result = run(plan, ShownWatcher("demo", bar, interrupts))
        except Interrupted as interrupted:
            fail("interrupted; all is stopped", interrupted.exit_code, as_json=as_json)
        except DemoError as error:
            fail(str(error), Code.WRONG, as_json=as_json)
        if as_json:
            checks = [
                {"name": one.name, "ok": one.ok, "detail": one.detail} for one in result.checks
            ]
            print_json({**result.sums.as_dict(), "checks": checks})
        else:
            _print(result)
        if not result.right:
            wrong = [f"{one.name}: {one.detail}" for one in result.checks if not one.ok]
            typer.echo("\n".join(f"wrong: {sentence}" for sentence in wrong), err=True)
            raise typer.Exit(Code.WRONG)


def _print(result: "Result") -> None:
    sums = result.sums
    document = sums.as_dict()
    before, after = sums.before.total.as_dict(), sums.after.total.as_dict()
    rows = table("", ">")
    rows.add_row("permits collected", f"{document['collected']['new']:,}")
    rows.add_row("  uses of them (a prepay_id has three)", f"{before['collected']:,}")
    rows.add_row("recipients", f"{document['recipients']:,}")
    for outcome, count in document["outcomes"].items():
        rows.add_row(f"  {outcome}", f"{count:,}")
    rows.add_row("duplicates, by the sandbox", f"{document['duplicates']:,}")
    rows.add_row("seconds", f"{sums.seconds:,.1f}")
    rows.add_row("messages per second", f"{sums.messages_per_second:,.0f}")
    rows.add_row("most in one second, by the sandbox", f"{document['windows']['max_per_second']:,}")
    print_table(rows)
    permits = table("uses of permits", ">before", ">after")
    for name in before:
        permits.add_row(name, f"{before[name]:,}", f"{after[name]:,}")
    print_table(permits)
    checks = table("sum", "", "numbers")
    for one in result.checks:
        checks.add_row(one.name, "right" if one.ok else "WRONG", one.detail)
    print_table(checks)
