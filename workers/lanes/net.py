"""The net below the keeper: now and then each active broadcast is made due, needed or not.

Who makes a need writes it in the same script; the net finds what an earlier version left, and ids
that were listed and whose home never came. Only whoever holds the first lane casts it.
"""

import time
from collections import deque
from collections.abc import Iterator
from typing import Final

from producers.settings import Settings
from producers.store import Client, keys

_ROUND_S: Final = 60.0
"""A round over all active broadcasts takes at least so long, …"""
_SPREAD: Final = 4
"""… and marks so many places, a home or a lane each, a second; …"""
_FIRST: Final = 50
"""… the first round so many times as many, for what an earlier version left."""
HEARD: Final = 50
"""Broadcasts heard of that wait for the next pass; the newest are kept."""
_APPS: Final = 4
"""Apps whose active broadcasts are read in one pass."""

_ORPHAN_MS: Final = 3_600_000
"""An id that was listed and whose home never came is forgotten after an hour."""


class Net:
    """One worker's; used by one thread at a time, but for `hear`."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._round: Iterator[list[str]] = iter(())
        self._rounds = 0
        self._next_round = self._next_part = 0.0
        self._listed: dict[str, str] = {}
        self._heard: deque[str] = deque(maxlen=HEARD)
        self._hurried = False

    def hear(self, broadcast: str) -> None:
        """Somebody let a broadcast run: make it due soon, whether or not a need was written.

        Who lets it run writes one in the same script, but for producers of an earlier version, as
        there are in the middle of an upgrade. From any thread.
        """
        if broadcast not in self._heard:
            self._heard.append(broadcast)

    def hurry(self) -> None:
        """There are lanes that were not there: begin another round when this one is over."""
        self._hurried = True

    def due(self, now: float, *, casts: bool) -> bool:
        """Say whether something was heard, or a part of a round is due; see `some`."""
        return bool(self._heard) or (casts and now >= self._next_part)

    def some(self, *, casts: bool) -> list[str]:
        """Return broadcasts that are to be made due: those heard of, and a few active ones.

        Args:
            casts: this worker holds the first lane; else there are none, and what was heard is
                left to who does.
        """
        heard = [self._heard.popleft() for _ in range(len(self._heard))]
        now = time.monotonic()
        if not casts:
            return []
        if now < self._next_part:
            return heard
        some = next(self._round, None)
        if some is None and (now >= self._next_round or self._hurried):
            self._hurried = False
            self._next_round = now + _ROUND_S
            most = _SPREAD * (1 if self._rounds else _FIRST)
            self._round = self._parts(max(1, most // (len(self._settings.layout.lanes) + 1)))
            self._rounds += 1
            some = next(self._round, None)
        some = some or []
        self._next_part = now
        if self._rounds > 1:  # a part may be one broadcast only, and still too much a second
            self._next_part += len(some) * (len(self._settings.layout.lanes) + 1) / _SPREAD
        return heard + some

    def _parts(self, most: int) -> Iterator[list[str]]:
        """One round over all active broadcasts."""
        self._listed = {}
        part, read = list[str](), 0
        for app in self._settings.apps:
            start = 0
            while True:
                some = self._client.zrange(keys.active(app), start, start + most - 1)
                self._listed.update(dict.fromkeys(some, app))
                part += some
                start += len(some)
                read += 1
                if len(part) >= most or read >= _APPS:
                    yield part
                    part, read = [], 0
                if len(some) < most:
                    break
        yield part

    def forget_orphan(self, broadcast: str, now_ms: int) -> None:
        """An active id without a home: its creator died, or its retention is over."""
        app = self._listed.get(broadcast)
        listed_at = self._client.zscore(keys.active(app), broadcast) if app else None
        if app and listed_at is not None and now_ms - listed_at > _ORPHAN_MS:
            self._client.zrem(keys.active(app), broadcast)
