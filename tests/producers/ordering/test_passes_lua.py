"""pass_begin, pass_look, pass_feed, and the split after them: each recipient exactly once."""

from collections import Counter
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from lane_driver import BUCKETS, HOUR, MARGIN, WEEK, Lane, form

WIDTH = 1000
OPENIDS = [f"o{n:02}" for n in range(24)]


def give(lane: Lane, openid: str, ends_in_ms: int) -> None:
    lane.give(openid, form(f"{openid}-{ends_in_ms}", lane.now_ms + ends_in_ms))


def ordered(lane: Lane, *openids: str, **copy: object) -> None:
    """Begin a pass over these; the n-th has a permit that ends after n seconds of use."""
    for n, openid in enumerate(openids, start=1):
        give(lane, openid, MARGIN + n * WIDTH)
    lane.adopt("b1", **copy)
    assert lane.begin_pass("b1", WIDTH) == 1


def test_whose_last_use_ends_first_is_queued_first(lane: Lane) -> None:
    ordered(lane, *OPENIDS)
    assert lane.look("b1") == [1, "done", 24, 24]
    assert lane.feed("b1") == [1, 24, 0]
    assert lane.queue("b1") == OPENIDS
    copy = lane.copy("b1")
    assert (copy["total"], copy["hurried"], copy["look"]) == ("24", "0", "done")
    assert lane.ring() == ["b1"]


def test_the_rest_is_split_without_those_who_went_first(lane: Lane) -> None:
    ordered(lane, *OPENIDS[:10])
    for openid in OPENIDS[10:20]:
        give(lane, openid, WEEK)
    lane.audience("all", *OPENIDS[20:])
    assert lane.look("b1")[3] == 10
    assert lane.split("b1") == [4, "ordered 0", 0, 0]
    lane.feed("b1")
    assert lane.begin_pass("b1", 0) == 1
    assert lane.split("b1") == [1, f"ordered {BUCKETS}", 14, 24]
    assert lane.queue("b1")[:10] == OPENIDS[:10]
    assert Counter(lane.queue("b1")) == Counter(OPENIDS)
    assert lane.copy("b1")["split"] == "done"
    assert [key for key in lane.client.scan_iter() if "hurried" in key or "soon" in key] == []


@pytest.mark.parametrize("ends_in_ms", [MARGIN, MARGIN - 1])
def test_a_use_that_is_too_near_its_end_hurries_nobody(lane: Lane, ends_in_ms: int) -> None:
    give(lane, "o1", ends_in_ms)
    lane.adopt("b1")
    lane.begin_pass("b1", WIDTH)
    assert lane.look("b1") == [1, "done", 1, 0]


def test_the_last_use_counts_and_not_the_first(lane: Lane) -> None:
    give(lane, "o1", MARGIN + WIDTH)
    give(lane, "o1", WEEK)
    lane.adopt("b1")
    lane.begin_pass("b1", WIDTH)
    assert lane.look("b1")[3] == 0


def test_a_use_that_was_spent_is_not_the_last_one(lane: Lane) -> None:
    give(lane, "o1", WEEK)
    lane.start("b0", "o1", open=1)
    lane.deliver(lane.take_one())
    give(lane, "o1", MARGIN + WIDTH)
    lane.adopt("b1")
    lane.begin_pass("b1", WIDTH)
    assert lane.look("b1")[3] == 1


def test_a_bucket_is_looked_at_in_pieces(lane: Lane) -> None:
    ordered(lane, *OPENIDS)
    looked = 0
    for _ in range(30):
        status, look, some, _ = lane.look("b1", most=2)
        looked += some
        assert (status, some) <= (1, 2)
        if look == "done":
            break
    assert looked == 24
    lane.feed("b1")
    assert lane.queue("b1") == OPENIDS


def test_a_window_bounds_what_is_fed(lane: Lane) -> None:
    ordered(lane, *OPENIDS, window=5)
    lane.look("b1")
    assert lane.feed("b1") == [1, 5, 19]
    assert lane.feed("b1") == [3, 0, 19]
    lane.client.ltrim(lane.key("queue", "b1"), 2, -1)
    assert lane.feed("b1") == [1, 2, 17]
    assert lane.queue("b1") == OPENIDS[2:7]


def test_a_window_that_all_of_them_just_fill_leaves_nobody(lane: Lane) -> None:
    ordered(lane, *OPENIDS, window=len(OPENIDS))
    lane.look("b1")
    assert lane.feed("b1") == [1, len(OPENIDS), 0]
    assert lane.copy("b1")["hurried"] == "0"


