"""Before a broadcast goes out: how its dry run looks."""

from typing import TYPE_CHECKING, Any, Final

from producers.cli.session import Code, Session, print_json, print_table, say, table

if TYPE_CHECKING:
    from producers.rehearsals import DryRun

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
