"""The stock way: what one writes with Dramatiq when one has read its manual.

One message per openid (`actor.send`), one async actor that does, message by message: claim a permit
(a Lua script), ask the limiter (a Lua script), POST, settle (a Lua script). It keeps none of this
project's promises (no fence, no recovery, no canary, no log line), so it does less than we do.

Tuned fairly: uvloop instead of asyncio, hiredis, orjson as the encoder, one session and one Redis
pool for all, only the middleware that it needs (Retries and AsyncIO), its maintenance off, prefetch
at twice the threads. Dramatiq holds one thread per message that runs, async or not, so the threads
are what is in flight: 64, 128 and 256 were tried, and `THREADS` was the fastest (see `send`).
"""

import os
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

import dramatiq
import orjson
import redis
import redis.asyncio
from dramatiq.asyncio import get_event_loop_thread
from dramatiq.brokers.redis import RedisBroker
from dramatiq.encoder import Encoder
from dramatiq.middleware import Middleware, Retries
from yarl import URL

from workers.broker import UvloopAsyncIO
from workers.wechat.client import WeChat

from . import ground

THREADS: Final = 128
QUEUE: Final = "stock"
COMMAND: Final = (
    f"dramatiq tests.bench.stock -p 1 -t {THREADS} --skip-logging --worker-fork-timeout 1000"
)

CLAIM: Final = """
local now = redis.call('TIME')
local found = redis.call('ZRANGE', KEYS[1], now[1], '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
if not found[1] then return false end
redis.call('ZREM', KEYS[1], found[1])
redis.call('HSET', KEYS[2], ARGV[1], found[1] .. ' ' .. found[2])
return found[1]
"""
LIMIT: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local next = math.max(now, tonumber(redis.call('GET', KEYS[1]) or 0))
redis.call('SET', KEYS[1], string.format('%.0f', next + tonumber(ARGV[1])), 'PX', 60000)
return math.ceil((next - now) / 1000)
"""
SETTLE: Final = """
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('HINCRBY', KEYS[3], ARGV[2], 1)
"""


class _Orjson(Encoder):
    def encode(self, data: Any) -> bytes:
        return orjson.dumps(data)

    def decode(self, data: bytes) -> Any:
        return orjson.loads(data)


class _Resources(Middleware):
    """One session and one Redis pool, opened on the loop at boot."""

    def before_worker_boot(self, broker: Any, worker: Any) -> None:  # noqa: ARG002
        thread = get_event_loop_thread()
        assert thread
        thread.run_coroutine(self._open())

    async def _open(self) -> None:
        settings = ground.settings(
            os.environ["BENCH_REDIS_URL"], os.environ["BENCH_WECHAT_URL"], in_flight=2 * THREADS
        )
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            os.environ["BENCH_REDIS_URL"], max_connections=2 * THREADS
        )
        client = redis.asyncio.Redis.from_pool(pool)
        held["session"] = WeChat(settings)._session
        held["url"] = URL(
            os.environ["BENCH_WECHAT_URL"] + "/cgi-bin/message/wxopen/template/send"
        ).with_query({"access_token": "bench-access-token"})
        held["rest"] = {
            "template_id": ground.TEMPLATE,
            "page": ground.spec().page,
            "data": {key: {"value": value} for key, value in ground.spec().data.items()},
        }
        for name, text in (("claim", CLAIM), ("limit", LIMIT), ("settle", SETTLE)):
            held[name] = client.register_script(text)


held: dict[str, Any] = {}

broker = RedisBroker(
    url=os.environ.get("BENCH_REDIS_URL", "redis://127.0.0.1:1/0"),
    namespace="stock",
    maintenance_chance=0,
    middleware=[],
)
broker.add_middleware(UvloopAsyncIO())
broker.add_middleware(_Resources())
broker.add_middleware(Retries(max_retries=3))
if os.environ.get("BENCH_REDIS_URL"):
    dramatiq.set_broker(broker)
    dramatiq.set_encoder(_Orjson())


@dramatiq.actor(actor_name="stock", queue_name=QUEUE, broker=broker)
async def send(broadcast: str, openid: str) -> None:
    """Claim, limit, POST, settle."""
    permit = await held["claim"](
        keys=[f"stock:permits:{openid}", f"stock:flight:{broadcast}"], args=[openid]
    )
    outcome = "no_permit"
    if permit:
        await held["limit"](keys=["stock:limiter"], args=[0])
        body = orjson.dumps({"touser": openid, "form_id": permit.decode(), **held["rest"]})
        async with held["session"].post(held["url"], data=body) as response:
            answer = orjson.loads(await response.read())
        outcome = "delivered" if not answer["errcode"] else "failed"
    await held["settle"](
        keys=[f"stock:flight:{broadcast}", f"stock:outcomes:{broadcast}", f"stock:n:{broadcast}"],
        args=[openid, outcome],
    )


def give(client: Any, users: Iterable[tuple[str, str]]) -> None:
    """Store (openid, form_id) permits, as plain as can be."""
    ends = int(time.time()) + 86_400
    _pipelined(client, (("ZADD", f"stock:permits:{o}", ends, f) for o, f in users))


def enqueue(client: Any, broadcast: str, openids: Iterable[str]) -> None:
    """Enqueue what `send.send` would, in pipelines: the worker never waits for the producer."""

    def commands() -> Iterator[tuple[Any, ...]]:
        for openid in openids:
            message = send.message(broadcast, openid)
            name = message.message_id
            message = message.copy(options={"redis_message_id": name})
            yield "HSET", f"stock:{QUEUE}.msgs", name, orjson.dumps(message.asdict())
            yield "RPUSH", f"stock:{QUEUE}", name

    _pipelined(client, commands())


def _pipelined(client: Any, commands: Iterator[tuple[Any, ...]]) -> None:
    pipeline = client.pipeline(transaction=False)
    for number, command in enumerate(commands, start=1):
        pipeline.execute_command(*command)
        if number % 1000 == 0:
            pipeline.execute()
    pipeline.execute()
