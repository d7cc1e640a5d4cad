"""What lies in flight and belongs to nobody who lives goes back; what is in hand is left alone."""

import time
from typing import Any

import pytest
import redis
from send_path import Stall

from producers.settings import Settings
from producers.store import clock, keys
from producers.store.lanes.layout import follow
from workers.duties.epochs import Epochs
from workers.duties.flights import EVERY_S, Flights
from workers.duties.recover import FORGOTTEN_MS, ORPHAN_MS, Recoverer
from workers.sending.claim import Claim
from workers.sending.hands import Hands
from workers.sending.take import Asking, Taker


class Living:
    """Peers as far as flights need them: the server's time, and who is to be buried."""

    def __init__(self, client: "redis.Redis") -> None:
        self._client = client
        self.buried: list[str] = []

    def server_time(self) -> float:
        return clock.now_ms(self._client) / 1000

    def bury(self, peer: str) -> None:
        self.buried.append(peer)


class Field:
    """Five claims in flight, made by a worker; and another one's look at them, `me`."""

    def __init__(self, client: "redis.Redis", settings: Settings) -> None:
        self.client = client
        self.stall = Stall(client, settings)
        self.stall.form_ids(5)
        self.broadcast = self.stall.broadcast()
        self.hands = Hands(100)
        self.unknown = False
        self.back: list[Claim] = []
        self.lost: list[Claim] = []
        self.peers: Any = Living(client)
        self.epochs = Epochs(client, settings, self.stall.broadcasts)
        self.epochs.begin()
        self.flights = Flights(
            Recoverer(client, settings, self.stall.broadcasts),
            self.epochs,
            self.peers,
            "me",
            self.hands,
            lambda _: self.unknown,
            self.back.extend,
            self.lost.extend,
        )
        client.zadd(keys.WORKERS, {"me": 1})

    def claim(self, worker: str, age_ms: int) -> list[Claim]:
        """Have a worker take all five, so long ago."""
        settings, ttl_ms = self.stall.settings, self.stall.broadcasts.ttl_ms
        taker = Taker(self.client, settings, worker, ttl_ms)
        claims = taker.take(Asking.of("shop", 0, 5), {}).claims
        assert len(claims) == 5
        flight = keys.flight(0, self.broadcast)
        for item, entry in self.client.hgetall(flight).items():
            parts = entry.split(" ")
            parts[4] = str(int(parts[4]) - age_ms)
            self.client.hset(flight, item, " ".join(parts))
        return claims


@pytest.fixture
def field(client: "redis.Redis", settings: Settings) -> Field:
    return Field(client, settings)


def test_it_is_due_every_few_seconds(field: Field) -> None:
    assert field.flights.due(time.monotonic())
    field.flights.run()
    assert not field.flights.due(time.monotonic())
    assert field.flights.due(time.monotonic() + EVERY_S)


def test_a_look_that_fails_is_not_repeated_at_once(field: Field) -> None:
    field.client.set(keys.flying(0), "not a set")
    with pytest.raises(redis.ResponseError):
        field.flights.run()
    assert not field.flights.due(time.monotonic())


def test_of_what_nothing_is_in_flight_nothing_is_looked_at_any_more(field: Field) -> None:
    flying = keys.flying(0)
    field.client.sadd(flying, field.broadcast, "gone")
    field.client.pexpire(flying, 600_000)
    field.claim("me", 0)
    field.flights.run()
    assert field.client.smembers(flying) == {field.broadcast}
    field.client.delete(keys.flight(0, field.broadcast))
    field.flights.run()
    assert not field.client.exists(flying)


def test_what_it_has_forgotten_is_handed_back(field: Field, lines: list[Any]) -> None:
    claims = field.claim("me", FORGOTTEN_MS + 1000)
    field.flights.run()
    assert {claim.fence for claim in field.back} == {claim.fence for claim in claims}
    assert field.lost == []
    [line] = lines
    assert (line["event"], line["unsent"], line["unsure"]) == ("claims_forgotten", 5, 0)


def test_what_a_restarted_redis_may_have_forgotten_is_given_up(field: Field) -> None:
    field.claim("me", FORGOTTEN_MS + 1000)
    field.epochs.changed_at_ms = clock.now_ms(field.client)
    field.flights.run()
    assert (len(field.back), len(field.lost)) == (0, 5)


