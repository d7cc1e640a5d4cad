"""The look each second: where work is, and what was stopped."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from send_path import Stall

from producers.settings import Settings
from producers.store import keys
from producers.store.lanes.layout import follow
from workers.duties import watch as watch_module
from workers.duties.watch import Watch
from workers.sending.claim import Claim
from workers.sending.stops import Stops
from workers.sending.turns import Turns


class Post:
    """A watch over two lanes for the app `shop`, and what it told."""

    def __init__(self, client: "redis.Redis", settings: Settings) -> None:
        self.turns, self.stops = Turns(), Stops()
        self.woken = 0
        self.watch = Watch(client, settings, self.turns, self.stops, {"shop"}, self._wake)

    def _wake(self) -> None:
        self.woken += 1


@pytest.fixture
def lanes() -> int:
    return 2


@pytest.fixture
def post(client: "redis.Redis", settings: Settings) -> Post:
    return Post(client, settings)


def test_it_finds_the_lanes_with_something_to_take(post: Post, client: "redis.Redis") -> None:
    assert post.watch.due(0.0)
    client.sadd(keys.busy(1), "shop", "an app of others")
    post.watch.run()
    assert (post.turns.apps(0), post.turns.lanes("shop")) == (["shop"], [1])
    assert post.woken == 1


def test_where_there_is_nothing_nobody_is_woken(post: Post) -> None:
    post.watch.run()
    assert (post.turns.apps(0), post.woken) == ([], 0)


@pytest.mark.parametrize("how", ["runs", "pause", "cancel", "forgotten"])
def test_what_was_claimed_of_a_broadcast_that_runs_no_more_is_stopped(
    post: Post, client: "redis.Redis", settings: Settings, how: str
) -> None:
    stall = Stall(client, settings)
    stall.form_ids(10)
    broadcast = stall.broadcast()
    claimed_at = time.monotonic()
    claim = Claim("shop", 0, broadcast, "1:anna", "f:A", 2, "7", 0, False, claimed_at)
    post.stops.claimed([(broadcast, lane) for lane in range(2)])
    if how == "pause":
        stall.broadcasts.pause(broadcast)
    elif how == "cancel":
        stall.broadcasts.cancel(broadcast)
    elif how == "forgotten":
        client.delete(*(keys.lane_broadcast(lane, broadcast) for lane in range(2)))
    post.watch.run()
    assert post.stops.cover(claim) is (how != "runs")
    later = claim._replace(claimed_at=time.monotonic())
    assert not post.stops.cover(later), "a claim is itself the proof that its broadcast runs"


def test_what_is_claimed_while_it_looks_is_not_stopped(
    post: Post, client: "redis.Redis", settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is of the moment of the question: the broadcast may run again by now."""
    stall = Stall(client, settings)
    stall.form_ids(10)
    broadcast = stall.broadcast()
    stall.broadcasts.pause(broadcast)
    asked_at = time.monotonic() - 2
    monkeypatch.setattr(watch_module, "time", SimpleNamespace(monotonic=lambda: asked_at))
    post.stops.claimed([(broadcast, 0)])
    post.watch.run()
    claim = Claim("shop", 0, broadcast, "1:anna", "f:A", 2, "7", 0, False, asked_at)
    assert post.stops.cover(claim)
    assert not post.stops.cover(claim._replace(claimed_at=asked_at + 1))


def test_what_cannot_be_read_of_one_broadcast_hides_no_stop_of_another(
    post: Post, client: "redis.Redis", settings: Settings
) -> None:
    """As where one node of a cluster is away, the others are looked at."""
    stall = Stall(client, settings)
    stall.form_ids(10)
    spoiled, stopped = stall.broadcast(), stall.broadcast()
    stall.broadcasts.cancel(stopped)
    client.delete(keys.lane_broadcast(0, spoiled))
    client.set(keys.lane_broadcast(0, spoiled), "what others wrote", ex=60)
    client.sadd(keys.busy(1), "shop")
    for broadcast in (spoiled, stopped):
        post.stops.claimed([(broadcast, 0)])
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        post.watch.run()
    claim = Claim("shop", 0, stopped, "1:anna", "f:A", 2, "7", 0, False, 0.0)
    assert post.stops.cover(claim)
    assert not post.stops.cover(claim._replace(broadcast=spoiled))
    assert (post.turns.lanes("shop"), post.woken) == ([0, 1], 1)


@pytest.mark.parametrize("how", ["runs", "pause"])
def test_of_a_lane_that_was_divided_since_the_claim_its_heirs_say_whether_it_is_stopped(
    post: Post, client: "redis.Redis", settings: Settings, division: Any, how: str
) -> None:
    stall = Stall(client, settings)
    stall.form_ids(10)
    broadcast = stall.broadcast()
    claim = Claim("shop", 0, broadcast, "2:anna", "f:A", 2, "7", 0, False, 0.0)
    post.stops.claimed([(broadcast, 0)])
    division.end()
    follow(client, settings)
    if how == "pause":
        stall.broadcasts.pause(broadcast)
    post.watch.run()
    assert post.stops.cover(claim) == (how == "pause")


def test_a_lane_that_is_being_divided_is_not_looked_at_and_leaves_no_turn(
    post: Post, client: "redis.Redis", settings: Settings, division: Any
) -> None:
    for lane in settings.layout.lanes:
        client.sadd(keys.busy(lane), "shop")
        client.pexpire(keys.busy(lane), 60_000)
    post.watch.run()
    assert post.turns.lanes("shop") == [0, 1]
    assert division.announce() == 0
    follow(client, settings)
    post.watch.run()
    assert post.turns.lanes("shop") == [1]
