"""``wxbroadcast broadcast``: create one, and perhaps wait for its end."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from producers.cli.interrupts import Interrupted, Interrupts
from producers.cli.options import WHOM, App, AsJson, duration, read_data
from producers.cli.rehearsing import ConfirmAbove, Yes, confirm, count
from producers.cli.row_files import count_rows, send_rows, test_rows, try_rows
from producers.cli.session import Code, Session, fail, opened, print_json, print_table, say

if TYPE_CHECKING:
    from producers.broadcasts import Broadcasts

_DATA_HELP = (
    'The data: JSON ({"thing1": "…"} or WeChat\'s own form); '
    "for the template channel also a,b,c (keyword1, keyword2, …)."
)


def broadcast(
    app: App,
    channel: Annotated[
        str, typer.Option(metavar="template|subscribe", help="Which WeChat API sends it.")
    ],
    template_id: Annotated[str, typer.Option(help="The template.")],
    audience: Annotated[str, typer.Option(help=f"{WHOM} Or --rows.")] = "",
    rows: Annotated[
        str,
        typer.Option(
            metavar="FILE|-",
            help="To each openid of a CSV or JSON lines file; {column} in data and page is filled "
            "from its row, {column|thing} shortened; {{ is a brace.",
        ),
    ] = "",
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="--rows: send the good ones, though others are bad.")
    ] = False,
    data: Annotated[str | None, typer.Option(help=_DATA_HELP)] = None,
    data_file: Annotated[
        Path | None, typer.Option(help="A file with the data instead.", metavar="FILE")
    ] = None,
    page: Annotated[str, typer.Option(help="Page that a tap opens.")] = "",
    emphasis_keyword: Annotated[
        str, typer.Option(help="template: the keyword to enlarge, keyword1.DATA.")
    ] = "",
    state: Annotated[
        str, typer.Option(help="subscribe: miniprogram_state: developer, trial or formal.")
    ] = "formal",
    lang: Annotated[str, typer.Option(help="subscribe: zh_CN, en_US, zh_HK or zh_TW.")] = "zh_CN",
    rate: Annotated[
        float, typer.Option(help="Sends per second, within the app's rate; 0: the app's alone.")
    ] = 0,
    expires_in: Annotated[
        str, typer.Option(help="After so long the rest is late: 90s, 30m, 2h, 1d or ISO 8601.")
    ] = "7d",
    carry_over: Annotated[
        bool,
        typer.Option(
            "--carry-over",
            help="What today's quota cannot carry goes on the next day; else it is paused then.",
        ),
    ] = False,
    at: Annotated[
        str, typer.Option(help="When it starts: 2026-12-01 21:00, or with an offset; else at once.")
    ] = "",
    until: Annotated[
        str, typer.Option(help="When the rest is late, if that comes before --expires-in.")
    ] = "",
    zone: Annotated[
        str, typer.Option(help="Whose clocks show --at and --until; else the app's.")
    ] = "",
    every: Annotated[
        str,
        typer.Option(help="Again and again: cron, such as 0 21 * * *; --key names the series."),
    ] = "",
    missed: Annotated[
        str, typer.Option(help="--every: ticks that nobody made in time: skip, or run once.")
    ] = "skip",
    priority: Annotated[
        bool, typer.Option("--priority", help="Serve it before the others.")
    ] = False,
    weight: Annotated[
        int,
        typer.Option(help="Its share of what the app sends, 1 to 100; see `weight`."),
    ] = 1,
    purpose: Annotated[
        str, typer.Option(help="What it is for: one of the app's per_user_per_day.")
    ] = "",
    key: Annotated[
        str, typer.Option(help="Idempotency key: the same key again is the same broadcast.")
    ] = "",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what it would do; nothing is stored, nothing sent."),
    ] = False,
    test: Annotated[
        str, typer.Option(metavar="OPENID,…", help="Send it to these alone, at most 20, and wait.")
    ] = "",
    then: Annotated[
        bool, typer.Option("--then", help="--test: then create it, if all of them were delivered.")
    ] = False,
    test_state: Annotated[
        str, typer.Option(help="--test: the state for these: developer or trial.")
    ] = "",
    confirm_above: ConfirmAbove = None,
    yes: Yes = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Show the progress, and end with the broadcast.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Create a broadcast and print its id.

    With --dry-run nothing is created: it says whom it would reach, by when, and every fault.
    With --test its message goes to a few users, spending a permit each, and what WeChat answered is
    shown: the exit code is 1 if not all have it. Nothing else is created, unless --then is given:
    then what would follow is checked first, and the test is not sent if that would be refused.
    With --every it is a series, whose name is printed (see `series`); its runs are broadcasts.
    With --rows the rows are the audience, each is checked before anything is created, and bad ones
    are told by row and rule.
    With --at it waits for its time (see `reschedule`), and `cancel` ends it before.
    With --wait the exit code is 0 when it finished and 3 when it was aborted or cancelled; Ctrl-C
    leaves it running. With --wait --json the last line has id, state, total, outcomes, errcodes,
    reason, errcode and seconds.
    """
    with opened(as_json=as_json) as session:
        from producers.broadcasts import Broadcasts
        from producers.broadcasts.spec import Spec

        given: dict[str, Any] = {
            "app": app,
            "channel": channel,
            "template_id": template_id,
            "audience": audience,
            "data": read_data(data, data_file),
            "page": page,
            "emphasis_keyword": emphasis_keyword,
            "miniprogram_state": state,
            "lang": lang,
            "rate": rate,
            "expires_in": duration(expires_in),
            "priority": priority,
            "weight": weight,
            "purpose": purpose,
            "carry_over": carry_over,
            "at": at,
            "until": until,
        }
        _check_whom(audience, rows, every)
        _check_test(test, asks=then or bool(test_state), dry=dry_run)
        asked = {**given, "key": key, "every": every, "missed": missed, "zone": zone}
        if dry_run:
            raise typer.Exit(try_rows(session, asked, rows, skip_bad=skip_bad, as_json=as_json))
        if test:
            tested = {**given, "zone": zone, "miniprogram_state": test_state or state}
            follows = {**asked, "skip_bad": skip_bad} if then else None
            test_rows(session, test, tested, rows, follows, as_json=as_json)
        spec = Spec.checked(**given, zone="" if every else zone, rows=bool(rows))
        recipients = (
            partial(count_rows, spec, rows) if rows else partial(count, session, app, audience)
        )
        confirm(session, recipients, confirm_above, yes=yes, as_json=as_json)
        if every:
            _repeat(session, key, every, zone, missed, given, as_json=as_json)
            return
        broadcasts = Broadcasts(session.client, session.settings)
        if rows:
            created = send_rows(broadcasts, spec, rows, key, skip_bad=skip_bad)
        else:
            created = broadcasts.create(spec, key)
        if created.known:
            say(f"key {key!r} created this broadcast before; nothing new was created")
        if created.note:
            say(created.note)
        if not as_json:
            typer.echo(created.id)
        elif not wait:
            told: dict[str, Any] = {"rows": created.rows.as_dict()} if created.rows else {}
            told |= {"note": created.note} if created.note else {}
            print_json({"id": created.id, "known": created.known, **told})
        if wait:
            _wait(session, broadcasts, created.id, as_json=as_json)


