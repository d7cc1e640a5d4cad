"""create.lua: a broadcast is written at its home once."""

from typing import Any

from lane_driver import TTL, Lane

from producers.broadcasts.birth import CREATE, CreateArgs, CreateKeys
from producers.store import keys


def create(lane: Lane, broadcast: str, **changes: Any) -> list[Any]:
    fields = {"state": "running", "generation": 1, "spec": "{}", "expires_in_ms": 5000} | changes
    given: list[Any] = []
    for pair in fields.items():
        given += pair
    return lane.run(CREATE, CreateKeys(lane.key("home", broadcast)), CreateArgs(TTL), given)


def home(lane: Lane, broadcast: str) -> dict[str, str]:
    return lane.client.hgetall(lane.key("home", broadcast))


def test_the_servers_clock_says_when_it_was_created_and_when_it_expires(lane: Lane) -> None:
    assert create(lane, "b1") == [1, "running", "1", str(lane.now_ms)]
    assert home(lane, "b1") == {
        "state": "running",
        "generation": "1",
        "spec": "{}",
        "expires_in_ms": "5000",
        "created_at_ms": str(lane.now_ms),
        "expires_at_ms": str(lane.now_ms + 5000),
    }
    assert 0 < lane.client.pttl(lane.key("home", "b1")) <= TTL
    assert lane.client.zrange(keys.due(0), 0, -1, withscores=True) == [("b1 home", lane.now_ms)]


def test_a_second_create_answers_what_is_and_changes_nothing(lane: Lane) -> None:
    create(lane, "b1")
    before = home(lane, "b1")
    created_at = lane.now_ms
    lane.now_ms += 1000
    again = create(lane, "b1", state="scheduled", generation=7, spec="other", expires_in_ms=1)
    assert again == [0, "running", "1", str(created_at)]
    assert home(lane, "b1") == before


def test_a_scheduled_one_lives_from_its_start_on(lane: Lane) -> None:
    at_ms = lane.now_ms + 60_000
    answer = create(lane, "b1", state="scheduled", starts_at_ms=at_ms)
    assert answer == [1, "scheduled", "1", str(lane.now_ms)]
    assert home(lane, "b1")["expires_at_ms"] == str(at_ms + 5000)
    assert TTL < lane.client.pttl(lane.key("home", "b1")) <= TTL + 60_000


def test_it_ends_with_its_life_or_at_its_end_whichever_comes_first(lane: Lane) -> None:
    create(lane, "b1", ends_at_ms=lane.now_ms + 3000)
    create(lane, "b2", ends_at_ms=lane.now_ms + 7000)
    ends = [int(home(lane, one)["expires_at_ms"]) - lane.now_ms for one in ("b1", "b2")]
    assert ends == [3000, 5000]
