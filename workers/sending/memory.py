"""What one worker knows: what is in its hands, each app's limits, stops, and where work is.

The send path and the duties share it. None of it is the truth, which lies in Redis.
"""

from collections.abc import Callable

from producers import logs
from producers.lanes.bounds import Bounding
from producers.logs.events import SendWindowClosed, SendWindowOpened
from producers.metrics import Meter
from producers.settings import Settings
from workers.limits.gate import Gate
from workers.limits.hours import Calendar
from workers.sending.hands import Hands, room_beyond, room_for
from workers.sending.stops import Stops
from workers.sending.turns import Turns


def calendar_of(alias: str, settings: Settings) -> Calendar | None:
    """Return what tells when an app's broadcasts may be sent; None: always."""
    window = settings.window_of(alias)
    if window is None:
        return None

    def told(is_open: bool, until_ms: int) -> None:
        opened, closed = SendWindowOpened, SendWindowClosed
        logs.emit(opened(alias, until_ms) if is_open else closed(alias, until_ms))

    return Calendar(window, told, holds=settings.app(alias).window_holds_messages)


class Memory:
    """See the module.

    Args:
        settings: the apps and their rates.
        on_work: called with an app that had nothing to take until now.
    """

    def __init__(self, settings: Settings, on_work: Callable[[str], None]) -> None:
        self._settings = settings
        posts = settings.in_flight
        self.hands = Hands(room_for(posts), len(settings.apps), room_beyond(posts))
        self.gates = {alias: self.new_gate(alias) for alias in settings.apps}
        self.stops = Stops()
        self.meter = Meter() if settings.metrics_port else None
        self.turns = Turns(on_work)

    def new_gate(self, alias: str) -> Gate:
        """Return what there is to know of an app's limits before anything is asked for."""
        return Gate(
            self._settings.app(alias).rate_per_second,
            calendar=calendar_of(alias, self._settings),
            bounding=Bounding(self._settings, alias),
        )

    def wake(self, app: str, lane: int) -> None:
        """There may be something to take; from any thread."""
        if app not in self._settings.apps:
            return
        self.turns.wake(app, lane)
        self.hands.wake()
