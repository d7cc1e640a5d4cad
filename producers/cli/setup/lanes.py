"""``wxbroadcast lanes``: another number of lanes for a living deployment."""

from typing import Annotated, Final

import typer

from producers.cli.options import AsJson
from producers.cli.session import guarded, print_json, say

_AGAIN: Final = "a lane may stand still until it is run again: see `wxbroadcast doctor`"


def lanes(
    number: Annotated[
        int, typer.Argument(min=1, help="How many; a multiple of what there are.", metavar="LANES")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be moved, and change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Give a deployment more lanes, one after the other, while it sends and stores.

    The lane that is on its way stands still: its messages wait, and what concerns its users is
    answered with 503 by the service. Nothing is lost. Killed, it is run again with the same number;
    until then that one lane stands still.
    """
    with guarded(as_json=as_json):
        import redis

        from producers import settings, store
        from producers.cli.progress import Progress
        from producers.errors import StoreUnavailableError
        from producers.relaning import Relaner
        from producers.store.trouble import in_words

        loaded = settings.load()
        client = store.connect(loaded, 2, role="cli", fenced=False)
        try:
            with Progress("lanes", None) as bar:

                def show(what: str, count: int) -> None:
                    bar.update(count, counted=f"{count:,} {what}")

                relaner = Relaner(client, loaded, show)
                done = relaner.plan(number) if dry_run else relaner.run(number)
        except (redis.RedisError, StoreUnavailableError) as error:
            if dry_run:
                raise
            why = str(error) if isinstance(error, StoreUnavailableError) else in_words(error)
            raise StoreUnavailableError(f"{why}; {_AGAIN}") from error
        except KeyboardInterrupt:
            say(_AGAIN)
            raise
        finally:
            client.close()
            client.connection_pool.disconnect()
        if as_json:
            print_json(done.as_dict())
            return
        say(
            f"{done.before} → {done.after} lanes: {done.divided:,} "
            f"{'would be' if dry_run else 'were'} divided; {done.keys:,} keys "
            f"{'would go' if dry_run else 'went'} to a new lane, of {done.shared:,} each "
            f"{'would get' if dry_run else 'got'} its share; {done.broadcasts:,} broadcasts, "
            f"{done.audiences:,} audiences and {done.stocks:,} stocks "
            f"{'would be' if dry_run else 'were'} counted anew"
        )
        if not dry_run:
            still = f"no lane stood still for more than {done.standstill_s:.1f} s"
            say(f"it took {done.took_s:.1f} s; {still}")
        if "lanes" in loaded.model_fields_set and loaded.lanes != number:
            say(
                f"WXB_LANES is {loaded.lanes} here: unset it wherever it is set, or with {number} "
                "lanes nothing that is started there will come up"
            )
        for name in done.strange:
            say(f"left where it was, for nobody of us put it there: {name}")
