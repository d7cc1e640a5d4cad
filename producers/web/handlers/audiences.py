"""Handlers: audiences."""

from collections.abc import Callable, Iterable
from typing import Any

from producers.audiences.members import ImportReport
from producers.openid import OPENID
from producers.web.call import Call
from producers.web.handlers.streams import on_stream
from producers.web.http.answer import Answer
from producers.web.http.cursor import seal, unseal
from producers.web.models import (
    Audience,
    AudienceList,
    AudienceQuery,
    Deleted,
    Imported,
    Members,
    Removed,
)


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


async def replace_audience(call: Call) -> Answer:
    """Make openids an audience's only members; it is made if there is none."""
    audiences = call.services.audiences
    return await _import(call, audiences.replace_rows, call.path["name"])


async def add_members(call: Call) -> Answer:
    """Add openids to an audience that there is."""
    audiences, name = call.services.audiences, call.path["name"]
    await call.run(audiences.count, call.app, name)
    return await _import(call, audiences.import_rows, name)


async def remove_members(call: Call) -> Answer:
    """Take openids out of an audience."""
    audiences, name = call.services.audiences, call.path["name"]
    if call.streams:
        report = await on_stream(call, audiences.remove_rows, call.app, name, call.body)
    else:
        report = await call.run(audiences.remove_rows, call.app, name, _rows(call.body))
    return Answer(value=Removed.model_validate(_counted(call, report.as_dict())))


async def delete_audience(call: Call) -> Answer:
    """Delete an audience."""
    members = await call.run(call.services.audiences.delete, call.app, call.path["name"])
    return Answer(value=Deleted(members=members))


async def _import(
    call: Call, work: Callable[[str, str, Iterable[bytes]], ImportReport], name: str
) -> Answer:
    if call.streams:
        report = await on_stream(call, work, call.app, name, call.body)
    else:
        report = await call.run(work, call.app, name, _rows(call.body))
    return Answer(value=Imported.model_validate(_counted(call, report.as_dict())))


def _rows(members: Members) -> Iterable[bytes]:
    """Return openids as the library's rows; what is none cannot be taken for JSON or CSV."""
    yield b"openid"
    for openid in members.openids:
        yield openid.encode() if OPENID.fullmatch(openid) else b'""'


def _counted(call: Call, report: dict[str, Any]) -> dict[str, Any]:
    """Return a report that numbers the elements of a JSON body, which had a header put before."""
    if not call.streams:
        for row in report["listed"]:
            row["row"] -= 1
    return report
