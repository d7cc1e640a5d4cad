"""The floor: a bare loop that only POSTs, as a process of its own.

asyncio on uvloop, one aiohttp session with the very settings of the workers' (it is made by
`workers.wechat.WeChat`), as many coroutines as sends are in flight, each posting one ready body
after another and reading the whole answer. No queue, no permit, no limiter, no record, no log. What
any sender in Python that uses aiohttp must cost; less is not to be had without another client.

Python's garbage collector by default looks at every live object again and again, and with a
thousand requests alive this is a third of the floor's CPU. The floor is run with it relaxed
(``relaxed`` 1: what exists is frozen, thresholds are high), as anybody would who cares; and as
Python comes (``relaxed`` 0).

Its arguments: WeChat's URL, and for https:// the file of its authority. Told by a JSON line on
stdin (``in_flight``, ``messages``, ``given``, ``relaxed``), it answers by one on stdout (``cpu_s``,
``seconds``). Making the bodies is not in the CPU, the POSTs are.
"""

import asyncio
import gc
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import orjson
import uvloop
from yarl import URL

from workers.wechat.client import WeChat
from workers.wechat.envelope import Envelope

from . import ground

_DEFAULT: Final = gc.get_threshold()


async def _post(session: Any, url: URL, bodies: Iterator[bytes]) -> None:
    for body in bodies:
        async with session.post(url, data=body, allow_redirects=False) as response:
            answer = await response.read()
            if response.status != 200 or not answer.startswith(b'{"errcode":0'):
                raise RuntimeError(answer)


class _Floor:
    """One session for all rounds, as a worker has one."""

    def __init__(self, wechat_url: str, ca_file: str | None = None) -> None:
        # more than it ever has in flight: the bound is the number of coroutines
        settings = ground.settings(
            "redis://127.0.0.1:1/0", wechat_url, in_flight=10_000, egress_ca_file=ca_file
        )
        self._session = WeChat(settings)._session
        self._envelope = Envelope.of(ground.spec())
        self._url = URL(wechat_url + self._envelope.path).with_query(
            {"access_token": "bench-access-token"}
        )

    async def run(
        self, in_flight: int, messages: int, given: int, relaxed: int
    ) -> dict[str, float]:
        """Post; see the module."""
        gc.collect()
        if relaxed:
            gc.freeze()
            gc.set_threshold(50_000, 20, 1000)
        else:
            gc.unfreeze()
            gc.set_threshold(*_DEFAULT)
        bodies = [
            self._envelope.body(ground.openid(user), ground.form_id(user, given))
            for user in range(messages)
        ]
        waiting = iter(bodies)
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(_post(self._session, self._url, waiting) for _ in range(in_flight)))
        return {"cpu_s": time.process_time() - cpu, "seconds": time.perf_counter() - began}


async def _serve() -> None:
    floor = _Floor(*sys.argv[1:])
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        found = await floor.run(**orjson.loads(line))
        sys.stdout.write(orjson.dumps(found).decode() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve())
