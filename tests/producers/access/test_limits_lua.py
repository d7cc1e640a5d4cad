"""The script of limits: by steps, by property, and concurrently."""

import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from producers.access.api_keys import ApiKeys
from producers.access.limits import LIMITS, LimitsArgs, LimitsKeys
from producers.settings import Settings
from producers.store import keys, scripts

T0 = 1_800_000_000_000
LIMIT = keys.key_limit("k1")


@pytest.fixture
def lease(client: Any) -> Any:
    script = LIMITS.on(client)

    def run(now_ms: int, rate: int, burst: int, most: int, token: str = "") -> tuple[int, int]:
        answer = script(
            LimitsKeys(keys.key_limit_reply("c1")),
            LimitsArgs(most),
            [1000 / rate, burst, 1, 1],
            more_keys=[LIMIT],
            token=token,
            now=now_ms,
        )
        assert answer[2] == now_ms
        return answer[0], answer[1]

    return run


def test_a_burst_then_one_by_one(lease: Any) -> None:
    steps = [
        (0, 5, (5, 0)),
        (0, 20, (5, 0)),  # what is left of the burst of ten
        (0, 1, (0, 100)),
        (40, 1, (0, 60)),
        (100, 5, (1, 0)),
        (350, 5, (2, 0)),
        (399, 5, (0, 1)),
        (400, 5, (1, 0)),
        (5000, 50, (10, 0)),  # idle time saves up a burst and no more
    ]
    for after_ms, most, expected in steps:
        assert lease(T0 + after_ms, 10, 10, most) == expected, after_ms


def test_a_repeated_call_takes_nothing_again(lease: Any) -> None:
    same = scripts.new_token()
    assert lease(T0, 10, 10, 6, token=same) == (6, 0)
    assert lease(T0, 10, 10, 6, token=same) == (6, 0)
    assert lease(T0, 10, 10, 10) == (4, 0)


def test_the_limit_is_gone_when_it_is_past(lease: Any, client: Any) -> None:
    lease(T0, 10, 10, 10)
    assert 0 < client.pttl(LIMIT) <= 1001


def test_calls_pass_as_far_as_the_narrowest_of_their_limits_lets_them(client: Any) -> None:
    script = LIMITS.on(client)
    minute, own, shared = 60_000, keys.login_flood("shop", "a"), keys.login_flood("shop")

    def run(after_ms: int, most: int, *limits: tuple[str, float, int, int, int]) -> list[int]:
        numbers = [number for limit in limits for number in limit[1:]]
        answer: list[int] = script(
            LimitsKeys(keys.app_reply("shop", "limits", "c")),
            LimitsArgs(most),
            numbers,
            more_keys=[limit[0] for limit in limits],
            now=T0 + after_ms,
        )
        return answer

    wide, narrow = (own, minute / 10, 10, 1, 1), (shared, minute / 6, 6, 2, 2)
    assert run(0, 9, wide, narrow) == [3, 0, T0]  # two of the narrow one's room for each
    assert run(0, 1, wide, narrow) == [0, 20_000, T0]
    assert run(0, 9, wide) == [7, 0, T0]  # the narrow one's refusal was charged to nobody
    assert run(0, 1, (own, minute / 10, 10, 0, 0)) == [1, 0, T0]  # a look, never refused
    assert run(0, 2, (own, minute / 10, 10, 0, -1)) == [2, 0, T0]
    assert run(0, 9, wide) == [2, 0, T0]
    assert run(6000, 9, wide, narrow) == [0, 14_000, T0 + 6000]
    assert run(20_000, 9, wide, narrow) == [1, 0, T0 + 20_000]


def test_a_clock_that_was_set_back_shuts_nobody_out_for_long(lease: Any, client: Any) -> None:
    assert lease(T0 + 3_600_000, 10, 10, 5) == (5, 0)
    assert lease(T0, 10, 10, 5) == (0, 100)
    assert lease(T0 + 100, 10, 10, 5) == (1, 0)
    assert 0 < client.pttl(LIMIT) <= 1000


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(1, 5000),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 400)), min_size=1, max_size=30),
)
def test_no_stretch_of_time_has_more_than_burst_and_rate(
    lease: Any, client: Any, rate: int, steps: list[tuple[int, int]]
) -> None:
    client.delete(LIMIT)
    now_ms, seen = T0, []
    for pause_ms, most in steps:
        now_ms += pause_ms
        granted, wait_ms = lease(now_ms, rate, rate, most)
        assert (granted == 0) == (wait_ms > 0)
        assert granted <= most
        seen.append((now_ms, granted))
    for first in range(len(seen)):
        total = 0
        for at_ms, granted in seen[first:]:
            total += granted
            assert total <= rate + rate * (at_ms - seen[first][0]) / 1000 + 1e-3


def test_many_at_once_share_one_limit(client: Any, settings: Settings) -> None:
    api_keys = ApiKeys(client, settings)
    key = api_keys.create("k", ["shop"], ["read"], rate=1).key
    granted: list[int] = []

    def take() -> None:
        granted.append(api_keys.lease(key, 1).granted)

    began = client.time()[0]
    threads = [threading.Thread(target=take) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= sum(granted) <= 2 + client.time()[0] - began
