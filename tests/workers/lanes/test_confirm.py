"""A template that WeChat calls unknown: its own list is looked at before a broadcast is aborted."""

from typing import Any

import pytest
import redis
from clerks import shelve
from shop import OTHER, TEMPLATE, Shop

from producers.care.audit import Auditor
from producers.settings import Settings
from producers.store import keys
from producers.templates import Template
from producers.words import State

VERDICT = "abort 40037"
both_layouts = pytest.mark.parametrize("lanes", [1, 4])


@pytest.fixture
def shop(client: "redis.Redis", settings: Settings) -> Shop:
    return Shop(client, settings)


class Case:
    """A broadcast whose home lane was told K times that there is no such template."""

    def __init__(self, shop: Shop, *, worker: bool = True) -> None:
        self.shop = shop
        for number in range(20):
            shop.give(f"o{number}", subscriptions={TEMPLATE: "accept"})
        self.id = shop.broadcast("subscribe")
        shop.open(self.id)
        if worker:
            shop.client.zadd(keys.WORKERS, {"w1": shop.now_ms()})
        shop.client.hset(self.copy(self.lane), "verdict", VERDICT)

    @property
    def lane(self) -> int:
        return self.shop.broadcasts.home_lane(self.id)

    def copy(self, lane: int) -> str:
        return keys.lane_broadcast(lane, self.id)

    def obey(self) -> bool:
        return self.shop.keeper.wants.obey(self.id, self.lane)

    def since(self, ms_ago: int) -> None:
        """Let it have been asked for so long."""
        for lane in self.shop.settings.layout.lanes:
            generation = self.shop.client.hget(self.copy(lane), "generation")
            asked = f"{generation} {self.shop.now_ms() - ms_ago}"
            self.shop.client.hset(self.copy(lane), "questioned", asked)

    @property
    def status(self) -> tuple[State, int]:
        status = self.shop.broadcasts.status(self.id)
        return status.state, status.errcode


@both_layouts
def test_while_it_is_asked_nothing_is_taken_in_any_lane(shop: Shop) -> None:
    case = Case(shop)
    assert not case.obey()
    assert case.status == (State.RUNNING, 0)
    assert shop.take() == []
    assert shop.client.zscore(keys.TEMPLATES_DUE, "subscribe shop")
    for lane in shop.settings.layout.lanes:
        assert shop.client.hget(case.copy(lane), "verdict") == VERDICT
        assert shop.client.zscore(keys.due(lane), case.id) is not None  # it is looked at again


@both_layouts
def test_a_template_that_the_list_has_pauses_and_nothing_is_lost(shop: Shop) -> None:
    case = Case(shop)
    assert not case.obey()
    shelve(shop.client, Template(TEMPLATE))
    shop.keeper.run_once()
    assert case.status == (State.PAUSED, 40037)
    assert "its list has it: resume" in shop.broadcasts.status(case.id).reason
    shop.broadcasts.resume(case.id)
    assert len(shop.take()) == 20
    assert Auditor(shop.client, shop.settings).run().wrong == []


@both_layouts
def test_a_template_that_the_list_lacks_aborts(shop: Shop) -> None:
    shelve(shop.client, Template(TEMPLATE))
    case = Case(shop)
    assert not case.obey()  # an older list that has it says nothing
    shelve(shop.client, Template(OTHER))
    shop.keeper.run_once()
    assert case.status == (State.ABORTED, 40037)


def test_a_young_list_that_lacks_it_aborts_at_once(shop: Shop) -> None:
    case = Case(shop)
    shelve(shop.client, Template(OTHER), age_ms=30_000)
    assert case.obey()
    assert case.status == (State.ABORTED, 40037)


def nobody(case: Case) -> None:
    case.shop.client.delete(keys.WORKERS)


def too_long(case: Case) -> None:
    case.since(5_001)


def failed(case: Case) -> None:
    name = keys.templates("shop", "subscribe")
    case.since(100)
    fields: dict[str, Any] = {"trouble": "HTTP 404", "tried_at_ms": case.shop.now_ms()}
    case.shop.client.hset(name, mapping=fields)
    case.shop.client.pexpire(name, 60_000)


def not_yet(case: Case) -> None:
    name = keys.templates("shop", "subscribe")
    case.shop.client.hset(name, "next_ms", case.shop.now_ms() + 600_000)
    case.shop.client.pexpire(name, 60_000)


def empty(case: Case) -> None:
    case.since(100)
    shelve(case.shop.client)


@pytest.mark.parametrize("why", [nobody, too_long, failed, not_yet, empty])
def test_where_the_list_cannot_tell_it_aborts_as_without_one(shop: Shop, why: Any) -> None:
    case = Case(shop)
    why(case)
    assert case.obey()
    assert case.status == (State.ABORTED, 40037)


def test_resumed_it_is_asked_anew(shop: Shop) -> None:
    case = Case(shop)
    case.since(100)
    shelve(shop.client, Template(TEMPLATE))
    case.obey()
    shop.broadcasts.resume(case.id)
    shop.client.hset(case.copy(case.lane), "verdict", VERDICT)
    assert not case.obey()
    generation, since_ms = shop.client.hget(case.copy(case.lane), "questioned").split()
    assert generation == shop.client.hget(case.copy(case.lane), "generation")
    assert shop.now_ms() - int(since_ms) < 5_000


def test_an_operator_who_cancels_meanwhile_is_obeyed(shop: Shop) -> None:
    case = Case(shop)
    case.obey()
    shop.broadcasts.cancel(case.id)
    shelve(shop.client, Template(TEMPLATE))
    assert case.obey()
    assert case.status == (State.CANCELLED, 0)
