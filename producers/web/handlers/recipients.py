"""Recipients of a broadcast: paged, or exported."""

from typing import Annotated, Final, Literal

from pydantic import Field

from producers.access.api_keys import Scope
from producers.recipients.exports import csv_lines, json_lines
from producers.recipients.pages import MOST, Recipient
from producers.web.call import Call
from producers.web.handlers.broadcasts import CHAPTER, status_of
from producers.web.handlers.streams import exported
from producers.web.http.answer import Answer
from producers.web.http.cursor import seal, unseal
from producers.web.http.media import CSV, NDJSON
from producers.web.models import Cursor, Model, Number
from producers.web.routing.route import Reply, Route


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
)
