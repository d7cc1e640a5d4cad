"""The door of a chaos run: a real `wxbroadcast web`, honest phones, and a mob of hostile ones.

The honest ones are recipients of the broadcast, which upload the permit that they gave again and
again; how long that takes is measured, first beside the broadcast and its faults alone, then beside
the mob as well (see `mob`).
"""

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from producers.local.chaos.mob import Orders
from producers.local.chaos.schedule import Plan
from producers.local.isolation import environment
from producers.local.parts import APP, START_S, DemoError, Watcher, environment_of
from producers.local.supervisor import Supervisor
from producers.sandbox.control.client import SandboxClient
from producers.settings import Settings

PHONES: Final = 20
"""Honest phones, and as many hostile ones."""

_HOST: Final = "127.0.0.1"
_PACE_S: Final = 1.1
"""Between two uploads of an honest phone: within a user's limit of a minute."""
_TIMEOUT_S: Final = 10.0
_ENDS_S: Final = 30.0

FLOOR_MS: Final = 25.0
"""Latencies below are not told apart: so much is chance while workers are killed and boot."""


@dataclass
class Crowd:
    """What came of the phones.

    Attributes:
        before_ms: latencies of honest requests without the mob.
        beside_ms: with it.
        failed: honest requests without a 200, by status; 0: no answer.
        mob: deed → status → how often.
    """

    before_ms: list[float] = field(default_factory=list)
    beside_ms: list[float] = field(default_factory=list)
    failed: Counter[int] = field(default_factory=Counter)
    mob: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def p95_before_ms(self) -> float:
        """Honest requests without the mob: 95 of 100 were faster."""
        return _p95(self.before_ms)

    @property
    def p95_beside_ms(self) -> float:
        """Honest requests beside the mob: 95 of 100 were faster."""
        return _p95(self.beside_ms)

    @property
    def requests_of_mob(self) -> int:
        """How often the mob did something."""
        return sum(sum(got.values()) for got in self.mob.values())

    @property
    def faults(self) -> list[str]:
        """What is wrong, as sentences."""
        before, beside = self.p95_before_ms, self.p95_beside_ms
        found = {
            f"{self.failed.total():,} honest requests failed {dict(self.failed)}": bool(
                self.failed.total()
            ),
            f"honest requests took {beside:.0f} ms beside the mob, {before:.0f} ms without it": (
                beside > 2 * max(before, FLOOR_MS)
            ),
            "the mob did nothing": not self.requests_of_mob,
            "no honest request was measured": not (self.before_ms and self.beside_ms),
        }
        return [sentence for sentence, wrong in found.items() if wrong]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready fields."""
        return {
            "honest_requests": len(self.before_ms) + len(self.beside_ms),
            "honest_failed": self.failed.total(),
            "honest_p95_before_ms": round(self.p95_before_ms, 1),
            "honest_p95_beside_ms": round(self.p95_beside_ms, 1),
            "mob": self.mob,
        }


class Door:
    """The service and its phones.

    Attributes:
        crowd: what came of them.
    """

    def __init__(self, port: int, orders: Orders, honest: Sequence[tuple[str, Any]]) -> None:
        self.crowd = Crowd()
        self._orders = orders
        self._mob: subprocess.Popen[bytes] | None = None
        self._ended = threading.Event()
        self._adding = threading.Lock()
        self._threads = [
            threading.Thread(target=self._be_honest, args=(port, number, *one), daemon=True)
            for number, one in enumerate(honest)
        ]

    def start(self) -> None:
        """Let the honest phones upload."""
        for thread in self._threads:
            thread.start()

    def let_mob_loose(self) -> None:
        """Let the hostile ones do what they do."""
        self._mob = subprocess.Popen(
            [sys.executable, "-m", "producers.local.chaos.mob"],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C is ours to tell it
        )
        if self._mob.stdin is not None:
            self._mob.stdin.write(self._orders.line())
            self._mob.stdin.flush()

    def close(self) -> None:
        """End all phones, and count."""
        mob, self._mob = self._mob, None
        if mob is not None:
            try:
                told, _ = mob.communicate(timeout=_ENDS_S)
                self.crowd.mob = json.loads(told or b"{}")
            except subprocess.TimeoutExpired:
                mob.kill()
                mob.communicate()
        self._ended.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(_TIMEOUT_S)

    def _be_honest(self, port: int, number: int, ticket: str, upload: Any) -> None:
        if self._ended.wait(number / PHONES * _PACE_S):  # not all at once
            return
        body = json.dumps(upload).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {ticket}"}
        connection = http.client.HTTPConnection(_HOST, port, timeout=_TIMEOUT_S)
        with contextlib.closing(connection):
            _upload(connection, body, headers)  # so that the connection is open
            while not self._ended.wait(_PACE_S):
                beside = self._mob is not None
                began = time.perf_counter()
                status = _upload(connection, body, headers)
                took_ms = (time.perf_counter() - began) * 1000
                with self._adding:
                    if status != 200:
                        self.crowd.failed[status] += 1
                    (self.crowd.beside_ms if beside else self.crowd.before_ms).append(took_ms)


@contextlib.contextmanager
def opened(
    plan: Plan,
    folder: Path,
    settings: Settings,
    wechat: SandboxClient,
    template_id: str,
    uploads: Sequence[dict[str, Any]],
    watcher: Watcher,
) -> Iterator[Door]:
    """Run the service, and log all phones in.

    Args:
        plan: of the run.
        folder: the service's working directory.
        settings: where Redis and the sandbox are.
        wechat: gives login codes.
        template_id: of the broadcast.
        uploads: what the recipients gave, the honest phones' among them.
        watcher: may end it.

    Raises:
        DemoError: the service did not start, or did not log a phone in.
    """
    with (folder / "web.log").open("ab") as output:
        service = Supervisor(environment_of(plan.demo, settings), folder, output)
        try:
            port = _free_port()
            service.start("web.1", f"wxbroadcast web --port {port}")
            await_port(port, folder, watcher)
            honest = [
                (_logged_in(port, wechat, upload["openid"]), _again(upload))
                for upload in uploads[:PHONES]
            ]
            tickets = [_logged_in(port, wechat, f"oMOB{number:024d}") for number in range(PHONES)]
            others = [one["formId"] for upload in uploads for one in upload.get("formIds", ())]
            orders = Orders(port, APP, template_id, plan.seed, tickets, others[-500:])
            door = Door(port, orders, honest)
            try:
                yield door
            finally:
                door.close()
        finally:
            service.stop()


def _again(upload: dict[str, Any]) -> dict[str, Any]:
    """Return what a recipient gave, as their own phone sends it, any number of times."""
    return {**upload, "id": "first"} if "subscriptions" in upload else upload


def _upload(connection: http.client.HTTPConnection, body: bytes, headers: dict[str, str]) -> int:
    """Upload, once more where the connection was closed meanwhile; return the status, or 0."""
    path = f"/v1/apps/{APP}/collect"
    for _ in range(2):
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
        else:
            return answer.status
    return 0


def _logged_in(port: int, wechat: SandboxClient, openid: str) -> str:
    """Log a phone in, as it would itself; return its ticket."""
    wechat.post("codes", {"code": f"code-{openid}", "openid": openid})
    connection = http.client.HTTPConnection(_HOST, port, timeout=_TIMEOUT_S)
    with contextlib.closing(connection):
        body = json.dumps({"code": f"code-{openid}"}).encode()
        connection.request(
            "POST", f"/v1/apps/{APP}/login", body, {"Content-Type": "application/json"}
        )
        answer = connection.getresponse()
        told = answer.read()
    if answer.status != 200:
        raise DemoError(f"{openid} was not logged in: {answer.status} {told[:300]!r}")
    return str(json.loads(told)["token"])


def _free_port() -> int:
    with socket.create_server((_HOST, 0)) as server:
        return int(server.getsockname()[1])


def await_port(port: int, folder: Path, watcher: Watcher) -> None:
    """Wait until the service in a folder listens.

    Raises:
        DemoError: it does not, in time.
    """
    deadline = time.monotonic() + START_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection((_HOST, port), 1):
            return
        if time.monotonic() > deadline:
            told = (folder / "web.log").read_bytes()[-2000:].decode(errors="replace")
            raise DemoError(f"the service did not start: {told or 'no log line'}")
        watcher.wait(0.05)


def _p95(latencies: Sequence[float]) -> float:
    ordered = sorted(latencies)
    return ordered[int(0.95 * len(ordered))] if ordered else 0.0
