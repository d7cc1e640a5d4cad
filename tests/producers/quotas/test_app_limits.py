"""How much an app may send, as every door shows it."""

from typing import Any

import pytest
import redis
from cli_runs import run

from producers import Producer
from producers.errors import UnknownAppError
from producers.quotas import Quotas
from producers.settings import Settings
from producers.store import keys
from producers.store.connection import now_ms

DAY_MS = 86_400_000


@pytest.fixture
def quotas(client: "redis.Redis", settings: Settings) -> Quotas:
    return Quotas(client, settings)


def write(client: "redis.Redis", **fields: Any) -> None:
    client.hset(keys.limiter("shop"), mapping=fields)
    client.expire(keys.limiter("shop"), 60)


def slowed(client: "redis.Redis") -> None:
    """Let the limit be between 100 and 101 for a while."""
    write(client, limit=f"100000 101000 {now_ms(client)} 600000 0")


def test_an_app_that_has_sent_nothing_has_its_settings_limits(quotas: Quotas) -> None:
    found = quotas.limits("shop")
    assert (found.rate, found.limit, found.in_force, found.sent_today) == (300, 0, 300, 0)
    assert (found.daily_limit, found.held_until_ms) == (10_000_000, 0)
    with pytest.raises(UnknownAppError):
        quotas.limits("none")


def test_the_day_is_the_apps_own(quotas: Quotas, client: "redis.Redis", settings: Settings) -> None:
    now = now_ms(client)
    offset_ms = settings.app("shop").day_offset_ms()
    today = (now + offset_ms) // DAY_MS
    write(client, day=today, day_count=7)
    found = quotas.limits("shop")
    assert found.sent_today == 7
    assert found.resets_at_ms == (today + 1) * DAY_MS - offset_ms
    write(client, day=today - 1)
    assert quotas.limits("shop").sent_today == 0


def test_a_lowered_limit_is_shown_until_it_has_climbed_back(
    quotas: Quotas, client: "redis.Redis"
) -> None:
    slowed(client)
    found = quotas.limits("shop")
    assert 100 <= found.limit == found.in_force <= 101
    write(client, limit=f"100000 101000 {now_ms(client) - 3000} 1000 0")  # 204 by now
    assert 200 < quotas.limits("shop").limit < 300
    write(client, limit=f"100000 101000 {now_ms(client) - 10_000} 1000 0")
    assert quotas.limits("shop").limit == 0


def test_who_is_held_back_is_shown_until_when(quotas: Quotas, client: "redis.Redis") -> None:
    now = now_ms(client)
    write(client, blocked_until_ms=now + 50_000, blocked_at_ms=now)
    assert quotas.limits("shop").held_until_ms == now + 50_000
    write(client, blocked_at_ms=now + 3_600_000)  # the clock was set back since
    assert quotas.limits("shop").held_until_ms == 0


def test_every_door_shows_it(settings: Settings, client: "redis.Redis") -> None:
    slowed(client)
    with Producer(settings) as producer:
        assert 100 <= producer.limits("shop").limit <= 101
    shown = run(settings, "limits", "-a", "shop")
    assert "100" in shown.out
    assert "WeChat takes less" in shown.out
    assert run(settings, "limits", "-a", "shop", "--json").json["rate"] == 300
    shown = run(settings, "rate", "-a", "shop")
    assert (shown.out, "WeChat takes less: 100" in shown.err) == ("300\n", True)
    assert "WeChat answers with limit errors" in run(settings, "doctor").out.replace("\n", " ")
