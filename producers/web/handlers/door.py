"""The mini-program's door."""

from typing import Annotated, Any, Final

from pydantic import Field, TypeAdapter, WithJsonSchema

from producers.access.door import MAX_UPLOADS
from producers.web.call import Call
from producers.web.handlers.permits import UPLOAD, Collected, collected
from producers.web.http.answer import Answer
from producers.web.models import Model
from producers.web.routing.route import SMALL, Body, Open, Route, ok

CHAPTER: Final = "The mini-program's door"

_OWN_UPLOAD: Final[dict[str, Any]] = {
    **UPLOAD,
    "properties": {
        **UPLOAD["properties"],
        "openid": {"description": "may be left out; if it is there it is the ticket's user"},
        "id": {"description": "needed with subscriptions, so that they cannot be replayed"},
    },
    "examples": [{"formIds": ["1b2c…"]}, {"subscriptions": {"TEMPLATE_ID": "accept"}, "id": "7f3"}],
}

OwnUploads = Annotated[
    dict[str, Any] | Annotated[list[dict[str, Any]], Field(max_length=MAX_UPLOADS)],
    WithJsonSchema(
        {
            "title": "OwnUploads",
            "anyOf": [
                _OWN_UPLOAD,
                {"type": "array", "items": {"type": "object"}, "maxItems": MAX_UPLOADS},
            ],
        }
    ),
]

_OWN_UPLOADS: Final[TypeAdapter[Any]] = TypeAdapter(OwnUploads)


class Login(Model):
    """A login."""

    code: str = Field(pattern=r"^[\x21-\x7e]{1,128}$", description="as wx.login gave it")


class Ticket(Model):
    """A collector ticket: send it as `Authorization: Bearer …`."""

    token: str
    expires_in_s: int


async def log_in(call: Call) -> Answer:
    """Exchange a login code for a collector ticket."""
    body: Login = call.body
    door = call.services.door
    ticket = await door.login(call.app, body.code, call.remote, call.bearer)
    return Answer(value=Ticket(token=ticket.token, expires_in_s=ticket.expires_in_s))


async def collect_own(call: Call) -> Answer:
    """File permits for the ticket's user."""
    report = await call.run(call.services.door.collect, call.app, call.bearer, call.body)
    return Answer(value=collected(report))


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "POST",
        "/v1/apps/{app}/login",
        log_in,
        Open.CODE,
        "Log a phone in",
        CHAPTER,
        ok("A ticket, for this user's permits alone", Ticket),
        body=Body(TypeAdapter(Login), limit=SMALL),
        problems=(429,),
        text="Exchanges a code of wx.login. The session_key never leaves the service. A ticket "
        "that the phone had before, expired or not, may come as bearer: its user then waits behind "
        "no bad codes of the same address.",
    ),
    Route(
        "POST",
        "/v1/apps/{app}/collect",
        collect_own,
        Open.TICKET,
        "File the phone's own permits",
        CHAPTER,
        ok("What became of each item", Collected),
        body=Body(_OWN_UPLOADS, limit=SMALL),
        problems=(401, 403, 429),
        text="Files permits for the ticket's user, whatever the upload says. Repeating it changes "
        "nothing.",
    ),
)
