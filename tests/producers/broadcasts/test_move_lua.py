"""move.lua: every legal and every illegal move, and what each writes at home."""

from typing import Any

import pytest
import redis
from lane_driver import TTL, Lane

from producers.broadcasts.lifecycle import MOVE, MoveArgs, MoveKeys
from producers.store.scripts import new_token

STATES = ("scheduled", "running", "paused", "finished", "cancelled", "aborted")
LEGAL = {
    "start": {"scheduled": "running"},
    "pause": {"running": "paused"},
    "resume": {"paused": "running"},
    "cancel": dict.fromkeys(("scheduled", "running", "paused"), "cancelled"),
    "abort": dict.fromkeys(("running", "paused"), "aborted"),
    "expire": dict.fromkeys(("scheduled", "running", "paused"), "running"),
    "finish": dict.fromkeys(("running", "paused"), "finished"),
    "reopen": {"finished": "running"},
}
DROPS = {"cancel": "cancelled", "abort": "cancelled", "expire": "late"}
ENDS = {"cancel", "abort", "finish"}
EVERY = [(move, state) for move in LEGAL for state in STATES]


def home(lane: Lane) -> dict[str, str]:
    return lane.client.hgetall(lane.key("home", "b1"))


def born(lane: Lane, state: str) -> None:
    fields = {"state": state, "generation": 3, "move_token": "t"}
    lane.client.hset(lane.key("home", "b1"), mapping=fields)
    lane.client.pexpire(lane.key("home", "b1"), 2 * TTL)


def move(lane: Lane, name: str, *, token: str = "", **given: Any) -> list[Any]:
    wanted = {"reason": "", "errcode": "", "total": "", "rate": 0.0, "known": ""} | given
    args = MoveArgs(name, ttl_ms=TTL, **wanted)
    return lane.run(MOVE, MoveKeys(lane.key("home", "b1")), args, token=token)


@pytest.mark.parametrize(("name", "state"), EVERY)
def test_a_move_is_made_where_the_table_has_it_and_refused_elsewhere(
    lane: Lane, name: str, state: str
) -> None:
    born(lane, state)
    before = home(lane)
    answer = move(lane, name, reason="because", errcode=40037)
    to = LEGAL[name].get(state)
    if to is None:
        assert answer == [0, state, 3]
        assert home(lane) == before
        return
    assert answer == [1, to, 4]
    after = home(lane)
    assert after.pop("move_token")
    expected = {
        "state": to,
        "generation": "4",
        "reason": "because",
        "errcode": "40037",
        "state_generation": "4",
        f"{name}_at_ms": str(lane.now_ms),
    }
    assert lane.due() == {"b1 home": 0}
    if name in DROPS:
        expected["drop"] = DROPS[name]
    if name == "reopen":
        expected["unsure_generation"] = "4"
    if name in ENDS:
        expected["ended_at_ms"] = str(lane.now_ms)
    assert after == expected
    lives_anew = name in ENDS or name == "reopen"
    assert (lane.client.pttl(lane.key("home", "b1")) <= TTL) is lives_anew


def test_none_starts_before_its_time(lane: Lane) -> None:
    born(lane, "scheduled")
    lane.client.hset(lane.key("home", "b1"), "starts_at_ms", lane.now_ms + 1)
    assert move(lane, "start", audience_size=9) == [0, "scheduled", 3]
    lane.now_ms += 1
    assert move(lane, "start", audience_size=9) == [1, "running", 4]
    assert home(lane)["audience_size"] == "9"


def test_a_reschedule_moves_start_and_end_and_leaves_the_state(lane: Lane) -> None:
    born(lane, "scheduled")
    lane.client.hset(lane.key("home", "b1"), "expires_in_ms", 5000)
    at_ms = lane.now_ms + 60_000
    assert move(lane, "reschedule", starts_at_ms=at_ms) == [1, "scheduled", 4]
    moved = home(lane)
    assert (moved["starts_at_ms"], moved["expires_at_ms"]) == (str(at_ms), str(at_ms + 5000))
    assert moved["state_generation"] == "3"
    assert TTL < lane.client.pttl(lane.key("home", "b1")) <= TTL + 60_000
    assert lane.due() == {"b1 home": 0}
    move(lane, "reschedule", starts_at_ms=at_ms, ends_at_ms=at_ms + 2000)
    assert home(lane)["expires_at_ms"] == str(at_ms + 2000)
    move(lane, "reschedule", starts_at_ms=at_ms + 500)
    assert home(lane)["expires_at_ms"] == str(at_ms + 2000)  # its end stays


@pytest.mark.parametrize("state", ["running", "paused", "finished", "cancelled", "aborted"])
def test_what_has_started_is_not_rescheduled(lane: Lane, state: str) -> None:
    born(lane, state)
    before = home(lane)
    assert move(lane, "reschedule", starts_at_ms=lane.now_ms + 1) == [0, state, 3]
    assert home(lane) == before


