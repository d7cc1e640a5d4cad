"""The send window: outside it broadcasts wait, and nothing of them starts."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
import redis
from lane_driver import Lane, form, row
from send_path import APP, Stall, pumping

from producers.settings import Settings
from producers.store import keys
from producers.store.clock import now_ms
from producers.times.windows import Window
from producers.times.zones import zone_of
from workers.limits.hours import ALWAYS, SLOT_LIFE_S, Calendar, Hours

HOUR = 3_600_000


def due(lane: Lane, broadcast: str) -> float | None:
    score: float | None = lane.client.zscore(lane.key("due"), broadcast)
    return score


# -- taking -------------------------------------------------------------------------------------


def stand(lane: Lane, broadcast: str, *users: str) -> None:
    lane.collect({user: [form(user)] for user in users})
    lane.start(broadcast, *users, open=1)
    lane.client.delete(lane.key("due"))  # that it runs is known already


def test_outside_it_a_broadcast_leaves_the_ring_until_it_opens(lane: Lane) -> None:
    stand(lane, "b1", "anna", "bob")
    stand(lane, "b2", "carl")
    opens = lane.now_ms + HOUR
    shut = Hours(opens, opens + HOUR, 0)
    taken = lane.take(hours=shut)
    assert (taken.claims, taken.left) == ([], "")
    assert (lane.ring(), lane.client.exists(lane.key("busy"))) == ([], 0)
    assert (due(lane, "b1"), due(lane, "b2")) == (opens, opens)
    assert sorted(lane.queue("b1")) == ["anna", "bob"]
    assert lane.uses("anna")["f:anna"] > 0  # no permit is held all night
    lane.keep()
    assert lane.ring() == []
    lane.now_ms = opens
    lane.keep()
    assert sorted(lane.ring()) == ["b1", "b2"]
    assert sorted(lane.take(hours=shut).openids) == ["anna", "bob", "carl"]


def test_the_servers_clock_says_when_it_is_over(lane: Lane) -> None:
    stand(lane, "b1", "anna")
    over = Hours(lane.now_ms - HOUR, lane.now_ms, 0)  # to a worker's clock it is still open
    assert lane.take(hours=over).claims == []
    assert due(lane, "b1") == lane.now_ms + 1000
    stand(lane, "b2", "bob")
    assert lane.take(hours=over._replace(closes_ms=lane.now_ms + 1)).openids == ["bob"]


def test_what_was_handed_back_at_its_end_waits_for_the_next_one(lane: Lane) -> None:
    stand(lane, "b1", "anna")
    claim = lane.take_one()
    lane.settle(row(claim, "requeue", "back", "-", streak="-"))
    assert lane.ring() == ["b1"]
    opens = lane.now_ms + HOUR
    assert lane.take(hours=Hours(opens, opens + HOUR, 0)).claims == []
    assert due(lane, "b1") == opens


@pytest.mark.parametrize(("holds", "claims"), [(0, ["anna"]), (1, [])])
def test_single_messages_pass_unless_they_are_held(
    lane: Lane, holds: int, claims: list[str]
) -> None:
    stand(lane, "m1", "anna")
    lane.client.hset(lane.key("mail", "m1"), lane.item("anna"), f"{lane.now_ms + 2 * HOUR} {{}}")
    lane.client.expire(lane.key("mail", "m1"), 60)
    stand(lane, "b1", "bob")
    opens = lane.now_ms + HOUR
    assert lane.take(hours=Hours(opens, opens + HOUR, holds)).openids == claims
    assert due(lane, "b1") == opens


# -- what a worker reckons ----------------------------------------------------------------------


@pytest.fixture
def told() -> list[tuple[bool, int]]:
    return []


def test_a_calendar_tells_the_hours_and_each_change_once(told: list[tuple[bool, int]]) -> None:
    zone = zone_of("Asia/Shanghai")
    window = Window.read("08:00-22:00", zone)
    calendar = Calendar(window, lambda is_open, until: told.append((is_open, until)))
    day = datetime(2026, 12, 1, tzinfo=zone).timestamp()
    for hour in (3, 7.99, 8, 21.99, 22, 23, 32, 3):  # at last the clock is set back
        at = day + hour * 3600
        hours = calendar.at(at)
        assert (hours.opens_ms, hours.closes_ms) == window.around(round(at * 1000))
    opens, closes = (round((day + hour * 3600) * 1000) for hour in (8, 22))
    a_day = 24 * HOUR
    assert told == [
        (False, opens),
        (True, closes),
        (False, opens + a_day),
        (True, closes + a_day),
        (False, opens),
    ]


def test_without_a_window_it_is_always_open(told: list[tuple[bool, int]]) -> None:
    calendar = Calendar(None, lambda is_open, until: told.append((is_open, until)))
    assert calendar.at(1.0) == ALWAYS
    assert told == []


# -- the pump -----------------------------------------------------------------------------------


class Until:
    """A window that closes at a moment."""

    def __init__(self, closes_ms: int) -> None:
        self.closes_ms = closes_ms

    def at(self, server_s: float) -> Hours:
        if server_s * 1000 < self.closes_ms:
            return Hours(0, self.closes_ms, 0)
        return Hours(self.closes_ms + HOUR, self.closes_ms + 2 * HOUR, 0)


@pytest.fixture
def shop_settings(make_settings: Callable[..., Settings]) -> Iterator[Callable[..., Settings]]:
    """Give a maker of settings for a shop whose token lies in Redis, its canary wide open."""
    return lambda **app: make_settings(canary=1000, app={**APP, **app})


async def test_no_slot_lies_beyond_its_end_though_the_claim_was_made_before(
    client: "redis.Redis", shop_settings: Callable[..., Settings]
) -> None:
    settings = shop_settings(rate_per_second=100)
    stall = Stall(client, settings)
    stall.form_ids(200)
    broadcast = stall.broadcast()
    async with pumping(settings) as bench:
        closes_ms = now_ms(client) + 120
        bench.gate.calendar = cast("Any", Until(closes_ms))
        client.delete(keys.due(0))  # that it runs is known already
        sent = []
        while batch := await bench.next_batch(0.3):
            sent += batch
        ahead = bench.intake._server_time() - time.monotonic()
        assert 2 <= len(sent) < 15  # some do start
        assert max(one.slot_at for one in sent) + ahead + SLOT_LIFE_S < closes_ms / 1000 + 0.002
        assert bench.handed_back  # claimed before its end, for a slot beyond it
        assert bench.gate.unused  # the day gets their slots back
        assert broadcast not in client.lrange(keys.ring(0, "shop"), 0, -1)
        assert client.zscore(keys.due(0), broadcast) == pytest.approx(closes_ms + HOUR, abs=HOUR)


async def test_without_a_rate_a_claim_near_its_end_is_good_for_its_moment_alone(
    client: "redis.Redis", shop_settings: Callable[..., Settings]
) -> None:
    settings = shop_settings(rate_per_second=0)
    stall = Stall(client, settings)
    stall.form_ids(3)
    stall.broadcast()
    async with pumping(settings) as bench:
        bench.gate.calendar = cast("Any", Until(now_ms(client) + 2000))
        assert [claim.slot_ends for claim in await bench.next_batch()] == [True] * 3


async def test_long_before_its_end_nothing_is_different(
    client: "redis.Redis", shop_settings: Callable[..., Settings]
) -> None:
    settings = shop_settings(rate_per_second=0)
    stall = Stall(client, settings)
    stall.form_ids(3)
    stall.broadcast()
    async with pumping(settings) as bench:
        bench.gate.calendar = cast("Any", Until(now_ms(client) + HOUR))
        assert [claim.slot_ends for claim in await bench.next_batch()] == [False] * 3


async def test_the_settings_window_is_kept_and_told(
    client: "redis.Redis",
    make_settings: Callable[..., Settings],
    lines: list[Any],
) -> None:
    now = datetime.now(UTC)
    opens, closes = (f"{now + timedelta(hours=hours):%H}:30" for hours in (6, 12))
    app = {**APP, "zone": "UTC", "send_window": f"{opens}-{closes}"}
    settings = make_settings(canary=1000, app=app)
    stall = Stall(client, settings)
    stall.form_ids(3)
    broadcast = stall.broadcast()
    client.delete(keys.due(0))  # that it runs is known already
    async with pumping(settings) as bench:
        assert await bench.next_batch(0.1) == []
    [line] = [one for one in lines if one["event"] == "send_window_closed"]
    assert line["app"] == "shop"
    assert client.zscore(keys.due(0), broadcast) == line["opens_at_ms"]
    assert 5 * HOUR < line["opens_at_ms"] - now_ms(client) < 7 * HOUR
