"""A route: one thing that the service does, as data.

The router, the checks before a handler, and the OpenAPI document all read the same fields.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from types import UnionType
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter

from producers.access.api_keys import Scope
from producers.openid import OPENID
from producers.web.call import Call
from producers.web.http.answer import Answer

SMALL: Final = 65_536
"""Bytes of a body on routes that everybody may call."""


class Open(StrEnum):
    """How a route is reached without an API key."""

    ALL = "all"
    """Health and documents: nothing secret, nothing changed."""
    CODE = "code"
    """With a login code, as WeChat checks."""
    TICKET = "ticket"
    """With a collector ticket, as the handler checks."""
    SESSION = "session"
    """With the console's cookie, as the handler checks."""
    SIGNED = "signed"
    """WeChat's signature, as the handler checks."""


Handler = Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True)
class Body:
    """What a route reads.

    Attributes:
        model: validates a JSON body; None: there is no JSON body.
        streams: content types that are read line by line, with what a line is.
        form: validates the part ``spec`` of multipart/form-data, before the streamed part ``rows``.
        rows: what the lines of that one are.
        raw: the handler gets the bytes, of any content type.
        required: whether there must be one.
        limit: bytes, if less than the settings' limit.
    """

    model: TypeAdapter[Any] | None = None
    streams: Mapping[str, str] = field(default_factory=dict)
    form: TypeAdapter[Any] | None = None
    rows: str = ""
    raw: bool = False
    required: bool = True
    limit: int | None = None


@dataclass(frozen=True)
class Reply:
    """One way in which a route answers.

    Attributes:
        model: pydantic model or dataclass of a JSON answer, or several of them.
        media: content types that are no JSON.
        text: what it means.
        headers: of the answer, with what they mean.
    """

    text: str
    model: type[Any] | UnionType | None = None
    media: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Route:
    """One method of one path.

    Attributes:
        method: in capitals.
        path: with ``{app}`` and the like for what `PARAMETERS` describes.
        handler: does it.
        access: the scope that a key needs, or how it is reached without one.
        summary: one line for people.
        tag: the chapter of the documents.
        replies: status → answer; the problems are added by the document.
        body: what it reads, if anything.
        query: model of the query, if it has one.
        creates: takes an Idempotency-Key.
        text: more for people.
        problems: statuses of problems that only this route has.
        or_ticket: a collector ticket is good too.
    """

    method: str
    path: str
    handler: Handler
    access: Scope | Open
    summary: str
    tag: str
    replies: Mapping[int, Reply]
    body: Body | None = None
    query: type[BaseModel] | None = None
    creates: bool = False
    text: str = ""
    problems: tuple[int, ...] = ()
    or_ticket: bool = False

    @property
    def name(self) -> str:
        """The operation's id."""
        return self.handler.__name__

    @property
    def statuses(self) -> list[int]:
        """All statuses that the route answers with."""
        found = {*self.replies, *self.problems, HTTPStatus.BAD_REQUEST, 431, 500, 503}
        if "{" in self.path:
            found.add(HTTPStatus.NOT_FOUND)
        if isinstance(self.access, Scope):
            found |= {401, 403, 429}
        if self.body is not None:
            found |= {408, 413, 417}
            if not self.body.raw:
                found |= {415, 422}
        if self.query is not None:
            found.add(422)
        if self.creates:
            found |= {409, 422}
        return sorted(found)


def ok(text: str, model: type[Any]) -> dict[int, Reply]:
    """Return the replies of a route that answers 200 with a model."""
    return {200: Reply(text, model)}


def json_body(model: type[BaseModel], *, required: bool = True) -> Body:
    """Return what a route reads that takes a model as JSON."""
    return Body(TypeAdapter(model), required=required)


@dataclass(frozen=True)
class Parameter:
    """A part of a path.

    Attributes:
        pattern: what it may be; anything else is not found.
        text: what it is.
        example: one.
    """

    pattern: str
    text: str
    example: str


PARAMETERS: Final = {
    "app": Parameter("[a-z0-9][a-z0-9_-]{0,31}", "alias of the app", "shop"),
    "name": Parameter("[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", "name of the audience", "vip"),
    "id": Parameter("[0-9a-z]{1,64}", "id, as it was answered", "0199c2a4f3e1b7c0d9e8f"),
    "message": Parameter(
        r"m[0-9a-z]{1,40}\.[A-Za-z0-9_-]{1,64}", "id of the message", "m20783a1b2c3d4e5f60718.oABC"
    ),
    "openid": Parameter(OPENID.pattern, "the user", "oGZUI0egBJY1zhBYw2KhdUfwVJJE"),
}
