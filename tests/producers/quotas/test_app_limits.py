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
from producers.store.clock import now_ms

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


def spent(client: "redis.Redis", settings: Settings) -> None:
    """Let WeChat's quota have 2 of 100 left."""
    now = now_ms(client)
    end_ms = now - (now + settings.app("shop").day_offset_ms()) % DAY_MS + DAY_MS
    write(client, **{"quota:subscribe": f"12 {end_ms}", "sent:subscribe": 10})
    client.hset(keys.quotas("shop"), "subscribe", f"100 88 12 60 60 {now - 5000}")
    client.expire(keys.quotas("shop"), 60)


def test_what_a_day_cannot_carry_is_said_before_and_meanwhile(
    settings: Settings, client: "redis.Redis"
) -> None:
    spent(client, settings)
    run(settings, "audience", "import", "-a", "shop", "vip", "-", stdin="oA\noB\noC\n")
    of = ("broadcast", "-a", "shop", "--channel", "subscribe", "--template-id", "T")
    spec = (*of, "--audience", "vip", "--data", '{"thing1": "a"}')
    asked = run(settings, *spec, "--json")
    assert asked.json["note"].startswith("WeChat's quota of today carries 2 of 3; it is paused")
    told = run(settings, *spec, "--carry-over")
    assert "WeChat's quota of today carries 2 of 3; the rest goes on at" in told.err
    shown = " ".join(run(settings, "status", told.out.strip()).out.split())
    assert "carries 2 of 3" in shown
    found = run(settings, "status", told.out.strip(), "--json").json
    assert (found["day_left"], found["carry_over"]) == (2, True)
    limits = run(settings, "limits", "-a", "shop").out
    assert "2 of 100 left" in limits
    assert "60 in 60 s" in limits
    assert "WeChat's quota of today leaves 2" in run(settings, "doctor").out.replace("\n", " ")


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
