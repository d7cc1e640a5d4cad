"""A stage: one deployment of a test's own, with its database, its WeChat and its worker units."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
import redis
from cluster import cluster_of, flush, servers
from crash import POST, Backstage, Trap, Way

from producers import store
from producers.audiences import Audiences
from producers.broadcasts import Broadcasts
from producers.broadcasts.spec import Spec
from producers.broadcasts.status import Status
from producers.care.audit import Auditor
from producers.local import procfile
from producers.local.isolation import environment, isolated
from producers.permits.collect import Collector
from producers.permits.ledger import totals
from producers.recipients.doubts import Doubts
from producers.recipients.receipts import Receipts
from producers.sandbox.thread import SandboxThread
from producers.store import keys
from producers.words import ENDED

LANES = 4
"""On a cluster, where a test does not say: they lie on all three nodes."""

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = "T" * 43
DATA = {"template": "a,b,c", "subscribe": {"thing1": "签到提醒", "date2": "2026-11-24"}}


def template_of(app: str) -> str:
    """Return the template of an app."""
    return TEMPLATE if app == "shop" else app.upper()[0] * 43


class Stage:
    """See the module. Its app is `shop`, its users o0 …; `changes` are settings.

    `others` are further apps: alias → settings. Their users are named after them (club0 …), and so
    is their template, so that a fault can be theirs alone.
    """

    def __init__(self, backstage: Backstage, url: str, folder: Path, **changes: Any) -> None:
        self._backstage = backstage
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        apps = {"shop": changes.pop("app", {}), **changes.pop("others", {})}
        fields = {
            "redis_url": url,
            "apps": {
                alias: {"appid": f"wx{number:016}", "secret": f"{alias}-secret", **app}
                for number, (alias, app) in enumerate(apps.items(), 1)
            },
            "buckets": 256,
            "lanes": 1,  # None: not set
            **changes,
        }
        if fields["lanes"] is None:
            del fields["lanes"]
        self._fields = fields
        self.settings = isolated(fields)
        self.client = store.connect(self.settings)
        store.check_layout(self.client, self.settings)
        self.collector = Collector(self.client, self.settings)
        self.audiences = Audiences(self.client, self.settings)
        self.broadcasts = Broadcasts(self.client, self.settings)
        self.doubts = Doubts(self.client, self.settings)
        self.receipts = Receipts(self.client, self.settings)
        self.wechat = SandboxThread()
        self._ways: list[Way] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.logs: list[Path] = []

    def close(self) -> None:
        """End everything."""
        for process in self.processes:
            self.kill(process)
        for way in self._ways:
            self._backstage.run(way.close())
        self.wechat.close()
        self.client.close()
        self.client.connection_pool.disconnect()

    # -- WeChat -----------------------------------------------------------------------------

    @property
    def stats(self) -> dict[str, Any]:
        """All counts of the sandbox."""
        return self.wechat.stats()

    @property
    def accepted(self) -> int:
        """Messages that WeChat took."""
        return self.stats["accepted"]  # type: ignore[no-any-return]

    def listen_at(self, port: int) -> None:
        """Let WeChat be reached at one more port."""
        parts = urlsplit(self.wechat.url)
        nobody = Trap(b"nothing", "before", armed=False)
        way = Way(parts.hostname or "127.0.0.1", parts.port or 80, nobody)
        self._ways.append(way)
        self._backstage.run(way.open(port))

    def revoke_tokens(self) -> None:
        """Stop every access token at once."""
        state = self.wechat._sandbox.state
        self.wechat._call(lambda: state.tokens.revoke(state.now()))

    # -- producers --------------------------------------------------------------------------

    def form_ids(
        self,
        users: int,
        each: int = 1,
        *,
        unknown: Iterable[str] = (),
        given: bool = True,
        app: str = "shop",
    ) -> None:
        """Collect form_ids f0x0 … of users o0 …; WeChat knows all but the unknown ones.

        It knows none when they are not `given`.
        """
        who, what = ("o", "f") if app == "shop" else (app, f"{app}f")
        self.collector.collect(
            app,
            (
                {"openid": f"{who}{user}", "formIds": [f"{what}{user}x{n}" for n in range(each)]}
                for user in range(users)
            ),
        )
        left_out = set(unknown)
        self.wechat.give(
            form_ids=[
                {"openid": f"{who}{user}", "form_id": f"{what}{user}x{n}"}
                for user in range(users)
                for n in range(each)
                if given and f"{what}{user}x{n}" not in left_out
            ]
        )

    def accepts(self, users: int, *, given: bool = True, app: str = "shop") -> None:
        """Collect one accept of each of users o0 …, which WeChat knows of if it is `given`."""
        who, template = "o" if app == "shop" else app, template_of(app)
        self.collector.collect(
            app,
            ({"openid": f"{who}{u}", "subscriptions": {template: "accept"}} for u in range(users)),
        )
        if given:
            self.wechat.give(
                subscriptions=[
                    {"openid": f"{who}{u}", "template_id": template} for u in range(users)
                ]
            )

    def permits(self, channel: str, users: int, *, app: str = "shop") -> None:
        """Collect one permit of each user, for a channel."""
        if channel == "template":
            self.form_ids(users, app=app)
        else:
            self.accepts(users, app=app)

    def spec(self, channel: str = "template", *, app: str = "shop", **changes: Any) -> Spec:
        """Return a spec to everyone."""
        fields: dict[str, Any] = {
            "app": app,
            "channel": channel,
            "template_id": template_of(app),
            "data": DATA[channel],
            "audience": "all",
        }
        return Spec.checked(**{**fields, **changes})

    def create(self, channel: str = "template", **changes: Any) -> str:
        """Create a broadcast to everyone; returns its id."""
        return self.broadcasts.create(self.spec(channel, **changes)).id

    def status(self, broadcast: str) -> Status:
        """Return what a broadcast is doing."""
        return self.broadcasts.status(broadcast)

    def wait(self, broadcast: str, within_s: float = 30) -> Status:
        """Wait until a broadcast has ended and everyone has an outcome."""
        deadline = time.monotonic() + within_s
        while True:
            status = self.status(broadcast)
            if status.state in ENDED and status.complete:
                return status
            if time.monotonic() > deadline:
                pytest.fail(f"the broadcast never ended: {status}\n{self._last_words()}")
            time.sleep(0.05)

    def _last_words(self) -> str:
        """Return how each process stands, and the last that it said."""
        return "\n".join(
            f"{log.name}: {process.poll()}: "
            + "\n".join(line.decode() for line in log.read_bytes().splitlines()[-5:])
            for process, log in zip(self.processes, self.logs, strict=True)
        )

    def ledger(self) -> dict[str, int]:
        """Return collected, spent, void, expired, available and held uses."""
        return totals(self.client, self.settings, "shop").total.as_dict()

    def in_hands(self, broadcast: str) -> dict[str, str]:
        """Return openid → permit of what lies under some worker's name."""
        entries = self._flights(broadcast)
        return {
            item.partition(":")[2]: entry.split(" ")[2]
            for item, entry in entries.items()
            if entry.split(" ")[0] not in {"-", "aside"}
        }

    def posting(self, broadcast: str) -> set[str]:
        """Return the openids of those in hands that were perhaps posted, as far as Redis knows."""
        entries = self._flights(broadcast)
        marked = {item for item, entry in entries.items() if not entry.endswith(" n")}
        return self.in_hands(broadcast).keys() & {item.partition(":")[2] for item in marked}

    def _flights(self, broadcast: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for lane in self.settings.layout.lanes:
            found |= self.client.hgetall(keys.flight(lane, broadcast))
        return found

    def assert_sound(self, broadcast: str, recipients: int) -> None:
        """Nobody twice, nobody forgotten, every permit accounted for."""
        status = self.status(broadcast)
        assert sum(status.outcomes.values()) == status.settled == status.total == recipients
        assert self.stats["duplicates"] == 0, self.stats
        audit = Auditor(self.client, self.settings).run()
        assert audit.broadcasts >= 1
        assert audit.wrong == []
        assert totals(self.client, self.settings, "shop").total.held == 0

    # -- processes --------------------------------------------------------------------------

    def unit(self, trap: Trap | None = None, **env: str) -> "subprocess.Popen[bytes]":
        """Start a worker unit by the Procfile's command, with a trap on its way if there is one."""
        return self._start(procfile.read()["worker"].split(), trap, env)

    def python(self, code: str, trap: Trap) -> "subprocess.Popen[bytes]":
        """Start a process of a backend's own, with a trap on its way."""
        return self._start([sys.executable, "-c", code], trap, {"PYTHONPATH": str(ROOT)})

    def command(self, command: list[str], **env: str) -> "subprocess.Popen[bytes]":
        """Start a command in the environment of a unit."""
        return self._start(command, None, env)

    def _start(
        self, command: list[str], trap: Trap | None, env: dict[str, str]
    ) -> "subprocess.Popen[bytes]":
        redis_url, wechat_url = self._fields["redis_url"], self.wechat.url
        if trap and trap.word == POST:
            wechat_url = f"http://127.0.0.1:{self._lay(wechat_url, trap)}"
        elif trap:
            ports: dict[int, int] = {}
            for server in servers(redis_url):
                ports[urlsplit(server).port or 6379] = self._lay(server, trap, ports)
            for port, way in ports.items():
                redis_url = redis_url.replace(f"127.0.0.1:{port}", f"127.0.0.1:{way}")
        fields = {**self._fields, "redis_url": redis_url, "wechat_url": wechat_url}
        log = self._folder / f"{len(self.logs)}.log"
        with log.open("wb") as out, log.with_suffix(".err").open("wb") as errors:
            process = subprocess.Popen(
                command,
                stdout=out,
                stderr=errors,
                cwd=self._folder,
                start_new_session=True,
                env=environment(fields) | env,
            )
        if trap:
            trap.process = process
        self.processes.append(process)
        self.logs.append(log)
        return process

    def _lay(self, url: str, trap: Trap, ports: dict[int, int] | None = None) -> int:
        parts = urlsplit(url)
        way = Way(parts.hostname or "127.0.0.1", parts.port or 6379, trap, ports)
        self._ways.append(way)
        return self._backstage.run(way.open())

    @staticmethod
    def kill(process: "subprocess.Popen[bytes]", number: int = signal.SIGKILL) -> None:
        """Send a signal to the whole group of a process."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        if number == signal.SIGKILL:
            process.wait(15)

    def lines(self, event: str = "") -> list[dict[str, Any]]:
        """Return what the units have logged, of one event or of all."""
        rows = [
            orjson.loads(line)
            for log in self.logs
            for line in log.read_bytes().splitlines()
            if line.endswith(b"}") and line.startswith(b"{")
        ]
        return [row for row in rows if not event or row.get("event") == event]


class Stages:
    """A maker of stages, each on an empty database of its own; `close` ends them all.

    Args:
        url: a Valkey.
        folder: for the units' files.
        **defaults: settings of the stages that are not told otherwise.
    """

    def __init__(self, url: str, folder: Path, **defaults: Any) -> None:
        self._backstage = Backstage()
        self._url = url
        self._folder = folder
        self._defaults = defaults
        self._made: list[Stage] = []
        self._clusters = contextlib.ExitStack()

    def __call__(self, **changes: Any) -> Stage:
        """Make one."""
        number = len(self._made)
        if servers(self._url) == [self._url]:
            url = f"{self._url}/{number}"
            with redis.Redis.from_url(url) as client:
                client.flushdb()
        else:
            url = self._url if number == 0 else self._clusters.enter_context(cluster_of(3)).url
            flush(url)
            if changes.setdefault("lanes", 1) == 1:
                changes["lanes"] = LANES
        folder = self._folder / f"stage-{number}"
        self._made.append(Stage(self._backstage, url, folder, **{**self._defaults, **changes}))
        return self._made[-1]

    def close(self) -> None:
        """End everything."""
        for stage in self._made:
            stage.close()
        self._backstage.close()
        self._clusters.close()


@contextlib.contextmanager
def stages_at(url: str, folder: Path, **defaults: Any) -> Iterator[Stages]:
    """Give a maker of stages that ends with the block."""
    stages = Stages(url, folder, **defaults)
    try:
        yield stages
    finally:
        stages.close()
