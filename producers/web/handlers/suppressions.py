"""Suppressions: who is sent nothing: imported, taken off, counted; and users who opt out and in."""

from functools import partial
from typing import Final

from pydantic import Field, TypeAdapter

from producers.access.api_keys import Scope
from producers.suppressions import Reason
from producers.web.call import Call
from producers.web.handlers.audiences import (
    ROWS,
    Imported,
    Members,
    Removed,
    counted,
    rows_of,
    take_rows,
)
from producers.web.handlers.streams import exported, on_stream
from producers.web.http.answer import Answer
from producers.web.http.media import CSV
from producers.web.models import Flag, Model
from producers.web.routing.route import Body, Open, Reply, Route, ok

CHAPTER: Final = "Suppressions"


class Suppressed(Model):
    """How many are sent nothing, by reason."""

    imported: int
    opted_out: int
    invalid: int = Field(description="WeChat said 40003 of them")
    forgotten: int = Field(description="imported or opted out, and forgotten since: digests")


class ReplaceQuery(Model):
    """How a list is replaced."""

    allow_empty: Flag = Field(False, description="no openid at all is meant: nobody is imported")


class Opted(Model):
    """Whether the user is sent messages."""

    out: bool


async def count_suppressed(call: Call) -> Answer:
    """Count those who are sent nothing."""
    counts = await call.run(call.services.suppressions.counts, call.app)
    return Answer(value=Suppressed(**counts))


async def export_suppressed(call: Call) -> Answer:
    """Export who is on the list."""
    return Answer(
        media=f"{CSV}; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{call.app}-suppressed.csv"'},
        parts=await exported(call, call.services.suppressions.csv_lines(call.app)),
    )


async def replace_suppressed(call: Call) -> Answer:
    """Make openids the only imported ones."""
    query: ReplaceQuery = call.query
    replace = partial(call.services.suppressions.replace_rows, allow_empty=query.allow_empty)
    return await take_rows(call, replace, Reason.IMPORTED)


async def add_suppressed(call: Call) -> Answer:
    """Put openids on the list."""
    return await take_rows(call, call.services.suppressions.import_rows, Reason.IMPORTED)


async def remove_suppressed(call: Call) -> Answer:
    """Take openids off the list, whatever the reason."""
    remove = call.services.suppressions.remove_rows
    if call.streams:
        report = await on_stream(call, remove, call.app, call.body)
    else:
        report = await call.run(remove, call.app, rows_of(call.body))
    return Answer(value=Removed.model_validate(counted(call, report.as_dict())))


async def opt_user_out(call: Call) -> Answer:
    """Send a user nothing more, as the user told you."""
    await call.run(call.services.suppressions.opt_out, call.app, call.path["openid"])
    return Answer(value=Opted(out=True))


async def opt_user_in(call: Call) -> Answer:
    """Send a user messages again; what was imported stays."""
    await call.run(call.services.suppressions.opt_in, call.app, call.path["openid"])
    return Answer(value=Opted(out=False))


async def opt_out(call: Call) -> Answer:
    """Send the ticket's user nothing more."""

    def opt() -> None:
        call.services.door.opt(call.app, call.bearer, out=True)

    await call.run(opt)
    return Answer(value=Opted(out=True))


async def opt_in(call: Call) -> Answer:
    """Send the ticket's user messages again."""

    def opt() -> None:
        call.services.door.opt(call.app, call.bearer, out=False)

    await call.run(opt)
    return Answer(value=Opted(out=False))


_BODY: Final = Body(TypeAdapter(Members), ROWS)

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET",
        "/v1/apps/{app}/suppressions",
        count_suppressed,
        Scope.READ,
        "Count the suppressed",
        CHAPTER,
        ok("How many, by reason", Suppressed),
        text="Whoever is on the list is sent nothing, whatever audience has the user: the outcome "
        "is `suppressed`, and no permit is spent. Why a user is on it says `GET …/users/{openid}`.",
    ),
    Route(
        "PUT",
        "/v1/apps/{app}/suppressions",
        replace_suppressed,
        Scope.SEND,
        "Replace the imported",
        CHAPTER,
        ok("What became of the rows", Imported),
        query=ReplaceQuery,
        body=_BODY,
        text="What users, and WeChat, said stays. Without a row only by `allow_empty`.",
    ),
    Route(
        "GET",
        "/v1/apps/{app}/suppressions/members",
        export_suppressed,
        Scope.READ,
        "Export the suppressed",
        CHAPTER,
        {200: Reply("openid,reason; a user may be on it for several", None, media=(CSV,))},
        text="Of forgotten users there is nothing to be listed.",
    ),
    Route(
        "POST",
        "/v1/apps/{app}/suppressions/members",
        add_suppressed,
        Scope.SEND,
        "Suppress openids",
        CHAPTER,
        ok("What became of the rows", Imported),
        body=_BODY,
        creates=True,
    ),
    Route(
        "POST",
        "/v1/apps/{app}/suppressions/members/remove",
        remove_suppressed,
        Scope.SEND,
        "Suppress openids no more",
        CHAPTER,
        ok("What became of the rows", Removed),
        body=_BODY,
    ),
    Route(
        "DELETE",
        "/v1/apps/{app}/users/{openid}/opt-in",
        opt_user_out,
        Scope.SEND,
        "Opt a user out",
        CHAPTER,
        ok("Nothing more is sent", Opted),
    ),
    Route(
        "PUT",
        "/v1/apps/{app}/users/{openid}/opt-in",
        opt_user_in,
        Scope.SEND,
        "Opt a user in again",
        CHAPTER,
        ok("Messages are sent, unless the user was imported", Opted),
    ),
    Route(
        "DELETE",
        "/v1/apps/{app}/opt-in",
        opt_out,
        Open.TICKET,
        "Opt the phone's user out",
        CHAPTER,
        ok("Nothing more is sent", Opted),
        problems=(401, 403, 429),
    ),
    Route(
        "PUT",
        "/v1/apps/{app}/opt-in",
        opt_in,
        Open.TICKET,
        "Opt the phone's user in again",
        CHAPTER,
        ok("Messages are sent, unless the user was imported", Opted),
        problems=(401, 403, 429),
    ),
)
