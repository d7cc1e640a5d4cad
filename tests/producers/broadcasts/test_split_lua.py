"""split.lua: whole buckets, up to the window, each recipient exactly once."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lane_driver import BUCKETS, Lane

OPENIDS = [f"o{n:03}" for n in range(60)]


def in_bucket_order(lane: Lane, openids: list[str]) -> list[list[str]]:
    return [[o for o in openids if lane.bucket(o) == bucket] for bucket in range(BUCKETS)]


def test_an_audience_within_the_window_is_split_in_one_step(lane: Lane) -> None:
    lane.audience("vip", *OPENIDS)
    lane.adopt("b1", audience="vip")
    assert lane.split("b1") == [1, BUCKETS, 60, 60]
    assert Counter(lane.queue("b1")) == Counter(OPENIDS)
    copy = lane.copy("b1")
    assert (copy["cursor"], copy["split"], copy["total"]) == (str(BUCKETS), "done", "60")
    assert lane.ring() == ["b1"]
    assert lane.client.ttl(lane.key("queue", "b1")) > 0
    assert lane.split("b1") == [2, str(BUCKETS), 0, 60]


def test_a_full_window_stops_after_the_bucket_that_filled_it(lane: Lane) -> None:
    lane.audience("vip", *OPENIDS)
    buckets = in_bucket_order(lane, OPENIDS)
    lane.adopt("b1", audience="vip", window=1)
    first = len(buckets[0])
    assert lane.split("b1") == [1, 1, first, first]
    assert lane.split("b1") == [3, "1", 0, first]
    lane.client.lpop(lane.key("queue", "b1"), first)
    assert lane.split("b1") == [1, 2, len(buckets[1]), len(buckets[1])]
    assert lane.copy("b1")["split"] == ""


def test_a_bucket_that_just_fills_the_window_is_the_last_one(lane: Lane) -> None:
    lane.audience("vip", *OPENIDS)
    first, second, *_ = map(len, in_bucket_order(lane, OPENIDS))
    lane.adopt("b1", audience="vip", window=first)
    assert lane.split("b1") == [1, 1, first, first]
    lane.adopt("b2", audience="vip", window=first + 1)
    assert lane.split("b2") == [1, 2, first + second, first + second]


def test_a_queue_of_exactly_the_window_is_full(lane: Lane) -> None:
    lane.audience("vip", *OPENIDS)
    first = len(in_bucket_order(lane, OPENIDS)[0])
    lane.adopt("b1", audience="vip", window=first)
    lane.split("b1")
    assert lane.split("b1") == [3, "1", 0, first]
    lane.client.lpop(lane.key("queue", "b1"))
    assert lane.split("b1")[:2] == [1, 2]


def test_two_splitters_with_one_cursor_move_a_bucket_once(lane: Lane) -> None:
    lane.audience("vip", *OPENIDS)
    lane.adopt("b1", audience="vip", window=1)
    lane.split("b1", cursor=0)
    queued = len(lane.queue("b1"))
    assert lane.split("b1", cursor=0) == [0, "1", 0, queued]
    assert len(lane.queue("b1")) == queued


@pytest.mark.parametrize("state", ["paused", "finished"])
def test_what_does_not_run_is_not_split(lane: Lane, state: str) -> None:
    lane.audience("vip", *OPENIDS)
    lane.adopt("b1", audience="vip", state=state)
    assert lane.split("b1") == [-1, "0", 0, 0]
    assert lane.queue("b1") == []


def test_a_verdict_stops_the_split(lane: Lane) -> None:
    lane.audience("vip", *OPENIDS)
    lane.adopt("b1", audience="vip")
    lane.client.hset(lane.key("lane_broadcast", "b1"), "verdict", "abort 40037")
    assert lane.split("b1") == [-1, "0", 0, 0]


@pytest.mark.parametrize("drop", ["cancelled", "late"])
def test_what_was_never_split_of_a_dropped_broadcast_is_counted_only(lane: Lane, drop: str) -> None:
    lane.audience("vip", *OPENIDS)
    lane.adopt("b1", audience="vip", window=1)
    _, _, moved, _ = lane.split("b1")
    lane.adopt("b1", 2, "running" if drop == "late" else "cancelled", drop)
    assert lane.split("b1")[:3] == [1, BUCKETS, 60 - moved]
    assert lane.counts("b1") == {"total": 60, "done": 60, f"o:{drop}": 60}
    assert lane.queue("b1") == []
    assert lane.ring() == []
    assert lane.outcomes("b1") == {}


def test_rows_that_were_never_split_are_counted_each_once(lane: Lane) -> None:
    rows = {0: "\x1eanna\x1f1\x1ebert\x1f2", 2: "\x1ecleo\x1f3"}
    key = lane.key("rows", "shop", "~r1")
    lane.client.hset(key, mapping=rows)
    lane.ends("rows", "shop", "~r1")
    lane.adopt("b1", 1, "cancelled", "cancelled", audience="~r1")
    assert lane.split("b1") == [1, f"r{BUCKETS}", 3, 3]
    assert lane.counts("b1") == {"total": 3, "done": 3, "o:cancelled": 3}


def test_an_empty_audience_is_split_at_once(lane: Lane) -> None:
    lane.adopt("b1", audience="nobody")
    assert lane.split("b1", buckets=[]) == [1, "0", 0, 0]
    assert lane.copy("b1")["split"] == "done"
    assert lane.ring() == []


def test_it_is_not_done_before_the_last_buckets_were_offered(lane: Lane) -> None:
    lane.audience("vip", *OPENIDS)
    lane.adopt("b1", audience="vip")
    lane.split("b1", buckets=range(4), last=False)
    assert (lane.copy("b1")["split"], lane.copy("b1")["cursor"]) == ("", "4")
    lane.split("b1", buckets=range(4, BUCKETS))
    assert lane.copy("b1")["split"] == "done"
    assert Counter(lane.queue("b1")) == Counter(OPENIDS)


def test_a_priority_broadcast_joins_the_priority_ring(lane: Lane) -> None:
    lane.audience("vip", *OPENIDS)
    lane.adopt("b1", audience="vip", priority=1)
    lane.split("b1")
    assert (lane.ring(first=True), lane.ring()) == (["b1"], [])


def test_a_lane_without_a_copy_is_not_split(lane: Lane) -> None:
    assert lane.split("b1", cursor=0)[0] in (0, -1)
    assert lane.copy("b1") == {}


def test_a_bucket_larger_than_luas_stack_is_moved_whole(lane: Lane) -> None:
    openids = [f"big{n:05}" for n in range(20_000)]
    for at in range(0, len(openids), 2000):
        lane.audience("vip", *openids[at : at + 2000])
    moved = lane.audience("one", *in_bucket_order(lane, openids)[0])
    for bucket in range(1, BUCKETS):
        for at in range(0, 20_000, 4000):
            some = openids[at : at + 4000]
            lane.client.sadd(lane.key("audience", "shop", "one", bucket), *some)
    lane.adopt("b1", audience="one", window=1)
    assert lane.split("b1") == [1, 1, moved, moved]
    lane.client.delete(lane.key("queue", "b1"))
    assert lane.split("b1") == [1, 2, 20_000, 20_000]
    assert sorted(lane.queue("b1")) == openids  # none left out and none twice where pieces meet


@given(data=st.data())
def test_each_recipient_comes_exactly_once_while_members_come_and_splitters_race(
    valkey_url: str, data: st.DataObject
) -> None:
    import redis  # noqa: PLC0415  (a client of this example's own)

    client = redis.Redis.from_url(valkey_url, decode_responses=True)
    client.flushall()
    lane = Lane(client)
    first = data.draw(st.lists(st.sampled_from(OPENIDS), unique=True, max_size=40), "members")
    if first:
        lane.audience("vip", *first)
    lane.adopt("b1", audience="vip", window=data.draw(st.integers(1, 20), "window"))
    seen: list[str] = []
    cursors = ["0"]
    for _ in range(60):
        if lane.copy("b1")["split"] == "done":
            break
        step = data.draw(st.sampled_from(["split", "stale", "add", "drain", "drain"]), "step")
        if step == "split":
            cursors.append(str(lane.split("b1")[1]))
        elif step == "stale":
            lane.split("b1", cursor=data.draw(st.sampled_from(cursors), "cursor"))
        elif step == "add":
            lane.audience("vip", data.draw(st.sampled_from(OPENIDS), "openid"))
        else:
            seen += lane.queue("b1")
            lane.client.delete(lane.key("queue", "b1"))
    else:
        for _ in range(BUCKETS + 1):
            seen += lane.queue("b1")
            lane.client.delete(lane.key("queue", "b1"))
            lane.split("b1")
    seen += lane.queue("b1")
    client.close()
    client.connection_pool.disconnect()
    assert len(seen) == len(set(seen))
    assert set(first) <= set(seen)
    assert int(lane.copy("b1")["total"]) == len(seen)
