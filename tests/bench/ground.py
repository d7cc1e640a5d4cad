"""The ground of a benchmark: Valkey, WeChat and workers, each a process; users with permits.

Cores: a worker that is measured runs on core 0 alone, all else (Valkey, WeChat, this process) on
the others, so that one worker has one core whatever the rest does. With one core there is no
pinning.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

import orjson

from producers import store
from producers.audiences import Audiences
from producers.broadcasts import Broadcasts
from producers.broadcasts.spec import Spec
from producers.broadcasts.status import Status
from producers.local import embedded, procfile, supervisor
from producers.local.isolation import Isolated, environment
from producers.logs.events import UnitEnded
from producers.permits.collect import Collector
from producers.permits.ledger import totals
from producers.sandbox.control.client import SandboxClient
from producers.settings import Settings
from producers.store import keys
from producers.words import ENDED, State

from .cost import cpu_s
from .figures import must

ROOT: Final = Path(__file__).resolve().parents[2]
APP: Final = "bench"
TEMPLATE: Final = "T" * 43
_START_S: Final = 60.0

CORES: Final = sorted(os.sched_getaffinity(0))
MEASURED: Final = CORES[:1]
"""Where one measured process runs."""
OTHERS: Final = CORES[1:] or CORES
"""Where all else runs."""


def openid(user: int, group: str = "BENCH") -> str:
    """Return an openid of the usual length."""
    return f"o{group}{user:0{27 - len(group)}d}"


def form_id(user: int, given: int) -> str:
    """Return a form_id of the usual length; ``given`` tells a user's several ones apart."""
    return f"{given:08x}{user:024x}"


def spec(audience: str = "all", **changes: Any) -> Spec:
    """Return a usual message."""
    fields: dict[str, Any] = {
        "app": APP,
        "channel": "template",
        "template_id": TEMPLATE,
        "data": {"keyword1": "每日签到", "keyword2": "已连续签到 6 天, 今天别断"},
        "page": "pages/checkin/index",
        "audience": audience,
    }
    return Spec.checked(**{**fields, **changes})


def fields(redis_url: str, wechat_url: str, **changes: Any) -> dict[str, Any]:
    """Return settings as fields: no rate limit, all else as a deployment has it."""
    app = {"appid": "wx00000000000000be", "secret": "bench", "rate_per_second": 0}
    app |= changes.pop("app", {})
    return {"redis_url": redis_url, "wechat_url": wechat_url, "apps": {APP: app}, **changes}


def settings(redis_url: str, wechat_url: str, **changes: Any) -> Settings:
    """Return the settings; nothing of the shell's is in them."""
    return Isolated(**fields(redis_url, wechat_url, **changes))


