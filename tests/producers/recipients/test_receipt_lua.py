"""receipt.lua: which of several sends to one user a receipt is of."""

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from lane_driver import HOUR, LEASE, Claimed, Lane, accept, row


def start(lane: Lane, *broadcasts: str) -> None:
    lane.give("anna", *(accept() for _ in broadcasts))
    for broadcast in broadcasts:
        lane.start(broadcast, "anna", channel="subscribe", open=1)


def answer(lane: Lane, claim: Claimed, msgid: str) -> None:
    lane.settle(row(claim, "settle", "spent", "delivered", streak="ok", msgid=msgid))


def lose(lane: Lane, claim: Claimed) -> None:
    """The answer never comes: the send is in doubt."""
    lane.settle(row(claim, "settle", "doubt", "in_doubt"))


def outcome(lane: Lane, broadcast: str) -> str:
    return lane.outcomes(broadcast)["anna"]


def test_a_msgid_that_is_known_decides_though_a_newer_doubt_fits_by_time(lane: Lane) -> None:
    start(lane, "b1", "b2")
    answer(lane, lane.take_one(), "m1")
    lane.now_ms += 100
    lose(lane, lane.take_one())
    assert lane.receipt("anna", "b2", "b1", msgid="m1", errcode=7) == ("b1", "failed")
    assert (outcome(lane, "b1"), outcome(lane, "b2")) == ("failed 7 receipt", "in_doubt")
    assert lane.receipt("anna", "b2", "b1", msgid="m1", errcode=7) == ("b1", "confirmed")
    assert lane.receipt("anna", "b2", "b1", msgid="m2") == ("b2", "delivered")


def test_a_receipt_that_more_than_one_doubt_may_have_caused_settles_none(lane: Lane) -> None:
    """It may come late, so the doubt that fits its time best is not surely the one."""
    start(lane, "b1", "b2")
    for _ in range(2):
        lose(lane, lane.take_one())
        lane.now_ms += HOUR
    assert lane.receipt("anna", "b2", "b1", msgid="m1", at_ms=lane.now_ms - HOUR) == ("", "kept")
    assert {outcome(lane, name) for name in ("b1", "b2")} == {"in_doubt"}


@pytest.mark.parametrize(("after", "fits"), [(24 * HOUR, False), (24 * HOUR + 1, True)])
def test_a_doubt_that_ended_a_day_ago_is_not_meant(lane: Lane, after: int, fits: bool) -> None:
    start(lane, "b1", "b2")
    lose(lane, lane.take_one())
    lane.now_ms += after
    lose(lane, lane.take_one())
    found = lane.receipt("anna", "b2", "b1", msgid="m2")
    assert found == (("b2", "delivered") if fits else ("", "kept"))


def test_a_late_receipt_of_a_doubt_is_not_that_of_what_is_sent_now(lane: Lane) -> None:
    start(lane, "b1", "b2")
    lose(lane, lane.take_one())
    lane.now_ms += HOUR
    second = lane.take_one()
    assert lane.receipt("anna", "b2", "b1", msgid="m1") == ("", "kept")
    lose(lane, second)
    assert (outcome(lane, "b1"), outcome(lane, "b2")) == ("in_doubt", "in_doubt")


def test_what_was_decided_may_still_have_been_sent(lane: Lane) -> None:
    start(lane, "b1", "b2")
    lose(lane, lane.take_one())
    assert lane.resolve("b1", "failed", "anna") == 1
    lose(lane, lane.take_one())
    assert lane.receipt("anna", "b2", "b1", msgid="m1") == ("", "kept")
    assert outcome(lane, "b2") == "in_doubt"


def test_a_receipt_that_may_be_of_an_unanswered_send_is_kept_for_its_msgid(lane: Lane) -> None:
    start(lane, "b1", "b2")
    lose(lane, lane.take_one())
    lane.now_ms += 500
    second = lane.take_one()
    assert lane.receipt("anna", "b2", "b1", msgid="m2", errcode=7) == ("", "kept")
    answer(lane, second, "m2")
    assert (outcome(lane, "b1"), outcome(lane, "b2")) == ("in_doubt", "failed 7 receipt")
    assert lane.receipt("anna", "b2", "b1", msgid="m1", at_ms=lane.now_ms - 400) == (
        "b1",
        "delivered",
    )


