"""kill -9 under bulk load: what the service answered as stored is stored, whatever dies when."""

import contextlib
import http.client
import json
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from producers.access.api_keys import ApiKeys
from producers.local.procfile import read
from producers.permits.ledger import totals
from producers.settings import Settings
from producers.store import keys

pytestmark = pytest.mark.timeout(120)
BIN = Path(sys.executable).parent
KILLS = 5
SENDERS = 6


class Web:
    """The Procfile's ``web`` with two processes, restarted as it does itself."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._log = folder / "web.log"
        app = settings.apps["shop"]
        env = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "WXB_REDIS_URL": settings.redis_url.get_secret_value(),
            "WXB_APPS": json.dumps({"shop": {"appid": app.appid, "secret": "shop-secret"}}),
            "WXB_BUCKETS": str(settings.buckets),
            "WXB_WEB_PORT": "0",
            "WXB_WEB_PROCESSES": "2",
        }
        with self._log.open("wb") as log:
            self.process = Popen(
                read()["web"].split(),
                env=env,
                cwd=folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def started(self) -> list[dict[str, Any]]:
        """The processes that listened, in the order of their start."""
        whole = self._log.read_bytes().rpartition(b"\n")[0]
        lines = [json.loads(line) for line in whole.splitlines() if line.startswith(b"{")]
        return [line for line in lines if line["event"] == "web_started"]

    def alive(self) -> list[int]:
        return [line["pid"] for line in self.started() if Path(f"/proc/{line['pid']}").exists()]


@pytest.fixture
def web(settings: Settings, client: Any, tmp_path: Path) -> Iterator[Web]:
    running = Web(settings, tmp_path)
    yield running
    with contextlib.suppress(ProcessLookupError):
        os.killpg(running.process.pid, signal.SIGKILL)
    running.process.wait(20)


class Sender:
    """One backend that uploads without end, and notes what was answered."""

    def __init__(self, number: int, port: int, token: str) -> None:
        self._number, self._port = number, port
        self._head = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answered: dict[str, str] = {}
        self.broken = 0

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        batch = 0
        while not self._ends.is_set():
            size = (1, 50)[self._number % 2]  # single ones, and bulk
            mine = {
                f"o{self._number}x{batch}x{n}": f"f{self._number}x{batch}x{n}" for n in range(size)
            }
            body = json.dumps([{"openid": user, "formId": form} for user, form in mine.items()])
            while not self._is_answered(body, size):
                self.broken += 1
                if self._ends.wait(0.05):
                    return
            self.answered |= mine
            batch += 1

    def _is_answered(self, body: str, size: int) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        with contextlib.closing(connection):
            try:
                connection.request("POST", "/v1/apps/shop/permits", body, self._head)
                answer = connection.getresponse()
                told = json.loads(answer.read())
            except (OSError, http.client.HTTPException):
                return False
        assert answer.status == 200, told
        assert told["new"] + told["known"] == size, told
        return True


def test_what_was_answered_is_stored_though_its_process_was_killed(
    web: Web, client: Any, settings: Settings, eventually: Callable[..., Any]
) -> None:
    made = ApiKeys(client, settings).create("load", ["shop"], ["collect"], rate=100_000)
    eventually(lambda: len(web.started()) == 2, "both processes listen")
    port = web.started()[0]["port"]
    senders = [Sender(number, port, made.token) for number in range(SENDERS)]
    for sender in senders:
        sender.start()
    try:
        for kill in range(KILLS):
            before = sum(len(sender.answered) for sender in senders)
            eventually(
                lambda before=before: sum(len(one.answered) for one in senders) > before + 200,
                "permits are answered",
            )
            os.kill(random.choice(web.alive()), signal.SIGKILL)
            eventually(lambda kill=kill: len(web.started()) == 3 + kill, "the killed one is back")
    finally:
        for sender in senders:
            sender.end()
    answered = {user: form for sender in senders for user, form in sender.answered.items()}
    assert len(answered) > KILLS * 200
    assert sum(sender.broken for sender in senders) > 0
    pipeline = client.pipeline(transaction=False)
    for user in answered:
        pipeline.zrange(keys.permits(0, "shop", user), 0, -1)
    stored = dict(zip(answered, pipeline.execute(), strict=True))
    lost = {user for user, form in answered.items() if stored[user] != [f"f:{form}"]}
    assert lost == set()
    uses = totals(client, settings, "shop").total
    assert uses.collected == uses.available >= len(answered)
