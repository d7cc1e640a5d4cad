"""Recipients of a broadcast: paged, exported, and those who wait for an operator's word."""

from itertools import islice
from typing import Annotated, Final, Literal

from pydantic import Field

from producers.access.api_keys import Scope
from producers.recipients.doubts import Doubt
from producers.recipients.exports import csv_lines, json_lines
from producers.recipients.pages import MOST, Recipient
from producers.web.call import Call
from producers.web.handlers.broadcasts import CHAPTER, status_of
from producers.web.handlers.streams import exported
from producers.web.http.answer import Answer
from producers.web.http.cursor import seal, unseal
from producers.web.http.media import CSV, NDJSON
from producers.web.models import Cursor, Model, Number
from producers.web.routing.route import Reply, Route, json_body, ok


class RecipientQuery(Model):
    """Which recipients, and how."""

    outcome: (
        Literal[
            "delivered",
            "no_permit",
            "suppressed",
            "kept",
            "capped",
            "refused",
            "invalid_user",
            "bad_data",
            "in_doubt",
            "failed",
            "queued",
            "in_flight",
        ]
        | None
    ) = Field(None, description="of this outcome alone")
    cursor: Cursor = ""
    limit: Annotated[int, Number] = Field(
        1000, ge=1, le=MOST, description="recipients on a page, at the most"
    )
    format: Literal["json", "csv", "ndjson"] = Field(
        "json", description="csv and ndjson export all of them, whatever cursor and limit say"
    )


class RecipientList(Model):
    """One page of recipients; it may hold fewer than asked for, and not be the last."""

    recipients: list[Recipient]
    next_cursor: str = Field(description="'' on the last page")


class DoubtQuery(Model):
    """How many."""

    limit: Annotated[int, Number] = Field(100, ge=1, le=1000, description="at the most")


class DoubtList(Model):
    """Some of those in doubt; how many there are stands in the broadcast's status."""

    doubts: list[Doubt]


class Decision(Model):
    """What is taken for true of everybody in doubt."""

    outcome: Literal["delivered", "failed"]


class AsideWord(Model):
    """What becomes of the messages that were set aside."""

    replay: bool = Field(
        description="true: back to the queue, with the same permit; false: in doubt"
    )


class Concerned(Model):
    """Whom it concerned."""

    moved: int = Field(description="recipients")


async def list_doubts(call: Call) -> Answer:
    """List recipients in doubt."""
    query: DoubtQuery = call.query

    def look() -> list[Doubt]:
        return list(islice(call.services.doubts.of(status_of(call).id), query.limit))

    return Answer(value=DoubtList(doubts=await call.run(look)))


async def decide_doubts(call: Call) -> Answer:
    """Settle everybody in doubt by an operator's word."""
    body: Decision = call.body

    def decide() -> int:
        return call.services.doubts.decide(status_of(call).id, body.outcome)

    return Answer(value=Concerned(moved=await call.run(decide)))


async def settle_aside(call: Call) -> Answer:
    """Say what becomes of messages that were set aside."""
    body: AsideWord = call.body

    def settle() -> int:
        return call.services.doubts.aside(status_of(call).id, replay=body.replay)

    return Answer(value=Concerned(moved=await call.run(settle)))


async def list_recipients(call: Call) -> Answer:
    """List who got which outcome, or export it."""
    query: RecipientQuery = call.query
    await call.run(status_of, call)
    library, broadcast = call.services.recipients, call.path["id"]
    if query.format != "json":
        rows = library.iterate(broadcast, query.outcome)
        write, media = (csv_lines, CSV) if query.format == "csv" else (json_lines, NDJSON)
        disposition = f'attachment; filename="{broadcast}.{query.format}"'
        return Answer(
            media=f"{media}; charset=utf-8",
            headers={"Content-Disposition": disposition},
            parts=await exported(call, write(rows)),
        )
    page = await call.run(library.page, broadcast, query.outcome, unseal(query.cursor), query.limit)
    return Answer(value=RecipientList(recipients=page.rows, next_cursor=seal(page.cursor)))


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET",
        "/v1/apps/{app}/broadcasts/{id}/recipients",
        list_recipients,
        Scope.READ,
        "List or export recipients",
        CHAPTER,
        {200: Reply("A page; or with `format` all of them", RecipientList, media=(CSV, NDJSON))},
        query=RecipientQuery,
    ),
    Route(
        "GET",
        "/v1/apps/{app}/broadcasts/{id}/doubts",
        list_doubts,
        Scope.READ,
        "List recipients in doubt",
        CHAPTER,
        ok("Some of them: posted to, and no answer came", DoubtList),
        query=DoubtQuery,
    ),
    Route(
        "POST",
        "/v1/apps/{app}/broadcasts/{id}/doubts",
        decide_doubts,
        Scope.SEND,
        "Decide what is in doubt",
        CHAPTER,
        ok("How many were settled", Concerned),
        body=json_body(Decision),
        text="Of all that are in doubt now; sent again, it concerns those that are left.",
    ),
    Route(
        "POST",
        "/v1/apps/{app}/broadcasts/{id}/aside",
        settle_aside,
        Scope.SEND,
        "Replay what was set aside",
        CHAPTER,
        ok("How many there were", Concerned),
        body=json_body(AsideWord),
        text="Messages that outlived their workers too often. Sent again, it concerns those that "
        "are left.",
    ),
)
