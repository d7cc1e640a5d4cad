"""Series: broadcasts made again at each tick of a cron expression."""

from collections.abc import Callable
from datetime import timedelta
from typing import Final, Literal

from pydantic import Field

from producers.access.api_keys import Scope
from producers.series import SeriesStatus
from producers.web.call import Call
from producers.web.handlers.broadcasts import CHAPTER, Carry, Purpose, Rate, Weight
from producers.web.http.answer import Answer
from producers.web.models import Content, Life, Model, Whom
from producers.web.routing.route import Reply, Route, json_body, ok

_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


class NewSeries(Content):
    """One message to one audience, again and again."""

    name: str = Field(max_length=64, pattern=_NAME, examples=["evening"])
    every: str = Field(max_length=100, description="five fields of cron", examples=["0 21 * * *"])
    zone: str = Field("", max_length=64, description="whose clocks; empty: the app's")
    missed: Literal["skip", "run"] = Field(
        "skip", description="ticks that nobody made in time: skip, or run once for all of them"
    )
    audience: Whom
    rate: Rate = 0
    expires_in_s: Life = Field(604_800, description="of each run: after so long the rest is late")
    priority: bool = Field(False, description="served before the others")
    weight: Weight = 1
    purpose: Purpose = ""
    carry_over: Carry = False


class SeriesList(Model):
    """An app's series."""

    series: list[SeriesStatus]


async def create_series(call: Call) -> Answer:
    """Create a series; the same body again changes nothing."""
    body: NewSeries = call.body

    def make() -> SeriesStatus:
        return call.services.series.create(
            body.name,
            body.every,
            zone=body.zone,
            missed=body.missed,
            **body.fields,
            app=call.app,
            audience=body.audience,
            rate=body.rate,
            expires_in=timedelta(seconds=body.expires_in_s),
            priority=body.priority,
            weight=body.weight,
            purpose=body.purpose,
            carry_over=body.carry_over,
        )

    made = await call.run(make)
    where = f"/v1/apps/{call.app}/series/{made.name}"
    return Answer(201, value=made, headers={"Location": where})


async def list_series(call: Call) -> Answer:
    """List an app's series, by their names."""
    return Answer(value=SeriesList(series=await call.run(call.services.series.list, call.app)))


async def show_series(call: Call) -> Answer:
    """Show what a series is doing."""
    return await _do(call, call.services.series.show)


async def pause_series(call: Call) -> Answer:
    """Let a series make nothing; what it made goes on."""
    return await _do(call, call.services.series.pause)


async def resume_series(call: Call) -> Answer:
    """Let a paused series go on, with its next tick from now."""
    return await _do(call, call.services.series.resume)


async def delete_series(call: Call) -> Answer:
    """Delete a series; what it made goes on."""
    return await _do(call, call.services.series.delete)


async def _do(call: Call, verb: Callable[[str, str], SeriesStatus]) -> Answer:
    return Answer(value=await call.run(verb, call.app, call.path["name"]))


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "POST",
        "/v1/apps/{app}/series",
        create_series,
        Scope.SEND,
        "Create a series",
        CHAPTER,
        {201: Reply("It makes a broadcast at each tick", SeriesStatus, headers={"Location": "it"})},
        body=json_body(NewSeries),
        problems=(404,),
        text="Each run is a broadcast of its own; its audience is read at the tick.",
    ),
    Route(
        "GET",
        "/v1/apps/{app}/series",
        list_series,
        Scope.READ,
        "List series",
        CHAPTER,
        ok("All of them", SeriesList),
    ),
    Route(
        "GET",
        "/v1/apps/{app}/series/{name}",
        show_series,
        Scope.READ,
        "Show a series",
        CHAPTER,
        ok("Its next tick, and what its last one made", SeriesStatus),
    ),
    Route(
        "POST",
        "/v1/apps/{app}/series/{name}/pause",
        pause_series,
        Scope.SEND,
        "Pause a series",
        CHAPTER,
        ok("Paused", SeriesStatus),
    ),
    Route(
        "POST",
        "/v1/apps/{app}/series/{name}/resume",
        resume_series,
        Scope.SEND,
        "Resume a series",
        CHAPTER,
        ok("Active again", SeriesStatus),
    ),
    Route(
        "DELETE",
        "/v1/apps/{app}/series/{name}",
        delete_series,
        Scope.SEND,
        "Delete a series",
        CHAPTER,
        ok("What it was", SeriesStatus),
    ),
)
