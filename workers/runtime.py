"""The runtime of a worker process: it wires what a worker is made of, and drains it at the end.

Boot: settings, logs, Redis, layout, session, tokens, beat, keeper; then the pump may take. Shutdown
(SIGTERM): take nothing more, hand back what was not posted, wait for the answers of what was (at
most 7 s), settle them, leave.

Who does what: the pump's thread takes and reserves, the loop posts and settles and beats. Beside
the sending there are duties, done by level: the *keeper's* thread does the lanes' and looks at what
is in flight, the *watch* looks each second at what concerns this worker, and *wake* hears wake-ups,
which say the same sooner. Should a thread end, the process drains and ends, to be started anew from
outside (`runner`).
"""

import asyncio
import contextlib
import gc
import os
import secrets
import socket
import threading
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any, Final, TypeVar

import redis

from producers import logs, store
from producers.broadcasts import Broadcasts
from producers.broadcasts.rates import Rates
from producers.broadcasts.split import Splitter
from producers.logs.events import WorkerBroken, WorkerStarted, WorkerStopped, WorkerStopping
from producers.settings import Settings
from producers.store.retry import LOST
from workers.duties.beat import Beat
from workers.duties.edges import Edges
from workers.duties.epoch import Epochs
from workers.duties.errands import Errands
from workers.duties.flights import Flights
from workers.duties.held_rates import HeldRates
from workers.duties.kept_tokens import KeptToken
from workers.duties.peers import Peers
from workers.duties.recover import Recoverer
from workers.duties.runner import Duty, Round, Runner
from workers.duties.vitals import Vitals
from workers.duties.wakes import Wakes
from workers.duties.watch import Watch
from workers.lanes.keeper import Keeper
from workers.sending.egress import Egress
from workers.sending.pump import Batch
from workers.sending.send_path import Memory, SendPath
from workers.wechat.client import WeChat
from workers.wechat.tokens import TokenKeeper

Result = TypeVar("Result")

_GARBAGE: Final = (200_000, 20, 100)
"""Thresholds of Python's garbage collector.

By Python's own (700, 10, 10) a worker with 1,000 sends in flight spends 41 % of its time in the
collector, with 50,000 as the first 10 % (py-spy, 2026-11): each message makes some dozens of
objects, and each collection walks through all that is in flight.
"""

DRAIN_S: Final = 7.2
"""A POST under way is waited for 6.5 s (see `sender`); then what came of it is settled."""

END_S: Final = 7.6
"""From SIGTERM to the end: 10 s, of which Dramatiq takes up to one before and its master one after.

Its own joining of threads, up to two more, is cut short where no time is left for it.
"""


