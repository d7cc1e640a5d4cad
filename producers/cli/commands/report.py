"""``wxbroadcast report``: what log files add up to."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from producers.cli.options import AsJson
from producers.cli.session import guarded, print_json, print_table, say, table

if TYPE_CHECKING:
    from producers.reports import Report


def report(
    logs: Annotated[
        list[str],
        typer.Argument(
            metavar="LOGS…", help="Files, patterns ('logs/*.jsonl.gz', .zst too), or - for stdin."
        ),
    ],
    app: Annotated[str | None, typer.Option("--app", "-a", help="Only of this app.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Only from then on: 2026-12-01T12:00:00, UTC.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only before then.")] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write one HTML page with charts.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add up log lines: broadcasts, outcomes, errcodes, rates, latencies, lives of workers."""
    with guarded(as_json=as_json):
        from producers.errors import InvalidInputError
        from producers.reports import Choice, read_report

        found = read_report(logs, Choice(app, since, until))
        if html is not None:
            from producers.reports.page import page

            text = page(found)
            try:
                html.write_text(text, encoding="utf-8")
            except OSError as error:
                raise InvalidInputError([f"cannot write {html}: {error.strerror}"]) from error
            say(f"{html}: {len(text):,} characters")
        if as_json:
            print_json(found.as_dict())
        elif html is None:
            _print(found)


def _print(found: "Report") -> None:
    rows = table("broadcast", "app", "state", ">recipients", "outcomes", "errcodes", ">a second")
    for one in found.broadcasts:
        rows.add_row(
            one.id,
            one.app,
            one.state,
            "" if one.total is None else f"{one.total:,}",
            ", ".join(f"{name} {n:,}" for name, n in one.outcomes.items()),
            ", ".join(f"{code} × {n:,}" for code, n in one.errcodes.items()),
            f"{one.rate:,.1f}" if one.answers else "",
        )
    print_table(rows)
    rows = table("app", "of its sends", ">answers", ">p50 ms", ">p95", ">p99", ">longest")
    for app, latency in found.latency.items():
        done = ", ".join(f"{name or 'none'} {n:,}" for name, n in found.actions[app].items())
        numbers = (latency.p50, latency.p95, latency.p99, latency.longest)
        rows.add_row(app, done, f"{latency.count:,}", *(f"{number:,}" for number in numbers))
    print_table(rows)
    if found.workers:
        rows = table("worker", "started", "told to stop", "ended", "how")
        for life in found.workers:
            rows.add_row(life.worker, life.started_at, life.stopping_at, life.ended_at, life.end)
        print_table(rows)
    troubles = [one for one in found.told if one.level in {"warning", "error", "critical"}]
    if troubles:
        rows = table("warnings and errors", "level", ">lines")
        for told in troubles:
            rows.add_row(told.event, told.level, f"{told.lines:,}")
        print_table(rows)
    left = f"; {found.left_out:,} older broadcasts are not listed" if found.left_out else ""
    say(f"{found.lines:,} lines, {found.from_at} to {found.to_at}{left}")
    if found.dropped:
        say(f"{found.dropped:,} lines were dropped: what is counted from sends is too low")
    if found.sampled:
        say("sends were logged by sample: what is counted from them is an estimate")
    if found.unread:
        say(f"left out, for they are not wxbroadcast's or cannot be read: {found.unread:,} lines")
