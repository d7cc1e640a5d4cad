"""The roster: which duties a worker has, and where each is done.

On the loop: the beat, keeping tokens, and webhooks. On threads: *watch* looks each second at what
concerns this worker, *keeper* does the lanes' duties and looks at what is in flight, *wake* hears
wake-ups.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from producers.broadcasts.rates import Rates
from producers.series import Series
from producers.settings import Settings
from producers.webhooks.wishes import Wishes
from workers.duties.beat import Beat
from workers.duties.flights import Flights
from workers.duties.held_rates import HeldRates
from workers.duties.kept_tokens import KeptToken
from workers.duties.recover import Recoverer
from workers.duties.runner import Duty, Round, Runner
from workers.duties.ticks import Ticks
from workers.duties.vitals import Vitals
from workers.duties.wakes import Wakes
from workers.duties.watch import Watch
from workers.duties.ways import Ways
from workers.lanes.errands import Errands
from workers.lanes.keeper import Keeper
from workers.sending.memory import Memory
from workers.sending.send_path import SendPath
from workers.webhooks.courier import Courier
from workers.webhooks.wishes import TellWishes
from workers.wechat.tokens import TokenKeeper

_EVERY_S: Final = 1.0
_SPAWN_S: Final = 30.0


class Roster:
    """One worker's duties.

    Args:
        settings: apps and lanes.
        worker: this worker's id.
        loop: where the loop's are done.
        ways: to Redis.
        memory: shared with the send path.
        path: given back what it has forgotten.
        tokens: app → its token keeper.
        keeper: the lanes' duties.
        errands: where a dead peer is recovered.
        ended: called with a part of the worker that ended, and why.
    """

    def __init__(
        self,
        settings: Settings,
        worker: str,
        loop: asyncio.AbstractEventLoop,
        ways: Ways,
        memory: Memory,
        path: SendPath,
        tokens: Mapping[str, TokenKeeper],
        keeper: Keeper,
        errands: Errands,
        ended: Callable[[str, str], None],
    ) -> None:
        self._loop = loop
        self._runner = Runner(ended)
        client, wake = ways.client, memory.hands.wake
        self.flights = Flights(
            Recoverer(client, settings, ways.broadcasts),
            ways.epochs,
            ways.peers,
            worker,
            memory.hands,
            lambda: path.pump.unknown,
            path.hand_back,
            path.give_up,
        )
        self._beat = Beat(
            ways.peers,
            ways.epochs,
            memory.gates,
            tokens,
            lambda peer, silent_ms: errands.run(
                ("recover", peer), partial(self.flights.recover, peer, silent_ms)
            ),
            lambda: errands.run(("epoch",), ways.epochs.begin),
        )
        self._kept = {
            alias: KeptToken(one, loop, partial(memory.turns.lanes, alias), wake)
            for alias, one in tokens.items()
        }
        self._courier: Courier | None = None
        self._settings, self._loop_client = settings, ways.loop_client
        watching: list[Duty] = [
            TellWishes(Wishes(client, settings)),
            Watch(client, settings, memory.turns, memory.stops, memory.gates, wake),
            HeldRates(Rates(client, settings), memory.turns, memory.gates, wake),
        ]
        watch = Round("watch", watching, _EVERY_S)
        self._wakes = Wakes(
            client,
            settings.lanes,
            memory.gates,
            memory.stops,
            memory.wake,
            keeper.hear,
            watch.hurry,
        )
        vitals = Vitals({"loop": self._loop_gone, "pump": path.pump_gone}, ended)
        ticks = Ticks(Series(client, settings))
        keeping: list[Duty] = [vitals, ways.epochs, keeper, self.flights, ticks]
        self._rounds = (
            watch,
            Round("keeper", keeping, _EVERY_S, at_once=False, alarm_at=lambda: keeper.alarm_at),
            Round("wake", [self._wakes], 0.0),
        )

    def _loop_gone(self) -> str:
        return "" if self._loop.is_running() else "it stopped"

    def begin(self) -> None:
        """Begin them all."""
        asyncio.run_coroutine_threadsafe(self._spawn(), self._loop).result(_SPAWN_S)
        for one in self._rounds:
            self._runner.start(one)

    async def _spawn(self) -> None:
        self._runner.spawn(self._beat)
        for kept in self._kept.values():
            self._runner.spawn(kept)
        if any(app.webhook_url for app in self._settings.apps.values()):
            self._courier = Courier(self._loop_client, self._settings)
            self._runner.spawn(self._courier)

    def begin_work(self, app: str) -> None:
        """There may be something to take of an app that had nothing; from any thread."""
        self._kept[app].begin_work()

    def close(self) -> None:
        """Begin nothing more."""
        self._runner.close()

    async def end_tasks(self) -> None:
        """End those of the loop, on it."""
        await self._runner.end_tasks()
        if self._courier:
            await self._courier.close()

    def join(self, left_s: Callable[[], float]) -> None:
        """Wait for the threads, for each as long as is left."""
        self._runner.join(left_s)
        self._wakes.close()
