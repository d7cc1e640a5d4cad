"""Following the apps' file, in each process of the service; and saying so for the doctor."""

import contextlib
import os
import socket
import threading
import time
from typing import Final

import redis

from producers.care.roster import TELL_EVERY_S, tell_web
from producers.errors import StoreUnavailableError
from producers.settings import Apps, AppsFile
from producers.store import Client

_EVERY_S: Final = 1.0


class Following:
    """One process's; for a thread of its own, so that a slow disk keeps no request waiting.

    Args:
        file: looked at each second.
        client: Redis.
        apps: what it keeps.
    """

    def __init__(self, file: AppsFile, client: Client, apps: Apps) -> None:
        self._file = file
        self._client = client
        self._apps = apps
        self._process = f"web:{socket.gethostname()[:32]}:{os.getpid()}"
        self._told = ""
        self._told_at = float("-inf")

    def run(self, stop: threading.Event) -> None:
        """Follow it until told to stop."""
        while True:
            self._tell()
            if stop.wait(_EVERY_S):
                return
            self._file.look()

    def _tell(self) -> None:
        digest, now = self._apps.digest, time.monotonic()
        if digest == self._told and now - self._told_at < TELL_EVERY_S:
            return
        with contextlib.suppress(redis.RedisError, StoreUnavailableError, OSError):
            tell_web(self._client, self._process, digest, self._told)
            self._told, self._told_at = digest, now
