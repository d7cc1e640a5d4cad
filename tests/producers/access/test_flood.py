"""Flood limits: all are charged or none, what was charged can be given back, and no more."""

from typing import Any

import pytest

from producers.access.flood import Flood, Limit
from producers.store import keys

ADDRESS, APP = keys.login_flood("shop", "a"), keys.login_flood("shop")


@pytest.fixture
def flood(client: Any) -> Flood:
    return Flood(client)


def passes(flood: Flood, *limits: Limit) -> int:
    """How often a call passes; a minute's limits barely fill again meanwhile."""
    count = 0
    while flood.admit("shop", limits).admitted:
        count += 1
    return count


@pytest.mark.parametrize("per_minute", [1, 3, 7])
def test_a_limit_lets_its_burst_pass_and_says_when_again(flood: Flood, per_minute: int) -> None:
    limit = Limit(ADDRESS, per_minute)
    assert passes(flood, limit) == per_minute
    refused = flood.admit("shop", [limit])
    assert 0 < refused.wait_ms <= 60_000 / per_minute


def test_a_call_that_one_limit_refuses_is_charged_to_none(flood: Flood, client: Any) -> None:
    assert passes(flood, Limit(APP, 2)) == 2
    assert passes(flood, Limit(ADDRESS, 5), Limit(APP, 2)) == 0
    assert not client.exists(ADDRESS)
    assert passes(flood, Limit(ADDRESS, 5)) == 5


def test_what_is_given_back_is_there_again_and_no_more(flood: Flood, client: Any) -> None:
    limit, back = Limit(ADDRESS, 4), Limit(ADDRESS, 4, need=0, cost=-1)
    assert passes(flood, limit) == 4
    assert flood.admit("shop", [back]).admitted
    assert passes(flood, limit) == 1
    for _ in range(9):
        flood.admit("shop", [back])
    assert not client.exists(ADDRESS)  # an empty limit is no key
    assert passes(flood, limit) == 4
    assert 0 < client.pttl(ADDRESS) <= 60_000


def test_a_look_costs_nothing(flood: Flood, client: Any) -> None:
    for _ in range(9):
        assert flood.admit("shop", [Limit(ADDRESS, 1, cost=0)]).admitted
    assert not client.exists(ADDRESS)


@pytest.mark.parametrize("lanes", [4])
def test_limits_of_a_lane_and_of_an_app_answer_from_their_own_slot(
    flood: Flood, client: Any, lanes: int
) -> None:
    flood.admit(lanes - 1, [Limit(keys.upload_flood(lanes - 1, "shop", "oA"), 1)])
    flood.admit("shop", [Limit(ADDRESS, 1)])
    tags = {key[key.index("{") : key.index("}") + 1] for key in client.scan_iter("*flood*")}
    assert tags == {"{3}", "{app:shop}"}
