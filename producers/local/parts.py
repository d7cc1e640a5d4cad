"""The parts of a show, demo or chaos: the sandbox and the workers as processes, with settings."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

from producers.broadcasts.status import Status
from producers.errors import WxbroadcastError
from producers.local import procfile, supervisor
from producers.local.isolation import Isolated, environment
from producers.local.supervisor import Supervisor
from producers.logs.events import UnitEnded
from producers.sandbox.control.client import SandboxClient
from producers.settings import Settings
from producers.store import Client, keys
from producers.words import Channel

APP: Final = "demo"
START_S: Final = 30.0
"""Longest start of the sandbox, or of the workers: imports on a busy machine."""


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
        metrics_port: where the first worker tells its figures; 0: nowhere.
        replicas: replicas of Redis that claims and outcomes wait for.
    """

    recipients: int = 2000
    rate: float = 300
    channel: Channel = Channel.TEMPLATE
    units: int = 2
    lanes: int = 1
    latency_ms: float = 20
    logs: Path | None = None
    metrics_port: int = 0
    replicas: int = 0


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
        "metrics_port": plan.metrics_port,
        "lanes": plan.lanes,
        "redis_replicas": plan.replicas,
        "buckets": -(-16384 // plan.lanes) * plan.lanes,
    }


def settings_of(plan: Plan, redis_url: str, wechat_url: str) -> Settings:
    """Return the settings of a demo; nothing of the shell's is in them."""
    return Isolated(**_fields(plan, redis_url, wechat_url))


def environment_of(plan: Plan, settings: Settings) -> dict[str, str]:
    """Return the environment of a process that has these settings of a demo."""
    redis_url = settings.redis_url.get_secret_value()
    return environment(_fields(plan, redis_url, str(settings.wechat_url).rstrip("/")))


@contextlib.contextmanager
def sandbox(plan: Plan, folder: Path, watcher: Watcher) -> Iterator[SandboxClient]:
    """Run the sandbox as a process, and wait until it listens.

    Raises:
        DemoError: it did not start, or a call to it failed within the context.
    """
    told = folder / "sandbox.log"
    command = [sys.executable, "-m", "producers.cli", "sandbox", "--port", "0"]
    command += ["--latency-ms", str(plan.latency_ms), "--permits", "given"]
    with told.open("wb") as output:
        process = supervisor.spawn(command, environment(), folder, output)
    try:
        deadline = time.monotonic() + START_S
        while b"\n" not in (text := told.read_bytes()):
            if process.poll() is not None or time.monotonic() > deadline:
                raise DemoError(f"the sandbox did not start: {text.decode(errors='replace')}")
            watcher.wait(0.02)
        with contextlib.closing(SandboxClient(orjson.loads(text.splitlines()[0])["url"])) as client:
            yield client
    except OSError as error:
        raise DemoError(f"the sandbox does not answer any more ({error})") from error
    finally:
        supervisor.end(process)


@contextlib.contextmanager
def workers(
    plan: Plan, folder: Path, settings: Settings, watcher: Watcher, options: str = ""
) -> Iterator[Supervisor]:
    """Run worker units by the Procfile's own command; log lines go where `log_of` says.

    Args:
        plan: how many, and their settings.
        folder: their working directory.
        settings: where Redis and the sandbox are.
        watcher: told of units that end.
        options: more options of that command.
    """
    command = f"{procfile.read()['worker']} {options}".rstrip()
    with log_of(plan, folder).open("ab") as output:
        units = Supervisor(environment_of(plan, settings), folder, output, told(watcher))
        try:
            for number in range(plan.units):
                units.start(f"worker.{number + 1}", command)
            yield units
        finally:
            units.stop()


def told(watcher: Watcher) -> Callable[[UnitEnded], None]:
    """Return who is told of a unit that ended, and tells the watcher."""
    return lambda end: watcher.say(f"{end.unit} ended ({end.exit_code}); it starts again")


def log_of(plan: Plan, folder: Path) -> Path:
    """Return the file of the workers' log lines."""
    return plan.logs or folder / "workers.log"


def tail_of(plan: Plan, folder: Path) -> str:
    """Return the workers' last log lines."""
    lines = log_of(plan, folder).read_bytes().splitlines()
    return b"\n".join(lines[-5:]).decode(errors="replace") or "no log line"


def await_workers(plan: Plan, folder: Path, client: Client, watcher: Watcher) -> None:
    """Wait until every unit beats.

    Raises:
        DemoError: not in time.
    """
    deadline = time.monotonic() + START_S
    while client.zcard(keys.WORKERS) < plan.units:
        if time.monotonic() > deadline:
            raise DemoError(f"the workers did not start: {tail_of(plan, folder)}")
        watcher.wait(0.05)
