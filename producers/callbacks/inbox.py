"""The inbox: pushes that WeChat was told are taken, and that wait for their effect.

Kept in Redis, in the order of arrival, at most `callback_inbox` of an app. A push leaves only after
its effect: if the process dies before, whoever has the lease next acts on it again, which is
harmless, for every effect counts the same push once.
"""

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import redis
from redis.exceptions import BusyLoadingError, ClusterDownError, OutOfMemoryError, ReadOnlyError

from producers import logs
from producers.callbacks.pushes import Push
from producers.errors import ForgedError, StoreUnavailableError
from producers.logs.events import PushRefused
from producers.settings import Settings, ms
from producers.store import Client, keys, scripts
from producers.store.retry import repeat

_LEASE: Final = timedelta(seconds=10)
"""Longer than acting on one batch takes; acting twice would be harmless."""

BATCH: Final = 100
"""Pushes looked at, and removed, at once."""

_AWAY: Final = (
    redis.ConnectionError,
    redis.TimeoutError,
    BusyLoadingError,
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
)
_UNFIT: Final = ("MISCONF", "NOREPLICAS", "BUSY", "TRYAGAIN")
"""How the errors begin that redis-py gives no class of their own: it cannot write its file, has
too few replicas, or is busy with a script."""


def is_away(error: redis.RedisError) -> bool:
    """Say whether Redis cannot take anything now, whatever it is asked."""
    return isinstance(error, _AWAY) or str(error).startswith(_UNFIT)


@dataclass(frozen=True, slots=True)
class Kept:
    """A push in the inbox.

    Attributes:
        entry: what lies in the list; removing takes it.
        arrived_ms: when it came, by Redis's clock.
        packed: the push, see `pushes.unpack`.
    """

    entry: str
    arrived_ms: int
    packed: str


class Inbox:
    """The inboxes of all apps. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._owner = uuid.uuid4().hex
        self._store, self._look, self._done = (
            client.register_script(scripts.source(__package__, f"inbox_{name}"))
            for name in ("store", "look", "done")
        )

    def store(
        self,
        app: str,
        push: Push | None,
        timestamp_ms: int,
        signature: str,
        digest: str,
        *,
        sealed: bool = False,
    ) -> None:
        """Keep a push, in one try: WeChat waits 5 s, and pushes it again.

        Args:
            app: alias of the app.
            push: None: only count a push that nobody acts on.
            timestamp_ms: when it was signed.
            signature: one that does not cover the body, or ''.
            digest: of that body, or ''.
            sealed: whether another signature covers the body: it then uses up the first one,
                whatever came with that before.

        Raises:
            ForgedError: the signature is not fresh, or came with another body.
            StoreUnavailableError: no room, or Redis is away.
        """
        script_keys = [
            keys.inbox(app),
            keys.inbox_counts(app),
            keys.push_seen(app, signature),
        ]
        args: list[str | int] = [
            "",
            "",
            "" if push is None else push.packed(),
            self._settings.callback_inbox,
            timestamp_ms,
            ms(self._settings.callback_max_age),
            digest,
            int(sealed),
        ]
        try:
            result = self._store(keys=script_keys, args=args)
        except redis.RedisError as error:
            if not is_away(error):
                raise
            raise StoreUnavailableError(
                f"Redis did not take a push ({type(error).__name__}); WeChat pushes it again"
            ) from error
        if result == 0:
            logs.emit(PushRefused(app, "full", 0))
            raise StoreUnavailableError(
                f"{self._settings.callback_inbox:,} pushes of app {app!r} wait already; "
                "WeChat pushes it again"
            )
        if result < 0:
            raise ForgedError("replayed" if result == -1 else "stale")

    def look(self, app: str) -> list[Kept]:
        """Return the oldest pushes; none while another process acts on them.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        script_keys = [keys.inbox(app), keys.inbox_lease(app)]
        args = [self._owner, ms(_LEASE), BATCH]
        entries = repeat("reading the inbox", lambda: self._look(keys=script_keys, args=args))
        kept = []
        for entry in entries:
            arrived, _, packed = entry.partition(" ")
            kept.append(Kept(entry, int(arrived), packed))
        return kept

    def remove(self, app: str, done: list[Kept]) -> None:
        """Remove pushes that were acted on.

        Raises:
            StoreUnavailableError: Redis did not answer; they may be acted on again.
        """
        script_keys = [keys.inbox(app), keys.inbox_lease(app)]
        args = [self._owner, *(kept.entry for kept in done)]
        repeat("clearing the inbox", lambda: self._done(keys=script_keys, args=args))

    def waiting(self, app: str) -> int:
        """Return how many pushes wait."""
        return int(repeat("counting the inbox", lambda: self._client.llen(keys.inbox(app))))
