"""Collector tickets: a signed word that a phone is one user of one app, for a short while.

``v1.APP.OPENID.EXPIRES_S.MAC``: readable, and not forgeable. The MAC is HMAC-SHA256 over all
before it; its key is derived from the app's secret (HKDF), so that there is no further secret to
set, and a new AppSecret ends all tickets. Nothing is stored: a ticket cannot be taken back, which
is why it is short-lived and allows nothing but to file permits for its own user.

Own code, and no JWT: one form, one algorithm and nothing to choose, in half the bytes. The
cryptography is the library's (HKDF) and the standard library's (HMAC).
"""

import base64
import hmac
import re
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from producers.errors import ExpiredTicketError, ForeignTicketError, ForgedTicketError
from producers.settings import AppSettings, Settings

_VERSION: Final = "v1"
_TICKET: Final = re.compile(
    r"(?P<signed>v1\.(?P<app>[a-z0-9][a-z0-9_-]{0,31})\.(?P<openid>[A-Za-z0-9_-]{1,64})"
    r"\.(?P<expires_s>[1-9][0-9]{0,11}))\.(?P<mac>[A-Za-z0-9_-]{43})"
)
"""No part may hold a dot, so that there is one way only to read a ticket."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a phone gets for its login code; its repr does not show the token.

    Attributes:
        token: what the phone sends as bearer.
        expires_in_s: its life, in seconds from now.
    """

    token: str = field(repr=False)
    expires_in_s: int


@dataclass(frozen=True, slots=True)
class Holder:
    """Whom a genuine ticket names; it may have expired.

    Attributes:
        openid: the user.
        expires_s: server epoch seconds.
    """

    openid: str
    expires_s: int

    def still(self, now_ms: int) -> str:
        """Return the openid, if the ticket has not expired.

        Raises:
            ExpiredTicketError: it has.
        """
        if now_ms >= self.expires_s * 1000:
            raise ExpiredTicketError
        return self.openid


class Tickets:
    """Signs and reads tickets; pure, without a clock of its own."""

    def __init__(self, settings: Settings) -> None:
        self._apps = settings.apps
        self._keys: dict[str, tuple[AppSettings, bytes]] = {}

    def sign(self, app: str, openid: str, expires_s: int) -> str:
        """Return the ticket of a user.

        Args:
            app: alias of a known app.
            openid: 1-64 letters, digits, - or _.
            expires_s: server epoch seconds.
        """
        signed = f"{_VERSION}.{app}.{openid}.{expires_s}"
        return f"{signed}.{self._mac(app, signed)}"

    def read(self, app: str, token: str) -> Holder:
        """Return whom a ticket names, whatever the time.

        Args:
            app: alias of the known app at whose door it is shown.
            token: as it came.

        Raises:
            ForgedTicketError: nobody here signed this.
            ForeignTicketError: it is a genuine one of another app.
        """
        found = _TICKET.fullmatch(token)
        if found is None or found["app"] not in self._apps:
            raise ForgedTicketError
        # of the text, so that another spelling of the same bytes is another ticket
        if not hmac.compare_digest(self._mac(found["app"], found["signed"]), found["mac"]):
            raise ForgedTicketError
        if found["app"] != app:
            raise ForeignTicketError
        return Holder(found["openid"], int(found["expires_s"]))

    def _mac(self, app: str, signed: str) -> str:
        digest = hmac.digest(self._key(app), signed.encode(), "sha256")
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def _key(self, alias: str) -> bytes:
        """Return the key of an app, derived anew when its settings have changed."""
        app = self._apps.get(alias)
        if app is None:
            raise ForgedTicketError  # it went a moment ago
        known = self._keys.get(alias)
        if known is None or known[0] is not app:
            info = b"\0".join((b"wxbroadcast ticket v1", alias.encode(), app.appid.encode()))
            derive = HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive
            known = self._keys[alias] = (app, derive(app.secret.get_secret_value().encode()))
        return known[1]
