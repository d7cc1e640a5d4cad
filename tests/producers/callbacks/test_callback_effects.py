"""What a push does to permits and outcomes: once, however often and in whatever order it comes."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lane_driver import mark_posting
from log_lines import recorded
from wechat_pushes import CHANGE, NOW_S, POPUP, SENT, Desk, Request, choice, push, sent

from producers.broadcasts import Broadcasts
from producers.broadcasts.spec import Spec
from producers.care.audit import Auditor
from producers.permits.collect import Collector
from producers.store import clock
from producers.words import Outcome
from workers.duties.recover import Recoverer
from workers.sending.take import Asking, Taker

TEMPLATE = "T" * 43


def test_an_accept_in_the_popup_counts_one(desk: Desk) -> None:
    desk.take(push(POPUP, choice("accept"), choice("acceptWithAudio", "U"), choice("ban", "V")))
    assert (desk.count("T"), desk.count("U"), desk.count("V")) == (1, 1, 0)
    assert Auditor(desk.client, desk.settings).run().wrong == []


def test_the_same_push_again_counts_nothing(desk: Desk) -> None:
    for mode in ("json", "xml", "json"):
        desk.take(push(POPUP, choice("accept"), style=mode))
    assert desk.count() == 1


def test_accepts_of_other_times_users_and_templates_count_each(desk: Desk) -> None:
    desk.take(
        push(POPUP, choice("accept")),
        push(POPUP, choice("accept"), at_s=NOW_S - 1),
        push(POPUP, choice("accept"), openid="oBert"),
        push(POPUP, choice("accept", "U")),
    )
    assert (desk.count(), desk.count(openid="oBert"), desk.count("U")) == (2, 1, 1)


@pytest.mark.parametrize("event", [POPUP, CHANGE])
def test_a_rejection_voids_what_was_given_before_it(desk: Desk, event: str) -> None:
    desk.take(push(POPUP, choice("accept"), choice("accept", "U"), at_s=NOW_S - 9))
    desk.take(push(event, choice("reject"), at_s=NOW_S - 5))
    assert (desk.count("T"), desk.count("U")) == (0, 1)
    desk.take(push(POPUP, choice("accept"), at_s=NOW_S - 2))
    assert desk.count() == 1
    assert Auditor(desk.client, desk.settings).run().wrong == []


def test_a_change_to_anything_but_a_rejection_changes_nothing(desk: Desk) -> None:
    desk.take(push(CHANGE, choice("accept"), choice("ban", "U")))
    assert desk.subs() == {}


@pytest.mark.parametrize("source", ["phone", "events"])
@pytest.mark.parametrize("first", ["phone", "events"])
def test_the_phones_result_and_the_event_of_one_accept_count_once(
    open_desk: Callable[..., Desk], source: str, first: str
) -> None:
    desk = open_desk(subscription_source=source)
    upload = {"openid": "oAnna", "subscriptions": {"T": "accept"}, "at": NOW_S * 1000 - 40}
    counted = []
    for who in (first, "events" if first == "phone" else "phone"):
        if who == "phone":
            Collector(desk.client, desk.settings).collect("shop", [upload])
        else:
            desk.take(push(POPUP, choice("accept")))
        counted.append(desk.count())
    assert counted == [1 if source == first else 0, 1]


@pytest.mark.parametrize("source", ["phone", "events"])
def test_a_rejection_counts_from_either_source(open_desk: Callable[..., Desk], source: str) -> None:
    desk = open_desk(subscription_source=source)
    upload = {"openid": "oAnna", "subscriptions": {"T": "accept"}, "at": NOW_S * 1000 - 9000}
    Collector(desk.client, desk.settings).collect("shop", [upload])
    desk.take(push(POPUP, choice("accept"), at_s=NOW_S - 9))
    assert desk.count() == 1
    desk.take(push(CHANGE, choice("reject"), at_s=NOW_S - 3))
    assert desk.count() == 0


def test_a_phones_late_word_on_a_rejection_leaves_what_came_after(desk: Desk) -> None:
    """It rejected, the user thought better of it, and the phone's own upload comes last."""
    desk.take(push(POPUP, choice("accept"), at_s=NOW_S - 2))
    upload = {"openid": "oAnna", "subscriptions": {"T": "reject"}, "at": NOW_S * 1000 - 60_000}
    Collector(desk.client, desk.settings).collect("shop", [upload])
    assert desk.count() == 1


def test_an_event_of_the_future_voids_nothing_that_comes_after_it(desk: Desk) -> None:
    desk.take(push(CHANGE, choice("reject"), at_s=NOW_S + 10**8))
    arrived_ms = int(desk.marks()["T"].split(" ")[0])
    arrived = arrived_ms // 1000
    assert arrived < NOW_S + 10**6
    while clock.now_ms(desk.client) <= arrived_ms:
        pass  # the next one comes later, if only by a millisecond
    desk.take(push(POPUP, choice("accept"), at_s=arrived + 1000))
    # its own time is not believed either: it came after the rejection
    assert desk.count() == 1


def test_a_long_term_accept_is_one_for_many_and_survives_a_late_rejection(
    open_desk: Callable[..., Desk],
) -> None:
    desk = open_desk(long_term_templates=("T",))
    desk.take(push(POPUP, choice("accept"), at_s=NOW_S - 2))
    assert desk.count() == -1
    desk.take(push(CHANGE, choice("reject"), at_s=NOW_S - 9))
    assert desk.count() == -1
    desk.take(push(CHANGE, choice("reject"), at_s=NOW_S - 1))
    assert desk.count() == 0


