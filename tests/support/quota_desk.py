"""One worker that asks WeChat about its own numbers, at a sandbox of its own."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis

from producers.quotas import Quotas
from producers.sandbox.thread import SandboxThread
from producers.settings import Settings
from producers.store import keys, scripts
from producers.words import Channel
from workers.limits.gate import Gate
from workers.limits.limiter import Grant, Limiter
from workers.quotas.readings import PATH, Readings


@dataclass
class Desk:
    """One worker that reads quotas."""

    settings: Settings
    client: "redis.Redis"
    readings: Readings
    gate: Gate
    wechat: SandboxThread
    limiter: Limiter

    async def read(self, channel: Channel = Channel.SUBSCRIBE, *, urgent: bool = False) -> None:
        """Let it read, as an app that has just sent by this channel."""
        self.gate.used[channel] = time.monotonic()
        self.readings._next_at["shop", channel] = 0
        if urgent:
            self.gate.urgent.add(channel)
        await self.readings.run()

    def reserve(self, plain: int, channel: str = "subscribe", unused: int = 0) -> Grant:
        app, token = self.settings.app("shop"), scripts.new_token()
        return self.limiter.reserve("shop", app, plain, {}, unused, token, channel)

    def calls(self) -> int:
        """How often WeChat was asked."""
        return self.wechat.stats()["apis"].get(PATH, {}).get("requests", 0)

    def forget_asking(self) -> None:
        """Let the time between two questions pass."""
        self.client.hdel(keys.quotas("shop"), "asked:subscribe", "asked:template")

    @property
    def left(self) -> int | None:
        return Quotas(self.client, self.settings).limits("shop").left("subscribe")


Opener = Callable[..., Any]
