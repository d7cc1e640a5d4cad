"""Single messages."""

from datetime import timedelta
from typing import Annotated, Final

from pydantic import ConfigDict, Field

from producers.access.api_keys import Scope
from producers.broadcasts.messages import MessageStatus
from producers.errors import NotFoundError
from producers.web.call import Call
from producers.web.http.answer import Answer
from producers.web.models import Content, Model, Openid, Whole
from producers.web.routing.route import Reply, Route, json_body, ok
from producers.web.traffic.idempotency import inner_key

CHAPTER: Final = "Messages"


class NewMessage(Content):
    """One message to one user."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "channel": "subscribe",
                    "template_id": "TEMPLATE_ID",
                    "openid": "oABC",
                    "data": {"thing1": "签到提醒", "time2": "20:00"},
                }
            ]
        }
    )
    openid: Openid
    expires_in_s: Annotated[int, Field(ge=1, le=86_400), Whole] = Field(
        3600, description="after so long it is late"
    )


class Posted(Model):
    """A message that is on its way."""

    id: str
    known: bool = Field(description="whether the Idempotency-Key had posted it before")


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


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "POST",
        "/v1/apps/{app}/messages",
        post_message,
        Scope.SEND,
        "Send one message",
        CHAPTER,
        {
            201: Reply(
                "It is on its way",
                Posted,
                headers={"Location": "where its status can be read"},
            )
        },
        body=json_body(NewMessage),
        creates=True,
        text="One user, one message, now: sent before all broadcasts, with the same guarantees. "
        "409 with WeChat's errcode while the template is stopped: it refused too many in a row.",
    ),
    Route(
        "GET",
        "/v1/apps/{app}/messages/{message}",
        show_message,
        Scope.READ,
        "Show a message",
        CHAPTER,
        ok("Where it is, or its outcome", MessageStatus),
    ),
)
