"""A desk that reads quotas."""

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import redis
from quota_desk import Desk, Opener
from send_path import connected_async

from producers.sandbox.config import SandboxConfig
from producers.sandbox.thread import SandboxThread
from producers.settings import Settings
from workers.duties.peers import Peers
from workers.limits.gate import Gate
from workers.limits.limiter import Limiter
from workers.quotas.asking import Asking
from workers.quotas.readings import Readings
from workers.wechat.client import WeChat
from workers.wechat.tokens import TokenKeeper


@pytest.fixture
async def desk(
    make_settings: Callable[..., Settings], client: "redis.Redis"
) -> AsyncIterator[Opener]:
    """Give an opener of desks, each with a WeChat whose quotas are its arguments."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_one(app: dict[str, Any] | None = None, **config: Any) -> Desk:
            sandbox = stack.enter_context(
                SandboxThread(SandboxConfig.model_validate({"permits": "any", **config}))
            )
            url = f"{sandbox.url}"
            settings = make_settings(
                wechat_url=url, app={"rate_per_second": 0, "daily_limit": 0, **(app or {})}
            )
            loop_client = await stack.enter_async_context(connected_async(settings))
            wechat = WeChat(settings)
            stack.push_async_callback(wechat.close)
            peers = Peers(loop_client, "w1")
            await peers.beat()
            keeper = TokenKeeper(
                loop_client,
                wechat,
                "shop",
                settings,
                "w1",
                peers.server_time,
                lambda: True,
                lambda *_: None,
            )
            await keeper.tick()
            gates = {"shop": Gate(0)}
            asking = Asking(loop_client, wechat, {"shop": keeper})
            readings = Readings(loop_client, settings, asking, gates, peers.server_time, 0)
            limiter = Limiter(client, "w1")
            return Desk(settings, client, readings, gates["shop"], sandbox, limiter)

        yield open_one
