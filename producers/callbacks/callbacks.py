"""Callbacks: WeChat's pushes, from the request to their effect.

1. ``receive`` checks, decrypts and reads a push, and keeps it in the inbox: then, and only then,
   the service answers ``success``. Whatever it raises, WeChat pushes again.
2. ``work`` acts on what lies there, the oldest first, and removes each after its effect. If it
   dies in between, the effect is made again, which changes nothing.
3. ``run`` works until it is told to stop, for a thread of each web process; a lease lets one
   process at a time act on an app's inbox.

Every effect is the same whether a push comes once or often, and in whatever order pushes come.
"""

import hashlib
import threading
from collections.abc import Mapping
from typing import Final

import redis

from producers import logs
from producers.callbacks import envelope, pushes
from producers.callbacks.effects import Effects
from producers.callbacks.inbox import Inbox, Kept, is_away
from producers.errors import (
    ForgedError,
    InvalidInputError,
    StoreUnavailableError,
    UnknownAppError,
)
from producers.logs.events import DutyFailed, PushDropped, PushFailed, PushRefused
from producers.logs.line_quota import LineQuota
from producers.settings import Settings
from producers.store import Client

_IDLE_S: Final = 0.25
"""Between two looks at an empty inbox; a push to this process ends the wait at once."""

_SICK_S: Final = 1.0
"""Before the next try when Redis is away."""

_ROUNDS: Final = 10
"""Batches of one app before the next app's turn."""


class Callbacks:
    """Takes WeChat's pushes. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._settings = settings
        self._inbox = Inbox(client, settings)
        self._effects = Effects(client, settings)
        self._arrived = threading.Event()
        self._lines = LineQuota()
        self._pushed: tuple[object, list[str]] = (None, [])

    def verify(self, app: str, query: Mapping[str, str]) -> str:
        """Return the answer to the console's URL check (GET), as ``text/plain``.

        Args:
            app: alias of the app.
            query: the decoded query.

        Raises:
            UnknownAppError: no such app.
            ForgedError: the signature is wrong.
            InvalidInputError: the app takes no callbacks, or there is nothing to echo.
        """
        try:
            return envelope.echo(self._settings.app(app), query)
        except ForgedError as error:
            self._say_refused(app, f"url {error.reason}")
            raise

    def _say_refused(self, app: str, reason: str) -> None:
        if self._lines.admits():
            logs.emit(PushRefused(app, reason, self._lines.take_left_out()))

    def receive(self, app: str, query: Mapping[str, str], body: bytes) -> None:
        """Take one push (POST): afterwards answer 200 with ``success``, at once.

        Args:
            app: alias of the app.
            query: the decoded query.
            body: the raw body; its content type does not matter.

        Raises:
            UnknownAppError: no such app.
            ForgedError: it is not WeChat's, not for this app, or replayed.
            InvalidInputError: the app takes no callbacks, or the push cannot be read.
            StoreUnavailableError: no room, or Redis is away.
        """
        settings = self._settings.app(app)
        try:
            opened = envelope.open_push(settings, query, body)
            found = pushes.read(opened.message)
            push = found if isinstance(found, pushes.Push) else None
            signature = opened.plain_signature
            digest = hashlib.sha256(body).hexdigest() if signature else ""
            self._inbox.store(
                app, push, opened.timestamp_ms, signature, digest, sealed=opened.sealed
            )
        except ForgedError as error:
            self._say_refused(app, error.reason)
            raise
        except InvalidInputError as error:
            self._say_refused(app, str(error))
            raise
        if isinstance(found, str):
            logs.emit(PushDropped(app, found))
        else:
            self._arrived.set()

    def work(self, app: str) -> int:
        """Act on pushes that wait, a thousand at most.

        Returns:
            How many left the inbox; 0 also while another process acts on them.

        Raises:
            UnknownAppError: no such app.
            StoreUnavailableError: Redis is away; what was not acted on stays.
        """
        self._settings.app(app)
        count = 0
        for _ in range(_ROUNDS):
            batch = self._inbox.look(app)
            if not batch:
                break
            for kept in batch:
                self._act(app, kept)
            self._inbox.remove(app, batch)
            count += len(batch)
        return count

    def waiting(self, app: str) -> int:
        """Return how many pushes wait to be acted on.

        Raises:
            UnknownAppError: no such app.
            StoreUnavailableError: Redis did not answer.
        """
        self._settings.app(app)
        return self._inbox.waiting(app)

    def run(self, stop: threading.Event) -> None:
        """Act on the pushes of all apps that take them, until told to stop; for a thread."""
        while not stop.is_set():
            self._arrived.clear()
            count, pause_s = 0, _IDLE_S
            for app in self._taking_pushes():
                try:
                    count += self.work(app)
                except UnknownAppError:
                    continue  # it went a moment ago; what waits is acted on when it returns
                except StoreUnavailableError:
                    pause_s = _SICK_S
                except Exception as error:  # noqa: BLE001 - the loop outlives what it runs
                    logs.emit(DutyFailed("callbacks", -1, type(error).__name__))
                    pause_s = _SICK_S
            if pause_s == _SICK_S:
                stop.wait(pause_s)
            elif not count:
                self._arrived.wait(pause_s)

    def _taking_pushes(self) -> list[str]:
        now = self._settings.apps.now
        if self._pushed[0] is not now:
            self._pushed = (now, [alias for alias, app in now.items() if app.callback_token])
        return self._pushed[1]

    def _act(self, app: str, kept: Kept) -> None:
        """Act on one push; a fault of its own costs only itself."""
        event = openid = ""
        try:
            push = pushes.unpack(kept.packed)
            event, openid = push.event, push.openid
            self._effects.act(app, push, kept.arrived_ms)
        except StoreUnavailableError:
            raise
        except Exception as error:
            if isinstance(error, redis.RedisError) and is_away(error):
                raise StoreUnavailableError(f"Redis is away ({type(error).__name__})") from error
            logs.emit(PushFailed(app, event, openid, type(error).__name__))
