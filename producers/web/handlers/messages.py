"""Handlers: single messages."""

from datetime import timedelta

from producers.broadcasts.messages import MessageStatus
from producers.errors import NotFoundError
from producers.web.call import Call
from producers.web.http.answer import Answer
from producers.web.models import NewMessage, Posted
from producers.web.traffic.idempotency import inner_key


async def post_message(call: Call) -> Answer:
    """Send one message to one user, before all broadcasts."""
    body: NewMessage = call.body
    made = await call.run(
        call.services.messages.post,
        **body.fields,
        app=call.app,
        openid=body.openid,
        expires_in=timedelta(seconds=body.expires_in_s),
        key=inner_key(call.request.headers, call.scope),
    )
    where = f"/v1/apps/{call.app}/messages/{made.id}"
    return Answer(201, value=Posted(id=made.id, known=made.known), headers={"Location": where})


async def show_message(call: Call) -> Answer:
    """Show what became of a message."""
    return Answer(value=await call.run(_status, call))


def _status(call: Call) -> MessageStatus:
    """Return the status of the path's message.

    Raises:
        NotFoundError: there is none, or it is another app's.
    """
    try:
        found = call.services.messages.show(call.path["message"])
    except NotFoundError:
        found = None
    if found is None or found.app != call.app:
        raise NotFoundError(f"no message {call.path['message']} of app {call.app!r}")
    return found
