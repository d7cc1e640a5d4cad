"""Recovering: a dead worker's messages go back to work.

See recover.lua for what it guarantees. If the recovering worker dies before it, another recovers;
in the middle, the rest is still under the dead one's name.
"""

from collections.abc import Iterable

from producers import keys, scripts
from producers.broadcasts import Broadcasts
from producers.settings import Settings
from producers.store import Client
from workers.take import sending_lease_ms


class Recoverer:
    """Takes back what dead workers had in flight."""

    def __init__(self, client: Client, settings: Settings, broadcasts: Broadcasts) -> None:
        self._client = client
        self._settings = settings
        self._ttl_ms = broadcasts.ttl_ms
        self._script = client.register_script(scripts.source("workers", "recover"))

    def recover(
        self, app: str, broadcast: str, lane: int, dead: str, alive_fences: Iterable[str] = ()
    ) -> tuple[int, int, int]:
        """Take back one dead worker's messages of one broadcast in one lane.

        Args:
            app: alias of the app.
            broadcast: where to look.
            lane: in which lane.
            dead: the worker.
            alive_fences: fence tokens that are not to be touched.

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
                *alive_fences,
            ],
        )
        return int(resumed), int(doubted), int(aside)
