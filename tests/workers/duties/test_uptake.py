"""What one worker has of its apps while their file changes: a runtime in this process."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from send_path import APP, OUTSIDE_TOKEN, Stall

from producers.settings import Settings
from producers.store import keys
from workers.duties import uptake
from workers.runtime import Runtime

Eventually = Callable[..., Any]
SHOP = {"appid": "wx1", "secret": "shop-secret", "zone": "UTC", **APP}
SIGNING = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
CAFE = {"appid": "wx2", "secret": "cafe-secret", **APP}


class House:
    """A worker that follows a file, and posts to nobody."""

    def __init__(self, settings: Settings, file: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._file = file
        self.runtime = Runtime(settings, loop)
        self.memory = self.runtime.memory
        self.tokens = self.runtime.rota._uptake._tokens
        self.kept = self.runtime.rota._uptake.kept

    def say(self, **apps: Any) -> None:
        self._file.write_text(json.dumps(apps))

    def call(self, awaited: Coroutine[Any, Any, Any]) -> Any:
        """Do something on the worker's loop."""
        return asyncio.run_coroutine_threadsafe(awaited, self.runtime._loop).result(5)

    def has(self, app: str) -> list[bool]:
        """Say where there is still something of an app."""
        sender, wechat = self.runtime._path._sender, self.runtime.ways.wechat
        uptake_ = self.runtime.rota._uptake
        places = (
            self.memory.gates,
            self.tokens,
            self.kept,
            sender._lines,
            wechat._bases,
            self.memory.hands._of,
            uptake_._tasks,
            uptake_._leaving,
        )
        return [app in place for place in places]


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    running = asyncio.new_event_loop()
    thread = threading.Thread(target=running.run_forever, daemon=True)
    thread.start()
    yield running
    running.call_soon_threadsafe(running.stop)
    thread.join(5)
    running.close()


@pytest.fixture
def house(
    client: "redis.Redis",
    settings: Settings,
    loop: asyncio.AbstractEventLoop,
    tmp_path: Path,
) -> Iterator[House]:
    client.set(OUTSIDE_TOKEN, "outside-token-1", ex=3600)
    file = tmp_path / "apps.json"
    file.write_text(json.dumps({"shop": SHOP}))
    followed = Settings(
        _env_file=None,
        redis_url=settings.redis_url,
        buckets=settings.buckets,
        apps_file=file,
        wechat_url="http://127.0.0.1:9",
    )
    house = House(followed, file, loop)
    yield house
    runtime = house.runtime
    runtime.stop()
    runtime.rota.join(lambda: 5.0)
    runtime.ways.client.connection_pool.disconnect()
    left = runtime.ways.loop_client.connection_pool.disconnect()
    asyncio.run_coroutine_threadsafe(left, loop).result(5)


def test_of_an_app_that_went_nothing_is_kept(
    house: House, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uptake, "_LINGERS_S", 0.0)
    house.say(shop=SHOP, cafe=CAFE)
    eventually(lambda: "cafe" in house.memory.gates, "it came", within_s=5)
    eventually(lambda: house.tokens["cafe"].ready, "it has a token", within_s=5)
    assert not house.memory.hands._alone
    claim: Any = SimpleNamespace(app="cafe", lane=0, fence="f1")
    house.memory.hands.take([claim])
    house.memory.wake("cafe", 0)
    assert house.memory.turns.lanes("cafe") == [0]
    house.say(shop=SHOP)
    eventually(lambda: house.tokens["cafe"].retired, "it went", within_s=5)
    assert house.tokens["cafe"].ready is None  # a last look hands back what was taken
    house.memory.wake("cafe", 0)
    assert house.memory.turns.lanes("cafe") == []
    assert "cafe" in house.memory.gates  # what is out is settled by it
    house.memory.hands.drop([claim])
    eventually(lambda: not any(house.has("cafe")), "nothing of it is left", within_s=5)
    assert house.memory.hands._alone
    assert house.runtime._path._sender._only is not None
    assert all(house.has("shop")[:5])


def test_an_app_that_went_and_returned_while_the_loop_was_busy_has_its_token_kept(
    house: House, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uptake, "_LINGERS_S", 0.0)
    house.say(shop=SHOP, cafe=CAFE)
    eventually(lambda: "cafe" in house.memory.gates, "it came", within_s=5)
    eventually(lambda: house.tokens["cafe"].ready, "it has a token", within_s=5)
    first = house.tokens["cafe"]
    busy = threading.Event()
    house.runtime._loop.call_soon_threadsafe(busy.wait, 20)
    house.say(shop=SHOP)
    eventually(lambda: "cafe" not in house.memory.gates, "it went", within_s=8)
    house.say(shop=SHOP, cafe=CAFE)
    eventually(lambda: "cafe" in house.memory.gates, "it returned", within_s=8)
    busy.set()
    assert house.tokens["cafe"] is not first
    eventually(lambda: house.tokens["cafe"].ready, "it has a token", within_s=5)


