"""The stocks: past hours leave them, each stock once an hour, in the lanes that a worker holds."""

from collections import deque
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

import redis

from producers import logs
from producers.logs.events import PermitsExpired
from producers.settings import Settings
from producers.store import Client, keys
from producers.store.lanes.fence import is_refusal
from producers.store.scripts import NoArgs, Script

_TRIM_S: Final = 3000
"""Past hours leave the stocks within so long after the hour."""

_HOUR_MS: Final = 3_600_000


class TrimKeys(NamedTuple):
    """KEYS of trim.lua."""

    stock: str
    ledger: str


TRIM: Final = Script(__package__, "trim", TrimKeys, NoArgs, clock=True)


class Stocks:
    """Trims the stocks of lanes; used by one thread at a time."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._settings = settings
        self._trim = TRIM.on(client)
        self._waiting: deque[tuple[int, str]] = deque()
        self._hour = 0

    @property
    def due(self) -> bool:
        """Whether stocks wait to be trimmed."""
        return bool(self._waiting)

    def take_over(self, lanes: Iterable[int]) -> None:
        """Lanes came; nobody knows when their last keeper trimmed them."""
        self._waiting.extend((lane, app) for lane in lanes for app in self._settings.apps)

    def trim_some(self, held: Collection[int], now_ms: int) -> None:
        """Trim a few, so that all take about half of the hour.

        Args:
            held: the lanes that this worker holds.
            now_ms: by the server's clock.
        """
        hour = now_ms // _HOUR_MS
        if hour != self._hour:
            self._hour = hour
            self._waiting.clear()
            self.take_over(sorted(held))
        most = max(4, len(self._settings.layout.lanes) * len(self._settings.apps) // _TRIM_S + 1)
        for _ in range(min(most, len(self._waiting))):
            lane, app = self._waiting.popleft()
            if lane not in held:
                continue
            try:
                expired = self._trim(
                    TrimKeys(keys.stock(lane, app), keys.ledger(lane, app)), NoArgs()
                )
            except redis.ResponseError as error:
                if not is_refusal(error):
                    raise
                continue  # it is divided: whoever holds its heirs trims these
            if expired:
                logs.emit(PermitsExpired(app, lane, expired))
