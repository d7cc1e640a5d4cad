"""The rates of the apps that are held back: the others learn theirs as they send.

An app whose next slot lies far ahead asks for none meanwhile, and would not hear that its rate was
raised.
"""

import time
from collections.abc import Callable, Mapping

from producers.broadcasts.rates import Rates
from producers.errors import UnknownAppError
from workers.limits.gate import Gate
from workers.sending.turns import Turns


class HeldRates:
    """Learns them for one worker; used by one thread at a time.

    Args:
        rates: where they are read.
        turns: which apps have something to take.
        gates: app → its gate, which is told.
        wake: called when something may be taken.
    """

    name = "follow rates"

    def __init__(
        self, rates: Rates, turns: Turns, gates: Mapping[str, Gate], wake: Callable[[], None]
    ) -> None:
        self._rates = rates
        self._turns = turns
        self._gates = gates
        self._wake = wake

    def due(self, now: float) -> bool:
        """Say whether an app is held back."""
        return bool(self._held_back(now))

    def run(self) -> None:
        """Learn their rates.

        Raises:
            redis.RedisError, StoreUnavailableError: Redis did not answer; run it again.
        """
        try:
            rates = self._rates.all(self._held_back(time.monotonic()))
        except UnknownAppError:  # it left the settings; the pump drops it at its next turn
            return
        for app, rate in rates.items():
            self._gates[app].set_rate(rate)  # apps go on this very thread
        self._wake()

    def _held_back(self, now: float) -> list[str]:
        found = ((app, self._gates.get(app)) for app in self._turns.apps(now))
        return [app for app, gate in found if gate is not None and gate.next_at > now]
