"""Problems: what went wrong with a request, as RFC 9457 says it (application/problem+json).

Every error answer of the service is one of these, also those of wrong paths and methods, of
malformed HTTP, of timeouts, and of errors that nobody foresaw, which show nothing from inside.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from redis import RedisError

from producers.errors import (
    CodeRefusedError,
    FloodError,
    ForeignOpenidError,
    ForgedError,
    IdempotencyConflictError,
    IllegalMoveError,
    InvalidInputError,
    LaneDividedError,
    LoginUnavailableError,
    MessagesStoppedError,
    NobodySendsError,
    NotFoundError,
    StoreUnavailableError,
    TicketError,
    TooManyMessagesError,
    UnknownAppError,
)

MEDIA: Final = "application/problem+json"

TITLES: Final = {
    "bad-request": (400, "The request is malformed"),
    "unauthorized": (401, "No valid key or ticket"),
    "forbidden": (403, "The key or ticket is not good for this"),
    "not-found": (404, "There is no such thing"),
    "method-not-allowed": (405, "Another method is needed here"),
    "timeout": (408, "The request came too slowly"),
    "conflict": (409, "The state does not allow it"),
    "in-progress": (409, "A request with this Idempotency-Key is still at work"),
    "too-large": (413, "The body is too large"),
    "unsupported-media-type": (415, "Another content type is needed"),
    "expectation-failed": (417, "Only 100-continue can be expected"),
    "invalid": (422, "The content is not valid"),
    "key-reused": (422, "The Idempotency-Key was used with other content"),
    "too-many-requests": (429, "Too many requests"),
    "headers-too-large": (431, "The head of the request is too large"),
    "internal": (500, "An error that nobody foresaw"),
    "busy": (503, "The service has its hands full"),
    "unavailable": (503, "A service behind this one does not answer"),
}
"""Kind → status and title. The kind is the fragment of a problem's type; /docs explains each."""

_TOO_MANY_FAULTS: Final = 50
_SOON_S: Final = 1
_LATER_S: Final = 3600


class Fault(BaseModel):
    """One fault of the request."""

    model_config = ConfigDict(extra="forbid")

    where: str = Field(description="path to the value, such as body.data, or ''")
    detail: str = Field(description="what was found, what is accepted")


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field(description="/docs#problem-KIND", examples=["/docs#problem-not-found"])
    title: str = Field(description="the kind, for people")
    status: int = Field(ge=400, le=599, description="the status of the answer")
    detail: str = Field(description="one sentence about this case")
    request_id: str = Field(description="as in X-Request-Id, and in the logs")
    faults: list[Fault] = Field(description="each fault of an invalid request, up to 50")


class ProblemError(Exception):
    """Ends a request with a problem.

    Attributes:
        kind: a key of `TITLES`.
        detail: one sentence; nothing secret, nothing from inside.
        faults: where in the request, and what.
        headers: of the answer.
        close: whether the connection is of no further use.
    """

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.faults = list(faults[:_TOO_MANY_FAULTS])
        self.headers = dict(headers or {})
        self.close = close

    @property
    def status(self) -> int:
        """The status of the answer."""
        return TITLES[self.kind][0]

    def body(self, request_id: str) -> bytes:
        """Return the document."""
        status, title = TITLES[self.kind]
        document = Problem(
            type=f"/docs#problem-{self.kind}",
            title=title,
            status=status,
            detail=self.detail,
            request_id=request_id,
            faults=self.faults,
        )
        return orjson.dumps(document.model_dump())


def retry_after(wait_ms: int) -> dict[str, str]:
    """Return the header that says when to come again, in whole seconds."""
    return {"Retry-After": str(max(_SOON_S, -(-wait_ms // 1000)))}


def invalid(where: str, detail: str) -> ProblemError:
    """Return the problem of one wrong value."""
    return ProblemError("invalid", detail, faults=[Fault(where=where, detail=detail)])


def of_ticket(detail: str) -> ProblemError:
    """Return the problem of a ticket that is none, or no more."""
    challenge = {"WWW-Authenticate": 'Bearer realm="wxbroadcast", error="invalid_token"'}
    return ProblemError("unauthorized", detail, headers=challenge)


def of_validation(error: ValidationError, where: str) -> ProblemError:
    """Return the problem of a body or a query that its model does not take.

    Args:
        error: pydantic's.
        where: body or query.
    """
    faults = [
        Fault(where=".".join((where, *map(str, fault["loc"])))[:200], detail=fault["msg"])
        for fault in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    return ProblemError("invalid", f"{len(faults)} faults in the {where}", faults=faults)


def of_error(error: Exception) -> ProblemError | None:
    """Return the problem that an error of the library means, None for one nobody foresaw."""
    known = _of_input(error) or _of_door(error)
    if known is not None:
        return known
    if isinstance(error, LaneDividedError):
        return ProblemError("unavailable", str(error), headers=retry_after(_SOON_S * 1000))
    if isinstance(error, StoreUnavailableError | RedisError):
        return ProblemError(
            "unavailable",
            "Redis does not answer as it should; the same request again loses nothing, and makes "
            "nothing twice with the same Idempotency-Key",
            headers=retry_after(_SOON_S * 1000),
        )
    if isinstance(error, TimeoutError):
        return ProblemError(
            "unavailable",
            "the request took too long; it may still have had its effect: with the same "
            "Idempotency-Key it has it once",
            headers=retry_after(_SOON_S * 1000),
        )
    return None


def _of_input(error: Exception) -> ProblemError | None:
    if isinstance(error, UnknownAppError):
        return ProblemError("not-found", f"no app {error.app!r} here")
    if isinstance(error, InvalidInputError):
        faults = [Fault(where="", detail=fault) for fault in error.faults]
        return ProblemError("invalid", str(error)[:500], faults=faults)
    if isinstance(error, NotFoundError):
        return ProblemError("not-found", str(error))
    if isinstance(error, IdempotencyConflictError):
        return ProblemError("key-reused", "this Idempotency-Key made something else before")
    if isinstance(error, TooManyMessagesError):
        return ProblemError("too-many-requests", str(error), headers=retry_after(_LATER_S * 1000))
    if isinstance(error, IllegalMoveError | MessagesStoppedError | NobodySendsError):
        return ProblemError("conflict", str(error))
    return None


def _of_door(error: Exception) -> ProblemError | None:
    if isinstance(error, TicketError):
        return of_ticket(str(error))
    if isinstance(error, ForeignOpenidError):
        return ProblemError("forbidden", str(error))
    if isinstance(error, ForgedError):
        return ProblemError("forbidden", "not signed for this app")
    if isinstance(error, CodeRefusedError):
        return ProblemError("invalid", str(error))
    if isinstance(error, FloodError):
        headers = retry_after(error.wait_ms)
        return ProblemError("too-many-requests", str(error), headers=headers)
    if isinstance(error, LoginUnavailableError):
        return ProblemError("unavailable", str(error), headers=retry_after(error.wait_ms))
    return None
