"""A broadcast sent once more, to those of its recipients alone who had one of some outcomes."""

from datetime import timedelta
from typing import Any, Final, Literal

from pydantic import ConfigDict, Field

from producers.access.api_keys import Scope
from producers.retries import Retried
from producers.web.call import Call
from producers.web.handlers.broadcasts import CHAPTER, Rate, status_of
from producers.web.http.answer import Answer
from producers.web.models import Life, Model, Value
from producers.web.routing.route import Reply, Route, json_body
from producers.web.traffic.idempotency import inner_key


class NewRetry(Model):
    """To whom it is sent again, and what of it is to be different."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"outcomes": ["failed", "no_permit"]}]}
    )
    outcomes: list[
        Literal[
            "no_permit",
            "suppressed",
            "kept",
            "capped",
            "refused",
            "invalid_user",
            "bad_data",
            "late",
            "cancelled",
            "in_doubt",
            "failed",
        ]
    ] = Field(
        min_length=1,
        max_length=16,
        description="those who had one of these; cancelled and late: whom its audience has now "
        "without an outcome",
    )
    errcodes: list[int] = Field(
        [], max_length=100, description="with one of these codes alone; 0: with none"
    )
    even_in_doubt: bool = Field(
        False, description="needed with in_doubt: they perhaps had it, and may get it twice"
    )
    template_id: str | None = Field(
        None, min_length=1, max_length=128, description="another template"
    )
    data: dict[str, str | Value] | str | None = Field(None, description="other data")
    page: str | None = Field(None, max_length=1024, description="another page")
    rate: Rate | None = None
    expires_in_s: Life | None = Field(
        None, description="after so long the rest is late; default: as it was"
    )

    @property
    def changes(self) -> dict[str, Any]:
        """What is to be different, as `Retries.retry` takes it."""
        made = self.model_dump(include={"template_id", "data", "page", "rate"}, exclude_none=True)
        if self.expires_in_s is not None:
            made["expires_in"] = timedelta(seconds=self.expires_in_s)
        return made


async def retry_broadcast(call: Call) -> Answer:
    """Send a broadcast once more, to some of its recipients."""
    body: NewRetry = call.body
    key = inner_key(call.request.headers, call.scope)

    def retry() -> Retried:
        return call.services.retries.retry(
            status_of(call).id,
            body.outcomes,
            body.errcodes,
            even_in_doubt=body.even_in_doubt,
            key=key,
            **body.changes,
        )

    made = await call.run(retry)
    where = f"/v1/apps/{call.app}/broadcasts/{made.id}"
    return Answer(201, value=made, headers={"Location": where})


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "POST",
        "/v1/apps/{app}/broadcasts/{id}/retry",
        retry_broadcast,
        Scope.SEND,
        "Retry a broadcast",
        CHAPTER,
        {201: Reply("It runs", Retried, headers={"Location": "where its status can be read"})},
        body=json_body(NewRetry),
        creates=True,
        problems=(409,),
        text="Sends it to those of its recipients alone who had one of these outcomes, and to "
        "nobody whom it, or another retry of it, was delivered to. All of these must have ended. "
        "The recipients are chosen before it runs, and stay what they are.",
    ),
)