def test_a_receipt_that_came_first_is_used_up_by_the_send_whose_msgid_it_has(lane: Lane) -> None:
    start(lane, "b1", "b2")
    first = lane.take_one()
    assert lane.receipt("anna", "b2", "b1", msgid="m1") == ("", "kept")
    answer(lane, first, "m1")
    lane.now_ms += 100
    lose(lane, lane.take_one())
    assert outcome(lane, "b2") == "in_doubt"


@pytest.mark.parametrize(
    ("before", "after", "fits"),
    [(5000, None, True), (5001, None, False), (None, 5000, True), (None, 5001, False)],
)
@pytest.mark.parametrize("first", ["the answer", "the receipt"])
def test_a_receipt_fits_a_doubt_from_five_seconds_before_its_send_to_five_after_its_end(
    lane: Lane, before: int | None, after: int | None, fits: bool, first: str
) -> None:
    """So much may WeChat's clock differ from ours; what is further away is another send's."""
    start(lane, "b1")
    claim, began = lane.take_one(), lane.now_ms
    ends = began + 3000
    at_ms = began - before if before is not None else ends + (after or 0)
    what = {"msgid": "m1", "at_ms": at_ms}
    if first == "the receipt":
        assert lane.receipt("anna", "b1", **what) == ("", "kept")
    lane.now_ms = ends
    lose(lane, claim)
    if first == "the answer":
        assert lane.receipt("anna", "b1", **what) == (("b1", "delivered") if fits else ("", "kept"))
    assert outcome(lane, "b1").split(" ")[0] == ("delivered" if fits else "in_doubt")


def test_two_receipts_that_came_first_settle_no_doubt_by_time(lane: Lane) -> None:
    start(lane, "b1")
    claim = lane.take_one()
    lane.receipt("anna", "b1", msgid="m1")
    lane.receipt("anna", "b1", msgid="m2", errcode=7)
    lose(lane, claim)
    assert outcome(lane, "b1") == "in_doubt"


def test_a_receipt_that_either_of_two_may_have_caused_settles_neither_by_time(lane: Lane) -> None:
    start(lane, "b1", "b2")
    lose(lane, lane.take_one())
    lane.now_ms += 500
    second = lane.take_one()
    assert lane.receipt("anna", "b2", "b1", msgid="m?") == ("", "kept")
    lose(lane, second)
    assert (outcome(lane, "b1"), outcome(lane, "b2")) == ("in_doubt", "in_doubt")


def test_a_receipt_is_of_what_was_sent_before_it_not_of_what_is_sent_later(lane: Lane) -> None:
    start(lane, "b1", "b2")
    first = lane.take_one()
    lane.now_ms += LEASE + 1  # its user's turn is over, its answer on the way
    assert lane.receipt("anna", "b2", "b1", msgid="m1") == ("", "kept")
    second = lane.take_one()
    lose(lane, second)
    assert outcome(lane, "b2") == "in_doubt"
    lose(lane, first)
    assert outcome(lane, "b1") == "delivered"


def test_a_receipt_that_nothing_known_has_caused_settles_no_doubt_by_time(lane: Lane) -> None:
    start(lane, "b1")
    assert lane.receipt("anna", "b1", msgid="m1") == ("", "kept")
    lose(lane, lane.take_one())
    assert outcome(lane, "b1") == "in_doubt"


@pytest.mark.parametrize("first", ["the receipt", "the doubt"])
def test_a_send_without_a_msgid_may_have_caused_any_receipt(lane: Lane, first: str) -> None:
    start(lane, "b1", "b2")
    answer(lane, lane.take_one(), "-")
    lane.now_ms += 100
    second = lane.take_one()
    if first == "the doubt":
        lose(lane, second)
    assert lane.receipt("anna", "b2", "b1", msgid="m1") == ("", "kept")
    if first == "the receipt":
        lose(lane, second)
    assert (outcome(lane, "b1"), outcome(lane, "b2")) == ("delivered", "in_doubt")


def test_the_receipt_that_came_first_is_known_when_it_comes_again(lane: Lane) -> None:
    start(lane, "b1", "b2")
    first = lane.take_one()
    lane.receipt("anna", "b2", "b1", msgid="m1")
    lose(lane, first)
    assert outcome(lane, "b1") == "delivered"
    lane.now_ms += 100
    lose(lane, lane.take_one())
    assert lane.receipt("anna", "b2", "b1", msgid="m1") == ("b1", "confirmed")
    assert outcome(lane, "b2") == "in_doubt"


