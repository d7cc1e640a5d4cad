"""What a worker remembers of an app's limits, and how much it takes by it."""

import math
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.limits.gate import BATCH, HORIZON_MS, Gate
from workers.limits.limiter import AHEAD_US, Grant

HORIZON_S = HORIZON_MS / 1000


class Claimed(NamedTuple):
    """What a gate looks at of a claim."""

    broadcast: str
    rate: float


NOW = 1000.0


def grant(
    *own: list[float],
    plain: int = 0,
    wait_s: float = 0.0,
    level: int = 0,
    horizon: float = NOW,
    rate: float = 300,
) -> Grant:
    return Grant([[NOW] * plain, *own], wait_s, level, horizon, rate)


@pytest.mark.parametrize(
    ("rate", "workers", "most"),
    [
        (0, 1, BATCH),
        (0, 50, BATCH),
        (300, 1, 60),
        (300, 7, 9),
        (300, 60, 1),
        (300, 1000, 1),
        (5000, 1, BATCH),
        (5000, 8, 125),
        (0.1, 1, 1),
    ],
)
def test_a_batch_is_a_fifth_of_a_second_shared_by_all_workers(
    rate: float, workers: int, most: int
) -> None:
    assert Gate(rate).most(NOW, workers) == most


def test_nothing_is_taken_while_the_next_slot_is_far() -> None:
    gate = Gate(300)
    gate.learn(grant(plain=1, horizon=NOW + 2.0), {}, NOW)
    assert gate.next_at == pytest.approx(NOW + 2.0 - HORIZON_S)
    assert gate.most(NOW + 1.89, 1) == 0
    assert gate.most(NOW + 1.91, 1) == 60


def test_what_has_no_slot_yet_is_reckoned_as_given() -> None:
    gate = Gate(300)
    gate.expect([Claimed("b1", 0.0)] * 60, NOW)
    assert gate.horizon == pytest.approx(NOW + 0.2)
    assert gate.most(NOW + 0.09, 1) == 0
    gate.learn(grant(plain=60, horizon=NOW + 0.15), {}, NOW)  # which knows better
    assert gate.most(NOW + 0.06, 1) == 60


def test_of_a_broadcast_with_a_rate_of_its_own_too() -> None:
    gate = Gate(0)
    gate.expect([Claimed("b1", 10.0)] * 3, NOW)
    assert gate.own_next == {"b1": (10.0, pytest.approx(NOW + 0.3))}
    assert gate.allowances(NOW, 2)["b1"][0] == 0


def test_where_redis_is_far_it_is_asked_so_much_sooner() -> None:
    gate = Gate(300, way_s=0.1)
    gate.learn(grant(plain=1, horizon=NOW + 2.0), {}, NOW)
    assert gate.next_at == pytest.approx(NOW + 2.0 - HORIZON_S - 0.1)


def test_without_a_rate_no_horizon_holds_it_back() -> None:
    gate = Gate(0)
    gate.learn(grant(plain=1, horizon=NOW + 2.0, rate=0), {}, NOW)
    assert gate.most(NOW, 1) == BATCH


def test_a_changed_rate_ends_the_wait_for_the_old_horizon() -> None:
    gate = Gate(0.1)
    gate.learn(grant(plain=1, horizon=NOW + 10, rate=0.1), {}, NOW)
    gate.set_rate(0.1)
    assert gate.most(NOW, 1) == 0
    gate.set_rate(5000)
    assert gate.most(NOW, 1) == BATCH


def test_what_was_not_granted_is_not_asked_for_before_its_time() -> None:
    gate = Gate(0)
    gate.learn(grant(wait_s=0.5, rate=0), {}, NOW)
    assert gate.most(NOW + 0.4, 1) == 0
    assert gate.most(NOW + 0.6, 1) == BATCH


@pytest.mark.parametrize(("wait_s", "asks_at"), [(20.0, 20.0), (60.0, 30.0), (86_400.0, 30.0)])
def test_a_used_up_minute_or_day_is_asked_for_again_with_one_claim(
    wait_s: float, asks_at: float
) -> None:
    """The limit may have been raised, or slots handed back, meanwhile."""
    gate = Gate(300)
    gate.learn(grant(wait_s=wait_s), {}, NOW)
    assert gate.most(NOW + asks_at - 0.1, 1) == 0
    assert gate.most(NOW + asks_at + 0.1, 1) == 1
    gate.learn(grant(plain=1), {}, NOW + asks_at)
    assert gate.most(NOW + asks_at, 1) == 60


def test_a_full_grant_opens_the_gate_at_once() -> None:
    gate = Gate(300)
    gate.learn(grant(plain=60, horizon=NOW + HORIZON_S), {}, NOW)
    assert gate.most(NOW, 1) == 60


def test_while_wechat_limits_one_send_at_a_time_probes() -> None:
    gate = Gate(300)
    gate.learn(grant(plain=1, level=2), {}, NOW)
    assert gate.most(NOW, 1) == 1
    gate.learn(grant(plain=1, level=0), {}, NOW)
    assert gate.most(NOW, 1) == 60


