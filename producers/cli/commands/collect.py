"""``wxbroadcast collect``: permits from a file of uploads."""

from typing import Any

import typer

from producers.cli.options import App, AsJson, File
from producers.cli.session import Code, opened, print_json, print_table, table


def collect(file: File, app: App, as_json: AsJson = False) -> None:
    """Collect permits from JSON lines, one upload a line.

    The same permit twice is one permit, so a file may be sent again. Refused items are listed by
    line and cost the others nothing; when every item was refused, the exit code is 1.
    """
    with opened(as_json=as_json) as session:
        from producers.cli.progress import Progress
        from producers.cli.source import source
        from producers.permits.collect import Collector
        from producers.permits.report import Report
        from producers.permits.uploads import MAX_LINE_BYTES

        with source(file, MAX_LINE_BYTES) as lines, Progress("collecting", lines.size) as bar:

            def show(report: Report) -> None:
                refused = report.refused.total()
                bar.update(
                    lines.position,
                    f"{report.new:,} new, {report.known:,} known, {refused:,} refused",
                    counted=f"{report.lines:,} lines",
                )

            report = Collector(session.client, session.settings).collect_lines(app, lines, show)
        if as_json:
            print_json(report.as_dict())
        else:
            _print_report(report)
        if report.refused and not report.new and not report.known:
            raise typer.Exit(Code.WRONG)


def _print_report(report: Any) -> None:
    counts = table("", ">items")
    counts.add_row("new", f"{report.new:,}")
    counts.add_row("known before", f"{report.known:,}")
    for reason, items in report.refused.most_common():
        counts.add_row(f"refused: {reason}", f"{items:,}")
    if report.evicted:
        counts.add_row("older ones that gave way", f"{report.evicted:,}")
    print_table(counts)
    if report.listed:
        listed = table(">line", "reason", "detail", title="First refusals")
        for line, reason, detail in report.listed[:10]:
            listed.add_row(f"{line:,}", str(reason), detail)
        print_table(listed)
