"""The other end of webhooks: a service of an app's own, which verifies what it is posted."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook

from producers import store
from producers.settings import Settings
from producers.webhooks.outbox import Outbox

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwabcdefghijk="
HERE = "127.0.0.0/8"


@dataclass
class End:
    """A service that answers as it is told, and keeps what came and was verified.

    Attributes:
        answer: given the number of the request (0, 1, …), its status, or a response.
        came: id and body of each request.
        hosts: its Host.
        url: where it listens.
    """

    answer: Callable[[int], Any] = lambda _: 204
    came: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    url: str = ""
    secret: str = SECRET

    @property
    def types(self) -> list[str]:
        return [body["type"] for _, body in self.came]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.text()
        verified = Webhook(self.secret).verify(body, dict(request.headers))
        number = len(self.came)
        self.hosts.append(request.headers["Host"])
        self.came.append((request.headers["webhook-id"], verified))
        answer = self.answer(number)
        if asyncio.iscoroutine(answer):
            answer = await answer
        return web.Response(status=answer) if isinstance(answer, int) else answer

    @contextmanager
    def open(self) -> Iterator["End"]:
        """Listen, on a thread."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        runner = asyncio.run_coroutine_threadsafe(self._begin(), loop).result(5)
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(self._finish(runner), loop).result(5)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(5)
            loop.close()

    async def _begin(self) -> web.ServerRunner:
        runner = web.ServerRunner(web.Server(self.handle), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}/hook"
        return runner

    async def _finish(self, runner: web.ServerRunner) -> None:
        await runner.cleanup()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()


def of_app(url: str, **more: Any) -> dict[str, Any]:
    """Return the settings of an app whose webhooks go to a URL."""
    return {"webhook_url": url, "webhook_secret": SECRET, **more}


async def kill(settings: Settings) -> None:
    """Let all that waits die."""
    client = store.connect_async(settings)
    outbox = Outbox(client, settings, {"shop": 50}, 10_000)
    for lane in settings.layout.lanes:
        for letter in await outbox.take(lane, 50):
            await outbox.died(letter, "HTTP 500")
    await client.aclose()
    await client.connection_pool.disconnect()
