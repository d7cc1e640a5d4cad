"""What one worker knows: what is in its hands, each app's limits, stops, and where work is.

The send path and the duties share it. None of it is the truth, which lies in Redis.
"""

from collections.abc import Callable

from producers.settings import Settings
from workers.limits.gate import Gate
from workers.sending.hands import Hands, room_for
from workers.sending.stops import Stops
from workers.sending.turns import Turns


class Memory:
    """See the module.

    Args:
        settings: the apps and their rates.
        on_work: called with an app that had nothing to take until now.
    """

    def __init__(self, settings: Settings, on_work: Callable[[str], None]) -> None:
        self.hands = Hands(room_for(settings.in_flight), len(settings.apps))
        self.gates = {alias: Gate(app.rate_per_second) for alias, app in settings.apps.items()}
        self.stops = Stops()
        self.turns = Turns(on_work)

    def wake(self, app: str, lane: int) -> None:
        """There may be something to take; from any thread."""
        self.turns.wake(app, lane)
        self.hands.wake()
