"""Wakes: wake-ups over pub/sub, turned into what they say.

They are hints: the look each second (`watch`) finds what they do not tell. A connection that is cut
is made anew.
"""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import redis

from producers.settings import Settings
from producers.store import Client, keys
from workers.limits.gate import Gate
from workers.sending.stops import Stops

_PATIENCE_S: Final = 1.0
"""A run waits at most so long for the next one."""


class Wakes:
    """Listens for one worker; used by one thread at a time.

    Args:
        client: Redis.
        settings: which lanes there are.
        gates: app → what is known of its limits.
        stops: told of what must not be posted any more.
        wake: called with (app, lane) where there may be something to take.
        on_go: called with a broadcast that was let run.
        on_rate: called when a rate was changed, or the lanes were.
        on_templates: called when lists of templates are wanted.
    """

    name = "listen"

    def __init__(
        self,
        client: Client,
        settings: Settings,
        gates: Mapping[str, Gate],
        stops: Stops,
        wake: Callable[[str, int], None],
        on_go: Callable[[str], None],
        on_rate: Callable[[], None],
        on_templates: Callable[[], None],
    ) -> None:
        self._client = client
        self._settings = settings
        self._gates = gates
        self._stops = stops
        self._wake = wake
        self._on_go = on_go
        self._on_rate = on_rate
        self._on_templates = on_templates
        self._pubsub: Any = None

    def due(self, now: float) -> bool:  # noqa: ARG002
        """Say yes: it waits by itself."""
        return True

    def run(self) -> None:
        """Hear one wake-up, or none within a second.

        Raises:
            redis.RedisError: the connection was cut; the next run makes another.
        """
        try:
            if self._pubsub is None:
                self._pubsub = self._client.pubsub(ignore_subscribe_messages=True)
                self._pubsub.subscribe(keys.WAKE)
            message = self._pubsub.get_message(timeout=_PATIENCE_S)
        except Exception:
            self.close()
            raise
        if message:
            self.hear(message["data"])

    def hear(self, text: str) -> None:
        """Do what a wake-up says; see `keys.WAKE`."""
        word, _, rest = text.partition(" ")
        if word == "wake":
            self._hear_where(rest)
        elif word == "stop":
            self._stops.stop(rest)
        elif word == "go":
            self._on_go(rest)
            for gate in list(self._gates.values()):
                gate.own_next.pop(rest, None)  # it may have another rate now
        elif word in {"rate", "lanes"}:
            self._on_rate()
        elif word == "templates":
            self._on_templates()

    def _hear_where(self, where: str) -> None:
        lane, _, app = where.partition(" ")
        if where and app in self._gates:
            self._wake(app, int(lane))
        if where:
            return
        for every in list(self._gates):  # an earlier version, which does not say where
            for one in self._settings.layout.lanes:
                self._wake(every, one)

    def close(self) -> None:
        """Give the connection back."""
        pubsub, self._pubsub = self._pubsub, None
        if pubsub is not None:
            with contextlib.suppress(redis.RedisError, OSError):
                pubsub.close()
