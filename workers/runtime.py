"""The runtime of a worker process: everything it opens at boot and closes at shutdown.

One resource per concept, opened on Dramatiq's event loop. Boot: settings, logs, Redis, layout,
session, tokens, beat, keeper; then the pump may take. Shutdown (SIGTERM): take nothing more, hand
back what was not posted, wait for the answers of what was (at most 7 s), settle them, leave.

What the threads do: the pump's takes and reserves, the loop posts and settles and beats, the
keeper's does the lanes' duties, the watch looks each second at what concerns this worker, and
another hears wake-ups, which say the same sooner. None of them ends for what a duty raises; should
one end all the same, the process drains and ends, to be started anew from outside.
"""

import asyncio
import contextlib
import gc
import math
import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import redis

from producers import logs, store
from producers.broadcasts import Broadcasts
from producers.broadcasts.split import Splitter
from producers.errors import StoreUnavailableError
from producers.logs.events import (
    CanaryOpened,
    ClaimsForgotten,
    DutyFailed,
    MessagesRecovered,
    StoreUnreachable,
    WorkerBroken,
    WorkerBuried,
    WorkerStarted,
    WorkerStopped,
    WorkerStopping,
)
from producers.settings import Settings
from producers.store import keys
from producers.store.retry import LOST
from workers.duties.epoch import Epochs, ServerChangedError
from workers.duties.keeper import Keeper
from workers.duties.peers import BEAT_S, Peers
from workers.duties.recover import Entry, Recoverer, forgotten
from workers.duties.watch import Watch
from workers.sending.claim import Claim
from workers.sending.consequences import Consequences
from workers.sending.egress import Egress
from workers.sending.gate import Gate
from workers.sending.hands import Hands, room_for
from workers.sending.limiter import Limiter, Penalty
from workers.sending.pump import Batch, Pump
from workers.sending.sender import Sender
from workers.sending.settle import Settler
from workers.sending.stops import Stops
from workers.sending.take import Taker
from workers.sending.turns import Turns
from workers.wechat.client import WeChat
from workers.wechat.tokens import TokenKeeper

LOOK_EVERY_S: Final = 3.0
"""How often a worker looks at what is in flight."""

_TOKEN_MISSING_S: Final = 0.25
_TOKEN_IDLE_S: Final = 200.0
_AT_WORK_S: Final = 10.0
"""An app with nothing to take for so long is not at work: its token is looked at less often."""

