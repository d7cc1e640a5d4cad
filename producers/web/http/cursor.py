"""Cursors: where the next page begins, as text that means something to this service alone."""

import base64
import binascii

from producers.web.http.problem import invalid


def seal(place: str) -> str:
    """Return the cursor of a place; '' of none."""
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def unseal(cursor: str) -> str:
    """Return the place that a cursor means.

    Raises:
        ProblemError: it is none of ours; whether the place is one, the library says.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise invalid("query.cursor", "give the next_cursor of the page before") from None
