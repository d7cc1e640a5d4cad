"""Real parts: the sandbox as a process, worker units by the Procfile's command, killed for real."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis

from producers.audiences import Audiences
from producers.broadcasts import Broadcasts
from producers.broadcasts.status import Status
from producers.permits.collect import Collector
from producers.permits.ledger import totals
from producers.settings import Settings
from producers.words import ENDED

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


class LocalWeChat:
    """A sandbox in a process of its own, steered over its control API."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.process = process
        self.url = url

    def ask(self, path: str, body: Any = None) -> Any:
        """Call the control API."""
        import urllib.request  # noqa: PLC0415

        data = None if body is None else orjson.dumps(body)
        with urllib.request.urlopen(f"{self.url}/_sandbox/{path}", data, timeout=20) as answer:  # noqa: S310
            return orjson.loads(answer.read())

    def give_form_ids(self, form_ids: dict[str, str]) -> None:
        """Hand out form_ids: form_id → openid."""
        self.ask(
            "permits",
            {"form_ids": [{"openid": o, "form_id": f} for f, o in form_ids.items()]},
        )

    @property
    def stats(self) -> dict[str, Any]:
        """All counts."""
        return self.ask("stats")  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def _wechat_process() -> Iterator[LocalWeChat]:
    code = "from producers.sandbox import run, SandboxConfig; run('127.0.0.1', 0, SandboxConfig())"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout
        url = orjson.loads(process.stdout.readline())["url"]
        yield LocalWeChat(process, url)
        process.terminate()


@pytest.fixture
def wechat(_wechat_process: LocalWeChat) -> LocalWeChat:
    """Give a sandbox that has forgotten everything."""
    _wechat_process.ask("reset", {})
    return _wechat_process


class Units:
    """Worker units, each the Procfile's command in a process group of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.env: dict[str, str] = {}
        self.running: list[subprocess.Popen[bytes]] = []
        self.logs: list[Path] = []

    def start(self, settings: Settings, wechat: LocalWeChat, **env: str) -> subprocess.Popen[bytes]:
        """Start one unit."""
        app = settings.apps["shop"]
        log = self._folder / f"unit-{len(self.logs)}.log"
        line = (ROOT / "Procfile").read_text().splitlines()
        command = next(entry for entry in line if entry.startswith("worker:")).split()[1:]
        with log.open("wb") as out, log.with_suffix(".err").open("wb") as errors:
            unit = subprocess.Popen(
                command,
                stdout=out,
                stderr=errors,
                cwd=self._folder,
                start_new_session=True,
                env={
                    "PATH": f"{BIN}:{os.environ['PATH']}",
                    "WXB_REDIS_URL": settings.redis_url.get_secret_value(),
                    "WXB_WECHAT_URL": wechat.url,
                    "WXB_APPS": orjson.dumps(
                        {
                            "shop": {
                                **app.model_dump(mode="json"),
                                "secret": app.secret.get_secret_value(),
                            }
                        }
                    ).decode(),
                    "WXB_LANES": str(settings.lanes),
                    "WXB_BUCKETS": str(settings.buckets),
                    "WXB_CANARY": str(settings.canary),
                    **env,
                },
            )
        self.running.append(unit)
        self.logs.append(log)
        return unit

    def kill(self, unit: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
        """Send a signal to all processes of a unit (to its master alone, for SIGTERM)."""
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(unit.pid, number)
            else:
                os.kill(unit.pid, number)
        if number in {signal.SIGKILL, signal.SIGTERM}:
            unit.wait(15)

    def lines(self, event: str = "") -> list[dict[str, Any]]:
        """Return what the units have logged, of one event or of all."""
        rows = [
            orjson.loads(line)
            for log in self.logs
            for line in log.read_bytes().splitlines()
            if line.endswith(b"}")
        ]
        return [row for row in rows if not event or row["event"] == event]


@pytest.fixture
def units(tmp_path: Path) -> Iterator[Units]:
    """Give a starter of worker units; none is left behind."""
    units = Units(tmp_path)
    yield units
    for unit in units.running:
        units.kill(unit)


class Shop:
    """The producers of the app `shop`, and how its permits stand."""

    def __init__(self, client: "redis.Redis", settings: Settings, wechat: LocalWeChat) -> None:
        self.client = client
        self.settings = settings
        self.wechat = wechat
        self.collector = Collector(client, settings)
        self.audiences = Audiences(client, settings)
        self.broadcasts = Broadcasts(client, settings)

    def collect_form_ids(self, users: int, each: int = 1, *, given: bool = True) -> dict[str, str]:
        """Collect form_ids of users o0 …, and let WeChat know them; returns form_id → openid."""
        form_ids = {f"f{user}x{n}": f"o{user}" for user in range(users) for n in range(each)}
        self.collector.collect(
            "shop",
            (
                {"openid": f"o{user}", "formIds": [f"f{user}x{n}" for n in range(each)]}
                for user in range(users)
            ),
        )
        if given:
            self.wechat.give_form_ids(form_ids)
        return form_ids

    def collect_subscriptions(self, users: int, template: str, *, given: bool = True) -> None:
        """Collect one accept of each of users o0 … on."""
        self.collector.collect(
            "shop",
            ({"openid": f"o{u}", "subscriptions": {template: "accept"}} for u in range(users)),
        )
        if given:
            self.wechat.ask(
                "permits",
                {
                    "subscriptions": [
                        {"openid": f"o{u}", "template_id": template} for u in range(users)
                    ]
                },
            )

    def ledger(self) -> dict[str, int]:
        """Return collected, spent, void, expired, available and held uses."""
        return totals(self.client, self.settings, "shop").total.as_dict()

    def wait(self, broadcast: str, within_s: float = 25) -> Status:
        """Wait until a broadcast has ended and everyone has an outcome."""
        deadline = time.monotonic() + within_s
        while True:
            status = self.broadcasts.status(broadcast)
            if status.state in ENDED and status.complete:
                return status
            if time.monotonic() > deadline:
                pytest.fail(f"the broadcast never ended: {status}")
            time.sleep(0.05)


@pytest.fixture
def shop(client: "redis.Redis", settings: Settings, wechat: LocalWeChat) -> Shop:
    """Give the producers of the app `shop`."""
    return Shop(client, settings, wechat)


@pytest.fixture
def slow_shop(
    client: "redis.Redis", make_settings: Callable[..., Settings], wechat: LocalWeChat
) -> Shop:
    """Give the producers of a `shop` that sends 300 a second: slow enough to step in."""
    return Shop(client, make_settings(app={"rate_per_second": 300}), wechat)
