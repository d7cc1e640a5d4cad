"""Broadcasts: created, listed, shown, changed."""

from datetime import timedelta
from typing import Annotated, Any, Final, Self

from pydantic import ConfigDict, Field, model_validator

from producers import settings
from producers.access.api_keys import Scope
from producers.broadcasts.spec import MOST_WEIGHT, Spec
from producers.broadcasts.status import MOST, Status
from producers.errors import NotFoundError
from producers.web.call import Call
from producers.web.http.answer import Answer
from producers.web.http.cursor import seal, unseal
from producers.web.models import Content, Cursor, Life, Model, Number, Whole, Whom
from producers.web.routing.route import Reply, Route, json_body, ok
from producers.web.traffic.idempotency import inner_key

CHAPTER: Final = "Broadcasts"

_AT: Final = "2026-12-01 21:00"
_ZONE: Final = "Asia/Shanghai"

Rate = Annotated[
    settings.Rate, Field(description="sends per second, within the app's; 0: the app's alone")
]


Weight = Annotated[
    int,
    Field(
        ge=1,
        le=MOST_WEIGHT,
        description="its share of what the app sends: so many sends while a broadcast of weight 1 "
        "gets one; a priority broadcast has none",
    ),
    Whole,
]

Purpose = Annotated[
    str,
    Field(
        max_length=32,
        pattern=r"^([a-z][a-z0-9_-]*)?$",
        description="what it is for: one of the app's per_user_per_day, whose cap holds for it",
    ),
]


class NewBroadcast(Content):
    """One message to one audience."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "channel": "subscribe",
                    "template_id": "TEMPLATE_ID",
                    "audience": "all",
                    "data": {"thing1": "每日签到", "date2": "2026-11-24"},
                    "page": "pages/checkin/index",
                }
            ]
        }
    )
    audience: Whom
    rate: Rate = 0
    expires_in_s: Life = Field(604_800, description="after so long the rest is late")
    priority: bool = Field(False, description="served before the others")
    weight: Weight = 1
    purpose: Purpose = ""
    at: str = Field("", max_length=64, description="when it starts; empty: at once", examples=[_AT])
    until: str = Field(
        "", max_length=64, description="when the rest is late, if that comes before expires_in_s"
    )
    zone: str = Field(
        "", max_length=64, description="whose clocks show both; empty: the app's", examples=[_ZONE]
    )

    def given(self, app: str) -> dict[str, Any]:
        """Return all of it, as `Spec.checked` takes it."""
        return {
            **self.fields,
            "app": app,
            "audience": self.audience,
            "rate": self.rate,
            "expires_in": timedelta(seconds=self.expires_in_s),
            "priority": self.priority,
            "weight": self.weight,
            "purpose": self.purpose,
            "at": self.at,
            "until": self.until,
            "zone": self.zone,
        }


class Created(Model):
    """A broadcast that runs, or waits for its start."""

    id: str
    known: bool = Field(description="whether the Idempotency-Key had made it before")


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


class Change(Model):
    """What to change of a broadcast while it runs: one of these, or both."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})
    rate: Rate = Field(0, json_schema_extra=_without_default)
    weight: Weight = Field(1, json_schema_extra=_without_default)

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("give a rate, a weight, or both")
        return self


class Moved(Model):
    """The state after a move."""

    id: str
    state: str


class BroadcastQuery(Model):
    """Which page."""

    cursor: Cursor = ""
    limit: Annotated[int, Number] = Field(20, ge=1, le=MOST, description="broadcasts on a page")


class BroadcastList(Model):
    """One page of broadcasts, the newest first."""

    broadcasts: list[Status]
    next_cursor: str = Field(description="'' on the last page")


async def create_broadcast(call: Call) -> Answer:
    """Create a broadcast, and set it running, or have it wait for its start."""
    body: NewBroadcast = call.body
    spec = Spec.checked(**body.given(call.app))
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
    return Answer(value=await call.run(status_of, call))


async def change_broadcast(call: Call) -> Answer:
    """Change how fast a broadcast is sent, or its share."""
    body: Change = call.body

    def move() -> Moved:
        found = status_of(call)
        state = found.state
        if "weight" in body.model_fields_set:  # first: it may be refused
            state = call.services.broadcasts.set_weight(found.id, body.weight)
        if "rate" in body.model_fields_set:
            state = call.services.broadcasts.set_rate(found.id, body.rate)
        return Moved(id=found.id, state=state)

    return Answer(value=await call.run(move))


def status_of(call: Call) -> Status:
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


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "POST",
        "/v1/apps/{app}/broadcasts",
        create_broadcast,
        Scope.SEND,
        "Create a broadcast",
        CHAPTER,
        {
            201: Reply(
                "It runs, or waits for its start",
                Created,
                headers={"Location": "where its status can be read"},
            )
        },
        body=json_body(NewBroadcast),
        creates=True,
        text="The whole spec is checked before anything is stored.",
    ),
    Route(
        "GET",
        "/v1/apps/{app}/broadcasts",
        list_broadcasts,
        Scope.READ,
        "List broadcasts",
        CHAPTER,
        ok("A page, the newest first", BroadcastList),
        query=BroadcastQuery,
    ),
    Route(
        "GET",
        "/v1/apps/{app}/broadcasts/{id}",
        show_broadcast,
        Scope.READ,
        "Show a broadcast",
        CHAPTER,
        ok("State, counts by outcome and errcode, rate and ETA", Status),
    ),
    Route(
        "PATCH",
        "/v1/apps/{app}/broadcasts/{id}",
        change_broadcast,
        Scope.SEND,
        "Change a broadcast's rate or weight",
        CHAPTER,
        ok("Workers follow within a second", Moved),
        body=json_body(Change),
        problems=(409,),
    ),
)
