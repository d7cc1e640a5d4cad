"""The lanes' copies of a broadcast, written from outside their lane.

A lane has a copy once it has adopted the broadcast (`broadcasts.lifecycle`). Nothing here makes
one: a hash with a mark and nothing else would pass for a copy, and never become one.
"""

from collections.abc import Sequence

from producers.store import Client, keys, scripts


class Copies:
    """Writes into lanes' copies; where there is none, it does nothing. Safe to share."""

    def __init__(self, client: Client) -> None:
        self._mark = client.register_script(scripts.source(__package__, "mark"))
        self._open = client.register_script(scripts.source(__package__, "open"))

    def mark(self, broadcast: str, lane: int, field: str, value: str) -> bool:
        """Write one field.

        Returns:
            Whether there is a copy.

        Raises:
            redis.RedisError: Redis did not answer; repeat it.
        """
        return bool(self._mark(keys=[keys.lane_broadcast(lane, broadcast)], args=[field, value]))

    def open(self, app: str, broadcast: str, lane: int) -> bool:
        """Let the flood into a lane: somewhere a message was delivered. As `mark`."""
        return self._let_in(app, broadcast, lane, "")

    def give_canary(
        self, app: str, broadcast: str, lane: int, canary: int, met: Sequence[int] = (0, 0, 0)
    ) -> bool:
        """Say how many permits may be at risk in a lane before the first delivery. As `mark`.

        Args:
            app: the broadcast's.
            broadcast: whose copy.
            lane: where.
            canary: how many; 0 takes it away.
            met: template errors, refusals and unknown errors that the canary met elsewhere.
        """
        return self._let_in(app, broadcast, lane, str(canary), *met)

    def _let_in(self, app: str, broadcast: str, lane: int, canary: str, *met: int) -> bool:
        script_keys = [
            keys.lane_broadcast(lane, broadcast),
            keys.queue(lane, broadcast),
            keys.stock(lane, app),
            keys.ledger(lane, app),
        ]
        args = ["", "", broadcast, keys.lane_prefix(lane), canary, *met]
        return bool(self._open(keys=script_keys, args=args))
