"""Epochs: what a restarted Redis may have forgotten is treated as in doubt (I3).

Every connection over which a worker takes, settles or beats first compares the server's ``run_id``
with the one that the deployment last ran on. When they differ (a restart, a failover, a restored
backup) the connection is refused, nothing is done, and a new epoch begins: each running broadcast
is marked in every lane, so that from then on a form_id that WeChat calls used (41029) on a first
attempt means "perhaps this very broadcast", in doubt, rather than "take the next permit"; and fence
tokens jump ahead of all that may have been given out. After a silence of more than ten minutes (an
old backup) running broadcasts are paused and wait for ``resume --after-restore``.

What it cannot know: with ``appendfsync everysec`` a crash forgets up to the last two seconds.
Whoever was sent a subscription or prepay_id message in them may be sent another one; a form_id
broadcast reaches nobody twice even then.

If the process dies in the middle, the old run_id still stands, and the next worker does it again.
"""

import threading
from typing import Any, Final

import redis

from producers import keys, logs
from producers.broadcasts import Broadcasts
from producers.errors import IllegalMoveError, NotFoundError
from producers.events import ServerChanged
from producers.lifecycle import RESTORED
from producers.settings import Settings
from producers.store import Client
from producers.words import State

GAP_MS: Final = 600_000
_FENCES: Final = 1_000_000
"""More fence tokens than all workers together take in the seconds that may be forgotten."""


class ServerChangedError(redis.ConnectionError):
    """The connection leads to a server of another run; nothing was asked of it."""


class Epochs:
    """Watches over which server this is."""

    def __init__(self, client: Client, settings: Settings, broadcasts: Broadcasts) -> None:
        self._client = client
        self._settings = settings
        self._broadcasts = broadcasts
        self._server = ""
        self._beginning = threading.Lock()
        self.changed_at_ms = 0
        """When this process saw the server change (server epoch ms); 0 while it has not."""

    def guard(self, client: Client) -> None:
        """Let a client connect only to the server of the current epoch.

        Its connections raise `ServerChangedError` otherwise, until `begin` has run.
        """
        client.connection_pool.connection_kwargs["redis_connect_func"] = _check

    def guard_async(self, client: Client) -> None:
        """As `guard`, for an event loop's client: even a beat would hide how long all were away."""
        client.connection_pool.connection_kwargs["redis_connect_func"] = _check_async

    def begin(self) -> None:
        """Begin a new epoch if the server is another one than the deployment last ran on.

        The keeper's thread calls it, and whoever met the change; one of them begins it.

        Raises:
            redis.RedisError, StoreUnavailableError: Redis did not answer; call it again.
        """
        with self._beginning:
            self._begin()

    def _begin(self) -> None:
        server = self._client.info("server")["run_id"]
        if self._server not in {"", server}:
            self.changed_at_ms = self._now_ms()
        self._server = server
        last = self._client.get(keys.SERVER)
        if last == server:
            return
        if last is not None:
            self._mark(server)
        self._client.set(keys.SERVER, server)

    def _mark(self, server: str) -> None:
        beats = self._client.zrange(keys.WORKERS, -1, -1, withscores=True)
        silent_ms = self._now_ms() - int(beats[0][1]) if beats else GAP_MS + 1
        marked = 0
        for lane in range(self._settings.lanes):
            self._client.incrby(keys.fence(lane), _FENCES)
        for app in self._settings.apps:
            for broadcast in self._client.zrange(keys.active(app), 0, -1):
                for lane in range(self._settings.lanes):
                    self._client.hset(keys.lane_broadcast(lane, broadcast), "unsure", "1")
                marked += 1
                if silent_ms > GAP_MS:
                    self._pause(broadcast)
        logs.emit(ServerChanged(server[:12], silent_ms, marked, silent_ms > GAP_MS))

    def _now_ms(self) -> int:
        seconds, micros = self._client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def _pause(self, broadcast: str) -> None:
        try:
            if self._broadcasts.status(broadcast).state is State.RUNNING:
                self._broadcasts.pause(broadcast, RESTORED)
        except (IllegalMoveError, NotFoundError):
            return


def _check(connection: Any) -> None:
    """Redis-py calls this on each new connection, before any command goes over it."""
    connection.on_connect()
    connection.send_command("INFO", "server", check_health=False)
    info = connection.read_response()
    connection.send_command("GET", keys.SERVER, check_health=False)
    _compare(info, connection.read_response())


async def _check_async(connection: Any) -> None:
    """As `_check`, for connections of an event loop."""
    await connection.on_connect()
    await connection.send_command("INFO", "server", check_health=False)
    info = await connection.read_response()
    await connection.send_command("GET", keys.SERVER, check_health=False)
    _compare(info, await connection.read_response())


def _compare(info: str, last: str | None) -> None:
    """Raise unless the server is the one that the deployment last ran on."""
    lines = (line.partition(":") for line in info.splitlines())
    run_id = next((value for name, _, value in lines if name == "run_id"), "")
    if last != run_id:
        raise ServerChangedError(f"another server run ({run_id[:12]})")
