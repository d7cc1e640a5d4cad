"""The rota: which duties a worker has, and where each is done.

On the loop: the beat, keeping tokens, reading lists of templates, and webhooks. On threads: *watch*
looks each second at what concerns this worker, its apps among it, *keeper* does the lanes' duties
and looks at what is in flight, *wake* hears wake-ups.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from producers.care.appids import Appids
from producers.quotas import Quotas
from producers.quotas.rates import Rates
from producers.series import Series
from producers.settings import Settings
from producers.store import keys
from producers.store.connection import is_cluster
from producers.store.lanes.fence import OutlivedError
from producers.webhooks.wishes import Wishes
from workers.duties.beat import Beat
from workers.duties.flights import Flights
from workers.duties.held_rates import HeldRates
from workers.duties.layout import Lanes, PassingBy
from workers.duties.recover import Recoverer
from workers.duties.runner import Duty, Round, Runner
from workers.duties.ticks import Ticks
from workers.duties.uptake import Uptake
from workers.duties.vitals import Vitals
from workers.duties.wakes import Wakes
from workers.duties.watch import Watch
from workers.duties.ways import Ways
from workers.lanes.errands import Errands
from workers.lanes.keeper import Keeper
from workers.lanes.net import HEARD
from workers.limits.gate import Gate
from workers.quotas.asking import Asking
from workers.quotas.diagnoses import Diagnoses
from workers.quotas.readings import Readings
from workers.sending.memory import Memory
from workers.sending.send_path import SendPath
from workers.templates.clerk import Clerk
from workers.webhooks.courier import Courier
from workers.webhooks.wishes import TellWishes
from workers.wechat.tokens import TokenKeeper

_EVERY_S: Final = 1.0
_SPAWN_S: Final = 30.0


class Rota:
    """One worker's duties.

    Args:
        settings: apps and lanes.
        worker: this worker's id.
        loop: where the loop's are done.
        ways: to Redis.
        memory: shared with the send path.
        path: given back what it has forgotten.
        tokens: app → its token keeper; those of apps that come are put there.
        hire: makes one, of an app and its gate.
        keeper: the lanes' duties.
        errands: where a dead peer is recovered.
        ended: called with a part of the worker that ended, and why.
        outlived: called with what says that it may not go on.
    """

    def __init__(
        self,
        settings: Settings,
        worker: str,
        loop: asyncio.AbstractEventLoop,
        ways: Ways,
        memory: Memory,
        path: SendPath,
        tokens: dict[str, TokenKeeper],
        hire: Callable[[str, Gate], TokenKeeper],
        keeper: Keeper,
        errands: Errands,
        ended: Callable[[str, str], None],
        outlived: Callable[[OutlivedError], None],
    ) -> None:
        self._loop = loop
        self._runner = Runner(ended)
        self._client, self._keeper = ways.client, keeper
        client = ways.client
        self.flights = Flights(
            Recoverer(client, settings, ways.broadcasts),
            ways.epochs,
            ways.peers,
            worker,
            memory.hands,
            path.pump.is_unknown,
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
        self._uptake = Uptake(
            settings,
            settings.follow_apps(),
            memory,
            tokens,
            hire,
            loop,
            self._runner,
            path,
            ways.wechat,
            Appids(client, settings),
            self._apps_changed,
            self._hours_changed,
        )
        self._clerk = Clerk(
            ways.loop_client,
            settings,
            ways.wechat,
            tokens,
            lambda app: app in memory.gates and memory.gates[app].breaker.connects(),
            worker,
            ways.peers.server_time,
            loop,
        )
        asking = Asking(ways.loop_client, ways.wechat, tokens)
        self._diagnoses = Diagnoses(settings, asking, memory.gates)
        self._readings = Readings(
            ways.loop_client,
            settings,
            asking,
            memory.gates,
            ways.peers.server_time,
        )
        self._courier: Courier | None = None
        self._wishes = TellWishes(Wishes(client, settings))
        self._settings, self._loop_client = settings, ways.loop_client
        self._rounds = self._threads(ways, memory, path, keeper, ended, outlived)

    def _threads(
        self,
        ways: Ways,
        memory: Memory,
        path: SendPath,
        keeper: Keeper,
        ended: Callable[[str, str], None],
        outlived: Callable[[OutlivedError], None],
    ) -> tuple[Round, ...]:
        """Return what is done on threads, a round for each."""
        client, settings, wake = ways.client, self._settings, memory.hands.wake
        watching: list[Duty] = [
            Lanes(client, settings, outlived),
            self._uptake,
            PassingBy(self._wishes, settings),
            Watch(client, settings, memory.turns, memory.stops, settings.apps, wake),
            HeldRates(
                Rates(client, settings),
                Quotas(client, settings),
                memory.turns,
                memory.gates,
                wake,
            ),
        ]
        apart = is_cluster(client)
        watch = Round("watch", watching, _EVERY_S, apart=apart)
        self._wakes = Wakes(
            client,
            settings,
            memory.gates,
            memory.stops,
            memory.wake,
            keeper.hear,
            watch.hurry,
            self._clerk.hurry,
        )
        vitals = Vitals({"loop": self._loop_gone, "pump": path.pump_gone}, ended)
        ticks = PassingBy(Ticks(Series(client, settings)), settings)
        keeping: list[Duty] = [vitals, ways.epochs, keeper, self.flights, ticks]
        return (
            watch,
            Round(
                "keeper",
                keeping,
                _EVERY_S,
                at_once=False,
                alarm_at=lambda: keeper.alarm_at,
                apart=apart,
            ),
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
        self._uptake.begin()
        self._runner.spawn(self._clerk)
        self._runner.spawn(self._readings)
        self._runner.spawn(self._diagnoses)
        self._carry_webhooks()

    def _carry_webhooks(self) -> None:
        """Post webhooks from the first app on that wants them; on the loop."""
        if self._courier is not None:
            self._courier.follow()
        elif any(app.webhook_url for app in self._settings.apps.values()):
            self._courier = Courier(self._loop_client, self._settings)
            self._runner.spawn(self._courier)

    def _apps_changed(self) -> None:
        self._wishes.hurry()
        self._carry_webhooks()

    def _hours_changed(self, app: str) -> None:
        """Look again at what waits for the hours that were; the net finds the rest in a while.

        Raises:
            redis.RedisError: Redis did not answer; it is called again.
        """
        for broadcast in self._client.zrange(keys.active(app), 0, HEARD - 1):
            self._keeper.hear(broadcast)

    def begin_work(self, app: str) -> None:
        """There may be something to take of an app that had nothing; from any thread."""
        if kept := self._uptake.kept.get(app):
            kept.begin_work()

    def close(self) -> None:
        """Begin nothing more."""
        self._runner.close()

    async def end_tasks(self) -> None:
        """End those of the loop, on it."""
        await self._runner.end_tasks()
        await self._clerk.close()
        if self._courier:
            await self._courier.close()

    def join(self, left_s: Callable[[], float]) -> None:
        """Wait for the threads, for each as long as is left."""
        self._runner.join(left_s)
        self._wakes.close()
