"""Exports: one app as lines, and back."""

from typing import Any, Final

from pydantic import Field

from producers.access.api_keys import Scope
from producers.web.call import Call
from producers.web.handlers.streams import exported, on_stream
from producers.web.http.answer import Answer
from producers.web.http.media import NDJSON
from producers.web.models import Flag, Model
from producers.web.routing.route import Body, Reply, Route, ok

CHAPTER: Final = "Moving"


class ImportQuery(Model):
    """How."""

    again: Flag = Field(
        False, description="count accepts that were counted before: after Redis forgot them"
    )


class BadLine(Model):
    """A line that says nothing."""

    line: int = Field(description="from 1")
    detail: str


class Moved(Model):
    """What became of the lines."""

    lines: int
    export: str = Field(description="which export it was")
    new: dict[str, int] = Field(description="f: form_ids, p: uses of prepay_ids, s: accepts")
    known: int = Field(description="uses that were there before, whatever became of them")
    ended: int = Field(description="uses whose time was over")
    gone: int = Field(description="held, spent or void there; they cannot be collected here")
    lost: int = Field(description="of these, what could be had here until now")
    left_out: int = Field(description="accepts that were counted before, or for which is no room")
    withdrawn: int = Field(description="accepts that the user withdrew here since")
    users: int = Field(description="who is new in `all`")
    audiences: dict[str, int] = Field(description="name → members that are new")
    suppressed: dict[str, int] = Field(description="reason → who is new")
    unplaced: int = Field(description="digests of the forgotten that fit into no bucket")
    keys: list[dict[str, Any]] = Field(description="API keys to be made anew")
    bad: int = Field(description="lines that say nothing")
    whole: bool = Field(description="the end came, and everything is as it was written")
    problems: list[str]
    listed: list[BadLine] = Field(description="the first 100 bad lines")


async def export_app(call: Call) -> Answer:
    """Export an app."""
    rows = call.services.exporter.export(call.app)
    disposition = f'attachment; filename="{call.app}.ndjson"'
    return Answer(
        media=f"{NDJSON}; charset=utf-8",
        headers={"Content-Disposition": disposition},
        parts=await exported(call, rows),
    )


async def import_app(call: Call) -> Answer:
    """Import an export."""
    query: ImportQuery = call.query
    load = call.services.importer.load
    report = await on_stream(call, load, call.app, call.body, again=query.again)
    return Answer(value=Moved.model_validate(report.as_dict()))


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET",
        "/v1/apps/{app}/export",
        export_app,
        Scope.ADMIN,
        "Export an app",
        CHAPTER,
        {200: Reply("Lines, of which the last one says that they are all", None, media=(NDJSON,))},
        text="Users with their permits, audiences, and who is suppressed; no secret. A body that "
        "ends without a line `end` was cut short. Worth as much care as the database.",
    ),
    Route(
        "POST",
        "/v1/apps/{app}/import",
        import_app,
        Scope.ADMIN,
        "Import an app",
        CHAPTER,
        ok("What became of the lines", Moved),
        body=Body(None, {NDJSON: "a line of an export"}),
        query=ImportQuery,
        problems=(422,),
        text="What an export of the same appid holds, also of a deployment with other lanes and "
        "buckets. The same lines twice change nothing. `whole` says whether all was there.",
    ),
)