@pytest.mark.parametrize("why", ["in hand", "young", "a take is under way"])
def test_what_it_may_still_post_is_left_alone(field: Field, why: str) -> None:
    age_ms = FORGOTTEN_MS - 5000 if why == "young" else FORGOTTEN_MS + 1000
    claims = field.claim("me", age_ms)
    if why == "in hand":
        field.hands.take(claims)
    field.unknown = why == "a take is under way"
    field.flights.run()
    assert (field.back, field.lost) == ([], [])


def test_an_orphans_messages_go_back_to_work(field: Field, lines: list[Any]) -> None:
    field.claim("unknown", ORPHAN_MS + 1000)
    field.flights.run()
    assert {entry[6] for entry in field.stall.flight(field.broadcast).values()} == {"1"}
    assert [line["event"] for line in lines] == ["messages_recovered"]
    assert field.peers.buried == [], "there is nobody to bury"


def test_a_dead_peers_messages_go_back_to_work_and_it_is_buried(
    field: Field, lines: list[Any]
) -> None:
    field.claim("w2", 0)
    field.flights.recover("w2", 8100)
    assert {entry[6] for entry in field.stall.flight(field.broadcast).values()} == {"1"}
    assert field.peers.buried == ["w2"]
    assert [line["event"] for line in lines] == ["worker_buried", "messages_recovered"]


def test_a_peer_whose_messages_could_not_be_taken_back_is_not_buried(
    field: Field, lines: list[Any]
) -> None:
    field.claim("w2", 0)
    field.client.set(keys.flying(0), "not a set")
    with pytest.raises(redis.ResponseError):
        field.flights.recover("w2", 8100)
    assert field.peers.buried == []
    assert [line["event"] for line in lines] == ["worker_buried"]


# -- while the lane is divided --------------------------------------------------------------


def test_what_is_in_hand_of_a_lane_that_was_divided_since_is_not_forgotten(
    field: Field, settings: Settings, division: Any
) -> None:
    claims = field.claim("me", FORGOTTEN_MS + 1000)
    field.hands.take(claims)
    division.end()
    follow(field.client, settings)
    assert settings.layout.lanes == (1, 2)
    field.flights.run()
    assert (field.back, field.lost) == ([], []), "they would be sent twice"
    field.hands.drop(claims)
    field.flights.run()
    assert {claim.fence for claim in field.back} == {claim.fence for claim in claims}
    assert all(one.lane == settings.layout.of_number(one.bucket) for one in field.back)


def test_a_take_of_a_lane_that_was_divided_since_is_asked_after_for_its_heirs_too(
    field: Field, settings: Settings, division: Any
) -> None:
    field.claim("me", FORGOTTEN_MS + 1000)
    division.end()
    follow(field.client, settings)
    asked: list[Any] = []

    def is_unknown(lanes: Any) -> bool:
        asked.append(lanes)
        return 0 in lanes

    field.flights._take_unknown = is_unknown
    field.flights.run()
    assert sorted(map(tuple, asked)) == [(0, 1), (0, 2)]
    assert (field.back, field.lost) == ([], [])


def test_a_dead_peer_is_not_buried_while_it_has_something_in_a_lane_that_is_shut(
    field: Field, settings: Settings, division: Any, lines: list[Any]
) -> None:
    field.claim("w2", 0)
    division.shut()
    field.flights.recover("w2", 8100)
    field.flights.recover("w2", 9100)
    assert field.peers.buried == []
    assert [line["event"] for line in lines] == ["worker_buried"], "it is said once"
    division.end()
    follow(field.client, settings)
    field.flights.recover("w2", 10_100)
    assert field.peers.buried == ["w2"]
    assert {entry[6] for entry in field.stall.flight(field.broadcast).values()} == {"1"}


def test_a_dead_peer_is_not_buried_when_lanes_came_that_were_not_looked_at(
    field: Field, settings: Settings, division: Any
) -> None:
    field.claim("w2", 0)
    division.shut()
    division.end()
    places = field.flights._recoverer.places

    def meanwhile(failed: list[Exception]) -> Any:
        yield from places(failed)
        follow(field.client, settings)

    field.flights._recoverer.places = meanwhile  # type: ignore[method-assign]
    field.flights.recover("w2", 8100)
    assert field.peers.buried == []
    field.flights.recover("w2", 9100)
    assert field.peers.buried == ["w2"]
