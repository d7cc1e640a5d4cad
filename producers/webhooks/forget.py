"""Forgetting: what webhooks would still tell of one user's messages is dropped."""

import hashlib
import itertools
from collections.abc import Iterator
from functools import partial
from typing import Final, NamedTuple

from producers.settings import Settings
from producers.store import Client, deadline, keys
from producers.store.lanes.following import reading
from producers.store.retry import repeat
from producers.store.scripts import Script
from producers.webhooks.outbox import DueKeys

_PAGE: Final = 1000


class ForgetArgs(NamedTuple):
    """ARGV of outbox_forget.lua; the events follow."""

    prefix: str
    app: str


FORGET: Final = Script(__package__, "outbox_forget", DueKeys, ForgetArgs)


class Forgetter:
    """Drops what would be told of a user. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._forget = FORGET.on(client)

    def forget(self, app: str, openid: str) -> int:
        """Drop the events of a user's messages, dead letters too.

        What was posted already is your service's; one that is being posted arrives, or never does.

        Returns:
            How many there were.

        Raises:
            StoreUnavailableError: Redis did not answer; forget again for the rest.
        """
        _, bucket, item = keys.place_of(openid, self._settings)
        mine = f"*x{hashlib.sha1(item.encode(), usedforsecurity=False).hexdigest()[:16]} *"
        dropped = 0

        def drop() -> None:
            nonlocal dropped
            for lane in self._settings.layout.heirs(bucket):
                for some in self._forget_in(lane, app, mine):
                    dropped += some

        reading(self._client, self._settings, drop)
        return dropped

    def _forget_in(self, lane: int, app: str, mine: str) -> Iterator[int]:
        events = keys.hook_events(lane, app)
        cursor = 0
        for _ in deadline.paced(itertools.count()):
            cursor, found = repeat(
                "looking for webhooks",
                partial(self._client.hscan, events, cursor, match=mine, count=_PAGE),
            )
            if found:
                args = ForgetArgs(keys.lane_prefix(lane), app)
                due = DueKeys(keys.hooks_due(lane))
                yield int(self._forget.repeated("forgetting webhooks", due, args, found))
            if not cursor:
                break
