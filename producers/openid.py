"""Openids and template ids: what names a user, and what names a message's form, at every door."""

import re
from typing import Final

from producers.errors import InvalidInputError

OPENID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What code2Session gives."""

TEMPLATE_ID: Final = re.compile(r"[\x21-\x39\x3b-\x7e]{1,128}")
"""Observed: 43 characters of base64url; a colon would end the name in fields of Redis."""


def check_openid(openid: str) -> None:
    """Say whether it is an openid.

    Raises:
        InvalidInputError: it is none.
    """
    if not isinstance(openid, str):
        raise InvalidInputError([f"openid: a text, not {type(openid).__name__}"])
    if not OPENID.fullmatch(openid):
        raise InvalidInputError([f"openid {openid[:80]!r}: 1-64 letters, digits, _ or -"])
