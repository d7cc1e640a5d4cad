"""Before a broadcast goes out: what it would do."""

from typing import Final

from pydantic import Field

from producers.access.api_keys import Scope
from producers.rehearsals import DryRun
from producers.web.call import Call
from producers.web.handlers.broadcasts import CHAPTER, NewBroadcast
from producers.web.http.answer import Answer
from producers.web.routing.route import Route, json_body, ok


class Rehearsed(NewBroadcast):
    """A broadcast that is not created, or a series'."""

    name: str = Field("", max_length=64, description="of a series: its name")
    every: str = Field(
        "", max_length=100, description="of a series: five fields of cron", examples=["0 21 * * *"]
    )


async def dry_run_broadcast(call: Call) -> Answer:
    """Say what a broadcast would do, and store nothing."""
    body: Rehearsed = call.body
    given = {**body.given(call.app), "every": body.every, "key": body.name}
    return Answer(value=await call.run(lambda: call.services.dry_runs.look(**given)))


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "POST",
        "/v1/apps/{app}/broadcasts/dry-run",
        dry_run_broadcast,
        Scope.READ,
        "Try a broadcast dry",
        CHAPTER,
        ok("Recipients, reach, faults, hours and ETA; `faults` is empty if it would run", DryRun),
        body=json_body(Rehearsed),
        text="The body of `POST …/broadcasts`; nothing is stored, nothing is sent. A path of its "
        "own and no parameter, so that a typing error sends nothing.",
    ),
)
