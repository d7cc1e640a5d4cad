"""The beat: a second's sign of life, and what comes with it.

Who beats learns which peers are silent, and says which apps it sends nothing of, and why. It beats
from the event loop, so that a wedged loop counts as dead.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

from producers import logs
from producers.logs.events import StoreUnreachable
from workers.duties.epochs.server import Epochs, ServerChangedError
from workers.duties.peers import BEAT_S, Peers
from workers.limits.gate import Gate
from workers.wechat.tokens import TokenKeeper

_AGAIN_S: Final = 0.25
"""A beat that failed is tried again sooner: its silence puts off the burial of others."""


class Beat:
    """One worker's; belongs to one event loop.

    Args:
        peers: beats.
        epochs: told what the server has acknowledged.
        gates, tokens: app → whether it is sent anything of.
        on_dead: called with a dead peer and the ms of its silence, at every beat until it is
            buried.
        on_changed: called when the server is another one.
    """

    def __init__(
        self,
        peers: Peers,
        epochs: Epochs,
        gates: Mapping[str, Gate],
        tokens: Mapping[str, TokenKeeper],
        on_dead: Callable[[str, int], None],
        on_changed: Callable[[], None],
    ) -> None:
        self._peers = peers
        self._epochs = epochs
        self._gates = gates
        self._tokens = tokens
        self._on_dead = on_dead
        self._on_changed = on_changed
        self._next_at = float("-inf")

    def due(self, now: float) -> bool:
        """Say whether it is time."""
        return now >= self._next_at

    async def rest(self) -> None:
        """Sleep until it is."""
        await asyncio.sleep(max(0.0, self._next_at - time.monotonic()))

    async def run(self) -> None:
        """Beat once."""
        started = time.monotonic()
        try:
            for peer, silent_ms in await self._peers.beat():
                self._on_dead(peer, silent_ms)
            self._epochs.acknowledged(round(self._peers.server_time() * 1000))
            await self._peers.tell_closed(self._troubles())
            self._next_at = started + BEAT_S
        except Exception as error:  # noqa: BLE001  (without beats it would be buried)
            logs.emit(StoreUnreachable("beating", type(error).__name__, 1))
            self._next_at = started + _AGAIN_S
            if isinstance(error, ServerChangedError):
                self._on_changed()

    def _troubles(self) -> dict[str, tuple[float, str]]:
        """Return app → since when (monotonic seconds) and why this worker sends nothing of it."""
        found: dict[str, tuple[float, str]] = {}
        for app, gate in list(self._gates.items()):
            if gate.breaker.trouble:
                found[app] = (gate.breaker.since, gate.breaker.trouble)
            elif (keeper := self._tokens.get(app)) and keeper.trouble:
                found[app] = keeper.trouble
        return found
