"""The layout: a worker whose deployment gets other lanes drains and ends, to be started anew.

Read each second; a connection that is refused for it (`store.lanes.fence`) says the same.
"""

import time
from collections.abc import Callable
from typing import Final

from producers import store
from producers.settings import Settings
from producers.store import Client
from producers.store.lanes.fence import FencedError

_EVERY_S: Final = 1.0


class Layout:
    """Looks for one worker; used by one thread at a time.

    Args:
        client: Redis.
        settings: the lanes that the worker lives in.
        ended: called with what says that they are no longer those of the deployment.
    """

    name = "look at the lanes"

    def __init__(
        self, client: Client, settings: Settings, ended: Callable[[FencedError], None]
    ) -> None:
        self._client = client
        self._settings = settings
        self._ended = ended
        self._next_at = 0.0

    def due(self, now: float) -> bool:
        """Say whether it is time."""
        return now >= self._next_at

    def run(self) -> None:
        """Look once.

        Raises:
            redis.RedisError: Redis did not answer; look again.
        """
        self._next_at = time.monotonic() + _EVERY_S
        try:
            why = store.outlived(self._client, self._settings)
        except FencedError as error:
            why = error
        if why:
            self._ended(why)
