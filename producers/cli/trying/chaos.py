"""``wxbroadcast chaos``: the proof by killing, and its table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from producers.cli.options import AsJson
from producers.cli.session import Code, fail, guarded, print_json, print_table, table

if TYPE_CHECKING:
    from producers.cli.interrupts import Interrupts
    from producers.local.chaos.evening.sums import Sums
    from producers.local.chaos.schedule import Fault, Plan
    from producers.local.chaos.verdict import Verdict
    from producers.local.chaos.views import Views

_HEAD = (
    "channel",
    "faults",
    "recipients",
    "kills",
    "delivered",
    "in_doubt",
    "false doubts",
    "lost",
    "duplicates",
    "permits unaccounted",
    "longest recovery",
    "seconds",
    "verdict",
)

_LANES = 6
"""With a cluster, where nothing else is said: their slots lie on all three nodes."""

_EVENING = 20
"""Users of each app, at least: messages go to some, and a few are suppressed."""


def chaos(
    recipients: Annotated[int, typer.Option(min=1, help="Users, each with one permit.")] = 2000,
    kills: Annotated[int, typer.Option(min=0, help="Workers to kill -9.")] = 5,
    faults: Annotated[
        str,
        typer.Option(
            metavar="LIST|all|none",
            help="kills, zombies, rolling, redis, redis-everysec, cuts, lost-replies, wechat, "
            "pause, hostile; all: all but redis-everysec and hostile; with --cluster also nodes, "
            "partitions, reshards.",
        ),
    ] = "all",
    channel: Annotated[
        str, typer.Option(metavar="template|subscribe", help="Which WeChat API.")
    ] = "template",
    units: Annotated[int, typer.Option(min=1, max=64, help="Worker units.")] = 3,
    lanes: Annotated[int, typer.Option(min=1, max=1024, help="Lanes in Redis.")] = 1,
    rate: Annotated[
        float, typer.Option(min=0, help="Sends per second; 0: so that all the kills have room.")
    ] = 0,
    lost: Annotated[
        float, typer.Option(min=0, max=100, help="Percent of Redis's replies that are lost.")
    ] = 0.5,
    seed: Annotated[int | None, typer.Option(help="Repeats a run; random if absent.")] = None,
    as_table: Annotated[
        bool, typer.Option("--table", help="Each fault with the kills, and all; both channels.")
    ] = False,
    evening: Annotated[
        bool,
        typer.Option("--evening", help="Three apps and all that operators do; of --recipients."),
    ] = False,
    compare: Annotated[
        bool,
        typer.Option("--compare", help="All who tell of the broadcast, side by side."),
    ] = False,
    cluster: Annotated[
        bool,
        typer.Option("--cluster", help="Redis is 3 primaries with a replica each; lanes: 6."),
    ] = False,
    replicas: Annotated[
        int,
        typer.Option(min=0, max=1, help="With --cluster: replicas that claims and outcomes await."),
    ] = 1,
    logs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep the workers' log lines here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prove that nobody gets a message twice and nobody is forgotten.

    Starts what `demo` starts, broadcasts, and kills workers (kill -9) at random moments; also
    Redis, connections, replies, whole units that wake up again, and WeChat's answers go wrong.
    At the end the outcomes, the ledger and the sandbox's count per openid are compared. A verdict
    that is not good makes the exit code 1. The same seed gives the same schedule.

    With --compare, Redis's status, the service, the page's stream, top, the audit, the report, the
    workers' figures and the WeChat stand side by side in a table; a number that is not equal in all
    makes the exit code 1. It leaves out the faults after which no figures can be equal: rolling,
    redis-everysec, hostile.

    With --cluster, Redis is three primaries with a replica each, which are killed, stand still and
    are restarted, and whose slots move, beside all else.

    With --evening three apps are played at once, a minute or two: a series' tick, rows, a pause, a
    cancellation, a template that WeChat refuses and a retry, a send window that opens, a cap, an
    app that comes, single messages. What Redis, the service, the logs and the WeChat say of each is
    compared; with --faults none all of it must be equal.
    """
    with guarded(as_json=as_json):
        import secrets
        from dataclasses import replace

        from producers.cli.interrupts import Interrupted, Interrupts
        from producers.cli.watcher import kept
        from producers.errors import InvalidInputError
        from producers.local.chaos.schedule import UNCOUNTED, Plan
        from producers.local.parts import DemoError
        from producers.local.ports import free_port
        from producers.words import Channel

        if channel not in set(Channel):
            raise InvalidInputError([f"channel {channel!r}: take template or subscribe"])
        if evening and recipients < _EVENING:
            raise InvalidInputError([f"--evening: {_EVENING} recipients or more"])
        plan = Plan(
            secrets.randbelow(1_000_000) if seed is None else seed,
            recipients,
            kills,
            _faults(faults, cluster=cluster),
            Channel(channel),
            units,
            _LANES if cluster and lanes == 1 else lanes,
            rate,
            lost / 100,
            logs=kept(logs),
            cluster=cluster,
            replicas=replicas if cluster else 0,
        )
        if cluster and (evening or compare):
            raise InvalidInputError(["--cluster: without --evening and --compare"])
        if compare:
            if evening or as_table:
                raise InvalidInputError(["--compare: without --evening and --table"])
            plan = replace(plan, faults=plan.faults - UNCOUNTED, metrics_port=free_port())
        try:
            with Interrupts() as interrupts:
                if evening:
                    played = _play(plan, interrupts)
                    _tell_evening(played, as_json=as_json)
                    raise typer.Exit(Code.OK if played.good else Code.WRONG)
                plans = _rows(plan) if as_table else [plan]
                verdicts = [_run(one, interrupts) for one in plans]
        except Interrupted as interrupted:
            fail("interrupted; all is stopped", interrupted.exit_code, as_json=as_json)
        except DemoError as error:
            fail(str(error), Code.WRONG, as_json=as_json)
        _tell(verdicts, as_table=as_table, as_json=as_json)
        if not all(verdict.good for verdict in verdicts):
            raise typer.Exit(Code.WRONG)


