"""Where a worker takes from, and which claims in its hands it may still post."""

import math
import time

from workers.sending.claim import Claim
from workers.sending.stops import Stops
from workers.sending.turns import Turns


def claim(claimed_at: float, broadcast: str = "b1") -> Claim:
    return Claim("shop", 0, broadcast, "1:anna", "f:A", 2, "7", 0, False, claimed_at)


def test_an_app_without_work_is_in_no_turn() -> None:
    turns = Turns()
    assert (turns.apps(0), turns.lanes("shop"), turns.next_at) == ([], [], math.inf)


def test_a_turn_is_over_when_it_begins_and_what_wakes_it_then_counts() -> None:
    turns = Turns()
    turns.wake("shop", 0)
    turns.begin("shop", 0)
    assert turns.apps(0) == []
    turns.wake("shop", 0)  # while the take is under way
    assert (turns.apps(0), turns.lanes("shop")) == (["shop"], [0])


def test_apps_take_turns_whatever_their_lanes() -> None:
    turns = Turns()
    for lane in range(3):
        turns.wake("large", lane)
    turns.wake("small", 0)
    served = []
    while apps := turns.apps(0):
        app = apps[0]
        lane = turns.lanes(app)[0]
        turns.begin(app, lane)
        served.append((app, lane))
    assert served == [("large", 0), ("small", 0), ("large", 1), ("large", 2)]


def test_a_rest_ends_at_its_time_or_by_a_wake_up() -> None:
    turns = Turns()
    turns.rest("shop", 0, 5.0)
    turns.rest("shop", 1, 7.0)
    turns.rest("shop", 2, math.inf)
    assert (turns.apps(4.9), turns.next_at) == ([], 5.0)
    turns.wake("shop", 2)
    assert turns.lanes("shop") == [2]
    assert turns.apps(5.0) == ["shop"]
    assert turns.lanes("shop") == [2, 0, 1]


def test_a_lane_that_is_held_is_not_woken_before_its_time() -> None:
    turns = Turns()
    turns.hold([0, 1], 5.0)
    for lane in range(3):
        turns.wake("shop", lane)
    assert (turns.apps(4.9), turns.lanes("shop"), turns.next_at) == (["shop"], [2], 5.0)
    assert [turns.is_held(lane) for lane in range(3)] == [True, True, False]
    assert turns.apps(5.0) == ["shop"]
    assert (turns.lanes("shop"), turns.next_at) == ([0, 1, 2], math.inf)


def test_work_is_told_when_an_app_had_none() -> None:
    told: list[str] = []
    turns = Turns(told.append)
    turns.wake("shop", 0)
    turns.wake("shop", 1)
    assert told == ["shop"]


def test_a_stop_covers_what_was_claimed_before_it_and_nothing_after() -> None:
    stops = Stops()
    stops.stop("b1", 10.0)
    assert stops.cover(claim(9.0))
    assert stops.cover(claim(10.0))
    assert not stops.cover(claim(10.1))  # its take saw the broadcast run
    assert not stops.cover(claim(9.0, "b2"))


def test_stops_and_claims_are_forgotten_when_no_claim_can_be_that_old() -> None:
    stops = Stops()
    for number in range(1000):
        stops.stop(f"b{number}", time.monotonic() - 60)
    stops.stop("b1")
    stops.claimed([("b1", 0), ("b2", 3)])
    assert sorted(stops.places()) == [("b1", 0), ("b2", 3)]
    assert len(stops._at) == 1
