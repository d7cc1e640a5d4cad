"""Edges: what a take or a settle tells of a broadcast, followed at once.

The keeper finds all of it by level within a second; an edge only makes it sooner.
"""

from collections.abc import Callable

from producers import logs
from producers.broadcasts import Broadcasts
from producers.broadcasts.split import Splitter
from producers.logs.events import CanaryOpened
from producers.settings import Settings
from workers.lanes.divided import not_waiting
from workers.lanes.errands import Errands
from workers.lanes.wants import Wants


class Edges:
    """Follows edges; may be called from any thread.

    Args:
        errands: where they are done.
        settings: which lanes there are.
        broadcasts, splitter, wants: who do them.
        wake: called with (app, lane) where there may be something to take.
    """

    def __init__(
        self,
        errands: Errands,
        settings: Settings,
        broadcasts: Broadcasts,
        splitter: Splitter,
        wants: Wants,
        wake: Callable[[str, int], None],
    ) -> None:
        self._errands = errands
        self._settings = settings
        self._broadcasts = broadcasts
        self._splitter = splitter
        self._wants = wants
        self._wake = wake

    def low(self, broadcast: str, lane: int) -> None:
        """A queue wants a split."""
        key = ("split", broadcast, str(lane))
        self._run(key, lambda: self._splitter.fill(broadcast, lane))

    def complete(self, broadcast: str) -> None:
        """A lane has settled everyone."""
        self._run(("finish", broadcast), lambda: self._broadcasts.finish(broadcast))

    def flag(self, app: str, broadcast: str, lane: int, flag: str) -> None:
        """Follow what a settled batch says; see `settle.Settler`."""
        if flag in {"closed", "queued"}:
            self._wake(app, lane)
        elif flag == "opened":
            logs.emit(CanaryOpened(app, broadcast, lane))
            layout = self._settings.layout
            others = [one for one in layout.lanes if one not in {lane, layout.shut}]
            self._run(("open", broadcast), lambda: self._wants.open_lanes(app, broadcast, others))
            self._wake(app, lane)
        elif flag == "complete":
            self.complete(broadcast)
        else:
            self._run(("obey", broadcast), lambda: self._wants.obey(broadcast, lane))

    def _run(self, key: tuple[str, ...], errand: Callable[[], object]) -> None:
        def run() -> None:
            with not_waiting(self._settings):
                errand()

        self._errands.run(key, run)
