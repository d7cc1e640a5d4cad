"""The inbox: pushes that WeChat was told are taken, and that wait for their effect.

Kept in Redis, in the order of arrival, at most `callback_inbox` of an app. A push leaves only after
its effect: if the process dies before, whoever has the lease next acts on it again, which is
harmless, for every effect counts the same push once.
"""

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NamedTuple

import redis
from redis.exceptions import BusyLoadingError, ClusterDownError, OutOfMemoryError, ReadOnlyError

from producers import logs
from producers.callbacks.pushes import Push
from producers.errors import ForgedError, StoreUnavailableError
from producers.logs.events import PushRefused
from producers.settings import Settings, ms
from producers.store import Client, keys
from producers.store.primary import reply_of
from producers.store.retry import repeat
from producers.store.scripts import Script

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
    return isinstance(error, _AWAY) or reply_of(error).startswith(_UNFIT)


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


class StoreKeys(NamedTuple):
    """KEYS of inbox_store.lua."""

    inbox: str
    counts: str
    seen: str


class StoreArgs(NamedTuple):
    """ARGV of inbox_store.lua."""

    push: str
    most: int
    timestamp_ms: int
    max_age_ms: int
    digest: str
    sealed: int


class InboxKeys(NamedTuple):
    """KEYS of inbox_look.lua and of inbox_done.lua."""

    inbox: str
    lease: str


class LookArgs(NamedTuple):
    """ARGV of inbox_look.lua."""

    owner: str
    lease_ms: int
    most: int


class DoneArgs(NamedTuple):
    """ARGV of inbox_done.lua."""

    owner: str


STORE: Final = Script(__package__, "inbox_store", StoreKeys, StoreArgs, clock=True)
LOOK: Final = Script(__package__, "inbox_look", InboxKeys, LookArgs)
DONE: Final = Script(__package__, "inbox_done", InboxKeys, DoneArgs)


class Inbox:
    """The inboxes of all apps. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._owner = uuid.uuid4().hex
        self._store, self._look, self._done = STORE.on(client), LOOK.on(client), DONE.on(client)

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
        script_keys = StoreKeys(
            keys.inbox(app), keys.inbox_counts(app), keys.push_seen(app, signature)
        )
        args = StoreArgs(
            push="" if push is None else push.packed(),
            most=self._settings.callback_inbox,
            timestamp_ms=timestamp_ms,
            max_age_ms=ms(self._settings.callback_max_age),
            digest=digest,
            sealed=int(sealed),
        )
        try:
            result = self._store(script_keys, args)
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
        entries = self._look.repeated(
            "reading the inbox",
            InboxKeys(keys.inbox(app), keys.inbox_lease(app)),
            LookArgs(self._owner, ms(_LEASE), BATCH),
        )
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
        self._done.repeated(
            "clearing the inbox",
            InboxKeys(keys.inbox(app), keys.inbox_lease(app)),
            DoneArgs(self._owner),
            [kept.entry for kept in done],
        )

    def waiting(self, app: str) -> int:
        """Return how many pushes wait."""
        return int(repeat("counting the inbox", lambda: self._client.llen(keys.inbox(app))))
