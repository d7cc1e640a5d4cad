"""The way out: what became of this worker's calls to an app's WeChat opens and closes its gate.

Sends and token calls report here; the app's `breaker` decides. While no connection comes up, one is
tried again and again without a message.
"""

import asyncio
import time
from collections.abc import Callable, Mapping

from producers import logs
from producers.logs.events import GateClosed, GateOpened
from workers.limits.breaker import Breaker, Trouble
from workers.limits.gate import Gate
from workers.wechat.client import WeChat
from workers.wechat.reply import Fate, Reply


class Egress:
    """One worker's way out, for all apps; belongs to one event loop.

    Args:
        wechat: tries connections.
        gates: app → its gate, whose breaker is fed.
        worker: this worker's id.
        wake: called when something may be taken again.
    """

    def __init__(
        self,
        wechat: WeChat,
        gates: Mapping[str, Gate],
        worker: str,
        wake: Callable[[], None],
    ) -> None:
        self._wechat = wechat
        self._gates = gates
        self._worker = worker
        self._wake = wake
        self._connecting: set[asyncio.Task[None]] = set()
        self._draining = False

    def note(self, app: str, reply: Reply) -> None:
        """Note what became of a send: close the gate of an app that is out of reach, or open it."""
        now = time.monotonic()
        breaker = self._gates[app].breaker
        trouble = breaker.trouble
        if reply.fate is Fate.ANSWERED:
            if breaker.answered() and trouble:
                self._opened(app, breaker, trouble)
            return
        if reply.fate is Fate.UNSENT:
            if breaker.unsent(now):
                task = asyncio.get_running_loop().create_task(self._connect(app, breaker))
                self._connecting.add(task)
                task.add_done_callback(self._connecting.discard)
        else:
            breaker.unanswered(now)
        if breaker.trouble and not trouble:
            logs.emit(GateClosed(self._worker, app, breaker.trouble, reply.errmsg))

    def heard(self, app: str, fate: Fate, error: str) -> None:
        """Note what became of a token call: without a connection no send would come through."""
        breaker = self._gates[app].breaker
        trouble = breaker.trouble
        if fate is Fate.UNSENT:
            self.note(app, Reply(fate, errmsg=error))
        elif fate is Fate.ANSWERED and trouble and breaker.heard():
            self._opened(app, breaker, trouble)

    def drain(self) -> None:
        """Try no more connections."""
        self._draining = True

    def close(self) -> None:
        """End what is being tried."""
        for task in self._connecting:
            task.cancel()

    def _opened(self, app: str, breaker: Breaker, trouble: Trouble) -> None:
        closed_ms = round((time.monotonic() - breaker.since) * 1000)
        logs.emit(GateOpened(self._worker, app, trouble, closed_ms))
        self._wake()

    async def _connect(self, app: str, breaker: Breaker) -> None:
        """Try connections until one comes up; at once, unless the last trouble just ended."""
        pause_s = breaker.pause_s() if breaker.probed else 0.0
        while not breaker.connects() and not self._draining and app in self._gates:
            await asyncio.sleep(pause_s)
            if await self._wechat.reaches(app):
                breaker.connected(time.monotonic())
                self._wake()
            pause_s = breaker.pause_s()
