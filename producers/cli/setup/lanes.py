"""``wxbroadcast lanes``: another number of lanes for a living deployment."""

from typing import Annotated

import typer

from producers.cli.options import AsJson
from producers.cli.session import guarded, print_json, say


def lanes(
    number: Annotated[
        int, typer.Argument(min=1, help="How many; a multiple of what there are.", metavar="LANES")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be moved, and change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Give a deployment more lanes. Meanwhile nothing is sent or stored, and nothing is lost.

    Workers drain and end, and go on when whatever restarts them has; the service answers 503. It
    takes half a minute for a million users, on a cluster too, and up to 10 s before that for what
    is in workers' hands. Killed, it is run again with the same number; until then the deployment
    stands still.
    """
    with guarded(as_json=as_json):
        from producers import settings, store
        from producers.cli.progress import Progress
        from producers.relaning import Relaner

        loaded = settings.load()
        client = store.connect(loaded, 2, role="cli", fenced=False)
        try:
            with Progress("lanes", None) as bar:

                def show(what: str, count: int) -> None:
                    bar.update(count, counted=f"{count:,} {what}")

                relaner = Relaner(client, loaded, show)
                done = relaner.plan(number) if dry_run else relaner.run(number)
        finally:
            client.close()
            client.connection_pool.disconnect()
        if as_json:
            print_json(done.as_dict())
            return
        would = "would go" if dry_run else "went"
        say(
            f"{done.before} → {done.after} lanes: {done.moved:,} keys {would} to another lane, of "
            f"{done.divided:,} each lane {'would get' if dry_run else 'got'} its share; "
            f"{done.broadcasts:,} broadcasts, {done.audiences:,} audiences and "
            f"{done.stocks:,} stocks {'would be' if dry_run else 'were'} counted anew"
        )
        if not dry_run:
            say(f"nothing was sent or stored for {done.standstill_s:.1f} s")
        for name in done.strange:
            say(f"left where it was, for nobody of us put it there: {name}")
