"""The moves of a broadcast: paused, resumed, cancelled, rescheduled."""

from typing import Final

from pydantic import Field

from producers.access.api_keys import Scope
from producers.web.call import Call
from producers.web.handlers.broadcasts import CHAPTER, Moved, status_of
from producers.web.http.answer import Answer
from producers.web.models import Model
from producers.web.routing.route import Route, json_body, ok


class Reason(Model):
    """Why a broadcast is paused."""

    reason: str = Field("asked for", min_length=1, max_length=200)


class Resume(Model):
    """How to go on."""

    after_restore: bool = Field(
        False,
        description="needed when it was paused because Redis may be an old backup: whoever was "
        "sent to since then may be sent to again",
    )


class NewTime(Model):
    """When a scheduled broadcast starts now."""

    at: str = Field(
        min_length=1,
        max_length=64,
        description="ISO 8601; without an offset as the zone's clocks show it",
        examples=["2026-12-01 21:00"],
    )
    until: str = Field("", max_length=64, description="when the rest is late; empty: as before")
    zone: str = Field(
        "", max_length=64, description="whose clocks; empty: the zone it was created with"
    )


async def pause_broadcast(call: Call) -> Answer:
    """Stop sending; what is in flight is settled."""
    body: Reason = call.body

    def move() -> Moved:
        found = status_of(call)
        state = call.services.broadcasts.pause(found.id, body.reason)
        return Moved(id=found.id, state=state)

    return Answer(value=await call.run(move))


async def resume_broadcast(call: Call) -> Answer:
    """Go on sending a paused broadcast."""
    body: Resume = call.body

    def move() -> Moved:
        found = status_of(call)
        state = call.services.broadcasts.resume(found.id, after_restore=body.after_restore)
        return Moved(id=found.id, state=state)

    return Answer(value=await call.run(move))


async def cancel_broadcast(call: Call) -> Answer:
    """End a broadcast; whoever was not sent to is cancelled."""

    def move() -> Moved:
        found = status_of(call)
        return Moved(id=found.id, state=call.services.broadcasts.cancel(found.id))

    return Answer(value=await call.run(move))


async def reschedule_broadcast(call: Call) -> Answer:
    """Have a scheduled broadcast start at another time."""
    body: NewTime = call.body

    def move() -> Moved:
        found = status_of(call)
        state = call.services.broadcasts.reschedule(
            found.id, body.at, until=body.until, zone=body.zone
        )
        return Moved(id=found.id, state=state)

    return Answer(value=await call.run(move))


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "POST",
        "/v1/apps/{app}/broadcasts/{id}/pause",
        pause_broadcast,
        Scope.SEND,
        "Pause a broadcast",
        CHAPTER,
        ok("Paused", Moved),
        body=json_body(Reason, required=False),
        problems=(409,),
    ),
    Route(
        "POST",
        "/v1/apps/{app}/broadcasts/{id}/resume",
        resume_broadcast,
        Scope.SEND,
        "Resume a broadcast",
        CHAPTER,
        ok("Running again", Moved),
        body=json_body(Resume, required=False),
        problems=(409,),
    ),
    Route(
        "POST",
        "/v1/apps/{app}/broadcasts/{id}/cancel",
        cancel_broadcast,
        Scope.SEND,
        "Cancel a broadcast",
        CHAPTER,
        ok("Cancelled", Moved),
        problems=(409,),
    ),
    Route(
        "POST",
        "/v1/apps/{app}/broadcasts/{id}/reschedule",
        reschedule_broadcast,
        Scope.SEND,
        "Reschedule a broadcast",
        CHAPTER,
        ok("It starts then", Moved),
        body=json_body(NewTime),
        problems=(409,),
    ),
)