def test_a_broadcast_with_a_rate_of_its_own_has_an_allowance() -> None:
    gate = Gate(300)
    assert gate.allowances(NOW, 2) == {}
    gate.learn(grant([NOW, NOW + 0.1], horizon=NOW), {"b1": (10.0, 2)}, NOW)
    # its next slot is at +0.2: it may have as many as lie before now + the horizon
    assert gate.own_next["b1"] == (10.0, pytest.approx(NOW + 0.2))
    assert gate.allowances(NOW, 2) == {"b1": (0, 10.0, pytest.approx(101, abs=1))}
    assert gate.allowances(NOW + 0.05, 2) == {"b1": (0, 10.0, pytest.approx(51, abs=1))}
    assert gate.allowances(NOW + 0.11, 2) == {"b1": (1, 10.0, pytest.approx(0, abs=1))}
    assert gate.allowances(NOW + 0.31, 2) == {"b1": (3, 10.0, pytest.approx(0, abs=1))}
    assert gate.own_next_at(NOW) == pytest.approx(NOW + 0.2 - HORIZON_S)


def test_its_allowance_reaches_as_far_as_the_slots_of_a_batch() -> None:
    gate = Gate(50)
    gate.learn(grant([NOW + 0.27], horizon=NOW + 0.3), {"b1": (20.0, 1)}, NOW + 0.2)
    # a batch of ten has the slots from +0.3 to +0.5; its own next ones are at +0.32, +0.37, …
    assert gate.allowances(NOW + 0.2, 1) == {"b1": (4, 20.0, 0)}
    assert gate.allowances(NOW + 0.2, 2) == {"b1": (2, 20.0, 0)}  # another one has the other half
    gate.learn(grant([NOW + 0.27], horizon=NOW + 0.3, level=1), {"b1": (20.0, 1)}, NOW + 0.2)
    assert gate.allowances(NOW + 0.2, 1) == {"b1": (0, 20.0, 20)}  # one send at a time probes


def test_each_broadcast_has_its_own_allowance() -> None:
    gate = Gate(300)
    own = {"b1": (10.0, 1), "b2": (100.0, 3)}
    gate.learn(grant([NOW], [NOW, NOW + 0.01, NOW + 0.02], horizon=NOW), own, NOW)
    assert gate.allowances(NOW + 0.005, 2) == {"b1": (1, 10.0, 0), "b2": (8, 100.0, 0)}
    assert gate.own_next_at(NOW) == math.inf  # both may be asked for already, or now
    assert gate.own_next_at(NOW - 1) == pytest.approx(NOW + 0.03 - HORIZON_S)


def test_a_broadcast_that_got_no_slot_waits() -> None:
    gate = Gate(300)
    gate.learn(grant([], wait_s=1.5), {"b1": (10.0, 2)}, NOW)
    assert gate.own_next["b1"] == (10.0, pytest.approx(NOW + AHEAD_US / 1e6 + 1.5))
    assert gate.allowances(NOW + 1.0, 2) == {"b1": (0, 10.0, pytest.approx(800, abs=1))}


def test_a_wait_of_one_broadcast_holds_back_no_other() -> None:
    gate = Gate(300)
    gate.learn(grant([], plain=1, wait_s=60.0), {"b1": (0.01, 2)}, NOW)
    assert gate.most(NOW, 1) > 0
    assert gate.next_at <= NOW


def test_a_broadcast_long_unused_is_forgotten() -> None:
    gate = Gate(300)
    gate.learn(grant([NOW]), {"b1": (10.0, 1)}, NOW)
    assert gate.allowances(NOW + 9.0, 2)
    assert gate.allowances(NOW + 11.0, 2) == {}
    assert gate.own_next == {}


def test_without_such_a_broadcast_there_is_nothing_to_wait_for() -> None:
    assert Gate(300).own_next_at(NOW) == math.inf


ODD = st.one_of(
    st.sampled_from(
        [5e-324, 1e-320, -0.0, 0.0, math.inf, -math.inf, math.nan, 2.0**63, -1.0, 1e308, 0.001]
    ),
    st.floats(),
    st.integers(-(2**63), 2**63).map(float),
)


@given(rate=ODD, own=ODD, granted=ODD, workers=st.integers(1, 10_000), ahead=st.floats(0, 1e6))
def test_no_rate_whatever_it_is_breaks_a_gate(
    rate: float, own: float, granted: float, workers: int, ahead: float
) -> None:
    gate = Gate(rate)
    for set_to in (granted, own):
        gate.learn(
            grant([NOW], [], horizon=NOW, rate=granted), {"b1": (own, 1), "b2": (own, 1)}, NOW
        )
        for now in (NOW, NOW + ahead):
            assert 0 <= gate.most(now, workers) <= BATCH
            assert gate.own_next_at(now) > now
            allowances = gate.allowances(now, workers).values()
            assert all(0 <= allowed <= BATCH for allowed, *_ in allowances)
        gate.set_rate(set_to)
        assert 0 <= gate.rate < math.inf
