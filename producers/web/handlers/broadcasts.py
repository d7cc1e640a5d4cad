"""Handlers: broadcasts."""

from datetime import timedelta

from producers.broadcasts.spec import Spec
from producers.broadcasts.status import Status
from producers.errors import NotFoundError
from producers.recipients.exports import csv_lines, json_lines
from producers.web.call import Call
from producers.web.handlers.streams import exported
from producers.web.http.answer import Answer
from producers.web.http.cursor import seal, unseal
from producers.web.http.media import CSV, NDJSON
from producers.web.models import (
    BroadcastList,
    BroadcastQuery,
    Change,
    Created,
    Moved,
    NewBroadcast,
    Reason,
    RecipientList,
    RecipientQuery,
    Resume,
)
from producers.web.traffic.idempotency import inner_key


async def create_broadcast(call: Call) -> Answer:
    """Create a broadcast, and set it running."""
    body: NewBroadcast = call.body
    spec = Spec.checked(
        **body.fields,
        app=call.app,
        audience=body.audience,
        rate=body.rate,
        expires_in=timedelta(seconds=body.expires_in_s),
        priority=body.priority,
    )
    made = await call.run(
        call.services.broadcasts.create, spec, inner_key(call.request.headers, call.scope)
    )
    where = f"/v1/apps/{call.app}/broadcasts/{made.id}"
    return Answer(201, value=Created(id=made.id, known=made.known), headers={"Location": where})


async def list_broadcasts(call: Call) -> Answer:
    """List the broadcasts of an app, the newest first."""
    query: BroadcastQuery = call.query
    page = await call.run(
        call.services.broadcasts.page, call.app, unseal(query.cursor), query.limit
    )
    return Answer(value=BroadcastList(broadcasts=page.broadcasts, next_cursor=seal(page.cursor)))


async def show_broadcast(call: Call) -> Answer:
    """Show what a broadcast is doing."""
    return Answer(value=await call.run(_status, call))


async def change_broadcast(call: Call) -> Answer:
    """Change how fast a broadcast is sent."""
    body: Change = call.body

    def move() -> Moved:
        found = _status(call)
        return Moved(id=found.id, state=call.services.broadcasts.set_rate(found.id, body.rate))

    return Answer(value=await call.run(move))


async def pause_broadcast(call: Call) -> Answer:
    """Stop sending; what is in flight is settled."""
    body: Reason = call.body

    def move() -> Moved:
        found = _status(call)
        state = call.services.broadcasts.pause(found.id, body.reason)
        return Moved(id=found.id, state=state)

    return Answer(value=await call.run(move))


async def resume_broadcast(call: Call) -> Answer:
    """Go on sending a paused broadcast."""
    body: Resume = call.body

    def move() -> Moved:
        found = _status(call)
        state = call.services.broadcasts.resume(found.id, after_restore=body.after_restore)
        return Moved(id=found.id, state=state)

    return Answer(value=await call.run(move))


async def cancel_broadcast(call: Call) -> Answer:
    """End a broadcast; whoever was not sent to is cancelled."""

    def move() -> Moved:
        found = _status(call)
        return Moved(id=found.id, state=call.services.broadcasts.cancel(found.id))

    return Answer(value=await call.run(move))


async def list_recipients(call: Call) -> Answer:
    """List who got which outcome, or export it."""
    query: RecipientQuery = call.query
    await call.run(_status, call)
    library, broadcast = call.services.recipients, call.path["id"]
    if query.format != "json":
        rows = library.iterate(broadcast, query.outcome)
        write, media = (csv_lines, CSV) if query.format == "csv" else (json_lines, NDJSON)
        disposition = f'attachment; filename="{broadcast}.{query.format}"'
        return Answer(
            media=f"{media}; charset=utf-8",
            headers={"Content-Disposition": disposition},
            parts=await exported(call, write(rows)),
        )
    page = await call.run(library.page, broadcast, query.outcome, unseal(query.cursor), query.limit)
    return Answer(value=RecipientList(recipients=page.rows, next_cursor=seal(page.cursor)))


def _status(call: Call) -> Status:
    """Return the status of the path's broadcast.

    Raises:
        NotFoundError: there is none, or it is another app's.
    """
    try:
        found = call.services.broadcasts.status(call.path["id"])
    except NotFoundError:
        found = None
    if found is None or found.app != call.app:
        raise NotFoundError(f"no broadcast {call.path['id']} of app {call.app!r}")
    return found