EVENTS = st.tuples(
    st.sampled_from([(POPUP, "accept"), (POPUP, "accept"), (POPUP, "reject"), (CHANGE, "reject")]),
    st.sampled_from(["T", "U"]),
    st.integers(1, 8),
    st.sampled_from(["oAnna", "oBert"]),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    history=st.lists(EVENTS, min_size=1, max_size=8),
    again=st.lists(st.integers(0, 7), max_size=5),
    seed=st.randoms(use_true_random=False),
    long_term=st.booleans(),
)
def test_duplicates_and_disorder_end_in_the_same_state(
    history: list[Any],
    again: list[int],
    seed: random.Random,
    long_term: bool,
    open_desk: Callable[..., Desk],
) -> None:
    """What is left is what was accepted after the last rejection, whatever came when."""
    desk = open_desk(long_term_templates=("U",) if long_term else ())
    desk.client.flushdb()
    came = history + [history[place % len(history)] for place in again]
    seed.shuffle(came)
    for (name, status), template, ago_s, openid in came:
        desk.take(push(name, choice(status, template), openid=openid, at_s=NOW_S - ago_s))
    for openid in ("oAnna", "oBert"):
        for template in ("T", "U"):
            mine = {(w, ago) for w, t, ago, o in history if (t, o) == (template, openid)}
            last = min((ago for (_, status), ago in mine if status == "reject"), default=99)
            left = {ago for (_, status), ago in mine if status == "accept" and ago < last}
            expected = (-1 if left else 0) if long_term and template == "U" else len(left)
            assert desk.count(template, openid) == expected
    assert Auditor(desk.client, desk.settings).run().wrong == []


class Sent:
    """A subscribe broadcast to six users whose sends are in the hands of a worker that dies."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.broadcasts = Broadcasts(desk.client, desk.settings)
        desk.take(*(push(POPUP, choice("accept", TEMPLATE), openid=f"o{n}") for n in range(6)))
        spec = Spec.checked(
            app="shop",
            channel="subscribe",
            template_id=TEMPLATE,
            audience="all",
            data={"thing1": "x"},
        )
        self.id = self.broadcasts.create(spec).id

    def take(self) -> None:
        client, settings = self.desk.client, self.desk.settings
        for lane in settings.layout.lanes:
            client.hset(f"wxb:{{{lane}}}:lane:{self.id}", "open", "1")
            taker = Taker(client, settings, "w1", self.broadcasts.ttl_ms)
            taker.take(Asking.of("shop", lane, 100), {})
            mark_posting(client, lane, self.id, "w1")

    def die(self) -> None:
        client, settings = self.desk.client, self.desk.settings
        recoverer = Recoverer(client, settings, self.broadcasts)
        for lane in settings.layout.lanes:
            recoverer.recover("shop", self.id, lane, "w1")

    def take_and_die(self) -> None:
        self.take()
        self.die()

    def receipt(self, openid: str, code: str = "0", **more: Any) -> Request:
        seconds = self.desk.client.time()[0]
        item = sent(f"9{openid[1:]}", code, TEMPLATE)
        return push(SENT, item, openid=openid, at_s=seconds, **more)

    def outcomes(self) -> dict[str, int]:
        return self.broadcasts.status(self.id).outcomes


def test_a_sent_event_settles_a_doubt_once(desk: Desk) -> None:
    story = Sent(desk)
    story.take_and_die()
    assert story.outcomes() == {Outcome.IN_DOUBT: 6}
    desk.take(
        story.receipt("o1"), story.receipt("o2", "7", style="xml"), story.receipt("o1", style="xml")
    )
    assert story.outcomes() == {"delivered": 1, "failed": 1, "in_doubt": 4}


def test_a_sent_event_that_comes_before_the_doubt_settles_it(desk: Desk) -> None:
    story = Sent(desk)
    story.take()
    desk.take(story.receipt("o3"), story.receipt("o4", "e9"), story.receipt("o3"))
    story.die()
    assert story.outcomes() == {"delivered": 1, "failed": 1, "in_doubt": 4}


# -- templates of others --------------------------------------------------------------------------


@pytest.mark.parametrize("event", [POPUP, CHANGE, SENT])
def test_a_template_that_is_not_the_apps_leaves_a_log_line(
    open_desk: Callable[..., Desk], event: str, tmp_path: Path
) -> None:
    desk = open_desk(subscribe_templates=["T"], long_term_templates=["L"])
    strange = sent(template="X") if event == SENT else choice("reject", "X")
    before = set(desk.client.scan_iter())
    with recorded(tmp_path) as lines:
        desk.take(push(event, strange))
        (line,) = [line for line in lines() if line["event"] == "push_strange"]
    assert (line["app"], line["push"], line["template_id"]) == ("shop", event, "X")
    left = {key for key in set(desk.client.scan_iter()) - before if ":inbox" not in key}
    assert {key for key in left if ":push:" not in key} == set()


def test_of_a_push_the_apps_own_templates_count(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(subscribe_templates=["T"], long_term_templates=["L"])
    items = [choice("accept", template) for template in ("T", "X", "L")]
    desk.take(push(POPUP, *items))
    assert (desk.count("T"), desk.count("X")) == (1, 0)
    assert "L" in desk.subs()
    assert Auditor(desk.client, desk.settings).run().wrong == []


def test_a_template_that_a_broadcast_sends_is_the_apps(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(subscribe_templates=["T"])
    Broadcasts(desk.client, desk.settings).create(
        Spec.checked(
            app="shop",
            channel="subscribe",
            template_id=TEMPLATE,
            audience="all",
            data={"thing1": "a"},
        )
    )
    desk.take(push(POPUP, choice("accept", TEMPLATE)))
    assert desk.count(TEMPLATE) == 1