def test_a_decision_brings_nothing_back_whose_time_is_over(lane: Lane) -> None:
    start(lane, "b1", "b2")
    lose(lane, lane.take_one())
    lane.now_ms += LEASE
    lose(lane, lane.take_one())
    for name in ("lane_broadcast", "outcomes"):
        parts = ("b1",) if name == "lane_broadcast" else ("b1", lane.bucket("anna"))
        lane.client.delete(lane.key(name, *parts))
    assert lane.resolve("b1", "delivered", "anna") == 0
    assert not lane.client.exists(lane.key("lane_broadcast", "b1"))
    assert lane.outcomes("b1") == {}
    assert lane.resolve("b2", "failed", "anna", "bert") == 1
    assert lane.counts("b2") == {"total": 1, "done": 1, "o:in_doubt": 0, "o:failed": 1}


@dataclass
class Send:
    """One send to the user, as it truly was."""

    broadcast: str
    msgid: str
    answered: bool
    errcode: int
    posted_at: int = 0
    receipts: list[int] = field(default_factory=list)
    alone: bool | None = None  # nothing else was in doubt when its first receipt came


SENDS = st.lists(
    st.tuples(
        st.booleans(),  # whether its answer came
        st.sampled_from([0, 0, 7]),
        st.sampled_from([50, 900, 7000]),  # ms until the answer, or its end
        st.sampled_from([100, 3000, 20_000, 60_000]),  # ms until the next one
        st.lists(st.sampled_from([-1, 0, 1, 40]), min_size=1, max_size=2),
    ),
    min_size=1,
    max_size=5,
)
"""The last: when its receipts come: -1 before the answer, else so many sends after it."""


@hypothesis_settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SENDS)
def test_whatever_the_order_no_send_is_settled_by_anothers_receipt(
    lane: Lane, sends: list[tuple[bool, int, int, int, list[int]]]
) -> None:
    """Answered ones end as their own receipt says; a doubt that was alone too, others may stay."""
    lane.client.flushall()
    truth = [
        Send(f"b{n}", f"m{n}", answered, errcode, receipts=when)
        for n, (answered, errcode, _, _, when) in enumerate(sends)
    ]
    late: list[tuple[int, Send]] = []

    def tell(send: Send) -> None:
        names = [one.broadcast for one in reversed(truth)]
        at_ms = send.posted_at // 1000 * 1000  # CreateTime is in seconds
        if send.alone is None:
            outcomes = [
                lane.outcomes(one.broadcast).get("anna") for one in truth if one is not send
            ]
            send.alone = "in_doubt" not in outcomes
        lane.receipt("anna", *names, msgid=send.msgid, errcode=send.errcode, at_ms=at_ms)

    start(lane, *(send.broadcast for send in truth))
    for n, (send, (_, _, takes_ms, pause_ms, _)) in enumerate(zip(truth, sends, strict=True)):
        claim = lane.take_one()
        assert claim.broadcast == send.broadcast
        send.posted_at = lane.now_ms
        lane.now_ms += takes_ms
        for when in send.receipts:
            if when < 0:
                tell(send)
            else:
                late.append((n + when, send))
        answer(lane, claim, send.msgid) if send.answered else lose(lane, claim)
        for due in [one for one in late if one[0] == n]:
            late.remove(due)
            tell(due[1])
        lane.now_ms += pause_ms
    for _, send in late:
        tell(send)
    for send in truth:
        word = "failed" if send.errcode else "delivered"
        found = outcome(lane, send.broadcast).partition(" ")[0]
        assert found == word or (found == "in_doubt" and not send.answered and not send.alone), send
    lane.check_ledger()


@pytest.mark.parametrize("word", ["delivered", "failed"])
def test_an_outcome_moves_once(lane: Lane, word: str) -> None:
    start(lane, "b1")
    lose(lane, lane.take_one())
    errcode = 7 if word == "failed" else 0
    assert lane.receipt("anna", "b1", msgid="m1", errcode=errcode) == ("b1", word)
    lane.receipt("anna", "b1", msgid="m2", errcode=7)
    assert outcome(lane, "b1") == ("failed 7 receipt" if errcode else "delivered receipt")
