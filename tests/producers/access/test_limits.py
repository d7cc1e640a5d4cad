"""Limits: all are charged or none, what was charged can be given back, and no more."""

from typing import Any

import pytest

from producers.access.limits import Limit, Limits
from producers.store import keys

ADDRESS, APP = keys.login_flood("shop", "a"), keys.login_flood("shop")


@pytest.fixture
def limits(client: Any) -> Limits:
    return Limits(client)


def passes(limits: Limits, *all_of: Limit) -> int:
    """How often a call passes; a minute's limits barely fill again meanwhile."""
    count = 0
    while limits.admit("shop", all_of).admitted:
        count += 1
    return count


@pytest.mark.parametrize("per_minute", [1, 3, 7])
def test_a_limit_lets_its_burst_pass_and_says_when_again(limits: Limits, per_minute: int) -> None:
    limit = Limit(ADDRESS, per_minute)
    assert passes(limits, limit) == per_minute
    refused = limits.admit("shop", [limit])
    assert 0 < refused.wait_ms <= 60_000 / per_minute


def test_a_call_that_one_limit_refuses_is_charged_to_none(limits: Limits, client: Any) -> None:
    assert passes(limits, Limit(APP, 2)) == 2
    assert passes(limits, Limit(ADDRESS, 5), Limit(APP, 2)) == 0
    assert not client.exists(ADDRESS)
    assert passes(limits, Limit(ADDRESS, 5)) == 5


def test_what_is_given_back_is_there_again_and_no_more(limits: Limits, client: Any) -> None:
    limit, back = Limit(ADDRESS, 4), Limit(ADDRESS, 4, need=0, cost=-1)
    assert passes(limits, limit) == 4
    assert limits.admit("shop", [back]).admitted
    assert passes(limits, limit) == 1
    for _ in range(9):
        limits.admit("shop", [back])
    assert not client.exists(ADDRESS)  # an empty limit is no key
    assert passes(limits, limit) == 4
    assert 0 < client.pttl(ADDRESS) <= 60_000


def test_a_look_costs_nothing(limits: Limits, client: Any) -> None:
    for _ in range(9):
        assert limits.admit("shop", [Limit(ADDRESS, 1, cost=0)]).admitted
    assert not client.exists(ADDRESS)


@pytest.mark.parametrize("lanes", [4])
def test_limits_of_a_lane_and_of_an_app_answer_from_their_own_slot(
    limits: Limits, client: Any, lanes: int
) -> None:
    limits.admit(lanes - 1, [Limit(keys.upload_flood(lanes - 1, "shop", "oA"), 1)])
    limits.admit("shop", [Limit(ADDRESS, 1)])
    tags = {key[key.index("{") : key.index("}") + 1] for key in client.scan_iter("*flood*")}
    assert tags == {"{3}", "{app:shop}"}
