"""Hand-outs of permits, as the control API takes them.

The items are plain dicts: a bulk hand-out of models takes three times as long.
"""

from typing import Annotated, Final, NotRequired

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict  # pydantic asks for it before Python 3.12

_FORBID: Final = ConfigDict(extra="forbid")


class FormIdGrant(TypedDict):
    """A form_id for a user; it ends after 7 days unless told otherwise."""

    __pydantic_config__ = _FORBID  # type: ignore[misc]

    openid: str
    form_id: str
    expires_at_ms: NotRequired[int]


class PrepayIdGrant(TypedDict):
    """A prepay_id for a user; it ends after 7 days unless told otherwise."""

    __pydantic_config__ = _FORBID  # type: ignore[misc]

    openid: str
    prepay_id: str
    expires_at_ms: NotRequired[int]


class SubscriptionGrant(TypedDict):
    """Accepts of a template by a user, one unless told otherwise."""

    __pydantic_config__ = _FORBID  # type: ignore[misc]

    openid: str
    template_id: str
    count: NotRequired[Annotated[int, Field(ge=0)]]


class Unsubscription(TypedDict):
    """A user who takes all accepts of a template back."""

    __pydantic_config__ = _FORBID  # type: ignore[misc]

    openid: str
    template_id: str


class Grants(BaseModel):
    """A hand-out of permits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form_ids: list[FormIdGrant] = []
    prepay_ids: list[PrepayIdGrant] = []
    subscriptions: list[SubscriptionGrant] = []
    unsubscriptions: list[Unsubscription] = []
