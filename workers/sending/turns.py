"""Turns: the apps and lanes in which there may be something to take, each app in its turn.

Wake-ups name them; what no wake-up named is found by a look at the lanes each second (`Watch`). An
app with nothing to take costs nothing here, however many there are. A lane that is divided leaves
no trace: what lies in those it was divided into is found in the same way.
"""

import math
import threading
from collections.abc import Callable, Iterable

from producers.settings import Layout


class Turns:
    """See the module. Fed by any thread, served by the pump's.

    Args:
        on_work: called with an app that had nothing to take until now.
    """

    def __init__(self, on_work: Callable[[str], None] = lambda _: None) -> None:
        self._ready: dict[str, dict[int, None]] = {}
        self._resting: dict[str, tuple[float, set[int]]] = {}
        self._held: dict[int, float] = {}
        self._lock = threading.Lock()
        self._on_work = on_work
        self._layout: Layout | None = None
        self._open: frozenset[int] | None = None

    def follow(self, layout: Layout) -> None:
        """Have to do with the lanes that there are now, and not with one that is being divided."""
        if layout is self._layout:
            return
        with self._lock:
            self._layout = layout
            open_ones = self._open = frozenset(layout.lanes) - {layout.shut}
            self._ready = {
                app: left
                for app, lanes in self._ready.items()
                if (left := dict.fromkeys(lane for lane in lanes if lane in open_ones))
            }
            self._resting = {
                app: (at, lanes & open_ones)
                for app, (at, lanes) in self._resting.items()
                if lanes & open_ones
            }
            self._held = {lane: at for lane, at in self._held.items() if lane in open_ones}

    def _is_open(self, lane: int) -> bool:
        """Say whether something may be taken in a lane, as far as is known."""
        return self._open is None or lane in self._open

    def wake(self, app: str, lane: int) -> None:
        """There may be something to take."""
        with self._lock:
            if not self._is_open(lane):
                return
            lanes = self._ready.get(app)
            if lanes is not None:
                lanes[lane] = None
                return
            self._ready[app] = {lane: None}
        self._on_work(app)

    def rest(self, app: str, lane: int, until: float) -> None:
        """Nothing can be taken before a moment (monotonic s), unless it is woken."""
        if math.isinf(until):
            return
        with self._lock:
            if not self._is_open(lane):
                return
            at, lanes = self._resting.get(app, (until, set()))
            self._resting[app] = (min(at, until), lanes | {lane})

    def hold(self, lanes: Iterable[int], until: float) -> None:
        """Nothing is taken in some lanes before a moment (monotonic s), whoever wakes them."""
        with self._lock:
            self._held.update((lane, until) for lane in lanes if self._is_open(lane))

    def is_held(self, lane: int) -> bool:
        """Say whether nothing is taken in a lane for now."""
        return lane in self._held

    def apps(self, now: float) -> list[str]:
        """Return the apps with something to take, in turn, those whose rest is over among them."""
        with self._lock:
            self._held = {lane: until for lane, until in self._held.items() if until > now}
            over = [app for app, (at, _) in self._resting.items() if at <= now]
            for app in over:
                self._ready.setdefault(app, {}).update(dict.fromkeys(self._resting.pop(app)[1]))
            return list(self._ready)

    def lanes(self, app: str) -> list[int]:
        """Return the lanes of an app with something to take, in turn."""
        with self._lock:
            return [lane for lane in self._ready.get(app, ()) if lane not in self._held]

    def begin(self, app: str, lane: int) -> None:
        """A take begins: only what wakes it from now on counts; the app's turn is over."""
        with self._lock:
            lanes = self._ready.pop(app, {})
            lanes.pop(lane, None)
            if lanes:
                self._ready[app] = lanes

    def forget(self, app: str) -> None:
        """Nothing can be taken of an app any more."""
        with self._lock:
            self._ready.pop(app, None)
            self._resting.pop(app, None)

    @property
    def next_at(self) -> float:
        """When the first rest or hold is over (monotonic s)."""
        with self._lock:
            rests = (at for at, _ in self._resting.values())
            return min(*rests, *self._held.values(), math.inf, math.inf)
