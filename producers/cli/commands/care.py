"""``wxbroadcast audit, doctor, doubts, aside``: looking after a deployment."""

import sys
from typing import Annotated

import typer

from producers.cli.options import AsJson, BroadcastId
from producers.cli.session import Code, guarded, opened, print_json, print_table, say, table


def audit(
    broadcast: Annotated[
        str, typer.Option("--broadcast", help="Recount this broadcast alone.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Recount permits and recipients from Redis, and name every difference; exit code 1 on any."""
    with opened(as_json=as_json) as session:
        from producers.care.audit import Auditor

        auditor = Auditor(session.client, session.settings, session.absent.lanes)
        found = auditor.run(broadcast, _progress)
        if as_json:
            print_json({**found.as_dict(), **session.whole_or_part()})
        else:
            for app, ledger in found.ledgers.items():
                rows = table(
                    "permits",
                    ">collected",
                    ">available",
                    ">held",
                    ">spent",
                    ">void",
                    ">expired",
                    title=f"app {app}",
                )
                for name, uses in [*ledger.kinds.items(), ("all", ledger.total)]:
                    sums = uses.as_dict()
                    rows.add_row(
                        str(name),
                        *(
                            f"{sums[column]:,}"
                            for column in (
                                "collected",
                                "available",
                                "held",
                                "spent",
                                "void",
                                "expired",
                            )
                        ),
                    )
                print_table(rows)
            for wrong in found.wrong:
                typer.echo(f"WRONG {wrong.where}: {wrong.what}: {wrong.found} ≠ {wrong.counted}")
            users = sum(found.users.values())
            left = f" ({found.left_out:,} more are not known)" if found.left_out else ""
            counted = f"{users:,} users, {found.broadcasts:,} broadcasts{left}"
            say(f"{counted}: {len(found.wrong)} differences")
        if found.wrong:
            raise typer.Exit(Code.WRONG)
        session.end(as_json=as_json)


def _progress(buckets: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{buckets:,} buckets ")
        sys.stderr.flush()


def doctor(as_json: AsJson = False) -> None:
    """Check the deployment, and say what to change; exit code 1 when something is bad."""
    with guarded(as_json=as_json):
        from producers import settings
        from producers.care.check import Health
        from producers.care.doctor import examine
        from producers.local.url import what_ended

        checks = examine(settings.load(), what_ended)
        if as_json:
            print_json({"checks": [check.as_dict() for check in checks]})
        else:
            rows = table("check", "health", "found", "what to do")
            for check in checks:
                rows.add_row(check.name, check.health.value, check.found, check.advice)
            print_table(rows)
        if any(check.health is Health.BAD for check in checks):
            raise typer.Exit(Code.WRONG)


def doubts(
    broadcast_id: BroadcastId,
    decide: Annotated[
        str, typer.Option("--settle-as", help="Settle them all: delivered or failed.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """List recipients in doubt, as JSON lines, or settle them all by your decision."""
    with opened(as_json=as_json) as session:
        from producers.recipients.doubts import Doubts

        known = Doubts(session.client, session.settings)
        if decide:
            moved = known.decide(broadcast_id, decide)
            if as_json:
                print_json({"id": broadcast_id, "settled": moved, "outcome": decide})
            else:
                say(f"{moved:,} recipients settled as {decide}")
            return
        listed = 0
        for doubt in known.of(broadcast_id):
            listed += 1
            print_json(doubt.as_dict())
        if as_json:
            print_json({"id": broadcast_id, "in_doubt": listed})
        else:
            say(f"{listed:,} recipients in doubt")


def aside(
    broadcast_id: BroadcastId,
    replay: Annotated[
        bool, typer.Option("--replay", help="Send them again, with the same form_ids.")
    ] = False,
    give_up: Annotated[bool, typer.Option("--give-up", help="Settle them as in_doubt.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show, replay or give up messages that were set aside: each outlived its workers too often."""
    with opened(as_json=as_json) as session:
        from producers.broadcasts.status import Register
        from producers.recipients.doubts import Doubts

        if replay and give_up:
            raise typer.BadParameter("take --replay or --give-up, not both")
        if replay or give_up:
            found = Doubts(session.client, session.settings).aside(broadcast_id, replay=replay)
        else:
            found = Register(session.client, session.settings).status(broadcast_id).aside
        did = "replayed" if replay else "settled as in_doubt" if give_up else "set aside"
        if as_json:
            print_json({"id": broadcast_id, "messages": found, "did": did})
        else:
            say(f"{found:,} messages {did}")
