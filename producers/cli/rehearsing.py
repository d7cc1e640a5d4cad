"""Before a broadcast goes out: its dry run, a test send, and the question whether it is meant."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from producers.cli.session import Code, Session, fail, print_json, print_table, say, table

if TYPE_CHECKING:
    from producers.rehearsals import DryRun, Tried

ConfirmAbove = Annotated[
    int | None,
    typer.Option(
        help="Ask before it goes to more recipients than this; default: as WXB_CONFIRM_ABOVE says.",
        min=0,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Answer that question.")]

_WAIT_S: Final = 30.0
"""How long the answers to a test are waited for."""

_METHODS: Final = {
    "stock": "counted by expiry hour",
    "scan": "every member was looked at",
    "sample": "estimated from whole buckets drawn by lot",
}


def run_dry(session: Session, given: dict[str, Any], *, as_json: bool) -> Code:
    """Show what a broadcast, or a series' next run, would do; say how the command ends.

    Args:
        session: the open command.
        given: as `DryRuns.look` takes it.
        as_json: print an object in place of the table.
    """
    from producers.rehearsals import DryRuns

    made = DryRuns(session.client, session.settings).look(**given)
    if as_json:
        print_json(made.as_dict())
    else:
        print_table(_as_table(made))
    for fault in made.faults:
        say(f"wxbroadcast: {fault}")
    say("dry run: nothing was stored, nothing was sent")
    return Code.USAGE if made.faults else Code.OK


def send_test(
    session: Session, openids: str, given: dict[str, Any], *, as_json: bool, goes_on: bool
) -> None:
    """Send a broadcast's message to a few users, and show what WeChat answered.

    Args:
        session: the open command.
        openids: the users, with commas between them.
        given: as `Spec.checked` takes it.
        as_json: print an object in place of the table.
        goes_on: whether the command goes on with the broadcast, once all were delivered.

    Raises:
        typer.Exit: it does not go on: 0 for all delivered, else 1.
    """
    from producers.rehearsals import Trials

    trials = Trials(session.client, session.settings)
    users = [one.strip() for one in openids.split(",") if one.strip()]
    tried = begun = trials.begin(users, **given)
    said = ""
    for tried in trials.watch(begun, _WAIT_S):
        if tried.waits and tried.waits != said:
            said = tried.waits
            say(said)
    if as_json:
        print_json(tried.as_dict())
    else:
        print_table(_of_test(tried))
    if tried.delivered and goes_on:
        return
    rest = "" if tried.ended else "; what was not sent within a minute is never sent"
    say(f"test: nothing else was created{rest}")
    raise typer.Exit(Code.OK if tried.delivered else Code.WRONG)


def _of_test(tried: "Tried") -> Any:
    rows = table("test", "outcome", ">errcode", "meaning", "what to do")
    for one in tried.trials:
        code = str(one.errcode or "")
        rows.add_row(one.openid, one.outcome or one.state, code, one.meaning, one.advice)
    return rows


def count(session: Session, app: str, audience: str) -> int:
    """Return how many recipients a broadcast would have now."""
    from producers.audiences import Audiences

    return Audiences(session.client, session.settings).measure(app, audience).members


def confirm(
    session: Session,
    recipients: Callable[[], int],
    above: int | None,
    *,
    yes: bool,
    as_json: bool,
) -> None:
    """Ask whether so many recipients are meant, where they are more than somebody set.

    Args:
        session: the open command.
        recipients: counts them; asked only where it matters.
        above: the number that needs no question; None: as the settings say; 0: any.
        yes: it was answered before.
        as_json: how to say that it ends.

    Raises:
        typer.Exit: it is not meant, or there is nobody to be asked.
    """
    most = session.settings.confirm_above if above is None else above
    if not most or yes:
        return
    many = recipients()
    if many <= most:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        fail(
            f"{many:,} recipients, more than {most:,}: nothing was created; if they are "
            "meant, say --yes",
            Code.USAGE,
            as_json=as_json,
        )
    # not typer's own question, which writes a blank to stdout
    typer.echo(f"Send to {many:,} recipients? [y/N]: ", nl=False, err=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        fail("nothing was created", Code.STOPPED, as_json=as_json)


def _as_table(made: "DryRun") -> Any:
    rows = table("dry run", "would be refused" if made.faults else "would be created")
    rows.add_row("app, channel", f"{made.app}, {made.channel}")
    rows.add_row("template_id", made.template_id)
    rows.add_row("audience", made.audience)
    for fault in made.faults:
        rows.add_row("fault", fault)
    rows.add_section()
    rows.add_row("recipients", f"{made.recipients:,}")
    if made.method:
        rows.add_row("  reachable", f"{made.reachable:,}{_range(made)} ({_METHODS[made.method]})")
        rows.add_row("  no permit", f"{made.no_permit:,}")
        rows.add_row("  suppressed", f"{made.suppressed:,}")
        for what, count in (("  kept", made.kept), ("  capped", made.capped)):
            if count:
                rows.add_row(what, f"{count:,}")
    rows.add_section()
    rows.add_row("starts", _when(made, made.starts_at_ms) or "at once")
    if made.window:
        opens = f"shut then, opens {_when(made, made.opens_at_ms)}" if made.opens_at_ms else "open"
        rows.add_row("hours", f"{made.window} ({opens})")
    rows.add_row("rate", _rate(made))
    if made.method:
        rows.add_row("first send", _when(made, made.begins_at_ms) or "none")
        rows.add_row("last send", _last(made))
        rows.add_row("late after", f"{_when(made, made.expires_at_ms)}: about {made.late:,}")
    rows.add_row("left today", f"{_count(made.day_left, 'no limit')} by the app's daily limit")
    rows.add_row("", f"{_count(made.wechat_left, 'unknown')} by WeChat's quota")
    for note in made.notes:
        rows.add_row("note", note)
    return rows


def _range(made: "DryRun") -> str:
    if made.reachable_low == made.reachable_high:
        return ""
    return f", between {made.reachable_low:,} and {made.reachable_high:,}"


def _rate(made: "DryRun") -> str:
    rate = f"{made.rate:,g} sends/s at the most" if made.rate else "no limit is set"
    if not made.others:
        return f"{rate}, nothing else runs"
    some = "another broadcast" if made.others == 1 else f"{made.others:,} other broadcasts"
    return f"{rate}, shared with {some} ({made.others_waiting:,} recipients)"


def _last(made: "DryRun") -> str:
    if made.eta_s is None:
        return "unknown" if made.reachable else "none"
    return f"{_when(made, made.ends_at_ms)}, {made.eta_s:,} s after its start"


def _count(number: int | None, otherwise: str) -> str:
    return otherwise if number is None else f"{number:,}"


def _when(made: "DryRun", at_ms: int) -> str:
    from producers.times.moments import to_the_second
    from producers.times.zones import zone_of

    return to_the_second(at_ms, zone_of(made.zone)) if at_ms else ""
