"""The floor of the HTTP service: aiohttp alone, on uvloop, as a process of its own.

It reads each body, parses its JSON, and answers as many bytes as the service does. No key, no
check, no Redis, no log: what any service that uses aiohttp must cost.

Told by a JSON line on stdin, it answers by one on stdout (``port``).
"""

import asyncio
import sys

import orjson
import uvloop
from aiohttp import web

_ANSWER = b'{"lines":1,"new":1,"known":0,"refused":{},"listed":[]}'
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Request-Id": "0" * 32,
    "Content-Type": "application/json",
}


async def _answer(request: web.BaseRequest) -> web.Response:
    orjson.loads(await request.read())
    return web.Response(body=_ANSWER, headers=_HEADERS)


async def _serve() -> None:
    runner = web.ServerRunner(web.Server(_answer, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        sys.stdout.write(orjson.dumps({"port": runner.addresses[0][1]}).decode() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve())
