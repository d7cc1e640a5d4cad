"""The rates of the apps that are held back: the others learn theirs as they send.

An app whose next slot lies far ahead asks for none meanwhile, and would not hear that its rate was
raised; nor one whose day is used up, that there is more of it.
"""

import time
from collections.abc import Callable, Mapping

from producers.errors import UnknownAppError
from producers.quotas import AppLimits, Quotas
from producers.quotas.rates import Rates
from workers.limits.gate import Gate
from workers.sending.turns import Turns


class HeldRates:
    """Learns them for one worker; used by one thread at a time.

    Args:
        rates: where they are read.
        quotas: where it is read what is left of the day.
        turns: which apps have something to take.
        gates: app → its gate, which is told.
        wake: called when something may be taken.
    """

    name = "follow rates"

    def __init__(
        self,
        rates: Rates,
        quotas: Quotas,
        turns: Turns,
        gates: Mapping[str, Gate],
        wake: Callable[[], None],
    ) -> None:
        self._rates = rates
        self._quotas = quotas
        self._turns = turns
        self._gates = gates
        self._wake = wake

    def due(self, now: float) -> bool:
        """Say whether an app is held back."""
        return bool(self._held_back(now) or self._spent())

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
        if spent := self._spent():
            for app, limits in self._quotas.all(spent).items():
                if gate := self._gates.get(app):
                    self._let_go(gate, limits)
        self._wake()

    @staticmethod
    def _let_go(gate: Gate, limits: AppLimits) -> None:
        for channel in [*gate.spent]:
            left = limits.left(channel)
            if left is None or left > 0:
                gate.spent.pop(channel, None)

    def _spent(self) -> list[str]:
        return [app for app, gate in list(self._gates.items()) if gate.spent]

    def _held_back(self, now: float) -> list[str]:
        found = ((app, self._gates.get(app)) for app in self._turns.apps(now))
        return [app for app, gate in found if gate is not None and gate.next_at > now]