def _check_whom(audience: str, rows: str, every: str) -> None:
    from producers.errors import InvalidInputError

    if not audience and not rows:
        raise InvalidInputError(["to whom? give --audience or --rows"])
    if every and rows:
        raise InvalidInputError(["every: a series reads its audience at each tick, not --rows"])


def _check_test(test: str, *, asks: bool, dry: bool) -> None:
    from producers.errors import InvalidInputError

    if test and dry:
        raise InvalidInputError(["test: --dry-run sends nothing; leave one out"])
    if asks and not test:
        raise InvalidInputError(["test: --then and --test-state go with --test"])


def _repeat(
    session: Session,
    name: str,
    every: str,
    zone: str,
    missed: str,
    given: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    """Make a series."""
    from producers.errors import InvalidInputError
    from producers.series import Series

    if not name:
        raise InvalidInputError(["every: name the series with --key"])
    series = Series(session.client, session.settings)
    made = series.create(name, every, zone=zone, missed=missed, **given)
    if as_json:
        print_json(made.as_dict())
    else:
        typer.echo(made.name)


def _wait(session: Session, broadcasts: "Broadcasts", broadcast_id: str, *, as_json: bool) -> None:
    from producers.cli.statuses import as_table, seconds_of, wait_for_end
    from producers.words import State

    try:
        with Interrupts() as interrupts:
            status = wait_for_end(session, broadcasts, broadcast_id, interrupts)
    except Interrupted as stop:
        fail(
            f"stopped waiting; broadcast {broadcast_id} goes on: see `wxbroadcast status "
            f"{broadcast_id}`, end it with `wxbroadcast cancel {broadcast_id}`",
            stop.exit_code,
            as_json=as_json,
        )
    if as_json:
        print_json(
            {
                "id": status.id,
                "state": status.state,
                "total": status.total,
                "outcomes": status.outcomes,
                "errcodes": status.errcodes,
                "reason": status.reason,
                "errcode": status.errcode,
                "seconds": seconds_of(status),
            }
        )
    else:
        print_table(as_table(status))
    if status.state is not State.FINISHED:
        raise typer.Exit(Code.STOPPED)