@pytest.mark.parametrize("weight", [0, 101])
def test_a_weight_is_one_to_a_hundred(lane: Lane, weight: int) -> None:
    born(lane, "running")
    assert move(lane, "weight", weight=100)[0] == 1
    before = home(lane)
    with pytest.raises(redis.ResponseError, match="weight"):
        move(lane, "weight", weight=weight)
    assert home(lane) == before


def test_an_unknown_broadcast_is_not_moved(lane: Lane) -> None:
    assert move(lane, "pause") == [-1, "", 0]
    assert home(lane) == {}


def test_the_same_token_moves_once(lane: Lane) -> None:
    born(lane, "running")
    token = new_token()
    assert move(lane, "pause", token=token) == [1, "paused", 4]
    assert move(lane, "pause", token=token) == [1, "paused", 4]
    assert home(lane)["generation"] == "4"


def test_a_finish_writes_the_total(lane: Lane) -> None:
    born(lane, "running")
    move(lane, "finish", total=12)
    assert home(lane)["total"] == "12"


def test_what_was_reopened_has_not_ended(lane: Lane) -> None:
    born(lane, "running")
    move(lane, "finish", total=12)
    assert move(lane, "reopen") == [1, "running", 5]
    assert not {"total", "ended_at_ms"} & home(lane).keys()


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("generation", "seen"), [(2, "paused"), (3, ""), (1, "finished")])
def test_a_home_that_forgot_nothing_is_not_renewed(
    lane: Lane, state: str, generation: int, seen: str
) -> None:
    born(lane, state)
    before = home(lane)
    answer = move(lane, "renew", known=str(generation), seen=seen or state, last="t")
    assert answer == [0, state, 3]
    assert home(lane) == before


def test_another_move_of_the_same_generation_was_forgotten(lane: Lane) -> None:
    born(lane, "running")
    assert move(lane, "renew", known="3", seen="running", last="u") == [1, "running", 4]


@pytest.mark.parametrize(
    ("state", "generation", "seen", "after"),
    [
        ("running", 3, "finished", "running"),
        ("running", 7, "finished", "running"),
        ("running", 7, "running", "running"),
        ("paused", 7, "running", "paused"),
        ("scheduled", 7, "running", "scheduled"),
        ("finished", 7, "paused", "finished"),
        ("cancelled", 4, "aborted", "cancelled"),
        ("running", 7, "", "running"),
    ],
)
def test_a_home_that_forgot_moves_keeps_its_state_and_is_newer_than_what_the_lane_knows(
    lane: Lane, state: str, generation: int, seen: str, after: str
) -> None:
    born(lane, state)
    before = home(lane)
    answer = move(
        lane, "renew", known=str(generation), seen=seen, last="t", reason="forgot", errcode=7
    )
    assert answer == [1, after, generation + 1]
    now = home(lane)
    assert now.pop("move_token") != before.pop("move_token")
    assert now == before | {
        "generation": str(generation + 1),
        "state_generation": str(generation + 1),
        "unsure_generation": str(generation + 1),
        "renew_at_ms": str(lane.now_ms),
    }
    assert lane.client.pttl(lane.key("home", "b1")) > TTL
    assert lane.due() == {"b1 home": 0}


@pytest.mark.parametrize("state", ["scheduled", "running", "paused"])
@pytest.mark.parametrize("seen", ["cancelled", "aborted"])
@pytest.mark.parametrize("generation", [2, 3, 5])
def test_an_end_that_a_lane_knows_of_is_made_again_however_old_it_is(
    lane: Lane, state: str, seen: str, generation: int
) -> None:
    born(lane, state)
    answer = move(
        lane, "renew", known=str(generation), seen=seen, last="t", reason="forgot", errcode=40037
    )
    newer = max(3, generation) + 1
    assert answer == [1, seen, newer]
    now = home(lane)
    assert now["unsure_generation"] == str(newer)
    assert (now["state"], now["drop"]) == (seen, "cancelled")
    assert (now["reason"], now["errcode"]) == ("forgot", "40037")
    assert now["ended_at_ms"] == str(lane.now_ms)
    assert lane.client.pttl(lane.key("home", "b1")) <= TTL


@pytest.mark.parametrize("state", ["scheduled", "running"])
def test_a_pause_that_the_home_forgot_is_made_again(lane: Lane, state: str) -> None:
    born(lane, state)
    answer = move(lane, "renew", known="3", seen="paused", last="t", reason="forgot")
    assert answer == [1, "paused", 4]
    assert (home(lane)["reason"], home(lane)["state_generation"]) == ("forgot", "4")


def test_a_broadcast_expires_once_and_may_still_be_cancelled(lane: Lane) -> None:
    born(lane, "paused")
    assert move(lane, "expire") == [1, "running", 4]
    assert move(lane, "expire") == [0, "running", 4]
    assert home(lane)["drop"] == "late"
    assert move(lane, "cancel") == [1, "cancelled", 5]
    assert home(lane)["drop"] == "cancelled"


def test_a_resume_forgets_why_it_was_paused(lane: Lane) -> None:
    born(lane, "running")
    move(lane, "pause", reason="refusals in a row", errcode=43101)
    move(lane, "resume")
    assert (home(lane)["reason"], home(lane)["errcode"]) == ("", "")
