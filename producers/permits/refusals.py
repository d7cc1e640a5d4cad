"""Refusals: why an upload, or one element of it, holds no permit."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

SHOWN_LENGTH: Final = 24
"""Characters of the input that a refusal repeats: less than the 32 of a form_id, the 36 of a
prepay_id or the 43 of a template_id, so that no log holds a whole one."""


class Reason(StrEnum):
    """Why an upload, or one element of it, was refused."""

    NOT_JSON = "not_json"
    LINE_TOO_LONG = "line_too_long"
    BAD_SHAPE = "bad_shape"
    BAD_OPENID = "bad_openid"
    TOO_MANY_ITEMS = "too_many_items"
    EMPTY_FORM_ID = "empty_form_id"
    MOCK_FORM_ID = "mock_form_id"
    FAILED_FORM_ID = "failed_form_id"
    EMPTY_PREPAY_ID = "empty_prepay_id"
    TRANSACTION_ID = "transaction_id"
    BAD_PERMIT_ID = "bad_permit_id"
    BAD_EXPIRE = "bad_expire"
    BAD_TEMPLATE_ID = "bad_template_id"
    BAD_SOURCE_ID = "bad_source_id"
    BAD_AT = "bad_at"
    USER_BAN = "user_ban"
    USER_FILTER = "user_filter"
    UNKNOWN_RESULT = "unknown_result"
    EXPIRED = "expired"
    VOID_SINCE = "void_since"
    NOT_COUNTED = "not_counted"
    UNKNOWN_TEMPLATE = "unknown_template"
    TOO_MANY_TEMPLATES = "too_many_templates"
    TOO_MANY_TODAY = "too_many_today"
    USER_REJECT = "user_reject"


@dataclass(frozen=True, slots=True)
class Refusal:
    """One element, or a whole upload, that holds no permit.

    Attributes:
        reason: the fixed word.
        detail: one sentence: what was found, what is accepted. Never a whole permit.
    """

    reason: Reason
    detail: str


def found(thing: object) -> str:
    """Return what was found, for a refusal: a text itself, cut short, of others the sort."""
    return shown(thing) if isinstance(thing, str) else sort_of(thing)


def sort_of(thing: object) -> str:
    """Return what sort of thing JSON held."""
    if thing is None:
        return "missing or null"
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(thing), f"of type {type(thing).__name__}")


def shown(text: str) -> str:
    """Return a text as a refusal repeats it."""
    return repr(text if len(text) <= SHOWN_LENGTH else text[: SHOWN_LENGTH - 1] + "…")
