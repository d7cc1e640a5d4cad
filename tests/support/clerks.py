"""A worker's clerk on a thread of the test's: real tokens, a real WeChat, wake-ups over pub/sub.

As much of a worker as reading lists of templates takes; many may run side by side.
"""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import redis

from producers import store
from producers.settings import Settings
from producers.store import keys
from producers.store.clock import now_ms
from producers.templates import Template
from producers.templates.catalogue import to_json
from workers.duties.peers import BEAT_S, Peers
from workers.duties.runner import Round, Runner
from workers.duties.wakes import Wakes
from workers.sending.stops import Stops
from workers.templates.clerk import Clerk
from workers.wechat.client import WeChat
from workers.wechat.tokens import TokenKeeper

LIST = "/wxaapi/newtmpl/gettemplate"
FORM_LIST = "/cgi-bin/wxopen/template/list"


def _nothing(*_: object) -> None:
    """Hear what is said, and do nothing."""


class Clerks:
    """One worker; see the module."""

    def __init__(self, settings: Settings, worker: str, *, hears: bool) -> None:
        self.connects = True
        self._settings, self._worker = settings, worker
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._runner = Runner(_nothing)
        self._client = store.connect(settings)
        self._wakes: Wakes | None = None
        self._await(self._open())
        if hears:
            self._wakes = Wakes(
                self._client,
                settings,
                {},
                Stops(),
                _nothing,
                _nothing,
                _nothing,
                self.clerk.hurry,
            )
            self._runner.start(Round("wake", [self._wakes], 0.0))
            while not self._client.pubsub_numsub(keys.WAKE)[0][1]:
                pass

    async def _open(self) -> None:
        self._loop_client = store.connect_async(self._settings)
        self._peers = Peers(self._loop_client, self._worker)
        await self._peers.beat()
        self._beating = self._loop.create_task(self._beat())
        self._wechat = WeChat(self._settings)
        self.tokens = {
            alias: TokenKeeper(
                self._loop_client,
                self._wechat,
                alias,
                self._settings,
                self._worker,
                self._peers.server_time,
                lambda: True,
                _nothing,
            )
            for alias in self._settings.apps
        }
        self.clerk = Clerk(
            self._loop_client,
            self._settings,
            self._wechat,
            self.tokens,
            lambda _: self.connects,
            self._worker,
            self._peers.server_time,
            self._loop,
        )
        self._runner.spawn(self.clerk)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            await self._peers.beat()

    async def _close(self) -> None:
        self._beating.cancel()
        await self._runner.end_tasks()
        await self.clerk.close()
        await self._wechat.close()
        with contextlib.suppress(Exception):
            await self._peers.leave()
        await self._loop_client.aclose()
        await self._loop_client.connection_pool.disconnect()

    def close(self) -> None:
        self._runner.close()
        self._client.publish(keys.WAKE, "go on")  # so that nobody listens a second longer
        self._await(self._close())
        self._runner.join(lambda: 3.0)
        if self._wakes:
            self._wakes.close()
        self._client.close()
        self._client.connection_pool.disconnect()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _await(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


@contextlib.contextmanager
def clerk_of(settings: Settings, worker: str = "w1", *, hears: bool = True) -> Iterator[Clerks]:
    """Give a worker with a clerk; `hears`: wake-ups."""
    clerks = Clerks(settings, worker, hears=hears)
    try:
        yield clerks
    finally:
        clerks.close()


def shelve(
    client: "redis.Redis",
    *templates: Template,
    app: str = "shop",
    channel: str = "subscribe",
    age_ms: int = 0,
) -> None:
    """Let a worker have read a list, so long ago."""
    key = keys.templates(app, channel)
    at_ms = now_ms(client) - age_ms
    listed = to_json(templates, is_whole=True)
    client.hset(key, mapping={"list": listed, "read_at_ms": at_ms, "tried_at_ms": at_ms})
    client.pexpire(key, 60_000)
