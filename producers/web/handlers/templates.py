"""What an app may send: its own templates, as WeChat lists them."""

from typing import Final, Literal

from pydantic import BaseModel, Field

from producers.access.api_keys import Scope
from producers.templates import Catalogue
from producers.web.call import Call
from producers.web.handlers.broadcasts import CHAPTER
from producers.web.http.answer import Answer
from producers.web.models import Channel, Model
from producers.web.routing.route import Route, ok


class TemplatesQuery(Model):
    """Which of them."""

    channel: Channel = Field("subscribe", description="of which WeChat API")
    refresh: Literal["true", "false"] = Field(
        "false", description="have a worker read them from WeChat anew; waited for some seconds"
    )


class TemplateField(BaseModel):
    """One field of a template."""

    key: str = Field(description="what data call it, such as thing1")
    type: str = Field(description="the key without its number")
    label: str = Field(description="what stands before it in the message")
    example: str = Field(description="a value, as WeChat shows one")
    values: list[str] = Field(description="the only ones that it may have; none: any of its type")


class TemplateFound(BaseModel):
    """One template."""

    template_id: str
    title: str
    kind: str = Field(description="one_off or long_term; empty where WeChat does not say")
    fields: list[TemplateField] = Field(description="none: not known, any data may fit")


class TemplatesFound(BaseModel):
    """An app's templates."""

    app: str
    channel: str
    read_at_ms: int = Field(description="when they were read from WeChat, epoch ms; 0: never")
    is_whole: bool = Field(description="all of them are here")
    trouble: str = Field(description="why nothing newer could be read, or empty")
    templates: list[TemplateFound]


async def list_templates(call: Call) -> Answer:
    """List an app's templates."""
    query: TemplatesQuery = call.query
    found: Catalogue = await call.run(
        call.services.templates.show, call.app, query.channel, refresh=query.refresh == "true"
    )
    return Answer(value=TemplatesFound.model_validate(found.as_dict()))


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET",
        "/v1/apps/{app}/templates",
        list_templates,
        Scope.READ,
        "List the app's templates",
        CHAPTER,
        ok("The templates, as WeChat listed them last", TemplatesFound),
        query=TemplatesQuery,
        text="A worker reads them from WeChat when somebody needs them. What is sent is checked "
        "against them when it is created: an unknown template, a missing or foreign field, a value "
        "that is not listed is refused.",
    ),
)
