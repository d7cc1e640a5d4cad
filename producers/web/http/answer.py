"""An answer: what a request is told, whole or piece by piece."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
from pydantic import BaseModel

from producers.web.http.media import JSON
from producers.web.http.problem import MEDIA, ProblemError


class Parts(Protocol):
    """A body that comes piece by piece."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the pieces."""

    async def aclose(self) -> None:
        """Give free what it holds."""


@dataclass
class Answer:
    """What a handler answers.

    Attributes:
        status: HTTP's.
        value: the JSON body, if it is one: a pydantic model, or a dataclass of the library.
        body: the body, if it is none.
        media: its content type.
        headers: beside those that every answer has.
        parts: a body that is written piece by piece instead.
        close: whether the connection ends with it.
    """

    status: int = 200
    value: Any = None
    body: bytes = b""
    media: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    parts: Parts | None = None
    close: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.value, BaseModel):
            self.body = orjson.dumps(self.value.model_dump(mode="json"))
        elif self.value is not None:
            self.body = orjson.dumps(self.value)

    @classmethod
    def of_problem(cls, problem: ProblemError, request_id: str) -> "Answer":
        """Return the answer that tells a problem."""
        return cls(
            problem.status,
            body=problem.body(request_id),
            media=MEDIA,
            headers=problem.headers,
            close=problem.close,
        )

    def to_json(self) -> bytes:
        """Return the answer as it is kept for an Idempotency-Key."""
        return orjson.dumps(
            {
                "status": self.status,
                "body": self.body.decode(),
                "media": self.media,
                "headers": self.headers,
            }
        )

    @classmethod
    def from_json(cls, kept: bytes | str) -> "Answer":
        """Read a kept answer."""
        fields = orjson.loads(kept)
        return cls(**{**fields, "body": fields["body"].encode()})