def test_stale_calls_change_nothing(lane: Lane) -> None:
    ordered(lane, *OPENIDS)
    before = lane.copy("b1")
    assert lane.begin_pass("b1", WIDTH, number=1) == 0
    assert lane.begin_pass("b1", WIDTH) == 0  # the first still looks
    assert lane.look("b1", look="3 0") == [0, "0 0", 0, 0]
    assert lane.copy("b1") == before
    lane.look("b1")
    assert lane.begin_pass("b1", WIDTH) == 0  # somebody waits in the slots
    assert lane.look("b1", look="0 0") == [2, "done", 0, 0]
    lane.feed("b1")
    assert lane.begin_pass("b1", WIDTH, cursor="7") == 0
    assert lane.begin_pass("b1", WIDTH) == 1


def test_a_pass_begins_where_the_split_is(lane: Lane) -> None:
    for n, openid in enumerate(OPENIDS, start=1):
        give(lane, openid, MARGIN + n * WIDTH)
    lane.adopt("b1", window=1)
    lane.split("b1")
    moved = lane.queue("b1")
    lane.adopt("b1", 2, window=100)
    assert lane.begin_pass("b1", WIDTH) == 1
    lane.look("b1")
    lane.feed("b1")
    assert lane.queue("b1") == moved + [openid for openid in OPENIDS if openid not in moved]


@pytest.mark.parametrize("state", ["paused", "finished"])
def test_what_does_not_run_is_neither_looked_at_nor_fed(lane: Lane, state: str) -> None:
    ordered(lane, *OPENIDS)
    lane.look("b1", most=3)
    lane.adopt("b1", 2, state)
    assert lane.look("b1")[0] == -1
    assert lane.feed("b1")[:2] == [-1, 0]
    lane.adopt("b1", 3, "running")
    lane.look("b1")
    lane.feed("b1")
    assert Counter(lane.queue("b1")) == Counter(OPENIDS)


def test_a_single_pass_broadcast_has_nothing_to_feed_or_look_at(lane: Lane) -> None:
    give(lane, "o1", WEEK)
    lane.adopt("b1")
    assert lane.look("b1") == [2, "", 0, 0]
    assert lane.feed("b1") == [2, 0, 0]
    assert "look" not in lane.copy("b1")


@pytest.mark.parametrize("drop", ["cancelled", "late"])
@pytest.mark.parametrize(("most", "fed"), [(3, 0), (1000, 0), (1000, 7), (1000, 24)])
def test_what_is_dropped_amid_a_pass_is_counted_exactly(
    lane: Lane, drop: str, most: int, fed: int
) -> None:
    ordered(lane, *OPENIDS)
    lane.look("b1", most=most)
    if fed:
        lane.feed("b1", fed)
    lane.adopt("b1", 2, "running" if drop == "late" else "cancelled", drop)
    while lane.copy("b1")["split"] != "done":
        lane.split("b1")
    assert lane.counts("b1") == {"total": 24, "done": 24, f"o:{drop}": 24}
    assert [key for key in lane.client.scan_iter() if "hurried" in key or "soon" in key] == []


def test_an_earlier_versions_cursor_is_no_number_any_more(lane: Lane) -> None:
    ordered(lane, *OPENIDS)
    with pytest.raises(ValueError, match="ordered 0"):  # so that it keeps off
        int(lane.copy("b1")["cursor"])


def test_a_big_bucket_costs_no_long_script(lane: Lane) -> None:
    openids = [f"big{n:05}" for n in range(10_000)]
    key = lane.key("audience", "shop", "one", 0)
    pipeline = lane.client.pipeline(transaction=False)
    for at in range(0, 10_000, 2000):
        pipeline.sadd(key, *openids[at : at + 2000])
    for n, openid in enumerate(openids):
        pipeline.zadd(lane.key("permits", "shop", openid), {"f:x": lane.now_ms + HOUR + n})
        pipeline.pexpire(lane.key("permits", "shop", openid), HOUR)
    pipeline.expire(key, 60)
    pipeline.execute()
    lane.adopt("b1", audience="one", window=20_000)
    lane.begin_pass("b1", HOUR)
    lane.client.config_resetstat()
    lane.client.slowlog_reset()
    while lane.look("b1", buckets=[0])[1] != "done":
        pass
    while lane.feed("b1", 2000)[2]:
        pass
    lane.begin_pass("b1", 0)
    lane.split("b1", buckets=[0])
    assert Counter(lane.queue("b1")) == Counter(openids)


