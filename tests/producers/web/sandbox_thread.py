"""A local WeChat in a thread of its own."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Mapping

from producers.sandbox import Sandbox, SandboxConfig


class Running:
    """A sandbox that runs."""

    def __init__(self, sandbox: Sandbox, loop: asyncio.AbstractEventLoop) -> None:
        self._sandbox, self._loop = sandbox, loop
        self.url = sandbox.url

    def give_code(self, code: str, openid: str) -> None:
        """Let wx.login have given a code."""
        done = threading.Event()

        def give() -> None:
            state = self._sandbox.state
            state.codes.give(code, openid, state.now())
            done.set()

        self._loop.call_soon_threadsafe(give)
        assert done.wait(10)


@contextlib.contextmanager
def running(apps: Mapping[str, str]) -> Iterator[Running]:
    """Run a sandbox of these appids and secrets."""
    up = threading.Event()
    found: list[Running] = []
    ends: list[asyncio.Event] = []

    async def serve() -> None:
        async with Sandbox(SandboxConfig(apps=dict(apps))) as sandbox:
            ends.append(asyncio.Event())
            found.append(Running(sandbox, asyncio.get_running_loop()))
            up.set()
            await ends[0].wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="sandbox")
    thread.start()
    assert up.wait(20), "the sandbox did not start"
    try:
        yield found[0]
    finally:
        found[0]._loop.call_soon_threadsafe(ends[0].set)
        thread.join(20)