def _run(plan: "Plan", interrupts: "Interrupts") -> "Verdict":
    from producers.cli.progress import Progress
    from producers.cli.watcher import ShownWatcher
    from producers.local.chaos.run import run

    with Progress("chaos", plan.recipients) as bar:
        verdict = run(plan, ShownWatcher("chaos", bar, interrupts))
    said = "good" if verdict.good else "; ".join(verdict.faults)
    typer.echo(f"chaos: seed {plan.seed}, {plan.channel}: {said}", err=True)
    return verdict


def _play(plan: "Plan", interrupts: "Interrupts") -> "Sums":
    from producers.cli.progress import Progress
    from producers.cli.watcher import ShownWatcher
    from producers.local.chaos.evening.run import run

    with Progress("evening", None) as bar:
        sums = run(plan, ShownWatcher("evening", bar, interrupts))
    said = "good" if sums.good else "; ".join(sums.faults)
    typer.echo(f"evening: seed {plan.seed}: {said}", err=True)
    return sums


def _tell_evening(sums: "Sums", *, as_json: bool) -> None:
    if as_json:
        print_json(sums.as_dict())
        return
    names = ("app", "broadcast", "ended", ">recipients", ">Redis", ">HTTP", ">logs", ">WeChat")
    shown = table(*names, ">twice", "other outcomes")
    for line in sums.lines:
        others = (f"{many:,} {name}" for name, many in line.redis.items() if name != "delivered")
        counts = (line.recipients, line.redis["delivered"], line.http["delivered"], line.logged)
        shown.add_row(
            line.app,
            line.name,
            line.state,
            *(f"{many:,}" for many in (*counts, line.arrived, line.twice)),
            ", ".join(others),
        )
    print_table(shown)
    document = sums.as_dict()
    for name in ("messages", "lost", "twice", "outside_window", "beyond_cap", "ticks", "struck"):
        typer.echo(f"{name.replace('_', ' ')}: {document[name]}")
    for finding in sums.findings:
        typer.echo(f"found: {finding}", err=True)


def _faults(text: str, *, cluster: bool) -> "frozenset[Fault]":
    """Read the list of faults."""
    from producers.errors import InvalidInputError
    from producers.local.chaos.schedule import ALL, OF_A_CLUSTER, Fault

    if text in {"all", "none"}:
        every = ALL | OF_A_CLUSTER if cluster else ALL
        return every if text == "all" else frozenset()
    names = [name.strip() for name in text.split(",")]
    unknown = [
        f"fault {name!r}: take {', '.join(Fault)}" for name in names if name not in set(Fault)
    ]
    if unknown:
        raise InvalidInputError(unknown)
    found = frozenset(map(Fault, names))
    if not cluster and found & OF_A_CLUSTER:
        raise InvalidInputError([f"{', '.join(sorted(found & OF_A_CLUSTER))}: take --cluster"])
    return found


