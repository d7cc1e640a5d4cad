"""The uptake: apps that come, change and go in their file, while the worker runs.

Each second it looks at the file, and brings what this worker has of each app (gate, token keeper,
places) to what the settings say. Whoever asks the settings themselves follows by that alone: rates
and limits go with each reserve, for instance.

Of an app that goes nothing more is taken or posted at once; what is in hand is settled, and then
all memory of it is dropped. Its broadcasts stay in Redis as they are, and go on when it returns.
Workers whose looks fall apart by a second or two differ for so long: each claims and settles by the
same scripts, and the limiter grants no more than the faster of two rates.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from producers.care.appids import Appids
from producers.lanes.bounds import Bounding
from producers.settings import AppSettings, AppsFile, Settings
from workers.duties.kept_tokens import KeptToken
from workers.duties.runner import Runner
from workers.limits.gate import Gate
from workers.sending.memory import Memory, calendar_of
from workers.sending.send_path import SendPath
from workers.wechat.client import WeChat
from workers.wechat.tokens import TokenKeeper

_LINGERS_S: Final = 10.0
"""An app that went is remembered at least so long: longer than any claim of it lives."""

_OF_CALENDAR: Final = ("send_window", "zone", "window_holds_messages")


class Uptake:
    """One worker's; used by one thread at a time, but for what it has the loop do.

    Args:
        settings: whose apps are taken up.
        file: looked at; None: they never change.
        memory: gates, hands and turns.
        tokens: app → its token keeper; kept so.
        hire: makes a token keeper, of an app and its gate.
        loop: where tokens are kept, and what is taken is posted.
        runner: begins to keep the tokens of an app that came.
        path: serves the apps.
        wechat: calls for them.
        appids: told which there are.
        on_change: called on the loop when they have changed.
        on_hours: called with an app that sends in other hours than before.

    Attributes:
        kept: app → what keeps its token at work.
    """

    name = "take up apps"

    def __init__(
        self,
        settings: Settings,
        file: AppsFile | None,
        memory: Memory,
        tokens: dict[str, TokenKeeper],
        hire: Callable[[str, Gate], TokenKeeper],
        loop: asyncio.AbstractEventLoop,
        runner: Runner,
        path: SendPath,
        wechat: WeChat,
        appids: Appids,
        on_change: Callable[[], None],
        on_hours: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._file = file
        self._memory = memory
        self._tokens = tokens
        self._hire = hire
        self._loop = loop
        self._runner = runner
        self._path = path
        self._wechat = wechat
        self._appids = appids
        self._on_change = on_change
        self._on_hours = on_hours
        self._have: Mapping[str, AppSettings] = settings.apps.now
        self._told: object = None
        self._leaving: dict[str, float] = {}
        self._tasks: dict[str, tuple[KeptToken, asyncio.Task[None]]] = {}
        self.kept = {alias: self._keeping(alias) for alias in tokens}

    def _keeping(self, alias: str) -> KeptToken:
        memory = self._memory
        has_work = partial(memory.turns.lanes, alias)
        return KeptToken(self._tokens[alias], self._loop, has_work, memory.hands.wake)

    def begin(self) -> None:
        """Keep the tokens of all apps; on the loop."""
        self._keep_tokens()

    def _keep_tokens(self) -> None:
        """Keep those of the apps that there are, and no others."""
        kept = dict(self.kept)
        for alias, (one, task) in list(self._tasks.items()):
            if kept.get(alias) is not one:  # it went, and may have come back meanwhile
                del self._tasks[alias]
                task.cancel()
        for alias, one in kept.items():
            if alias not in self._tasks:
                self._tasks[alias] = (one, self._runner.spawn(one))

    def due(self, now: float) -> bool:  # noqa: ARG002
        """Say whether apps may come and go at all, or it is not said yet which there are."""
        return self._file is not None or self._told is not self._settings.apps.now

    def run(self) -> None:
        """Look at the file, and follow it.

        Raises:
            StoreUnavailableError: Redis did not answer when it was told; run it again.
        """
        if self._file is not None:
            self._file.look()
        now = self._settings.apps.now
        if now is not self._have:
            self._follow(now)
        self._forget_who_left(time.monotonic())
        if now is not self._told:
            self._appids.tell(now)
            self._told = now

    def _follow(self, now: Mapping[str, AppSettings]) -> None:
        """Bring this worker to what the settings say; once more changes nothing."""
        before = self._have
        for alias, app in now.items():
            if alias not in self._memory.gates:
                self._come(alias)
            elif alias in self._leaving or before.get(alias) is not app:
                self._change(alias, before.get(alias), app)
        for alias in [one for one in self._memory.gates if one not in now]:
            if alias not in self._leaving:
                self._leave(alias)
        self._have = now
        self._memory.hands.share_by(len(self._memory.gates))
        self._memory.hands.wake()
        self._loop.call_soon_threadsafe(self._follow_on_loop)

    def _follow_on_loop(self) -> None:
        """Do the loop's part, by what is so by now."""
        self._path.serve([*self._memory.gates])
        self._keep_tokens()
        self._on_change()

    def _come(self, alias: str) -> None:
        gate = self._memory.new_gate(alias)
        self._wechat.follow(alias)
        self._tokens[alias] = self._hire(alias, gate)
        self.kept[alias] = self._keeping(alias)
        self._memory.gates[alias] = gate  # the last of all: from now on it may be taken for

    def _change(self, alias: str, before: AppSettings | None, app: AppSettings) -> None:
        self._leaving.pop(alias, None)
        gate = self._memory.gates[alias]
        gate.set_rate(app.rate_per_second)
        gate.ask_anew()
        gate.bounding = Bounding(self._settings, alias)
        if before is None or any(
            getattr(before, name) != getattr(app, name) for name in _OF_CALENDAR
        ):
            gate.calendar = calendar_of(alias, self._settings)
            self._on_hours(alias)
        self._loop.call_soon_threadsafe(self._change_on_loop, alias)

    def _change_on_loop(self, alias: str) -> None:
        keeper, kept = self._tokens.get(alias), self.kept.get(alias)
        if keeper is not None and kept is not None and alias in self._settings.apps:
            self._wechat.follow(alias)
            keeper.follow()
            kept.begin_work()

    def _leave(self, alias: str) -> None:
        self._tokens[alias].retired = True
        self._memory.turns.forget(alias)
        self._leaving[alias] = time.monotonic() + _LINGERS_S

    def _forget_who_left(self, now: float) -> None:
        gone = [
            alias
            for alias, until in self._leaving.items()
            if now >= until and not self._memory.hands.held_of(alias)
        ]
        for alias in gone:
            self._memory.turns.forget(alias)
            for known in (self._memory.gates, self._tokens, self.kept, self._leaving):
                known.pop(alias, None)
            self._memory.hands.forget(alias)
            self._wechat.forget(alias)
        if gone:
            self._memory.hands.share_by(len(self._memory.gates))
            self._loop.call_soon_threadsafe(self._follow_on_loop)
