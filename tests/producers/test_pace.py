"""The pace: sends a second, and the time that is left, from what the keeper notes each second."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shop import Shop

from producers import keys, scripts
from producers.pace import Pace, measure
from producers.status import Status
from producers.words import State

both_layouts = pytest.mark.parametrize("lanes", [1, 4])

NOW = 1_700_000_000_000
PEOPLE = [f"o{n:03}" for n in range(100)]


def notes(*of: tuple[int, int, int]) -> list[str]:
    return [f"{NOW + at} {settled} {answered}" for at, settled, answered in of]


def test_a_pace_is_what_was_done_between_the_first_note_and_the_last() -> None:
    lane = notes((-4000, 100, 80), (-2000, 1000, 700), (0, 900, 680))
    assert measure([lane], NOW) == Pace(sends=150.0, settled=200.0)


def test_the_lanes_go_at_once() -> None:
    lanes = [notes((-2000, 0, 0), (0, 20, 10)), notes((-1000, 5, 5), (-500, 10, 10)), []]
    assert measure(lanes, NOW) == Pace(sends=15.0, settled=20.0)


@pytest.mark.parametrize(
    "lane",
    [
        [],
        notes((0, 5, 5)),
        notes((-9000, 0, 0), (-6000, 50, 50)),  # nobody keeps this lane any more
        notes((-100, 0, 0), (0, 50, 50)),  # too near to each other
        notes((-2000, 50, 50), (0, 40, 40)),  # receipts corrected some
    ],
)
def test_what_says_nothing_of_a_pace_is_none(lane: list[str]) -> None:
    assert measure([lane], NOW) == Pace(0.0, 0.0)


def test_the_time_left_is_that_of_outcomes_not_of_sends() -> None:
    pace = Pace(sends=10.0, settled=40.0)  # three of four have no permit, and cost no send
    assert pace.left_s(400) == 10
    assert pace.left_s(0) == pace.left_s(-3) == 0
    assert Pace().left_s(400) is None
    assert Pace().left_s(0) == 0


@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(-60_000, 0), st.integers(0, 10**6), st.integers(0, 10**6)),
            max_size=8,
        ).map(sorted),
        max_size=4,
    )
)
def test_a_pace_is_never_negative(lanes: list[list[tuple[int, int, int]]]) -> None:
    pace = measure([notes(*lane) for lane in lanes], NOW)
    assert pace.sends >= 0
    assert pace.settled >= 0


def note(shop: Shop, broadcast: str, at_ms: int) -> list[int]:
    """Note how far a broadcast is, as the keeper does each second, by a clock of one's own."""
    script = shop.client.register_script(scripts.source("producers", "pace"))
    return [
        script(
            keys=[keys.lane_broadcast(lane, broadcast), keys.pace(lane, broadcast)],
            args=["", at_ms],
        )
        for lane in range(shop.settings.lanes)
    ]


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
    now = shop.now_ms()
    note(shop, broadcast, now - 2000)
    claims = [claim for claim in shop.take(3) for _ in [shop.settle(claim)]]
    note(shop, broadcast, now)
    status = shop.broadcasts.status(broadcast)
    assert status.rate == len(claims) / 2
    assert status.eta_s == round((len(PEOPLE) - status.settled) / (status.settled / 2))
    assert status.settled >= len(claims)


@both_layouts
@pytest.mark.parametrize("move", ["pause", "cancel"])
def test_what_does_not_run_has_no_pace(shop: Shop, move: str) -> None:
    broadcast = begin(shop)
    now = shop.now_ms()
    note(shop, broadcast, now - 2000)
    for claim in shop.take(5):
        shop.settle(claim)
    note(shop, broadcast, now)
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
    for lane in range(shop.settings.lanes):
        shop.client.delete(keys.pace(lane, broadcast))
    now = shop.now_ms()
    note(shop, broadcast, now - 1000)
    assert shop.take() == []  # nobody has a permit
    note(shop, broadcast, now)
    status = shop.broadcasts.status(broadcast)
    assert 0 < status.settled <= status.total < 12_000
    assert status.rate == 0  # not one was sent
    assert status.eta_s == round((12_000 - status.settled) / status.settled)


@both_layouts
def test_the_keeper_notes_what_runs_and_nothing_else(shop: Shop) -> None:
    broadcast = begin(shop)
    lane = shop.lane(PEOPLE[0])
    shop.keeper.run_once()
    shop.keeper.run_once()
    at, settled, answered = shop.client.lrange(keys.pace(lane, broadcast), 0, -1)[-1].split(" ")
    assert abs(int(at) - shop.now_ms()) < 60_000
    assert (settled, answered) == ("0", "0")
    shop.broadcasts.pause(broadcast)
    before = shop.client.llen(keys.pace(lane, broadcast))
    shop.keeper.run_once()
    assert shop.client.llen(keys.pace(lane, broadcast)) == before


def test_eight_notes_are_kept_for_a_minute(shop: Shop) -> None:
    broadcast = begin(shop)
    now = shop.now_ms()
    kept = [note(shop, broadcast, now + n) for n in range(10)]
    assert kept == [[n] for n in (1, 2, 3, 4, 5, 6, 7, 8, 8, 8)]
    key = keys.pace(0, broadcast)
    assert [int(one.split(" ")[0]) - now for one in shop.client.lrange(key, 0, -1)] == [
        *range(2, 10)
    ]
    assert 0 < shop.client.pttl(key) <= 60_000


def test_who_costs_no_send_is_settled_and_not_answered(shop: Shop) -> None:
    broadcast = begin(shop)
    fields = {"done": 10, "o:delivered": 4, "o:no_permit": 3, "o:cancelled": 2, "o:late": 1}
    shop.client.hset(keys.lane_broadcast(0, broadcast), mapping=fields)
    note(shop, broadcast, NOW)
    assert shop.client.lrange(keys.pace(0, broadcast), 0, -1) == [f"{NOW} 10 4"]


def test_a_status_of_every_state_is_json(shop: Shop) -> None:
    status: Status = shop.broadcasts.status(begin(shop))
    fields: dict[str, Any] = status.as_dict()
    assert fields["state"] == State.RUNNING
    assert set(fields) >= {"rate", "eta_s"}
