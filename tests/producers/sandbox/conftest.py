"""A sandbox whose clock stands still until a test moves it, and a client of it."""

import random
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import samples
from sandbox_client import Clock, Opener, WeChat

from producers.sandbox import Sandbox, SandboxConfig


@pytest.fixture
async def open_wechat() -> AsyncIterator[Opener]:
    """Start a sandbox with these config fields, logged in."""
    opened: list[WeChat] = []

    async def start(**config: Any) -> WeChat:
        clock = Clock()
        settings = SandboxConfig.model_validate(config)
        sandbox = Sandbox(settings, now=clock, rng=random.Random(1))
        await sandbox.start()
        wechat = WeChat(sandbox, aiohttp.ClientSession(), clock)
        opened.append(wechat)
        await wechat.log_in()
        return wechat

    yield start
    for wechat in opened:
        await wechat.session.close()
        await wechat.sandbox.stop()


@pytest.fixture
async def wechat(open_wechat: Opener) -> WeChat:
    """A sandbox as it comes."""
    return await open_wechat()


@pytest.fixture(scope="session")
def cases() -> dict[str, dict[str, Any]]:
    """Real samples by id, where they are at hand."""
    if not samples.CASES.is_file():
        pytest.skip(samples.ABSENT)
    return {case["id"]: case for case in samples.cases()}