class Play:
    """A broadcast that is put in order, split and sent while whatever may change does."""

    def __init__(self, lane: Lane, data: st.DataObject) -> None:
        self.lane, self.data = lane, data
        members = self.draw(st.lists(st.sampled_from(OPENIDS), unique=True, max_size=20))
        if members:
            lane.audience("vip", *members)
        for n, openid in enumerate(members):
            give(lane, openid, MARGIN + 1 + 997 * n)
        self.throughout, self.seen = set(members), list[str]()
        self.looks, self.cursors = ["0 0"], ["0"]
        lane.adopt("b1", audience="vip", window=self.draw(st.integers(1, 8)))

    def draw(self, strategy: st.SearchStrategy[Any]) -> Any:
        return self.data.draw(strategy)

    def who(self) -> str:
        return str(self.draw(st.sampled_from(OPENIDS)))

    def look(self) -> None:
        self.looks.append(self.lane.look("b1", most=self.draw(st.integers(1, 4)))[1])

    def look_again(self) -> None:
        self.lane.look("b1", look=self.draw(st.sampled_from(self.looks)))

    def feed(self) -> None:
        self.lane.feed("b1", 3)

    def begin(self) -> None:
        self.lane.begin_pass("b1", self.draw(st.sampled_from([10, 100, 1000])))

    def end(self) -> None:
        self.lane.begin_pass("b1", 0)

    def whole_pass(self) -> None:
        self.lane.begin_pass("b1", 1000)
        self.lane.look("b1")
        for _ in range(4):
            self.lane.feed("b1")
            self.send()

    def split(self) -> None:
        self.cursors.append(str(self.lane.split("b1")[1]))

    def split_again(self) -> None:
        self.lane.split("b1", cursor=self.draw(st.sampled_from(self.cursors)))

    def send(self) -> None:
        self.seen += self.lane.queue("b1")
        self.lane.client.delete(self.lane.key("queue", "b1"))

    def give(self) -> None:
        give(self.lane, self.who(), MARGIN + self.draw(st.integers(1, 60_000)))

    def spend(self) -> None:
        self.lane.client.delete(self.lane.key("permits", "shop", self.who()))

    def join(self) -> None:
        self.lane.audience("vip", self.who())

    def leave(self) -> None:
        who = self.who()
        self.lane.client.srem(self.lane.key("audience", "shop", "vip", self.lane.bucket(who)), who)
        self.throughout.discard(who)

    def later(self) -> None:
        self.lane.now_ms += 5000

    def anybody(self) -> set[str]:
        """Return who was queued, waits in a slot, or is a member now."""
        client, found = self.lane.client, {*self.seen, *self.lane.queue("b1")}
        for key in client.scan_iter():
            if ":soon:" in key:
                found |= {item.partition(":")[2] for item in client.lrange(key, 0, -1)}
            elif ":audience:shop:vip:" in key:
                found |= client.smembers(key)
        return found

    def finish(self) -> None:
        for _ in range(400):
            self.send()
            if self.lane.copy("b1")["split"] == "done":
                return
            self.lane.look("b1")
            self.lane.feed("b1")
            self.lane.begin_pass("b1", 0)
            self.lane.split("b1")
        raise AssertionError(self.lane.copy("b1"))


STEPS = [
    *(Play.look, Play.look, Play.feed, Play.feed, Play.send, Play.send, Play.begin, Play.end),
    *(Play.split, Play.look_again, Play.split_again, Play.give, Play.give, Play.spend),
    *(Play.join, Play.leave, Play.later, Play.whole_pass, Play.whole_pass),
]


@given(data=st.data())
def test_each_recipient_comes_once_while_permits_and_members_change(
    valkey_url: str, data: st.DataObject
) -> None:
    client = redis.Redis.from_url(valkey_url, decode_responses=True)
    client.flushall()
    play = Play(Lane(client), data)
    for step in data.draw(st.lists(st.sampled_from(STEPS), max_size=60)):
        step(play)
    most, is_dropped = len(play.anybody()), data.draw(st.booleans())
    if is_dropped:
        play.send()
        play.lane.adopt("b1", 2, "cancelled", "cancelled")
    play.finish()
    counts, seen = play.lane.counts("b1"), play.seen
    left = [key for key in client.scan_iter() if ":soon:" in key]
    client.close()
    client.connection_pool.disconnect()
    assert len(seen) == len(set(seen))
    assert counts.get("total", 0) == len(seen) + counts.get("o:cancelled", 0)
    assert len(play.throughout) <= counts.get("total", 0) <= most
    assert is_dropped or play.throughout <= set(seen)
    assert left == []