@contextlib.contextmanager
def on(cores: Sequence[int]) -> Iterator[None]:
    """Start processes on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Ground:
    """See the module. Everything in it ends with it.

    Attributes:
        folder: for files that are gone afterwards.
        wechat: control of the WeChat.
        tls_url: the same WeChat by TLS.
        ca_file: what it is to be trusted by.
        changes: settings that differ from `fields`.
    """

    def __init__(
        self,
        stack: contextlib.ExitStack,
        folder: Path,
        redis_url: str,
        wechat_url: str,
        tls_url: str,
        ca_file: Path,
    ) -> None:
        self._stack = stack
        self.folder = folder
        self.redis_url = redis_url
        self.wechat_url = wechat_url
        self.tls_url = tls_url
        self.ca_file = ca_file
        self.wechat = SandboxClient(wechat_url)
        stack.callback(self.wechat.close)
        self._logs = 0
        self.use()

    def use(self, **changes: Any) -> None:
        """Begin anew with other settings, on an empty database."""
        self.changes = changes
        self.settings = settings(self.redis_url, self.wechat_url, **changes)
        self.client = store.connect(self.settings)
        self._stack.callback(self.client.connection_pool.disconnect)
        for node in store.nodes_of(self.client).values():
            node.flushall()
        store.check_layout(self.client, self.settings)
        self.broadcasts = Broadcasts(self.client, self.settings)
        self.collector = Collector(self.client, self.settings)
        self.audiences = Audiences(self.client, self.settings)
        self.wechat.post("reset", {})

    def give(self, users: int, given: int, *, group: str = "BENCH", app: str = APP) -> None:
        """Collect one form_id of each user."""
        lines = (
            b'{"openid":"%b","formId":"%b"}'
            % (openid(user, group).encode(), form_id(user, given).encode())
            for user in range(users)
        )
        report = self.collector.collect_lines(app, lines)
        must(report.new == users, f"collected {report.new:,} of {users:,} permits")

    def invite(
        self, name: str, users: int, *, group: str = "BENCH", app: str = APP, first: int = 0
    ) -> None:
        """Import an audience of the first users."""
        rows = (openid(user, group).encode() for user in range(first, first + users))
        report = self.audiences.import_rows(app, name, rows)
        must(report.added == users, f"imported {report.added:,} of {users:,} openids")

    @contextlib.contextmanager
    def workers(
        self,
        units: int = 1,
        *,
        cores: Sequence[int] = MEASURED,
        command: str = "",
        **env: str,
    ) -> Iterator["Workers"]:
        """Run worker units by the Procfile's command, and wait until each beats."""
        given = environment(fields(self.redis_url, self.wechat_url, **self.changes)) | env
        command = command or procfile.read()["worker"]
        self.client.delete(keys.WORKERS)
        with self.units(command, units, cores, given) as workers:
            self._await(workers, units)
            yield workers

    @contextlib.contextmanager
    def units(
        self, command: str, units: int, cores: Sequence[int], env: dict[str, str]
    ) -> Iterator["Workers"]:
        """Run a command some times over; the lines of each go through a pipe to a file."""
        given = environment() | {"PYTHONPATH": str(ROOT)} | env
        workers = Workers()
        with contextlib.ExitStack() as stack:
            for number in range(units):
                self._logs += 1
                log = self.folder / f"unit-{self._logs}.log"
                pipe = stack.enter_context(drained(log))
                unit = supervisor.Supervisor(given, self.folder, pipe, workers.ended.append)
                workers.add(unit, log)
                # killed in the end: whoever comes next begins on an empty database
                stack.callback(unit.stop, patience_s=0)
                with on(cores):
                    unit.start(f"worker.{number + 1}", command)
            yield workers
        must(not workers.ended, f"a worker ended: {workers.ended}: {workers.tail()}")

    def _await(self, workers: "Workers", units: int) -> None:
        deadline = time.monotonic() + _START_S
        while self.client.zcard(keys.WORKERS) < units:
            must(time.monotonic() < deadline, f"the workers did not start: {workers.tail()}")
            time.sleep(0.05)

    def redis_cpu_s(self) -> float:
        """Return what Valkey cost so far: all that serve."""
        return sum(map(self.cpu_s_of, store.nodes_of(self.client).values()))

    @staticmethod
    def cpu_s_of(node: store.Client) -> float:
        """Return what one server cost so far."""
        used = node.info("cpu")
        return float(used["used_cpu_user"] + used["used_cpu_sys"])

    def finish(self, broadcast: str, *, standstill_s: float = 30) -> Status:
        """Wait until a broadcast has ended with an outcome for everyone, while it goes on."""
        settled, deadline = -1, 0.0
        while True:
            status = self.broadcasts.status(broadcast)
            if status.state in ENDED and status.complete:
                return status
            if status.settled > settled:
                settled, deadline = status.settled, time.monotonic() + standstill_s
            must(status.state is not State.PAUSED, f"it was paused: {status}")
            must(time.monotonic() < deadline, f"it stands still: {status}")
            time.sleep(0.1)

    def check(self, status: Status, recipients: int) -> dict[str, Any]:
        """Check that each was delivered once: by our outcomes, the ledger, and WeChat's count."""
        must(
            status.outcomes == {"delivered": recipients} and status.total == recipients,
            f"not all delivered: {status.outcomes} of {recipients:,}",
        )
        return self.check_arrived(recipients, recipients)

    def check_arrived(self, expected: int, delivered: int) -> dict[str, Any]:
        """Check WeChat's count, and the ledger: nobody twice, no permit twice, none held.

        Args:
            expected: sends that should have arrived since WeChat's last reset.
            delivered: recipients that our outcomes call so.
        """
        seen: dict[str, Any] = self.wechat.get("stats")
        must(
            seen["accepted"] == seen["openids"] == delivered == expected
            and not seen["form_ids_twice"],
            f"WeChat saw {seen}, we {delivered:,}, of {expected:,}",
        )
        uses = totals(self.client, self.settings, APP).total
        must(not uses.held, f"{uses.held:,} permits are held still")
        return seen

    def arrivals(self, prefix: str = "") -> list[float]:
        """Return when each send to openids that begin so arrived: epoch seconds, ascending."""
        times: list[float] = self.wechat.get(f"times?prefix={prefix}")
        return times


