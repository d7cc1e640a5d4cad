"""Ids of permits that expire: form_ids and prepay_ids, and what phones give instead of them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from producers.permits.refusals import Reason, Refusal, shown
from producers.words import PermitKind

_MOCK_FORM_ID: Final = "the formId is a mock one"
"""What the devtools give instead of a form_id."""

_FAILED_FORM_ID: Final = "requestFormId:fail"
"""How a form_id begins whose check failed (WeChat docs, form, ``report-submit-timeout``)."""

_PACKAGE_PREFIX: Final = "prepay_id="
"""How ``package`` of wx.requestPayment begins (WeChat docs, wx.requestPayment)."""

NOTHING: Final = frozenset({"undefined", "null"})
"""What JavaScript makes of a missing value when it is joined to a string."""

VISIBLE_ASCII: Final = re.compile(r"[\x21-\x7e]{1,128}")
_TRANSACTION_ID: Final = re.compile(r"4200[0-9]{24}")


@dataclass(frozen=True, slots=True)
class Naming:
    """What tells the two kinds of expiring permits apart in an upload.

    Attributes:
        kind: which.
        names: of the id in an element, WeChat's way and with an underscore.
        judge: returns the id as it is stored, or why it is none.
        empty: the reason when there is none.
    """

    kind: PermitKind
    names: tuple[str, str]
    judge: Callable[[str], Refusal | str]
    empty: Reason


def _judge_form_id(form_id: str) -> Refusal | str:
    if VISIBLE_ASCII.fullmatch(form_id):
        if form_id in NOTHING:
            return Refusal(Reason.EMPTY_FORM_ID, f"a formId is {form_id}; accepted: a form_id")
        if not form_id.startswith(_FAILED_FORM_ID):
            return form_id
    if form_id.startswith(_FAILED_FORM_ID):
        return Refusal(
            Reason.FAILED_FORM_ID,
            f"a formId is {shown(form_id)}; accepted: a form_id that WeChat could check",
        )
    if form_id == _MOCK_FORM_ID:
        return Refusal(
            Reason.MOCK_FORM_ID, "a formId is the devtools' mock; accepted: one of a real phone"
        )
    return bad_id(FORM_IDS, form_id)


def _judge_prepay_id(prepay_id: str) -> Refusal | str:
    prepay_id = prepay_id.removeprefix(_PACKAGE_PREFIX)
    if VISIBLE_ASCII.fullmatch(prepay_id):
        if prepay_id in NOTHING:
            detail = f"a prepayId is {prepay_id}; accepted: a prepay_id"
            return Refusal(Reason.EMPTY_PREPAY_ID, detail)
        if _TRANSACTION_ID.fullmatch(prepay_id):
            detail = (
                "a prepayId is a transaction number (4200…), which WeChat answers with 41028; "
                "accepted: the prepay_id of the unified order"
            )
            return Refusal(Reason.TRANSACTION_ID, detail)
        return prepay_id
    return bad_id(PREPAY_IDS, prepay_id)


def bad_id(naming: Naming, permit_id: str) -> Refusal:
    """Return the refusal of an id whose characters or length cannot be one's."""
    reason = Reason.BAD_PERMIT_ID if permit_id.strip() else naming.empty
    detail = (
        f"a {naming.names[0]} is {shown(permit_id)} ({len(permit_id):,} characters); "
        "accepted: 1 to 128 visible ASCII characters without blanks"
    )
    return Refusal(reason, detail)


FORM_IDS: Final = Naming(
    PermitKind.FORM_ID, ("formId", "form_id"), _judge_form_id, Reason.EMPTY_FORM_ID
)
PREPAY_IDS: Final = Naming(
    PermitKind.PREPAY_ID, ("prepayId", "prepay_id"), _judge_prepay_id, Reason.EMPTY_PREPAY_ID
)
