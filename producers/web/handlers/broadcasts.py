"""Broadcasts: created, listed, shown, changed."""

from datetime import timedelta
from typing import Annotated, Any, Final, Self

from pydantic import ConfigDict, Field, TypeAdapter, model_validator

from producers import broadcasts, settings
from producers.access.api_keys import Scope
from producers.broadcasts.spec import MOST_WEIGHT, Spec
from producers.broadcasts.status import MOST, Status
from producers.errors import NotFoundError
from producers.web.call import Call
from producers.web.handlers.streams import on_stream
from producers.web.http.answer import Answer
from producers.web.http.cursor import seal, unseal
from producers.web.models import Content, Cursor, Life, Model, Number, Whole, Whom
from producers.web.routing.multipart import ROWS, read_form
from producers.web.routing.route import Body, Reply, Route, json_body, ok
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

Carry = Annotated[
    bool,
    Field(
        description="what today's quota cannot carry goes on by itself when the next day begins; "
        "else it is paused then"
    ),
]
Purpose = Annotated[
    str,
    Field(
        max_length=32,
        pattern=r"^([a-z][a-z0-9_-]*)?$",
        description="what it is for: one of the app's per_user_per_day, whose cap holds for it",
    ),
]


class Said(Content):
    """One message, and how it is sent."""

    rate: Rate = 0
    expires_in_s: Life = Field(604_800, description="after so long the rest is late")
    priority: bool = Field(False, description="served before the others")
    weight: Weight = 1
    purpose: Purpose = ""
    carry_over: Carry = False
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
            "rate": self.rate,
            "expires_in": timedelta(seconds=self.expires_in_s),
            "priority": self.priority,
            "weight": self.weight,
            "purpose": self.purpose,
            "carry_over": self.carry_over,
            "at": self.at,
            "until": self.until,
            "zone": self.zone,
        }


class NewBroadcast(Said):
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

    def given(self, app: str) -> dict[str, Any]:
        """Return all of it, as `Spec.checked` takes it."""
        return {**super().given(app), "audience": self.audience}


class NewBroadcastWithRows(Said):
    """One message to each of some rows, its data and page with holes for their columns."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "channel": "subscribe",
                    "template_id": "TEMPLATE_ID",
                    "data": {"thing1": "{name|thing}，连续签到 {days} 天"},
                }
            ]
        }
    )
    skip_bad: bool = Field(False, description="send the good rows, though others are bad")


WITH_ROWS: Final[TypeAdapter[NewBroadcastWithRows]] = TypeAdapter(NewBroadcastWithRows)


class BadRow(Model):
    """A row that cannot be sent."""

    row: int = Field(description="from 1, a header counted")
    detail: str


class Read(Model):
    """What became of the rows."""

    rows: int = Field(description="rows read, without blank ones and a CSV header")
    bad: int = Field(description="rows that were left out")
    rules: dict[str, int] = Field(description="what they break → how many")
    listed: list[BadRow] = Field(description="the first 100 of them")


class Created(Model):
    """A broadcast that runs, or waits for its start."""

    id: str
    known: bool = Field(description="whether the Idempotency-Key had made it before")
    note: str = Field("", description="what today's quota cannot carry of it, in words, or empty")


class CreatedWithRows(Created):
    """The same, of a broadcast with rows."""

    rows: Read


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
    key = inner_key(call.request.headers, call.scope)
    if call.streams:
        made = await on_stream(call, _create_with_rows, call, key)
    else:
        body: NewBroadcast = call.body
        spec = Spec.checked(**body.given(call.app))
        made = await call.run(call.services.broadcasts.create, spec, key)
    value = Created(id=made.id, known=made.known, note=made.note)
    if made.rows:
        read = Read.model_validate(made.rows.as_dict())
        value = CreatedWithRows(id=made.id, known=made.known, note=made.note, rows=read)
    where = f"/v1/apps/{call.app}/broadcasts/{made.id}"
    return Answer(201, value=value, headers={"Location": where})


def _create_with_rows(call: Call, key: str) -> broadcasts.Created:
    said, rows = read_form(call, WITH_ROWS)
    spec = Spec.checked(**said.given(call.app), rows=True)
    create = call.services.broadcasts.create_with_rows
    return create(spec, rows, key, skip_bad=said.skip_bad)


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
                Created | CreatedWithRows,
                headers={"Location": "where its status can be read"},
            )
        },
        body=Body(TypeAdapter(NewBroadcast), form=WITH_ROWS, rows=ROWS),
        creates=True,
        text="The whole spec is checked before anything is stored. With rows, which are its "
        "audience, each of them is, too: with a bad one nothing is created, unless `skip_bad`.",
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
