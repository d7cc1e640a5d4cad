"""Wake-ups: what each says, and a connection that is cut."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from send_path import Way, by, connected, way_to

from producers.settings import Settings
from producers.store import keys
from workers.duties.wakes import Wakes
from workers.limits.gate import Gate
from workers.sending.claim import Claim
from workers.sending.stops import Stops


class Ears:
    """Wakes for two apps over four lanes, and all that they told."""

    def __init__(self, client: "redis.Redis", settings: Settings) -> None:
        self.gates = {"shop": Gate(1.0), "club": Gate(1.0)}
        self.stops = Stops()
        self.woken: list[tuple[str, int]] = []
        self.went: list[str] = []
        self.rates = self.lists = 0
        self.wakes = Wakes(
            client,
            settings,
            self.gates,
            self.stops,
            lambda app, lane: self.woken.append((app, lane)),
            self.went.append,
            self._rate,
            self._wanted,
        )

    def _rate(self) -> None:
        self.rates += 1

    def _wanted(self) -> None:
        self.lists += 1

    def stopped(self, broadcast: str) -> bool:
        claim = Claim("shop", 0, broadcast, "1:anna", "f:A", 2, "7", 0, False, time.monotonic() - 1)
        return self.stops.cover(claim)


@pytest.fixture
def lanes() -> int:
    return 4


@pytest.fixture
def ears(client: "redis.Redis", settings: Settings) -> Iterator[Ears]:
    it = Ears(client, settings)
    yield it
    it.wakes.close()


def test_it_is_always_due_for_it_waits_by_itself(ears: Ears) -> None:
    assert ears.wakes.due(0.0)


def test_a_wake_up_names_an_app_and_a_lane(ears: Ears) -> None:
    ears.wakes.hear("wake 2 shop")
    assert ears.woken == [("shop", 2)]


def test_one_for_an_app_of_others_is_none(ears: Ears) -> None:
    ears.wakes.hear("wake 2 elsewhere")
    assert ears.woken == []


def test_an_earlier_version_does_not_say_where(ears: Ears) -> None:
    ears.wakes.hear("wake")
    assert ears.woken == [(app, lane) for app in ("shop", "club") for lane in range(4)]


def test_other_lanes_are_looked_for_at_once(ears: Ears) -> None:
    ears.wakes.hear("lanes")
    assert ears.rates == 1


def test_a_stop_stops_what_was_claimed_until_now(ears: Ears) -> None:
    ears.wakes.hear("stop b1")
    assert (ears.stopped("b1"), ears.stopped("b2")) == (True, False)


def test_a_go_tells_the_keeper_and_forgets_the_broadcasts_old_rate(ears: Ears) -> None:
    ears.gates["club"].own_next = {"b1": (1.0, 5.0), "b2": (1.0, 5.0)}
    ears.wakes.hear("go b1")
    assert ears.went == ["b1"]
    assert list(ears.gates["club"].own_next) == ["b2"]


def test_a_rate_makes_the_watch_look(ears: Ears) -> None:
    ears.wakes.hear("rate shop")
    assert ears.rates == 1


@pytest.mark.parametrize("text", ["", "nonsense", "nonsense b1"])
def test_what_another_version_says_is_let_be(ears: Ears, text: str) -> None:
    ears.wakes.hear(text)
    assert (ears.woken, ears.went, ears.rates) == ([], [], 0)


def test_it_hears_what_is_published_and_returns_when_nothing_is(
    ears: Ears, client: "redis.Redis"
) -> None:
    ears.wakes.run()  # it subscribes
    client.publish(keys.WAKE, "wake 1 shop")
    ears.wakes.run()
    assert ears.woken == [("shop", 1)]
    began = time.monotonic()
    ears.wakes.run()
    assert time.monotonic() - began < 5
    assert ears.woken == [("shop", 1)]


def test_after_its_connection_was_cut_the_next_run_makes_another(
    settings: Settings, client: "redis.Redis"
) -> None:
    way: Way
    with way_to(settings) as way, connected(by(settings, way)) as cut:
        it: Any = Ears(cut, settings)
        it.wakes.run()
        way.lose("SUBSCRIBE", "request", times=5)
        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        with pytest.raises(redis.RedisError):
            it.wakes.run()
        way.lose("SUBSCRIBE", "request", times=0)
        it.wakes.run()
        client.publish(keys.WAKE, "wake 1 shop")
        it.wakes.run()
        assert it.woken == [("shop", 1)]
        it.wakes.close()


def test_one_that_could_not_subscribe_does_so_in_the_next_run(
    ears: Ears, client: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pubsub that never subscribed would wait for ever, and hear nothing."""

    def fails(*_: str) -> None:
        raise redis.ConnectionError

    with monkeypatch.context() as patched:
        patched.setattr(redis.client.PubSub, "subscribe", fails)
        with pytest.raises(redis.ConnectionError):
            ears.wakes.run()
    ears.wakes.run()
    client.publish(keys.WAKE, "wake 1 shop")
    ears.wakes.run()
    assert ears.woken == [("shop", 1)]