def test_an_app_that_returns_at_once_is_what_it_was(house: House, eventually: Eventually) -> None:
    house.say(shop=SHOP, cafe=CAFE)
    eventually(lambda: "cafe" in house.memory.gates, "it came", within_s=5)
    gate = house.memory.gates["cafe"]
    gate.horizon = gate.not_before = 1e12  # as of a slow rate
    house.say(shop=SHOP)
    eventually(lambda: house.tokens["cafe"].retired, "it went", within_s=5)
    house.say(shop=SHOP, cafe={**CAFE, "daily_limit": 7})
    eventually(lambda: not house.tokens["cafe"].retired, "it returned", within_s=5)
    assert house.memory.gates["cafe"] is gate
    assert gate.next_at == 0.0  # what it waited for may be over, by its new limits
    assert not house.runtime.rota._uptake._leaving


def test_an_app_at_rest_whose_token_lies_elsewhere_now_has_it_at_once(
    house: House, client: "redis.Redis", eventually: Eventually
) -> None:
    eventually(lambda: house.tokens["shop"].ready, "it has a token", within_s=5)
    # at rest the next look is minutes away
    eventually(lambda: house.kept["shop"]._next_at > time.monotonic() + 30, "it rests", within_s=20)
    client.set("elsewhere", "outside-token-2", ex=3600)
    house.say(shop={**SHOP, "token_key": "elsewhere"})
    eventually(
        lambda: house.tokens["shop"]._token.value == "outside-token-2",  # type: ignore[union-attr]
        "the other one is in hand",
        within_s=5,
    )


def test_bounds_are_those_that_the_file_says_now(house: House, eventually: Eventually) -> None:
    bounds = {"keep_for_messages": 2, "per_user_per_day": {"news": 3}}
    house.say(shop={**SHOP, **bounds})
    gate = house.memory.gates["shop"]
    now_ms = time.time_ns() // 1_000_000

    def found() -> tuple[str, str]:
        assert gate.bounding
        bounds = gate.bounding.at(now_ms)
        return bounds.keep, bounds.caps.partition(" news:")[2]

    eventually(lambda: found() == ("2", "3"), "they hold", within_s=5)
    house.say(shop=SHOP)
    eventually(lambda: found() == ("", ""), "they hold no more", within_s=5)


def test_what_waits_for_other_hours_than_there_are_now_is_looked_at_again(
    house: House, client: "redis.Redis", settings: Settings, eventually: Eventually
) -> None:
    """Outside its hours a broadcast leaves the ring until they begin; they were made longer."""
    now = datetime.now(UTC)
    begins, ends = (f"{now + timedelta(hours=n):%H:%M}" for n in (3, 4))
    house.say(shop={**SHOP, "send_window": f"{begins}-{ends}"})
    eventually(lambda: house.memory.gates["shop"].calendar, "it has hours", within_s=5)
    stall = Stall(client, settings)
    stall.form_ids(3)
    broadcast = stall.broadcast()
    pump = house.runtime.pump
    eventually(lambda: pump.next_batch(0.05) is None and not client.keys("*ring*"), "it left")
    house.say(shop=SHOP)
    batch = eventually(lambda: pump.next_batch(0.1), "it is taken", within_s=6)
    assert [claim.broadcast for claim, _ in batch] == [broadcast] * len(batch)
    house.runtime.hand_back(batch)


def test_webhooks_are_posted_for_the_first_app_that_wants_them(
    house: House, client: "redis.Redis", eventually: Eventually
) -> None:
    rota = house.runtime.rota
    assert rota._courier is None
    hooked = {"webhook_url": "https://hooks.example.com/", "webhook_secret": SIGNING}
    house.say(shop={**SHOP, **hooked}, cafe=CAFE)
    eventually(lambda: rota._courier, "there is a courier", within_s=5)
    eventually(lambda: client.hkeys(keys.hooks(0)) == ["shop"], "Redis knows the wish", within_s=5)
    house.say(shop=SHOP, cafe={**CAFE, **hooked, "webhook_in_flight": 2})
    courier = rota._courier
    assert courier is not None
    eventually(lambda: courier._outbox.places == [("cafe", 2)], "it is another's", within_s=5)
    eventually(lambda: client.hkeys(keys.hooks(0)) == ["cafe"], "and told so", within_s=5)
    gone: Any = house.call(courier._poster.post("shop", "evt_1", 1, b"{}"))
    assert "left the settings" in gone.error
