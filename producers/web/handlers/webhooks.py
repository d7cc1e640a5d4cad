"""Webhooks that were given up: listed, posted again."""

from typing import Annotated, Final

from pydantic import Field

from producers.access.api_keys import Scope
from producers.web.call import Call
from producers.web.http.answer import Answer
from producers.web.http.cursor import seal, unseal
from producers.web.models import Cursor, Model, Number
from producers.web.routing.route import Route, json_body, ok
from producers.webhooks.events import ID
from producers.webhooks.letters import MOST, Box, DeadLetter

CHAPTER: Final = "Webhooks"


class WebhookQuery(Model):
    """Which page."""

    cursor: Cursor = ""
    limit: Annotated[int, Number] = Field(100, ge=1, le=MOST, description="letters on a page")


class WebhookList(Model):
    """What the app's webhooks have come to, and one page of its dead letters."""

    box: Box
    letters: list[DeadLetter]
    next_cursor: str = Field(description="'' on the last page")


class Replay(Model):
    """Which dead letters."""

    ids: list[Annotated[str, Field(pattern=f"^{ID.pattern}$")]] | None = Field(
        None, max_length=MOST, description="their ids; left out: all that there are"
    )


class Replayed(Model):
    """What is posted again."""

    replayed: int


async def list_webhooks(call: Call) -> Answer:
    """List the dead letters of an app."""
    query: WebhookQuery = call.query
    library = call.services.dead_letters
    page = await call.run(library.page, call.app, unseal(query.cursor), query.limit)
    return Answer(
        value=WebhookList(box=page.box, letters=page.letters, next_cursor=seal(page.cursor))
    )


async def replay_webhooks(call: Call) -> Answer:
    """Let dead letters be posted again."""
    body: Replay = call.body
    replayed = await call.run(call.services.dead_letters.replay, call.app, body.ids)
    return Answer(value=Replayed(replayed=replayed))


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET",
        "/v1/apps/{app}/webhooks",
        list_webhooks,
        Scope.READ,
        "List webhooks that were given up",
        CHAPTER,
        ok("The oldest first, and the sums", WebhookList),
        query=WebhookQuery,
    ),
    Route(
        "POST",
        "/v1/apps/{app}/webhooks/replay",
        replay_webhooks,
        Scope.SEND,
        "Post webhooks again",
        CHAPTER,
        ok("How many there were", Replayed),
        body=json_body(Replay),
        text="Each keeps its id. One that is no dead letter (any more) does not count.",
    ),
)