def _calm_the_collector() -> None:
    """What is here now stays for the life of the process; the rest dies by its reference count."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GARBAGE)


class Runtime:
    """One worker process.

    Attributes:
        worker: its id, new at every start: no one settles under a dead one's name.
        settings: as loaded.
        loop: Dramatiq's event loop.
        hands, gates: what is in hand, and what is known of each app's limits.
        pump: gives batches to the `send` consumer.
        splitter: fills windows, for the `split` actor.
        runner: does the duties.
    """

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        self.settings = settings
        self.loop = loop
        self.worker = f"{socket.gethostname()[:32]}:{os.getpid()}:{secrets.token_hex(3)}"
        self._closing = threading.Event()
        self._ending = threading.Lock()
        self._connect()
        self._memory = Memory(settings, lambda app: self._kept_tokens[app].begin_work())
        self.hands, self.gates = self._memory.hands, self._memory.gates
        egress = Egress(self._wechat, self.gates, self.worker, self.hands.wake)
        self._tokens = self._token_keepers(egress)
        self.splitter = Splitter(self.redis, settings)
        self._keeper = Keeper(self.redis, settings, self.broadcasts, self.worker)
        self._errands = Errands()
        self._path = SendPath(
            settings,
            self.worker,
            loop,
            self._memory,
            self.broadcasts,
            self.redis,
            self._taking,
            self._async,
            self._wechat,
            self._tokens,
            egress,
            lambda: self._peers.alive,
            self._peers.server_time,
            Edges(
                self._errands,
                settings.lanes,
                self.broadcasts,
                self.splitter,
                self._keeper,
                self._memory.wake,
            ),
        )
        self.pump = self._path.pump
        self.runner = Runner(self._ended)
        self._on_loop(self._begin_loop_duties())
        self._begin_duties()
        _calm_the_collector()
        logs.emit(
            WorkerStarted(self.worker, settings.lanes, len(settings.apps), settings.in_flight)
        )

    def _connect(self) -> None:
        """Open the ways to Redis and to WeChat; whoever may not work here finds out."""
        settings = self.settings
        self.redis = store.connect(settings, role="worker")
        store.check_layout(self.redis, settings)
        self.broadcasts = Broadcasts(self.redis, settings)
        self._epochs = Epochs(self.redis, settings, self.broadcasts)
        self._epochs.begin()
        self._taking = store.connect(settings, connections=2, role="worker")
        self._epochs.guard(self._taking)
        self._async = store.connect_async(settings)
        self._epochs.guard_async(self._async)
        self._peers = Peers(self._async, self.worker, list(settings.apps))
        self._wechat = self._on_loop(self._open_session())

    async def _open_session(self) -> WeChat:
        with contextlib.suppress(*LOST):
            await self._peers.beat()  # known as alive before anything is taken
        return WeChat(self.settings)

    def _token_keepers(self, egress: Egress) -> dict[str, TokenKeeper]:
        return {
            alias: TokenKeeper(
                self._async,
                self._wechat,
                alias,
                self.settings,
                self.worker,
                self._peers.server_time,
                gate.breaker.connects,
                egress.heard,
            )
            for alias, gate in self.gates.items()
        }

    def _on_loop(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    # -- duties -----------------------------------------------------------------------------

    async def _begin_loop_duties(self) -> None:
        turns, errands = self._memory.turns, self._errands
        self._flights = Flights(
            Recoverer(self.redis, self.settings, self.broadcasts),
            self._epochs,
            self._peers,
            self.worker,
            self.hands,
            lambda: self.pump.unknown,
            self._path.hand_back,
            self._path.give_up,
        )
        beat = Beat(
            self._peers,
            self._epochs,
            self.gates,
            self._tokens,
            lambda peer, ms: errands.run(
                ("recover", peer), partial(self._flights.recover, peer, ms)
            ),
            lambda: errands.run(("epoch",), self._epochs.begin),
        )
        self.runner.spawn(beat)
        self._kept_tokens = {
            alias: KeptToken(keeper, self.loop, partial(turns.lanes, alias), self.hands.wake)
            for alias, keeper in self._tokens.items()
        }
        for kept in self._kept_tokens.values():
            self.runner.spawn(kept)

    def _begin_duties(self) -> None:
        settings, client, memory = self.settings, self.redis, self._memory
        watch = Watch(client, settings, memory.turns, memory.stops, self.gates, self.hands.wake)
        held_rates = HeldRates(Rates(client, settings), memory.turns, self.gates, self.hands.wake)
        watching = Round("watch", [watch, held_rates], 1.0)
        self._wakes = Wakes(
            client,
            settings.lanes,
            self.gates,
            memory.stops,
            memory.wake,
            self._keeper.hear,
            watching.hurry,
        )
        vitals = Vitals({"loop": self._loop_gone, "pump": self._pump_gone}, self._ended)
        keeping: list[Duty] = [vitals, self._epochs, self._keeper, self._flights]
        self.runner.start(watching)
        self.runner.start(Round("keeper", keeping, 1.0, at_once=False))
        self.runner.start(Round("wake", [self._wakes], 0.0))

    # -- what actors call -------------------------------------------------------------------

    def send(self, batch: Batch) -> None:
        """Hand a batch to the event loop; returns at once."""
        self._path.start(batch)

    def hand_back(self, batch: Batch) -> None:
        """Return a batch that was never started."""
        self._path.hand_back([claim for claim, _ in batch])

    def split(self, broadcast: str) -> None:
        """Fill the windows of a broadcast in every lane."""
        for lane in range(self.settings.lanes):
            self.splitter.fill(broadcast, lane)

    # -- the end ----------------------------------------------------------------------------

    def _loop_gone(self) -> str:
        return "" if self.loop.is_running() else "it stopped"

    def _pump_gone(self) -> str:
        thread = self.pump.thread
        return "its thread ended" if thread is not None and not thread.is_alive() else ""

    def _ended(self, part: str, why: str) -> None:
        """End the process, unless it is ending: half a worker holds claims that nobody serves."""
        if self._closing.is_set() or self.hands.closing:
            return
        logs.emit(WorkerBroken(self.worker, part, why))
        threading.Thread(target=self._break_off, name="end", daemon=True).start()

    def _break_off(self) -> None:
        """Drain what can be drained, and end with a code that says that nobody asked for it."""
        try:
            self.stop()
        finally:
            logs.close()
            os._exit(os.EX_SOFTWARE)

    def stop(self) -> None:
        """Drain and close: within 10 s nothing is in hand, or recovery has it."""
        with self._ending:
            if not self._closing.is_set():
                self._stop()

    def _stop(self) -> None:
        started = time.monotonic()
        logs.emit(WorkerStopping(self.worker, self.hands.held))
        self._path.drain(started + DRAIN_S)
        self._closing.set()
        self._errands.close()
        self.runner.close()

        def left_s() -> float:
            return min(2.0, max(0.1, started + END_S - time.monotonic()))

        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._close(), self.loop).result(left_s())
        self.runner.join(left_s)
        self._wakes.close()
        self._taking.close()
        self.redis.close()
        left = max(0, self.hands.held)
        logs.emit(WorkerStopped(self.worker, left, round(time.monotonic() - started, 3)))

    async def _close(self) -> None:
        await self.runner.end_tasks()
        await self._path.close()
        await self._wechat.close()
        if not self._path.is_busy:
            with contextlib.suppress(redis.RedisError):
                await self._peers.leave()
        await self._async.aclose()