def _rows(plan: "Plan") -> "list[Plan]":
    """Return the table's runs: the kills, each other fault with them, and all."""
    from dataclasses import replace

    from producers.local.chaos.schedule import ALL, OF_A_CLUSTER, Fault
    from producers.words import Channel

    left_out = frozenset({Fault.HOSTILE}) if plan.cluster else OF_A_CLUSTER
    sets = [frozenset({Fault.KILLS, fault}) for fault in Fault if fault not in left_out]
    every = ALL | OF_A_CLUSTER if plan.cluster else ALL
    return [
        replace(plan, channel=channel, faults=faults)
        for channel in Channel
        for faults in (*sets, every)
    ]


def _cells(verdict: "Verdict") -> list[str]:
    from producers.local.chaos.schedule import ALL, OF_A_CLUSTER, Fault
    from producers.words import Outcome

    plan = verdict.plan
    extra = [fault.value for fault in Fault if fault in plan.faults and fault is not Fault.KILLS]
    name = "all" if plan.faults in {ALL, ALL | OF_A_CLUSTER} else ", ".join(["kills", *extra])
    return [
        plan.channel.value,
        name if Fault.KILLS in plan.faults else ", ".join(extra) or "none",
        f"{plan.recipients:,}",
        f"{verdict.struck.get(Fault.KILLS, 0)}",
        f"{verdict.outcomes[Outcome.DELIVERED]:,}",
        f"{verdict.in_doubt:,}",
        f"{verdict.false_doubts:,}",
        f"{verdict.lost:,}",
        f"{verdict.duplicates:,}",
        f"{verdict.unaccounted:,}",
        f"{verdict.longest_recovery_s:.1f} s",
        f"{verdict.seconds:.0f}",
        "good" if verdict.good else "; ".join(verdict.faults),
    ]


def _tell(verdicts: "list[Verdict]", *, as_table: bool, as_json: bool) -> None:
    if as_table:
        typer.echo("| " + " | ".join(_HEAD) + " |")
        typer.echo("|" + "---|" * len(_HEAD))
        for verdict in verdicts:
            typer.echo("| " + " | ".join(_cells(verdict)) + " |")
        for verdict in verdicts:
            print_json(verdict.as_dict())
        if as_json:
            good = all(verdict.good for verdict in verdicts)
            print_json({"good": good, "rows": [verdict.as_dict() for verdict in verdicts]})
        return
    for verdict in verdicts:
        if as_json:
            print_json(verdict.as_dict())
        else:
            _print(verdict)


def _print_views(views: "Views") -> None:
    from producers.local.chaos.views import NAMES

    shown = table("", *(f">{name}" for name in NAMES), "")
    for row in views.rows.values():
        cells = (f"{row.cells[name]:,}" if name in row.cells else "" for name in NAMES)
        shown.add_row(row.name, *cells, "equal" if row.equal else "DIFFERS")
    print_table(shown)
    typer.echo(f"figures of {views.lives} workers, those that were killed among them")


def _print(verdict: "Verdict") -> None:
    rows = table("", ">")
    for name, cell in zip(_HEAD, _cells(verdict), strict=True):
        rows.add_row(name, cell)
    document: dict[str, Any] = verdict.as_dict()
    for fault, count in document["struck"].items():
        rows.add_row(f"  {fault}", f"{count}")
    rows.add_row(
        "longest recovery, Redis's own outages included", f"{verdict.longest_wait_s:.1f} s"
    )
    if verdict.plan.cluster:
        rows.add_row("  replicas that are waited for", f"{verdict.plan.replicas}")
        rows.add_row("  longest failover of the cluster", f"{document['longest_failover_s']:.1f} s")
    rows.add_row("  lost replies", f"{verdict.lost_replies}")
    rows.add_row("  units started again", f"{verdict.restarts}")
    if verdict.crowd is not None:
        crowd = verdict.crowd
        rows.add_row("  deeds of hostile phones", f"{crowd.requests_of_mob:,}")
        rows.add_row(
            "honest phones: p95 before and beside them",
            f"{crowd.p95_before_ms:.0f} ms, {crowd.p95_beside_ms:.0f} ms",
        )
    rows.add_row("seed", f"{verdict.plan.seed}")
    print_table(rows)
    if verdict.views is not None:
        _print_views(verdict.views)
    for finding in verdict.findings:
        typer.echo(f"found: {finding}", err=True)
