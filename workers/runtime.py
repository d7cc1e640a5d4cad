"""The runtime of a worker process: it wires what a worker is made of, and drains it at the end.

Boot: the ways (Redis, layout, session), the send path, the duties; then the pump may take. Shutdown
(SIGTERM): take nothing more, hand back what was not posted, wait for the answers of what was (at
most 7 s), settle them, leave.

The pump's thread takes and reserves, the loop posts and settles; what is done beside the sending is
in the `rota`. Should a thread end, the process drains and ends, to be started anew from outside.
"""

import asyncio
import contextlib
import gc
import os
import secrets
import socket
import threading
import time
from typing import Final

from producers import logs
from producers.broadcasts.split import Splitter
from producers.logs.events import (
    WorkerBroken,
    WorkerOutlived,
    WorkerStarted,
    WorkerStopped,
    WorkerStopping,
)
from producers.settings import Settings
from producers.store.lanes.fence import OutlivedError
from workers.duties.rota import Rota
from workers.duties.ways import Ways
from workers.figures import Figures
from workers.lanes.divided import Apart
from workers.lanes.edges import Edges
from workers.lanes.errands import Errands
from workers.lanes.keeper import Keeper
from workers.limits.gate import Gate
from workers.sending.egress import Egress
from workers.sending.memory import Memory
from workers.sending.pumping.reserver import Batch
from workers.sending.send_path import SendPath
from workers.wechat.tokens import TokenKeeper

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
        hands: what is in hand.
        pump: gives batches to the `send` consumer.
        ways: its connections.
        rota: its duties.
    """

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        self.settings = settings
        self.worker = f"{socket.gethostname()[:32]}:{os.getpid()}:{secrets.token_hex(3)}"
        self._loop = loop
        self._closing = threading.Event()
        self._ending = threading.Lock()
        self.ways = ways = Ways(settings, self.worker, loop)
        self.memory = memory = Memory(settings, self._begin_work)
        self.hands = memory.hands
        egress = Egress(ways.wechat, memory.gates, self.worker, self.hands.wake)

        def hire(alias: str, gate: Gate) -> TokenKeeper:
            """Return a token keeper for an app."""
            return TokenKeeper(
                ways.loop_client,
                ways.wechat,
                alias,
                settings,
                self.worker,
                ways.peers.server_time,
                gate.breaker.connects,
                egress.heard,
            )

        tokens = {alias: hire(alias, gate) for alias, gate in memory.gates.items()}
        self._splitter = Splitter(ways.client, settings)
        keeper = Keeper(ways.client, settings, ways.broadcasts, self.worker)
        self._errands = Errands()
        self._path = SendPath(
            settings,
            self.worker,
            loop,
            memory,
            ways.broadcasts,
            ways.client,
            ways.taking,
            ways.loop_client,
            ways.wechat,
            tokens,
            egress,
            lambda: ways.peers.alive,
            ways.peers.server_time,
            Edges(
                self._errands,
                settings,
                ways.broadcasts,
                self._splitter,
                keeper.wants,
                memory.wake,
            ),
        )
        self.pump = self._path.pump
        self.rota = Rota(
            settings,
            self.worker,
            loop,
            ways,
            memory,
            self._path,
            tokens,
            hire,
            keeper,
            self._errands,
            self._ended,
            self._outlived,
        )
        self.rota.begin()
        self._figures = Figures(memory, lambda: ways.peers.alive)
        self._figures.begin(settings, self.worker)
        _calm_the_collector()
        lanes = len(settings.layout.lanes)
        logs.emit(WorkerStarted(self.worker, lanes, len(settings.apps), settings.in_flight))

    def _begin_work(self, app: str) -> None:
        self.rota.begin_work(app)  # which there is before anything can be taken

    # -- what actors call -------------------------------------------------------------------

    def send(self, batch: Batch) -> None:
        """Hand a batch to the event loop; returns at once."""
        self._path.start(batch)

    def hand_back(self, batch: Batch) -> None:
        """Return a batch that was never started."""
        self._path.hand_back([claim for claim, _ in batch])

    def split(self, broadcast: str) -> None:
        """Fill the windows of a broadcast in every lane."""
        for lane in self.settings.layout.lanes:
            with Apart().from_others():
                self._splitter.fill(broadcast, lane)

    # -- the end ----------------------------------------------------------------------------

    def _ended(self, part: str, why: str) -> None:
        """End the process: half a worker holds claims that nobody serves."""
        self._end(WorkerBroken(self.worker, part, why), os.EX_SOFTWARE)

    def _outlived(self, why: OutlivedError) -> None:
        """End the process: others will look for its work elsewhere."""
        lanes = len(self.settings.layout.lanes)
        self._end(WorkerOutlived(self.worker, lanes, 0, str(why)), os.EX_TEMPFAIL)

    def _end(self, event: WorkerBroken | WorkerOutlived, code: int) -> None:
        if self._closing.is_set() or self.hands.closing:
            return  # it is ending
        logs.emit(event)
        threading.Thread(target=self._break_off, args=[code], name="end", daemon=True).start()

    def _break_off(self, code: int) -> None:
        """Drain what can be drained, and end with a code that says that nobody asked for it."""
        try:
            self.stop()
        finally:
            logs.close()
            os._exit(code)

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
        self.rota.close()

        def left_s() -> float:
            return min(2.0, max(0.1, started + END_S - time.monotonic()))

        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._close_loops(), self._loop).result(left_s())
        self.rota.join(left_s)
        self.ways.close()
        self._figures.close()
        left = max(0, self.hands.held)
        logs.emit(WorkerStopped(self.worker, left, round(time.monotonic() - started, 3)))

    async def _close_loops(self) -> None:
        await self.rota.end_tasks()
        await self._path.close()
        await self.ways.close_loops(leaves=not self._path.is_busy)
