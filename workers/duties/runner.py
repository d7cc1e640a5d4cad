"""The runner: threads and tasks that do duties again and again, and end the process if they end.

A duty looks at what is, so that one more run harms nothing and a failed one is made good by the
next: what it raises is logged, and ends nobody. Should a thread or a task end all the same, its
duties would be done by no one, and this worker would hold claims that nobody serves: whoever made
the runner is told, to end the process.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import redis

from producers import logs
from producers.errors import StoreUnavailableError
from producers.logs.events import DutyFailed
from workers.lanes.divided import is_divided

_AGAIN_S: Final = 1.0
"""After a failed run, where a thread does not pause by itself."""

_CANCELS: Final = 10


class Duty(Protocol):
    """Something to be done by level, on a thread."""

    @property
    def name(self) -> str:
        """What it is called in the log when it fails."""

    def due(self, now: float) -> bool:
        """Say whether something is to be done (monotonic seconds)."""

    def run(self) -> None:
        """Do it once; bounded."""


class LoopDuty(Protocol):
    """Something to be done by level, on the event loop; it lets nothing out of `run`."""

    def due(self, now: float) -> bool:
        """Say whether something is to be done (monotonic seconds)."""

    async def run(self) -> None:
        """Do it once; bounded."""

    async def rest(self) -> None:
        """Sleep until it may be due."""


class Round:
    """Duties that one thread does in turn.

    Args:
        name: of the thread.
        duties: in their order; when Redis fails one, the rest waits for the next time,
            unless they are `apart`.
        every_s: the pause after each time; 0: the duties wait by themselves.
        at_once: the first time is without a pause.
        alarm_at: says when a duty wants to be done before that (monotonic s).
        apart: Redis has several nodes: the rest does not wait when it fails one.
    """

    def __init__(
        self,
        name: str,
        duties: Sequence[Duty],
        every_s: float,
        *,
        at_once: bool = True,
        alarm_at: Callable[[], float] = lambda: math.inf,
        apart: bool = False,
    ) -> None:
        self.name = name
        self._apart = apart
        self._duties = duties
        self._every_s = every_s
        self._alarm_at = alarm_at
        self._hurried = threading.Event()
        self._closing = False
        if at_once:
            self._hurried.set()

    def hurry(self) -> None:
        """Do the next one now."""
        self._hurried.set()

    def close(self) -> None:
        """Return from `go_on` when what is being done is done."""
        self._closing = True
        self._hurried.set()

    def go_on(self) -> None:
        """Do the duties again and again, until it is closed."""
        pause_s = self._every_s
        while True:
            self._hurried.wait(min(pause_s, max(0.0, self._alarm_at() - time.monotonic())))
            self._hurried.clear()
            if self._closing:
                return
            failed = not self.run_once()
            pause_s = self._every_s or (_AGAIN_S if failed else 0.0)

    def run_once(self) -> bool:
        """Do what is due; returns whether nothing failed."""
        sound = True
        for duty in self._duties:
            try:
                if duty.due(time.monotonic()):
                    duty.run()
            except Exception as error:  # noqa: BLE001  (the other duties go on)
                if is_divided(error):
                    continue  # it comes again in a moment
                logs.emit(DutyFailed(duty.name, -1, type(error).__name__))
                sound = False
                away = isinstance(error, redis.RedisError | StoreUnavailableError)
                if away and not self._apart:
                    break  # Redis is away for all of them
        return sound


class Runner:
    """The threads and tasks of one worker.

    Args:
        ended: called with a thread's name, or ``loop``, and why it ended; not after `close`.
    """

    def __init__(self, ended: Callable[[str, str], None]) -> None:
        self._ended = ended
        self._closing = False
        self._rounds: list[Round] = []
        self._threads: list[threading.Thread] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, duties: Round) -> None:
        """Do a round of duties on a thread."""

        def run() -> None:
            why = "it returned"
            try:
                duties.go_on()
            except BaseException as error:  # noqa: BLE001  (whatever it was, the thread is gone)
                why = f"{type(error).__name__}: {error}"
            if not self._closing:
                self._ended(duties.name, why)

        thread = threading.Thread(target=run, name=duties.name, daemon=True)
        self._rounds.append(duties)
        self._threads.append(thread)
        thread.start()

    def spawn(self, duty: LoopDuty) -> asyncio.Task[None]:
        """Do a duty on the running loop, until the task is cancelled."""
        task = asyncio.get_running_loop().create_task(_go_on(duty))
        task.add_done_callback(self._task_ended)
        self._tasks.add(task)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or self._closing:
            return
        error = task.exception()
        self._ended("loop", f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Begin nothing more; from any thread."""
        self._closing = True
        for duties in self._rounds:
            duties.close()

    async def end_tasks(self) -> None:
        """End the tasks, on their loop."""
        running = set(self._tasks)
        for _ in range(_CANCELS):  # a library may swallow one where a reply comes in with it
            if not running:
                return
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=0.1)

    def join(self, left_s: Callable[[], float]) -> None:
        """Wait for the threads, for each as long as is left."""
        for thread in self._threads:
            thread.join(left_s())


async def _go_on(duty: LoopDuty) -> None:
    while True:
        if duty.due(time.monotonic()):
            await duty.run()
        await duty.rest()
