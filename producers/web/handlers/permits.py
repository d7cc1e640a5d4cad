"""Permits: collected from backends."""

from typing import Annotated, Any, Final

from pydantic import Field, TypeAdapter, WithJsonSchema

from producers.access.api_keys import Scope
from producers.permits.report import Report
from producers.permits.uploads import MAX_ITEMS
from producers.web.call import Call
from producers.web.handlers.streams import on_stream
from producers.web.http.answer import Answer
from producers.web.http.media import NDJSON
from producers.web.models import Model
from producers.web.routing.route import Body, Route, ok

CHAPTER: Final = "Permits"

_FEW: Final = 20
"""Uploads that share a trip with other requests; more of them fill one of their own."""

UPLOAD: Final[dict[str, Any]] = {
    "type": "object",
    "description": "What one phone hands over for one user. What is wrong in it is refused, item "
    "by item, in the answer: it costs the rest nothing. Keys that are not named here are left "
    "alone.",
    "properties": {
        "openid": {"description": "the user, 1-64 letters, digits, _ or -"},
        "formIds": {
            "description": f"up to {MAX_ITEMS:,} form_ids, each a text or "
            '{"formId": "…", "expire": epoch ms or s}'
        },
        "prepayIds": {"description": 'prepay_ids, each a text or {"prepayId": "…", "expire": …}'},
        "subscriptions": {
            "description": "the result of wx.requestSubscribeMessage: template_id → accept, "
            "reject, ban or filter"
        },
        "id": {"description": "a subscription with the same id counts once"},
        "at": {"description": "when the user chose, epoch ms or s"},
    },
    "examples": [
        {"openid": "oABC", "formIds": [{"formId": "1b2c…", "expire": 1577808000000}]},
        {"openid": "oDEF", "subscriptions": {"TEMPLATE_ID": "accept"}, "id": "7f3a"},
    ],
}

Uploads = Annotated[
    dict[str, Any] | list[Any],
    WithJsonSchema(
        {
            "title": "Uploads",
            "anyOf": [
                UPLOAD,
                {
                    "type": "array",
                    "description": "several uploads; each is refused or stored by itself",
                    "items": {},
                    "examples": [UPLOAD["examples"]],
                },
            ],
        }
    ),
]

_UPLOADS: Final[TypeAdapter[Any]] = TypeAdapter(Uploads)


class Refused(Model):
    """One refused item."""

    line: int = Field(description="which upload or line, from 1")
    reason: str = Field(description="one fixed word")
    detail: str = Field(description="what was found, what is accepted")


class Collected(Model):
    """What became of the items: what is counted here is stored."""

    lines: int = Field(description="uploads or lines read")
    new: int = Field(description="items stored")
    known: int = Field(description="items that were stored before, whatever they are now")
    refused: dict[str, int] = Field(description="reason → items")
    listed: list[Refused] = Field(description="the first 100 refusals")


async def collect_permits(call: Call) -> Answer:
    """File permits: one upload, several, or a stream of lines."""
    services, app = call.services, call.app
    if call.streams:
        return Answer(
            value=collected(await on_stream(call, services.collector.collect_lines, app, call.body))
        )
    uploads = call.body if isinstance(call.body, list) else [call.body]
    if len(uploads) <= _FEW:
        report = await services.batcher.collect(app, uploads)
    else:
        report = await call.run(services.collector.collect, app, uploads)
    return Answer(value=collected(report))


def collected(report: Report) -> Collected:
    """Return a report as it is answered."""
    return Collected(
        lines=report.lines,
        new=report.new,
        known=report.known,
        refused=dict(report.refused),
        listed=[
            Refused(line=line, reason=reason, detail=detail)
            for line, reason, detail in report.listed
        ],
    )


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "POST",
        "/v1/apps/{app}/permits",
        collect_permits,
        Scope.COLLECT,
        "File permits",
        CHAPTER,
        ok("What became of each item; what is counted as new or known is stored", Collected),
        body=Body(_UPLOADS, {NDJSON: "a line: one upload"}),
        creates=True,
        text="One upload, an array of them, or NDJSON of any length, which is read and stored as "
        "it comes. The same form_id or prepay_id twice is one permit, whatever became of the first "
        "one; a subscription counts once per `id` or `at`.",
    ),
)
