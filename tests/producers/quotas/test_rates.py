"""Rates that are changed while workers send: kept, told, and refused when they are none."""

import math
from pathlib import Path
from typing import Any

import pytest
import redis
from log_lines import recorded
from pydantic import ValidationError
from shop import Shop

from producers import Producer
from producers.errors import IllegalMoveError, InvalidInputError, NotFoundError, UnknownAppError
from producers.quotas.rates import Rates
from producers.store import keys
from producers.web.handlers.broadcasts import NewBroadcast


@pytest.fixture
def rates(client: "redis.Redis", settings: Any) -> Rates:
    return Rates(client, settings)


def test_a_rate_stays_until_it_is_taken_back(
    rates: Rates, client: "redis.Redis", tmp_path: Path
) -> None:
    assert rates.get("shop") == 300
    with recorded(tmp_path) as read:
        assert rates.set("shop", 12.5) == 12.5
    assert [(line["before"], line["after"]) for line in read()] == [(300, 12.5)]
    assert rates.get("shop") == 12.5
    assert client.ttl(keys.limiter("shop")) == -1
    assert rates.set("shop", 0) == 0
    assert rates.set("shop", None) == 300
    assert client.ttl(keys.limiter("shop")) != -1


@pytest.mark.parametrize("rate", [-1, 1e7, float("nan"), float("inf"), 0.0001])
def test_what_is_no_rate_is_refused(rates: Rates, rate: float) -> None:
    with pytest.raises(InvalidInputError, match="rate"):
        rates.set("shop", rate)
    assert rates.get("shop") == 300


def test_unknown_apps_have_no_rate(rates: Rates) -> None:
    with pytest.raises(UnknownAppError):
        rates.set("nobody", 1)


def test_a_broadcasts_rate_comes_with_each_take(shop: Shop) -> None:
    for user in range(100):
        shop.give(f"o{user}", formIds=[f"f{user}"])
    broadcast = shop.broadcast(rate=5)
    shop.open(broadcast)
    assert {claim.rate for claim in shop.take()} == {5}
    assert shop.broadcasts.set_rate(broadcast, 50) == "running"
    assert shop.broadcasts.rate(broadcast) == 50
    claims = shop.take()
    assert {claim.rate for claim in claims} == {50}
    assert len(claims) > 1


def test_a_new_rate_changes_nothing_else(shop: Shop) -> None:
    shop.give("o1", formIds=["f1"])
    broadcast = shop.broadcast()
    lane = keys.lane_broadcast(shop.lane("o1"), broadcast)
    shop.client.hset(lane, "refusals", 3)
    shop.broadcasts.set_rate(broadcast, 7)
    assert shop.client.hget(lane, "refusals") == "3"
    shop.broadcasts.pause(broadcast, "look at it")
    assert shop.broadcasts.set_rate(broadcast, 0) == "paused"
    status = shop.broadcasts.status(broadcast)
    assert (status.state, status.reason) == ("paused", "look at it")
    assert shop.client.hget(lane, "state") == "paused"


def test_an_ended_broadcast_has_no_rate_to_change(shop: Shop) -> None:
    shop.give("o1", formIds=["f1"])
    broadcast = shop.broadcast()
    shop.broadcasts.cancel(broadcast)
    with pytest.raises(IllegalMoveError, match="cancelled"):
        shop.broadcasts.set_rate(broadcast, 7)
    with pytest.raises(NotFoundError):
        shop.broadcasts.set_rate("nothing", 7)
    with pytest.raises(InvalidInputError):
        shop.broadcasts.set_rate(broadcast, -7)


def test_the_producer_has_both(client: "redis.Redis", settings: Any) -> None:
    with Producer(settings) as producer:
        producer.collect("shop", [{"openid": "o1", "formIds": ["f1"]}])
        spec = {"app": "shop", "channel": "template", "template_id": "T", "audience": "all"}
        broadcast = producer.broadcast(**spec, data="a").id
        assert producer.set_rate(broadcast, 3) == "running"
        assert producer.set_app_rate("shop", 20) == 20


NO_RATES = [
    5e-324,
    1e-320,
    -1e-320,
    0.0009999,
    -0.001,
    1e6 + 1,
    2**63,
    math.inf,
    -math.inf,
    math.nan,
]


@pytest.mark.parametrize("rate", NO_RATES)
def test_no_door_lets_in_what_is_no_rate(
    shop: Shop, rates: Rates, make_settings: Any, rate: float
) -> None:
    shop.give("o1", formIds=["f1"])
    broadcast = shop.broadcast()
    for door in (
        lambda: shop.broadcast(rate=rate),
        lambda: shop.broadcasts.set_rate(broadcast, rate),
        lambda: rates.set("shop", rate),
        lambda: make_settings(app={"rate_per_second": rate}),
        lambda: NewBroadcast.model_validate(
            {"channel": "template", "template_id": "T", "audience": "all", "data": "a"}
            | {"rate": rate}
        ),
    ):
        with pytest.raises((InvalidInputError, ValidationError), match=r"rate"):
            door()


@pytest.mark.parametrize("rate", [0, -0.0, 0.001, 1, 1_000_000])
def test_zero_and_what_the_limiter_can_reckon_with_are_rates(rates: Rates, rate: float) -> None:
    assert rates.set("shop", rate) == rate


def test_a_tiny_rate_of_an_earlier_version_sends_one_in_a_thousand_seconds(shop: Shop) -> None:
    for user in range(20):
        shop.give(f"o{user}", formIds=[f"f{user}"])
    broadcast = shop.broadcast(rate=1)
    shop.open(broadcast)
    home, lane = keys.home(0, broadcast), keys.lane_broadcast(0, broadcast)
    spec = shop.client.hget(home, "spec").replace('"rate":1.0', '"rate":1e-320')
    assert "e-320" in spec
    shop.client.hset(home, "spec", spec)
    shop.client.hset(lane, "rate", "1e-320")
    assert shop.broadcasts.rate(broadcast) == 0.001
    assert {claim.rate for claim in shop.take()} == {0.001}
