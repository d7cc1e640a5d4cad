"""The lanes' copies of a broadcast, written from outside their lane.

A lane has a copy once it has adopted the broadcast (`producers.lifecycle`). Nothing here makes one:
a hash with a mark and nothing else would pass for a copy, and never become one.
"""

from producers import keys, scripts
from producers.store import Client


class Copies:
    """Writes into lanes' copies; where there is none, it does nothing. Safe to share."""

    def __init__(self, client: Client) -> None:
        self._mark = client.register_script(scripts.source("workers", "mark"))
        self._open = client.register_script(scripts.source("workers", "open"))

    def mark(self, broadcast: str, lane: int, field: str, value: str) -> bool:
        """Write one field.

        Returns:
            Whether there is a copy.

        Raises:
            redis.RedisError: Redis did not answer; repeat it.
        """
        return bool(self._mark(keys=[keys.lane_broadcast(lane, broadcast)], args=[field, value]))

    def open(self, broadcast: str, lane: int) -> bool:
        """Let the flood into a lane: somewhere a message was delivered. As `mark`."""
        return self._let_in(broadcast, lane, "")

    def give_canary(self, broadcast: str, lane: int, canary: int) -> bool:
        """Say how many permits may be at risk in a lane before the first delivery. As `mark`."""
        return self._let_in(broadcast, lane, str(canary))

    def _let_in(self, broadcast: str, lane: int, canary: str) -> bool:
        script_keys = [keys.lane_broadcast(lane, broadcast), keys.queue(lane, broadcast)]
        args = [broadcast, keys.lane_prefix(lane), canary]
        return bool(self._open(keys=script_keys, args=args))
