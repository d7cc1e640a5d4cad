"""The rates of apps that are held back; the others' are not asked for."""

import time

import pytest
import redis

from producers.quotas import Quotas
from producers.quotas.rates import Rates
from producers.settings import Settings
from producers.store import keys
from workers.duties.held_rates import HeldRates
from workers.limits.gate import Gate
from workers.sending.turns import Turns


class Bench:
    """One app, held back for ten minutes."""

    def __init__(self, client: "redis.Redis", settings: Settings) -> None:
        self.gate = Gate(0.001, horizon=time.monotonic() + 600)
        self.turns = Turns()
        self.turns.wake("shop", 0)
        self.woken = 0
        self.duty = HeldRates(
            Rates(client, settings),
            Quotas(client, settings),
            self.turns,
            {"shop": self.gate},
            self._wake,
        )

    def _wake(self) -> None:
        self.woken += 1


@pytest.fixture
def bench(client: "redis.Redis", settings: Settings) -> Bench:
    return Bench(client, settings)


def test_an_app_that_is_held_back_learns_its_new_rate(bench: Bench, client: "redis.Redis") -> None:
    assert bench.duty.due(time.monotonic())
    client.hset(keys.limiter("shop"), "rate", 7_000)
    bench.duty.run()
    assert bench.gate.rate == 7
    assert bench.woken == 1
    assert not bench.duty.due(time.monotonic()), "it may ask for slots itself"


def test_an_app_that_sends_or_has_nothing_to_send_is_not_asked_for(bench: Bench) -> None:
    bench.turns.begin("shop", 0)
    assert not bench.duty.due(time.monotonic())
    bench.turns.wake("shop", 0)
    bench.gate.horizon = 0.0
    assert not bench.duty.due(time.monotonic())
