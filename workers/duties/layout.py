"""The layout: each second a worker learns which lanes there are; they may be divided any time.

What it has in hand of a lane that is being divided it settles before, or with that lane's heirs
(`sending`). Should Redis know of fewer divisions than the worker does, it forgot them, or is a
backup: the worker drains and ends, to be started anew.
"""

import time
from collections.abc import Callable
from typing import Final

from producers.settings import Settings
from producers.store import Client
from producers.store.lanes.fence import OutlivedError
from producers.store.lanes.layout import follow, is_older
from workers.duties.runner import Duty
from workers.lanes.divided import not_waiting

_EVERY_S: Final = 1.0
_SURE: Final = 2
"""Looks in a row that found fewer: one answer may have been overtaken by a newer one."""


class Lanes:
    """Looks for one worker; used by one thread at a time.

    Args:
        client: Redis.
        settings: given the lanes that there are.
        outlived: called with what says that the worker may not go on.
    """

    name = "look at the lanes"

    def __init__(
        self, client: Client, settings: Settings, outlived: Callable[[OutlivedError], None]
    ) -> None:
        self._client = client
        self._settings = settings
        self._outlived = outlived
        self._next_at = 0.0
        self._older = 0

    def due(self, now: float) -> bool:
        """Say whether it is time."""
        return now >= self._next_at

    def run(self) -> None:
        """Look once.

        Raises:
            redis.RedisError: Redis did not answer; look again.
        """
        self._next_at = time.monotonic() + _EVERY_S
        if follow(self._client, self._settings):
            self._older = 0
            return
        self._older = self._older + 1 if is_older(self._client, self._settings) else 0
        if self._older >= _SURE:
            self._outlived(OutlivedError("redis knows of fewer lanes than there were"))


class PassingBy:
    """A duty that waits for no lane that is being divided: those after it in its round go on.

    Args:
        duty: what is done; it comes again.
        settings: which lanes there are.
    """

    def __init__(self, duty: Duty, settings: Settings) -> None:
        self._duty = duty
        self._settings = settings
        self.name = duty.name

    def due(self, now: float) -> bool:
        """Say whether it is time."""
        return self._duty.due(now)

    def run(self) -> None:
        """Do it once; raises what that raises."""
        with not_waiting(self._settings):
            self._duty.run()
