"""Node epochs: as `server`, of a cluster: what one of its nodes may have forgotten is in doubt.

The deployment remembers of each node that serves slots which run of it that was. A node whose run
is another one was restarted; one that is new, and was a replica before, was promoted, and may lack
what its primary acknowledged last. Then the lanes of that node alone become unsure, those that it
serves at that moment. A new node that was never a replica holds only what was moved to it: moving
slots to it puts nothing in doubt. A node that does not answer is looked at when it does: until then
nothing is asked of it either.

How much may be forgotten is known of the node that holds the workers' last beat alone; of the other
ones it counts as little: the broadcasts go on.
"""

from typing import Any

import redis

from producers.store import keys
from producers.store.clock import now_ms
from workers.duties.epochs.server import Epochs, ServerChangedError, run_id_in


class NodeEpochs(Epochs):
    """See the module."""

    _runs: frozenset[str] = frozenset()

    def guard(self, client: Any) -> None:
        """As `Epochs`: to each node, as this process knows it."""

        def check(connection: Any) -> None:
            connection.on_connect()
            connection.send_command("INFO", "server", check_health=False)
            self._compare_run(connection.read_response())

        client.connection_pool.connection_kwargs["redis_connect_func"] = check

    def guard_async(self, client: Any) -> None:
        """As `guard`, for an event loop's client."""

        async def check(connection: Any) -> None:
            await connection.on_connect()
            await connection.send_command("INFO", "server", check_health=False)
            self._compare_run(await connection.read_response())

        client.connection_pool.connection_kwargs["redis_connect_func"] = check

    def _begin(self) -> None:
        known: dict[str, str] = self._client.hgetall(keys.SERVERS)
        born = bool(known)
        runs: set[str] = set()
        for place, node in self._client.nodes().items():
            identity = self._client.id_of(place)
            info = {} if self._client.is_silent(place) else self._info(place, node)
            if not info:
                runs |= self._runs & {known.pop(identity, "")}
                continue
            run = info["run_id"]
            before = known.pop(identity, None)
            promoted = before is None and int(info.get("second_repl_offset", -1)) >= 0
            forgot = (before or run) != run or (promoted and born)
            if forgot or (self._runs and run not in self._runs and before is not None):
                lanes = [
                    lane
                    for lane in self._settings.layout.lanes
                    if self._client.place_of(keys.lane_prefix(lane)) == place
                ]
                seen = self._client.place_of(keys.SEEN) == place
                forgotten_ms = self._forgotten_ms(info) if seen else 0
                if lanes or seen:
                    self._mark(info, forgotten_ms, lanes, begins=forgot)
                self.changed_at_ms = now_ms(node)
            if before != run:
                self._client.hset(keys.SERVERS, identity, run)
            runs.add(run)
        serving = {self._client.id_of(place) for place in self._client.nodes()}
        gone = known.keys() - serving
        if gone:  # should it serve again, it was a replica meanwhile, or empty
            self._client.hdel(keys.SERVERS, *gone)
        self._runs = frozenset(runs)

    def _info(self, place: Any, node: Any) -> dict[str, Any]:
        """Return what a node says of itself; nothing when it does not answer."""
        try:
            return {**node.info("server"), **node.info("replication")}
        except (redis.ConnectionError, redis.TimeoutError):
            self._client.doubt(place)
            return {}

    def _compare_run(self, info: str) -> None:
        run = run_id_in(info)
        if run not in self._runs:
            raise ServerChangedError(f"another server run ({run[:12]})")
