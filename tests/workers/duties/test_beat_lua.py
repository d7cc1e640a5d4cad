"""beat.lua: this worker lives, and who else does."""

from typing import Any

from lane_driver import Lane

from producers.store import keys
from workers.duties.peers import BEAT, LEAVE, BeatArgs, BeatKeys


def beat(lane: Lane, worker: str, **dead: int) -> list[Any]:
    """Beat once, removing these dead workers unless they have beaten since."""
    gone: list[Any] = []
    for pair in dead.items():
        gone += pair
    answer = lane.run(BEAT, BeatKeys(keys.WORKERS, keys.SEEN), BeatArgs(worker), gone)
    return [answer[0], *zip(answer[1::2], map(int, answer[2::2]), strict=True)]


def test_each_beat_answers_the_time_and_every_workers_last_beat(lane: Lane) -> None:
    start = lane.now_ms
    assert beat(lane, "w1") == [str(start), ("w1", start)]
    lane.now_ms += 1000
    assert beat(lane, "w2") == [str(lane.now_ms), ("w1", start), ("w2", lane.now_ms)]
    lane.now_ms += 1000
    assert beat(lane, "w1") == [str(lane.now_ms), ("w2", start + 1000), ("w1", lane.now_ms)]


def test_a_dead_worker_is_removed_with_the_next_beat(lane: Lane) -> None:
    died_at = lane.now_ms
    beat(lane, "w1")
    lane.now_ms += 9000
    assert beat(lane, "w2", w1=died_at) == [str(lane.now_ms), ("w2", lane.now_ms)]
    assert beat(lane, "w2", w1=died_at) == [str(lane.now_ms), ("w2", lane.now_ms)]


def test_a_worker_that_has_beaten_meanwhile_is_not_removed(lane: Lane) -> None:
    seen = lane.now_ms
    beat(lane, "w1")
    lane.now_ms += 9000
    beat(lane, "w1")
    assert beat(lane, "w2", w1=seen)[1:] == [("w1", lane.now_ms), ("w2", lane.now_ms)]


def test_several_dead_are_removed_at_once(lane: Lane) -> None:
    died_at = lane.now_ms
    beat(lane, "w1")
    beat(lane, "w2")
    lane.now_ms += 9000
    assert beat(lane, "w3", w1=died_at, w2=died_at)[1:] == [("w3", lane.now_ms)]


def test_the_last_to_leave_says_that_nobody_is_at_work(lane: Lane) -> None:
    def leave(worker: str) -> tuple[int, str | None]:
        names = BeatKeys(keys.WORKERS, keys.SEEN)
        return lane.run(LEAVE, names, BeatArgs(worker)), lane.client.hget(keys.SEEN, "resting")

    beat(lane, "w1")
    beat(lane, "w2")
    assert leave("w1") == (0, "0")
    assert leave("w2") == (1, "1")
    beat(lane, "w3")
    assert lane.client.hget(keys.SEEN, "resting") == "0"
    lane.now_ms += 3000
    beat(lane, "w4")
    assert leave("w4") == (0, "0"), "w3 may be at work: it beat three seconds ago"
    lane.now_ms += 1
    assert leave("w4") == (1, "1"), "w3 has missed three beats"
