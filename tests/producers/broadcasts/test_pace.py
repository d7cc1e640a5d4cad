"""The pace: sends a second, and the time that is left, from notes of how far a broadcast was."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shop import Shop

from producers.broadcasts.pace import Pace, Progress, measure
from producers.broadcasts.status import Status
from producers.store import keys
from producers.words import State

both_layouts = pytest.mark.parametrize("lanes", [1, 4])

NOW = 1_700_000_000_000
PEOPLE = [f"o{n:03}" for n in range(100)]


def progress(settled: int, answered: int, *notes: tuple[int, int, int]) -> Progress:
    return Progress([f"{NOW + at} {one} {other}" for at, one, other in notes], settled, answered)


def test_a_pace_is_what_was_done_since_the_oldest_note_of_the_last_seconds() -> None:
    lane = progress(900, 680, (-9000, 0, 0), (-4000, 100, 80), (-2000, 800, 600))
    assert measure([lane], NOW) == Pace(sends=150.0, settled=200.0)


def test_the_lanes_go_at_once() -> None:
    lanes = [progress(20, 10, (-2000, 0, 0)), progress(10, 10, (-500, 5, 5)), progress(7, 7)]
    assert measure(lanes, NOW) == Pace(sends=15.0, settled=20.0)


@pytest.mark.parametrize(
    "lane",
    [
        progress(0, 0),
        progress(50, 50, (-9000, 0, 0), (-8001, 40, 40)),  # it has not moved since
        progress(50, 50, (-100, 0, 0)),  # too short
        progress(40, 40, (-2000, 50, 50)),  # receipts corrected some
    ],
)
def test_what_says_nothing_of_a_pace_is_none(lane: Progress) -> None:
    assert measure([lane], NOW) == Pace(0.0, 0.0)


def test_the_time_left_is_that_of_outcomes_not_of_sends() -> None:
    pace = Pace(sends=10.0, settled=40.0)  # three of four have no permit, and cost no send
    assert pace.left_s(400) == 10
    assert pace.left_s(0) == pace.left_s(-3) == 0
    assert Pace().left_s(400) is None
    assert Pace().left_s(0) == 0


counts = st.integers(0, 10**6)


@given(
    st.lists(
        st.tuples(
            counts,
            counts,
            st.lists(st.tuples(st.integers(-60_000, 0), counts, counts), max_size=8).map(sorted),
        ),
        max_size=4,
    )
)
def test_a_pace_is_never_negative(
    lanes: list[tuple[int, int, list[tuple[int, int, int]]]],
) -> None:
    pace = measure([progress(settled, sent, *notes) for settled, sent, notes in lanes], NOW)
    assert pace.sends >= 0
    assert pace.settled >= 0


def age(shop: Shop, broadcast: str, by_ms: int) -> None:
    """Let what was noted lie further back: no test waits for seconds."""
    for lane in shop.settings.layout.lanes:
        key = keys.pace(lane, broadcast)
        for place, note in enumerate(shop.client.lrange(key, 0, -1)):
            at, rest = note.split(" ", 1)
            shop.client.lset(key, place, f"{int(at) - by_ms} {rest}")
        copy = keys.lane_broadcast(lane, broadcast)
        paced = shop.client.hget(copy, "paced_ms")
        if paced:
            shop.client.hset(copy, "paced_ms", int(paced) - by_ms)


def begin(shop: Shop) -> str:
    """Give a broadcast to a hundred, every other one without a permit."""
    uploads = [
        {"openid": openid, "formId": openid} if n % 2 else
        {"openid": openid, "subscriptions": {"S" * 43: "accept"}}
        for n, openid in enumerate(PEOPLE)
    ]  # fmt: skip
    shop.collector.collect("shop", uploads)
    broadcast = shop.broadcast()
    shop.open(broadcast)
    return broadcast


@both_layouts
def test_a_status_has_the_rate_of_the_sends_and_the_time_left(shop: Shop) -> None:
    broadcast = begin(shop)
    assert shop.broadcasts.status(broadcast).rate == 0
    claims = [claim for claim in shop.take(3) for _ in [shop.settle(claim)]]
    age(shop, broadcast, 2000)
    status = shop.broadcasts.status(broadcast)
    assert status.rate == pytest.approx(len(claims) / 2, rel=0.1)
    left = (len(PEOPLE) - status.settled) / (status.settled / 2)
    assert status.eta_s == pytest.approx(left, rel=0.1, abs=1)
    assert status.settled >= len(claims)
    age(shop, broadcast, 7000)
    assert shop.broadcasts.status(broadcast).rate == 0  # nothing moved for so long


@both_layouts
@pytest.mark.parametrize("move", ["pause", "cancel"])
def test_what_does_not_run_has_no_pace(shop: Shop, move: str) -> None:
    broadcast = begin(shop)
    for claim in shop.take(5):
        shop.settle(claim)
    age(shop, broadcast, 2000)
    getattr(shop.broadcasts, move)(broadcast)
    status = shop.broadcasts.status(broadcast)
    assert (status.rate, status.eta_s) == (0, None)


@both_layouts
def test_recipients_yet_to_be_split_count_as_left(shop: Shop) -> None:
    people = [f"o{n:05}" for n in range(12_000)]
    shop.audiences.import_rows("shop", "vip", [openid.encode() for openid in people])
    broadcast = shop.broadcast(audience="vip")
    shop.keeper.run_once()
    shop.open(broadcast)
    assert shop.take() == []  # nobody has a permit
    age(shop, broadcast, 1000)
    status = shop.broadcasts.status(broadcast)
    assert 0 < status.settled <= status.total < 12_000
    assert status.rate == 0  # not one was sent
    assert status.eta_s == pytest.approx((12_000 - status.settled) / status.settled, rel=0.1, abs=1)


def test_what_stands_still_leaves_no_note(shop: Shop) -> None:
    broadcast = begin(shop)
    for _ in range(3):
        shop.keeper.run_once()
    assert not shop.client.exists(keys.pace(0, broadcast))


def test_eight_notes_are_kept_for_a_minute_one_a_second_at_most(shop: Shop) -> None:
    broadcast = begin(shop)
    key = keys.pace(0, broadcast)
    for claim in shop.take(2):
        shop.settle(claim)
    assert shop.client.llen(key) == 1
    for _ in range(10):
        age(shop, broadcast, 1000)
        for claim in shop.take(1):
            shop.settle(claim)
    assert shop.client.llen(key) == 8
    assert 0 < shop.client.pttl(key) <= 60_000


def test_who_costs_no_send_is_settled_and_not_answered(shop: Shop) -> None:
    broadcast = begin(shop)
    copy = keys.lane_broadcast(0, broadcast)
    fields = {"done": 10, "o:delivered": 4, "o:no_permit": 3, "o:cancelled": 2, "o:late": 1}
    claims = shop.take(2)
    shop.client.delete(keys.pace(0, broadcast))
    shop.client.hdel(copy, "paced_ms")
    shop.client.hset(copy, mapping=fields)
    shop.settle(claims[0])
    (note,) = shop.client.lrange(keys.pace(0, broadcast), 0, -1)
    assert note.split(" ")[1:] == ["10", "4"]  # before it


def test_a_status_of_every_state_is_json(shop: Shop) -> None:
    status: Status = shop.broadcasts.status(begin(shop))
    fields: dict[str, Any] = status.as_dict()
    assert fields["state"] == State.RUNNING
    assert set(fields) >= {"rate", "eta_s"}
