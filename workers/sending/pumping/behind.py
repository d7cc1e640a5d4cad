"""Behind: servers whose replicas lack what was written; nothing is taken of theirs for a while.

What no replica has may not be posted (`store.replicas`), and a take that finds none costs a second,
of all other servers' lanes too. So a server of a cluster is left alone longer each time.
"""

import time
from typing import Any, Final

from producers.settings import Settings
from producers.store import Client, keys
from producers.store.connection import is_cluster
from workers.sending.pumping.failures import FAILED_S
from workers.sending.turns import Turns

_LONGEST_S: Final = 8.0


class Behind:
    """See the module; used by one thread.

    Args:
        client: Redis.
        settings: which lanes there are.
        turns: where the lanes of such a server are held.
    """

    def __init__(self, client: Client, settings: Settings, turns: Turns) -> None:
        self._client = client
        self._settings = settings
        self._turns = turns
        self._is_cluster = is_cluster(client)
        self._servers: dict[Any, tuple[float, float]] = {}  # server → held for (s), until

    def __bool__(self) -> bool:
        """Whether there were any of late; one may have gone meanwhile."""
        if not self._servers:
            return False
        now = time.monotonic()
        self._servers = {
            server: (held_s, until)
            for server, (held_s, until) in self._servers.items()
            if now < until + _LONGEST_S
        }
        return bool(self._servers)

    def add(self, lane: int) -> None:
        """Hold all lanes of a lane's server: longer each time, of a cluster."""
        if self._turns.is_held(lane):
            return  # another take of the same trip said so
        server = self._server(lane)
        before = self._servers.get(server) if server else None
        hold_s = min(_LONGEST_S, 2 * before[0]) if before else FAILED_S
        until = time.monotonic() + hold_s
        self._servers[server] = (hold_s, until)
        lanes = self._settings.layout.lanes
        self._turns.hold([one for one in lanes if self._server(one) == server], until)

    def remove(self, lane: int) -> None:
        """A lane's server has its replicas again."""
        if self._servers:
            self._servers.pop(self._server(lane), None)

    def _server(self, lane: int) -> Any:
        """Return who serves a lane, of a cluster; None: there is one server."""
        return self._client.place_of(keys.fence(lane)) if self._is_cluster else None
