"""Recovering: a dead worker's messages go back to work.

See recover.lua for what it guarantees. If the recovering worker dies before it, another recovers;
in the middle, the rest is still under the dead one's name.
"""

from collections.abc import Iterator
from typing import Final

from producers import keys, scripts
from producers.broadcasts import Broadcasts
from producers.settings import Settings
from producers.store import Client
from workers.take import sending_lease_ms

ORPHAN_S: Final = 12
"""An entry of an unknown worker is left alone so long: past a claim's life and its POST."""


class Recoverer:
    """Takes back what dead workers had in flight."""

    def __init__(self, client: Client, settings: Settings, broadcasts: Broadcasts) -> None:
        self._client = client
        self._settings = settings
        self._ttl_ms = broadcasts.ttl_ms
        self._script = client.register_script(scripts.source("workers", "recover"))

    def places(self) -> Iterator[tuple[str, str, int]]:
        """Yield (app, broadcast, lane) of everything that may be in flight."""
        for app in self._settings.apps:
            for broadcast in self._client.zrange(keys.active(app), 0, -1):
                for lane in range(self._settings.lanes):
                    yield app, broadcast, lane

    def orphaned(self, broadcast: str, lane: int) -> set[str]:
        """Return workers that hold something old and that nobody knows as alive.

        A worker that was killed before its first beat came through, or that left while a lost
        reply had claimed something for it, is in no list of workers; its entries are.
        """
        entries = self._client.hvals(keys.flight(lane, broadcast))
        if not entries:
            return set()
        seconds, _ = self._client.time()
        old_ms = (seconds - ORPHAN_S) * 1000
        holders = {
            fields[0]
            for fields in (entry.split(" ") for entry in entries)
            if int(fields[4]) < old_ms and fields[0] not in {"-", "aside"}
        }
        if not holders:
            return set()
        return holders - set(self._client.zrange(keys.WORKERS, 0, -1))

    def recover(self, app: str, broadcast: str, lane: int, dead: str) -> tuple[int, int, int]:
        """Take back one dead worker's messages of one broadcast in one lane.

        Args:
            app: alias of the app.
            broadcast: where to look.
            lane: in which lane.
            dead: the worker.

        Returns:
            Messages that were resumed, those now in doubt, and those set aside.

        Raises:
            redis.ConnectionError, redis.TimeoutError: repeat it; it finds what is left.
        """
        priority = self._client.hget(keys.lane_broadcast(lane, broadcast), "priority") == "1"
        resumed, doubted, aside = self._script(
            keys=[
                keys.lane_broadcast(lane, broadcast),
                keys.flight(lane, broadcast),
                keys.queue(lane, broadcast),
                (keys.priority_ring if priority else keys.ring)(lane, app),
                keys.sending(lane, app),
                keys.stock(lane, app),
                keys.ledger(lane, app),
            ],
            args=[
                "",
                "",
                dead,
                broadcast,
                keys.lane_prefix(lane),
                self._ttl_ms,
                self._settings.attempts,
                keys.WAKE,
                sending_lease_ms(self._settings),
            ],
        )
        return int(resumed), int(doubted), int(aside)
