"""Audiences: listed, replaced, added to, taken from."""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final

from pydantic import Field, TypeAdapter

from producers.access.api_keys import Scope
from producers.audiences.members import MOST
from producers.audiences.reports import ImportReport
from producers.openid import OPENID
from producers.web.call import Call
from producers.web.handlers.streams import on_stream
from producers.web.http.answer import Answer
from producers.web.http.cursor import seal, unseal
from producers.web.http.media import CSV, NDJSON, TEXT
from producers.web.models import Cursor, Model, Number, Whom
from producers.web.routing.route import Body, Route, ok

CHAPTER: Final = "Audiences"

ROWS: Final = {
    TEXT: "one openid a line",
    CSV: "a header that names a column openid, or the openid first",
    NDJSON: 'a line: "openid" or {"openid": "…"}',
}


class Members(Model):
    """Openids to add or to take out."""

    openids: list[str] = Field(min_length=1, max_length=10_000)


class BadRow(Model):
    """A row without an openid."""

    row: int = Field(description="from 1")
    detail: str


class Imported(Model):
    """What became of the rows."""

    rows: int = Field(description="rows read, without blank ones and a CSV header")
    added: int = Field(description="members that are new")
    known: int = Field(description="members that were there before")
    bad: int = Field(description="rows that hold no openid")
    removed: int = Field(description="members that a replacement left out")
    listed: list[BadRow] = Field(description="the first 100 bad rows")


class Removed(Model):
    """What became of the rows."""

    rows: int = Field(description="rows read, without blank ones and a CSV header")
    removed: int = Field(description="who was a member")
    unknown: int = Field(description="who was none")
    bad: int = Field(description="rows that hold no openid")
    listed: list[BadRow] = Field(description="the first 100 bad rows")


class Audience(Model):
    """An audience."""

    name: str
    members: int


class Measured(Model):
    """How many an audience or an expression has."""

    of: str
    members: int
    exact: bool = Field(description="counted; else estimated, from some of the buckets")


class MeasureQuery(Model):
    """Of whom."""

    of: Whom


class AudienceList(Model):
    """One page of audiences, `all` first, then by name."""

    audiences: list[Audience]
    next_cursor: str = Field(description="'' on the last page")


class Deleted(Model):
    """What was deleted."""

    members: int


class AudienceQuery(Model):
    """Which page."""

    cursor: Cursor = ""
    limit: Annotated[int, Number] = Field(100, ge=1, le=MOST, description="audiences on a page")


async def list_audiences(call: Call) -> Answer:
    """List the audiences of an app with their sizes."""
    query: AudienceQuery = call.query
    page = await call.run(call.services.audiences.page, call.app, unseal(query.cursor), query.limit)
    return Answer(
        value=AudienceList(
            audiences=[Audience(name=name, members=size) for name, size in page.audiences],
            next_cursor=seal(page.cursor),
        )
    )


async def show_audience(call: Call) -> Answer:
    """Show one audience."""
    name = call.path["name"]
    members = await call.run(call.services.audiences.count, call.app, name)
    return Answer(value=Audience(name=name, members=members))


async def measure_audience(call: Call) -> Answer:
    """Tell how many an audience or an expression has."""
    query: MeasureQuery = call.query
    found = await call.run(call.services.audiences.measure, call.app, query.of)
    return Answer(value=Measured(of=query.of, members=found.members, exact=found.exact))


async def replace_audience(call: Call) -> Answer:
    """Make openids an audience's only members; it is made if there is none."""
    audiences = call.services.audiences
    return await take_rows(call, audiences.replace_rows, call.path["name"])


async def add_members(call: Call) -> Answer:
    """Add openids to an audience that there is."""
    audiences, name = call.services.audiences, call.path["name"]
    await call.run(audiences.count, call.app, name)
    return await take_rows(call, audiences.import_rows, name)


async def remove_members(call: Call) -> Answer:
    """Take openids out of an audience."""
    audiences, name = call.services.audiences, call.path["name"]
    if call.streams:
        report = await on_stream(call, audiences.remove_rows, call.app, name, call.body)
    else:
        report = await call.run(audiences.remove_rows, call.app, name, rows_of(call.body))
    return Answer(value=Removed.model_validate(counted(call, report.as_dict())))


async def delete_audience(call: Call) -> Answer:
    """Delete an audience."""
    members = await call.run(call.services.audiences.delete, call.app, call.path["name"])
    return Answer(value=Deleted(members=members))


async def take_rows(
    call: Call, work: Callable[[str, str, Iterable[bytes]], ImportReport], name: str
) -> Answer:
    """Do it with the openids of a call's body."""
    if call.streams:
        report = await on_stream(call, work, call.app, name, call.body)
    else:
        report = await call.run(work, call.app, name, rows_of(call.body))
    return Answer(value=Imported.model_validate(counted(call, report.as_dict())))


def rows_of(members: Members) -> Iterable[bytes]:
    """Return openids as the library's rows; what is none cannot be taken for JSON or CSV."""
    yield b"openid"
    for openid in members.openids:
        yield openid.encode() if OPENID.fullmatch(openid) else b'""'


def counted(call: Call, report: dict[str, Any]) -> dict[str, Any]:
    """Return a report that numbers the elements of a JSON body, which had a header put before."""
    if not call.streams:
        for row in report["listed"]:
            row["row"] -= 1
    return report


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET",
        "/v1/apps/{app}/audiences",
        list_audiences,
        Scope.READ,
        "List audiences",
        CHAPTER,
        ok("A page", AudienceList),
        query=AudienceQuery,
    ),
    Route(
        "GET",
        "/v1/apps/{app}/audiences/{name}",
        show_audience,
        Scope.READ,
        "Show an audience",
        CHAPTER,
        ok("Its size", Audience),
    ),
    Route(
        "GET",
        "/v1/apps/{app}/audience-size",
        measure_audience,
        Scope.READ,
        "Count an expression",
        CHAPTER,
        ok("How many they are", Measured),
        query=MeasureQuery,
        problems=(422,),
        text="`vip & active - churned`: of whom a broadcast would be for. Beyond some ten thousand "
        "they are estimated.",
    ),
    Route(
        "PUT",
        "/v1/apps/{app}/audiences/{name}",
        replace_audience,
        Scope.SEND,
        "Replace an audience",
        CHAPTER,
        ok("What became of the rows", Imported),
        body=Body(TypeAdapter(Members), ROWS),
        text="The openids are its only members from then on; it is made if there is none. They are "
        "put in place when the last row is read: a call that breaks off before changes nothing, "
        "nor do rows of which not one holds an openid. To add to it, as this call itself "
        "once did, POST its `members`.",
    ),
    Route(
        "DELETE",
        "/v1/apps/{app}/audiences/{name}",
        delete_audience,
        Scope.SEND,
        "Delete an audience",
        CHAPTER,
        ok("How many members it had", Deleted),
        problems=(422,),
        text="Not `all`: it goes with its users.",
    ),
    Route(
        "POST",
        "/v1/apps/{app}/audiences/{name}/members",
        add_members,
        Scope.SEND,
        "Add members",
        CHAPTER,
        ok("What became of the rows", Imported),
        body=Body(TypeAdapter(Members), ROWS),
        creates=True,
    ),
    Route(
        "POST",
        "/v1/apps/{app}/audiences/{name}/members/remove",
        remove_members,
        Scope.SEND,
        "Remove members",
        CHAPTER,
        ok("What became of the rows", Removed),
        body=Body(TypeAdapter(Members), ROWS),
    ),
)
