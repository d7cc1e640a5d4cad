"""Signatures of webhooks, as Standard Webhooks has them.

Source: www.standardwebhooks.com, the specification
(webhook-id, webhook-timestamp, webhook-signature; ``v1,`` and the base64 of HMAC-SHA256 over
``id.timestamp.body``; several with blanks between them while a secret is changed).

Own code, because its Python library verifies and is for those who receive; the tests ask it.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence


def headers(keys: Sequence[bytes], event: str, at_s: int, body: bytes) -> dict[str, str]:
    """Return the headers that make a body a webhook.

    Args:
        keys: one or more; each makes a signature.
        event: the event's id.
        at_s: when it is posted (epoch s).
        body: what is posted.
    """
    signed = f"{event}.{at_s}.".encode() + body
    digests = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
    return {
        "webhook-id": event,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(one).decode()}" for one in digests),
    }