class Workers:
    """Worker units that run, each with a pipe of its own for its lines.

    Attributes:
        ended: those that ended before their time.
    """

    def __init__(self) -> None:
        self._units: list[supervisor.Supervisor] = []
        self._logs: list[Path] = []
        self.ended: list[UnitEnded] = []

    def add(self, unit: supervisor.Supervisor, log: Path) -> None:
        """Add one unit, the only one of its supervisor, and the file of its lines."""
        self._units.append(unit)
        self._logs.append(log)

    @property
    def pids(self) -> list[int]:
        """Every process of every unit."""
        return [pid for pids in self._pids for pid in pids]

    @property
    def busy_pids(self) -> list[int]:
        """The process of each unit that works: the one that has used the most."""
        return [max(pids, key=lambda pid: cpu_s([pid])) for pids in self._pids]

    @property
    def _pids(self) -> list[list[int]]:
        return [unit.pids(name) for unit in self._units for name in unit.units]

    def cpu_s(self) -> float:
        """What they cost so far."""
        must(not self.ended, f"a worker ended: {self.ended}")
        return cpu_s(self.pids)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process."""
        for unit in self._units:
            for name in unit.units:
                unit.kill(name, number)

    def read(self) -> bytes:
        """Return all lines that they have written."""
        return b"".join(log.read_bytes() for log in self._logs)

    def tail(self) -> str:
        """Return the last lines of each."""
        return "".join(log.read_bytes()[-2000:].decode(errors="replace") for log in self._logs)


@contextlib.contextmanager
def drained(log: Path) -> Iterator[IO[bytes]]:
    """Give a pipe that `cat` drains into a file, as a log shipper would."""
    with log.open("wb") as file, on(OTHERS):
        shipper = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file)
    assert shipper.stdin
    try:
        yield shipper.stdin
    finally:
        shipper.stdin.close()
        shipper.wait(30)


@contextlib.contextmanager
def laid(folder: Path) -> Iterator[Ground]:
    """Lay the ground: start Valkey (append-only file, synced every second) and WeChat."""
    with contextlib.ExitStack() as stack:
        with on(OTHERS):
            redis_url = stack.enter_context(embedded.valkey(folder / "valkey"))
            wechat = subprocess.Popen(
                [sys.executable, "-m", "tests.bench.wechat", str(folder / "tls")],
                stdout=subprocess.PIPE,
                cwd=ROOT,
            )
        stack.callback(wechat.wait)
        stack.callback(wechat.terminate)
        assert wechat.stdout
        stack.callback(wechat.stdout.close)
        at = orjson.loads(wechat.stdout.readline())
        with on(OTHERS):  # whatever this thread starts or does later
            yield Ground(
                stack, folder, redis_url, at["url"], at["tls_url"], folder / "tls" / "cert.pem"
            )


class Told:
    """A process that is told by JSON lines and answers by them (`floor`)."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self._lock = threading.Lock()

    def ask(self, **what: Any) -> Any:
        """Tell it, and wait for its answer."""
        assert self.process.stdin
        assert self.process.stdout
        with self._lock:
            self.process.stdin.write(orjson.dumps(what) + b"\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        must(line, f"{self.process.args} ended")
        return orjson.loads(line)


@contextlib.contextmanager
def told(module: str, *args: str, cores: Sequence[int] = MEASURED) -> Iterator[Told]:
    """Start a module of this package that is told by lines, on the measured core or others."""
    with on(cores):
        process = subprocess.Popen(
            [sys.executable, "-m", f"tests.bench.{module}", *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
    with process:
        try:
            yield Told(process)
        finally:
            process.kill()
