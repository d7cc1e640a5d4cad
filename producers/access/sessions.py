"""Sessions: what a person's browser shows in place of the API key that opened it.

A session is a random word in a cookie that no script can read; Redis holds its digest alone, under
the key that opened it: whoever revokes the key ends its sessions. A change also needs the CSRF
token, which is made of the word and given to our page alone, so that no foreign page can send it.
"""

import base64
import hashlib
import hmac
import re
import secrets
from datetime import timedelta
from typing import Any, Final

from producers.settings import ms
from producers.store import Client, keys
from producers.store.clock import ms_of
from producers.store.retry import repeat_all

LIFE: Final = timedelta(hours=12)
"""A session ends so long after it was opened."""

_MOST: Final = 100
"""Sessions of one key; one more ends the oldest."""

_SESSION: Final = re.compile(r"wxs_(?P<key>[0-9a-f]{12})_[A-Za-z0-9_-]{43}")


class Sessions:
    """Opens, knows and ends sessions. Safe to share between threads."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def open(self, key_id: str) -> str:
        """Return a new session of a key.

        Raises:
            StoreUnavailableError: Redis did not answer; the session may be there, known to nobody.
        """
        session = f"wxs_{key_id}_{secrets.token_urlsafe(32)}"
        name = keys.web_sessions(key_id)
        (clock,) = repeat_all("asking the time", self._client, _ask_time)
        now_ms = ms_of(clock)

        def keep(pipeline: Any) -> None:
            pipeline.zadd(name, {_digest(session): now_ms + ms(LIFE)})
            pipeline.zremrangebyscore(name, "-inf", now_ms)
            pipeline.zremrangebyrank(name, 0, -_MOST - 1)
            pipeline.pexpire(name, ms(LIFE))

        repeat_all("opening a session", self._client, keep, atomic=True)
        return session

    def is_open(self, session: str) -> bool:
        """Say whether a session was opened and has not ended.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        key_id = key_id_of(session)
        if not key_id:
            return False

        def ask(pipeline: Any) -> None:
            pipeline.time()
            pipeline.zscore(keys.web_sessions(key_id), _digest(session))

        clock, end_ms = repeat_all("looking up a session", self._client, ask)
        return end_ms is not None and end_ms > ms_of(clock)

    def end(self, session: str) -> None:
        """End a session; one that is not open stays so.

        Raises:
            StoreUnavailableError: Redis did not answer; end it again.
        """
        key_id = key_id_of(session)

        def forget(pipeline: Any) -> None:
            pipeline.zrem(keys.web_sessions(key_id), _digest(session))

        if key_id:
            repeat_all("ending a session", self._client, forget)


def key_id_of(session: str) -> str:
    """Return the id of the key that opened what looks like a session, '' of what does not."""
    found = _SESSION.fullmatch(session)
    return found["key"] if found else ""


def csrf_of(session: str) -> str:
    """Return the token without which a session changes nothing."""
    digest = hmac.digest(session.encode(), b"wxbroadcast csrf v1", "sha256")
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def is_csrf(session: str, token: str) -> bool:
    """Say whether a token is a session's own; takes the same time for any."""
    return hmac.compare_digest(csrf_of(session).encode(), token.encode())


def _digest(session: str) -> str:
    return hashlib.sha256(session.encode()).hexdigest()


def _ask_time(pipeline: Any) -> None:
    pipeline.time()