_BEAT_AGAIN_S: Final = 0.25
"""A beat that failed is tried again sooner: its silence puts off the burial of others."""

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
        pump: gives batches to the `send` consumer.
        splitter: fills windows, for the `split` actor.
    """

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        self.settings = settings
        self.loop = loop
        self.worker = f"{socket.gethostname()[:32]}:{os.getpid()}:{secrets.token_hex(3)}"
        self.redis = store.connect(settings, role="worker")
        store.check_layout(self.redis, settings)
        self.broadcasts = Broadcasts(self.redis, settings)
        self._epochs = Epochs(self.redis, settings, self.broadcasts)
        self._epochs.begin()
        self.splitter = Splitter(self.redis, settings)
        self.hands = Hands(room_for(settings.in_flight), len(settings.apps))
        self.gates = {alias: Gate(app.rate_per_second) for alias, app in settings.apps.items()}
        self._stops = Stops()
        self._turns = Turns(self._begin_work)
        self._at_work = {alias: asyncio.Event() for alias in settings.apps}
        self._worked_at: dict[str, float] = {}
        self._keeper = Keeper(self.redis, settings, self.broadcasts, self.worker)
        self._recoverer = Recoverer(self.redis, settings, self.broadcasts)
        self._duties: set[tuple[str, ...]] = set()
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="duty")
        self._closing = threading.Event()
        self._ending = threading.Lock()
        self._look_at = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        asyncio.run_coroutine_threadsafe(self._open(), loop).result(30)
        self._taking = store.connect(settings, connections=2, role="worker")
        self._epochs.guard(self._taking)
        taker = Taker(self._taking, settings, self.worker, self.broadcasts.ttl_ms)
        self.pump = Pump(
            settings,
            taker,
            Limiter(self.redis, self.worker),
            self.broadcasts,
            self.gates,
            self._tokens,
            self.hands,
            lambda: self._peers.alive,
            self._hand_back,
            self._fill,
            self._finish,
            self._turns,
            self._stops,
            self._sender.posts,
        )
        self._watch = Watch(self.redis, settings, self._turns, self._stops, self.gates)
        self._look_now = threading.Event()
        self._watching = self._start("watch", self._watch_on)
        self._keeping = self._start("keeper", self._keep)
        self._listening = self._start("wake", self._listen)
        _calm_the_collector()
        logs.emit(
            WorkerStarted(self.worker, settings.lanes, len(settings.apps), settings.in_flight)
        )

    async def _open(self) -> None:
        settings = self.settings
        self._async = store.connect_async(settings)
        self._epochs.guard_async(self._async)
        self._wechat = WeChat(settings)
        self._peers = Peers(self._async, self.worker, list(settings.apps))
        with contextlib.suppress(*LOST):
            await self._peers.beat()
        self._egress = Egress(self._wechat, self.gates, self.worker, self.hands.wake)
        self._tokens = {
            alias: TokenKeeper(
                self._async,
                self._wechat,
                alias,
                settings,
                self.worker,
                self._peers.server_time,
                gate.breaker.connects,
                self._egress.heard,
            )
            for alias, gate in self.gates.items()
        }
        self._settler = Settler(
            self._async,
            settings,
            self.worker,
            self.broadcasts.ttl_ms,
            self.hands,
            self._on_flag,
        )
        consequences = Consequences(
            self._tokens, Penalty(self._async), self.gates, self._peers.server_time
        )
        self._sender = Sender(
            settings,
            self._wechat,
            self._tokens,
            self._egress,
            consequences,
            self.gates,
            self._settler,
            self._stops,
            self._peers.server_time,
            self._async,
            self.worker,
        )
        self._spawn(self._beat_on())
        for alias in settings.apps:
            self._spawn(self._keep_token(alias))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._task_ended)
        self._tasks.append(task)

    # -- what cannot be done without ---------------------------------------------------------

    def _start(self, name: str, work: Callable[[], None]) -> threading.Thread:
        """Start a thread that ends with the process, or the process with it."""

        def run() -> None:
            why = "it returned"
            try:
                work()
            except BaseException as error:  # noqa: BLE001  (whatever it was, the thread is gone)
                why = f"{type(error).__name__}: {error}"
            self._ended(name, why)

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        self._ended("loop", f"{type(error).__name__}: {error}")

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

    # -- what actors call -------------------------------------------------------------------

    def send(self, batch: Batch) -> None:
        """Hand a batch to the event loop; returns at once."""
        self.loop.call_soon_threadsafe(self._sender.start, batch)

    def hand_back(self, batch: Batch) -> None:
        """Return a batch that was never started."""
        self._hand_back([claim for claim, _ in batch])

    def split(self, broadcast: str) -> None:
        """Fill the windows of a broadcast in every lane."""
        for lane in range(self.settings.lanes):
            self.splitter.fill(broadcast, lane)

    # -- duties -----------------------------------------------------------------------------

    def _hand_back(self, claims: list[Claim]) -> None:
        self.loop.call_soon_threadsafe(self._sender.hand_back, claims)

    def _fill(self, broadcast: str, lane: int) -> None:
        self._do(("split", broadcast, str(lane)), lambda: self.splitter.fill(broadcast, lane))

    def _finish(self, broadcast: str) -> None:
        self._do(("finish", broadcast), lambda: self.broadcasts.finish(broadcast))

    def _on_flag(self, app: str, broadcast: str, lane: int, flag: str) -> None:
        if flag in {"closed", "queued"}:
            self._wake(app, lane)
        elif flag == "opened":
            logs.emit(CanaryOpened(app, broadcast, lane))
            others = [other for other in range(self.settings.lanes) if other != lane]
            self._do(("open", broadcast), lambda: self._keeper.open_lanes(app, broadcast, others))
            self._wake(app, lane)
        elif flag == "complete":
            self._finish(broadcast)
        else:
            self._do(("obey", broadcast), lambda: self._keeper.obey(broadcast, lane))

    def _do(self, key: tuple[str, ...], duty: Callable[[], object]) -> None:
        """Run a duty on a thread, unless the same one is already waiting or running."""
        if key in self._duties or self._closing.is_set():
            return
        self._duties.add(key)

        def run() -> None:
            try:
                duty()
            except Exception as error:  # noqa: BLE001  (the keeper repeats it)
                logs.emit(DutyFailed(key[0], -1, type(error).__name__))
            finally:
                self._duties.discard(key)

        self._pool.submit(run)

    def _keep(self) -> None:
        duties = (
            ("begin an epoch", self._epochs.begin),
            ("keep", partial(self._keeper.run_once, patient=True)),
            ("look at flights", self._look_at_flights),
        )
        while not self._closing.wait(1.0):
            self._look_at_itself()
            for name, duty in duties:
                try:
                    duty()
                except Exception as error:  # noqa: BLE001  (the other duties go on)
                    logs.emit(DutyFailed(name, -1, type(error).__name__))
                    if isinstance(error, redis.RedisError | StoreUnavailableError):
                        break  # Redis is away for all of them

    def _look_at_itself(self) -> None:
        """End the process when the event loop or the pump's thread is gone."""
        if not self.loop.is_running():
            self._ended("loop", "it stopped")
        if self.pump.thread is not None and not self.pump.thread.is_alive():
            self._ended("pump", "its thread ended")

    def _watch_on(self) -> None:
        """Look each second at what nobody can lose."""
        while not self._closing.is_set():
            try:
                if self._watch.look():
                    self.hands.wake()
            except Exception as error:  # noqa: BLE001  (the next look may do better)
                logs.emit(DutyFailed("watch", -1, type(error).__name__))
            self._look_now.wait(1.0)
            self._look_now.clear()

    def _listen(self) -> None:
        """Turn wake-ups into wakes; the look each second finds what they do not tell."""
        while not self._closing.is_set():
            try:
                with self.redis.pubsub(ignore_subscribe_messages=True) as wakes:
                    wakes.subscribe(keys.WAKE)
                    while not self._closing.is_set():
                        message = wakes.get_message(timeout=1.0)
                        if message:
                            self._heard(message["data"])
            except Exception as error:  # noqa: BLE001  (it listens again)
                logs.emit(DutyFailed("listen", -1, type(error).__name__))
                self._closing.wait(1.0)

    def _heard(self, text: str) -> None:
        word, _, rest = text.partition(" ")
        if word == "wake" and rest:
            lane, _, app = rest.partition(" ")
            if app in self.gates:
                self._wake(app, int(lane))
        elif word == "wake":  # an earlier version, which does not say where
            for app in self.gates:
                for lane_number in range(self.settings.lanes):
                    self._turns.wake(app, lane_number)
            self.hands.wake()
        elif word == "stop":
            self._stops.stop(rest)
        elif word == "go":
            self._keeper.hear(rest)
            for gate in self.gates.values():
                gate.own_next.pop(rest, None)  # it may have another rate now
        elif word == "rate":
            self._look_now.set()

    def _wake(self, app: str, lane: int) -> None:
        """There may be something to take."""
        self._turns.wake(app, lane)
        self.hands.wake()

    # -- the loop's own ---------------------------------------------------------------------

    async def _beat_on(self) -> None:
        while True:
            started = time.monotonic()
            try:
                for peer, silent_ms in await self._peers.beat():
                    self._do(("recover", peer), partial(self._recover, peer, silent_ms))
                self._epochs.acknowledged(round(self._peers.server_time() * 1000))
                await self._peers.tell_closed(self._troubles())
                again_s = BEAT_S
            except Exception as error:  # noqa: BLE001  (without beats it would be buried)
                logs.emit(StoreUnreachable("beating", type(error).__name__, 1))
                again_s = _BEAT_AGAIN_S
                if isinstance(error, ServerChangedError):
                    self._do(("epoch",), self._epochs.begin)
            await asyncio.sleep(max(0.0, again_s - (time.monotonic() - started)))

    def _troubles(self) -> dict[str, tuple[float, str]]:
        """Return app → since when (monotonic seconds) and why this worker sends nothing of it."""
        found: dict[str, tuple[float, str]] = {}
        for app, gate in self.gates.items():
            if gate.breaker.trouble:
                found[app] = (gate.breaker.since, gate.breaker.trouble)
            elif missing := self._tokens[app].trouble:
                found[app] = missing
        return found

    def _recover(self, peer: str, silent_ms: int) -> None:
        logs.emit(WorkerBuried(self.worker, peer, silent_ms))
        for app, broadcast, lane in self._recoverer.places():
            self._recover_in(app, broadcast, lane, peer)
        self._peers.bury(peer)  # all that it held is back: should this fail, it is tried again

    def _look_at_flights(self) -> None:
        """Level-triggered, every few seconds: orphans, and what this worker has forgotten."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_EVERY_S
        for app, broadcast, lane in self._recoverer.places():
            entries = self._recoverer.entries(broadcast, lane)
            if not entries:
                continue
            now_ms = round(self._peers.server_time() * 1000)
            for dead in self._recoverer.orphans(entries, now_ms):
                self._recover_in(app, broadcast, lane, dead)
            if not self.pump.unknown:
                lost = forgotten(entries, self.worker, set(self.hands.fences(lane)), now_ms)
                self._return(lost, app, broadcast, lane)

    def _return(self, lost: list[Entry], app: str, broadcast: str, lane: int) -> None:
        """Give back what lies under this worker's name and not in its hands.

        It was never posted: whatever was posted is in hand until it is settled. Only a Redis that
        was restarted may have forgotten a settle.
        """
        if not lost:
            return
        changed_ms = self._epochs.changed_at_ms
        unsent = [e.claim(app, lane, broadcast) for e in lost if e.since_ms > changed_ms]
        unsure = [e.claim(app, lane, broadcast) for e in lost if e.since_ms <= changed_ms]
        logs.emit(ClaimsForgotten(self.worker, broadcast, lane, len(unsent), len(unsure)))
        self._hand_back(unsent)
        self.loop.call_soon_threadsafe(self._sender.give_up, unsure)

    def _recover_in(self, app: str, broadcast: str, lane: int, dead: str) -> None:
        self._epochs.begin()  # after a restart what seems unmarked may have been posted
        found = self._recoverer.recover(app, broadcast, lane, dead)
        if any(found):
            logs.emit(MessagesRecovered(broadcast, lane, dead, *found))

    async def _keep_token(self, alias: str) -> None:
        """Tick each second while the app is at work; otherwise now and then, and when it begins."""
        keeper, begins = self._tokens[alias], self._at_work[alias]
        again_s = _TOKEN_MISSING_S
        while True:
            was_ready = keeper.ready is not None
            try:
                await keeper.tick()
            except Exception as error:  # noqa: BLE001  (without a token its app would stand still)
                logs.emit(StoreUnreachable("reading the token", type(error).__name__, 1))
            if keeper.ready is not None and not was_ready:
                self.hands.wake()
            if self._is_at_work(alias):
                again_s = BEAT_S if keeper.ready else _TOKEN_MISSING_S
            else:  # nothing is sent with it: no look before it is to be renewed
                again_s = min(max(2 * again_s, keeper.due_in_s), _TOKEN_IDLE_S)
                again_s *= random.uniform(0.75, 1)  # noqa: S311
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(begins.wait(), again_s)
            begins.clear()

    def _begin_work(self, alias: str) -> None:
        """From any thread: there may be something to take of an app that had nothing."""
        now = time.monotonic()
        before, self._worked_at[alias] = self._worked_at.get(alias, -math.inf), now
        if now - before > _AT_WORK_S:
            self.loop.call_soon_threadsafe(self._at_work[alias].set)

    def _is_at_work(self, alias: str) -> bool:
        since = time.monotonic() - _AT_WORK_S
        return self._worked_at.get(alias, -math.inf) > since or bool(self._turns.lanes(alias))

    # -- the end ----------------------------------------------------------------------------

    def stop(self) -> None:
        """Drain and close: within 10 s nothing is in hand, or recovery has it."""
        with self._ending:
            if not self._closing.is_set():
                self._stop()

    def _stop(self) -> None:
        started = time.monotonic()
        logs.emit(WorkerStopping(self.worker, self.hands.held))
        self.hands.close()
        self.loop.call_soon_threadsafe(self._sender.drain)
        # a take whose reply was lost is asked again: what it claimed must be known, or buried
        while self._busy and time.monotonic() - started < DRAIN_S:
            time.sleep(0.02)
            self.hands.wait_empty(0.1)
            swapped = [self.hands.swapped.popleft() for _ in range(len(self.hands.swapped))]
            if swapped:
                self._hand_back(swapped)
        self._closing.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

        def left_s() -> float:
            return max(0.1, started + END_S - time.monotonic())

        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._close(), self.loop).result(min(2.0, left_s()))
        self._look_now.set()
        for thread in (self._watching, self._keeping, self._listening):
            thread.join(min(2.0, left_s()))
        self._taking.close()
        self.redis.close()
        left = max(0, self.hands.held)
        logs.emit(WorkerStopped(self.worker, left, round(time.monotonic() - started, 3)))

    @property
    def _busy(self) -> bool:
        """Whether claims are in hand, or may lie under this worker's name."""
        return self.hands.held > 0 or self.pump.unknown

    async def _close(self) -> None:
        running = set(self._tasks)
        for _ in range(10):  # a cancellation may be swallowed where a reply comes in with it
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=0.1)
            if not running:
                break
        await self._sender.close()
        await self._settler.close()
        await self._wechat.close()
        if not self._busy:
            with contextlib.suppress(redis.RedisError):
                await self._peers.leave()
        await self._async.aclose()
