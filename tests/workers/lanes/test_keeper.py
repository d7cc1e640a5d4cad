"""The keeper, duty by duty: what it does for a lane, for a whole broadcast, and for what was left.

Each test begins where somebody died: something is written, and nobody has followed it up.
"""

import itertools
import math
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from lane_driver import HOUR, Claimed, Lane, row
from send_path import Stall
from shop import Shop

from producers.broadcasts import Broadcasts
from producers.broadcasts.lifecycle import MOVE, MoveArgs, MoveKeys
from producers.broadcasts.messages import Messages
from producers.errors import LaneDividedError
from producers.settings import Settings
from producers.store import clock, keys
from producers.store.lanes.layout import follow
from producers.words import State
from workers.lanes import keeper as keeper_module
from workers.lanes import net as net_module
from workers.lanes.keeper import Keeper
from workers.lanes.standing import Standing

FOUR = pytest.mark.parametrize("lanes", [4])


class Ward(Stall):
    """A shop, the lanes' raw scripts, and keepers that are run by hand."""

    def __init__(self, client: "redis.Redis", settings: Settings) -> None:
        super().__init__(client, settings)
        self.lanes = [Lane(client, number=number) for number in settings.layout.lanes]
        self.keeper = self.another("k1")

    def another(self, worker: str) -> Keeper:
        return Keeper(self.client, self.settings, self.broadcasts, worker)

    @property
    def now_ms(self) -> int:
        return clock.now_ms(self.client)

    def lane(self, number: int) -> Lane:
        lane = self.lanes[number]
        lane.now_ms = self.now_ms
        return lane

    def users(self, number: int, count: int) -> list[str]:
        """Return so many openids of a lane."""
        named = (f"o{n}" for n in itertools.count())
        return list(itertools.islice((o for o in named if self._lane_of(o) == number), count))

    def _lane_of(self, openid: str) -> int:
        return keys.place_of(openid, self.settings)[0]

    def give(self, openids: list[str], each: int = 1) -> None:
        self.collect(
            {"openid": one, "formIds": [f"{one}x{n}-form-id" for n in range(each)]}
            for one in openids
        )

    def home(self, broadcast: str) -> int:
        return self.broadcasts.home_lane(broadcast)

    def home_key(self, broadcast: str) -> str:
        return keys.home(self.home(broadcast), broadcast)

    def copies(self, broadcast: str, field: str) -> list[str | None]:
        """Return one field of every lane's copy."""
        return [
            self.client.hget(keys.lane_broadcast(number, broadcast), field)
            for number in self.settings.layout.lanes
        ]

    def move_home(self, broadcast: str, move: str) -> None:
        """Move a broadcast at its home, and die before a lane hears of it."""
        args = MoveArgs(move, "asked for", "", "", self.broadcasts.ttl_ms, 0, "")
        moved, *_ = MOVE.on(self.client)(MoveKeys(self.home_key(broadcast)), args)
        assert moved == 1

    def due_now(self, broadcast: str, number: int, *, at_home: bool = False) -> None:
        member = f"{broadcast} home" if at_home else broadcast
        self.client.zadd(keys.due(number), {member: 0})

    def nothing_is_due(self) -> None:
        """Forget all that is due, as a Redis of an earlier version has none."""
        for number in self.settings.layout.lanes:
            self.client.delete(keys.due(number), keys.doing(number))

    def take(self, number: int) -> list[Claimed]:
        return self.lane(number).take().claims

    def refuse(self, number: int, claim: Claimed) -> None:
        answer = row(claim, "settle", "void", "refused", errcode=40003, streak="refusal")
        assert self.lane(number).settle(answer).results == ["done"]


@pytest.fixture
def ward(client: "redis.Redis", settings: Settings) -> Ward:
    return Ward(client, settings)


# -- for a lane ---------------------------------------------------------------------------------


@FOUR
def test_lanes_that_did_not_hear_of_a_move_adopt_it(ward: Ward) -> None:
    ward.form_ids(20)
    broadcast = ward.broadcast()
    ward.keeper.run_once()
    ward.move_home(broadcast, "pause")
    assert ward.copies(broadcast, "state") == ["running"] * 4
    ward.keeper.run_once()
    assert ward.copies(broadcast, "state") == ["paused"] * 4


@FOUR
def test_a_lane_that_has_no_copy_gets_one_and_its_recipients(ward: Ward) -> None:
    ward.form_ids(20)
    broadcast = ward.broadcast()
    left_out = (ward.home(broadcast) + 1) % 4
    ward.client.delete(
        keys.lane_broadcast(left_out, broadcast),
        keys.queue(left_out, broadcast),
        keys.ring(left_out, "shop"),
    )
    ward.due_now(broadcast, ward.home(broadcast), at_home=True)
    ward.keeper.run_once()
    assert sorted(ward.queue(broadcast)) == sorted(f"o{user}" for user in range(20))
    assert ward.client.lrange(keys.ring(left_out, "shop"), 0, -1) == [broadcast]


def test_a_queue_below_half_its_window_is_filled_again(
    client: "redis.Redis", make_settings: Callable[..., Settings]
) -> None:
    ward = Ward(client, make_settings(canary=1000, app={"rate_per_second": 100}))
    ward.form_ids(300)
    broadcast = ward.broadcast()
    filled = len(ward.queue(broadcast))
    assert 100 <= filled < 300
    client.hset(keys.lane_broadcast(0, broadcast), "open", "1")
    claims = ward.lane(0).take(most=filled - 49).claims
    assert len(ward.queue(broadcast)) == 49
    ward.nothing_is_due()
    ward.due_now(broadcast, 0)
    ward.keeper.run_once()
    assert len(ward.queue(broadcast)) >= 100
    assert len(claims) == filled - 49


def test_a_delayed_message_is_promoted_once_its_time_has_come(
    ward: Ward, eventually: Callable[..., Any]
) -> None:
    ward.form_ids(1)
    broadcast = ward.broadcast()
    (claim,) = ward.take(0)
    ward.lane(0).settle(row(claim, "delay", "back", errcode=43108, delay=300))
    ward.keeper.run_once()
    if ward.queue(broadcast):
        pytest.skip("this machine stood still for 300 ms")

    def promoted() -> list[str]:
        ward.keeper.run_once()
        return ward.queue(broadcast)

    assert eventually(promoted, "it is promoted") == ["o0"]


# -- verdicts -----------------------------------------------------------------------------------


@FOUR
@pytest.mark.parametrize(
    ("verdict", "state", "reason", "errcode"),
    [
        ("abort 40037", State.ABORTED, "WeChat refuses this message for everybody", "40037"),
        (
            "pause 43101",
            State.PAUSED,
            "refusals in a row: check the appid, the audience and the template",
            "43101",
        ),
        ("pause 0", State.PAUSED, "over the error budget: too many of the last answers failed", ""),
    ],
)
def test_a_lanes_verdict_is_brought_to_the_whole_broadcast(
    ward: Ward, verdict: str, state: State, reason: str, errcode: str
) -> None:
    ward.form_ids(20)
    broadcast = ward.broadcast()
    lane = (ward.home(broadcast) + 1) % 4
    ward.client.hset(keys.lane_broadcast(lane, broadcast), "verdict", verdict)
    ward.due_now(broadcast, lane)
    ward.keeper.run_once()
    home = ward.client.hgetall(ward.home_key(broadcast))
    assert (home["state"], home["reason"], home["errcode"]) == (state, reason, errcode)
    assert ward.copies(broadcast, "state") == [state] * 4


def test_a_verdict_on_a_state_that_is_past_moves_nothing(ward: Ward) -> None:
    """The operator paused it and resumed it; a lane that heard of neither pauses it no more."""
    ward.form_ids(5)
    broadcast = ward.broadcast()
    ward.client.hset(keys.lane_broadcast(0, broadcast), "verdict", "pause 43101")
    ward.move_home(broadcast, "pause")
    ward.move_home(broadcast, "resume")
    ward.keeper.wants.obey(broadcast, 0)
    assert ward.broadcasts.status(broadcast).state == State.RUNNING


def test_a_template_that_wechat_does_not_know_pauses_the_days_carriers_and_ends_none(
    client: "redis.Redis", settings: Settings
) -> None:
    ward = Ward(client, settings)
    ward.form_ids(1, each=3)
    messages = Messages(client, settings)
    data = {"keyword1": "a"}
    what = {"app": "shop", "channel": "template", "template_id": "T" * 43, "openid": "o0"}
    posted = [messages.post(data=data, **what).id.partition(".")[0] for _ in range(2)]
    first, second = posted
    assert first != second
    client.hset(keys.lane_broadcast(0, first), "verdict", "abort 40037")
    ward.due_now(first, 0)
    ward.keeper.run_once()
    for carrier in posted:
        home = client.hgetall(ward.home_key(carrier))
        assert (home["state"], home["errcode"]) == (State.PAUSED, "40037")


# -- its end ------------------------------------------------------------------------------------


def test_a_broadcast_is_due_when_it_ends_in_time(ward: Ward) -> None:
    ward.form_ids(2)
    broadcast = ward.broadcast()
    ward.keeper.run_once()
    expires_at_ms = int(ward.client.hget(ward.home_key(broadcast), "expires_at_ms"))
    due = ward.client.zscore(keys.due(ward.home(broadcast)), f"{broadcast} home")
    assert due == expires_at_ms
    ward.due_now(broadcast, ward.home(broadcast), at_home=True)
    ward.keeper.run_once()
    assert ward.client.hget(ward.home_key(broadcast), "drop") is None


@FOUR
def test_whoever_was_not_sent_to_by_its_end_is_late_and_it_finishes(ward: Ward) -> None:
    ward.form_ids(20)
    broadcast = ward.broadcast()
    ward.client.hset(ward.home_key(broadcast), "expires_at_ms", ward.now_ms)
    ward.due_now(broadcast, ward.home(broadcast), at_home=True)
    for _ in range(3):
        ward.keeper.run_once()
    status = ward.broadcasts.status(broadcast)
    assert (status.state, status.outcomes) == (State.FINISHED, {"late": 20})
    assert ward.client.zscore(keys.active("shop"), broadcast) is None


@FOUR
def test_it_finishes_when_the_last_lane_has_settled_everyone(ward: Ward) -> None:
    ward.form_ids(20)
    broadcast = ward.broadcast()
    lane = ward.home(broadcast)
    first, *others = ward.take(lane)
    ward.lane(lane).deliver(first)
    ward.keeper.run_once()
    for claim in others:
        ward.lane(lane).deliver(claim)
    for number in range(4):
        if number != lane:
            *some, last = ward.take(number)
            for claim in some:
                ward.lane(number).deliver(claim)
            ward.keeper.run_once()
            assert ward.broadcasts.status(broadcast).state == State.RUNNING
            ward.lane(number).deliver(last)
    ward.keeper.run_once()
    status = ward.broadcasts.status(broadcast)
    assert (status.state, status.outcomes) == (State.FINISHED, {"delivered": 20})
    assert ward.client.zscore(keys.active("shop"), broadcast) is None


@FOUR
def test_what_a_lane_forgot_after_the_end_is_sent_again_as_perhaps_sent(ward: Ward) -> None:
    ward.form_ids(20)
    broadcast = ward.broadcast()
    lane = ward.home(broadcast)
    first, *others = ward.take(lane)
    ward.lane(lane).deliver(first)
    ward.keeper.run_once()
    kept = {name: ward.client.dump(name) for name in ward.client.keys(f"wxb:{{{lane}}}:*")}
    for number in range(4):
        for claim in others if number == lane else ward.take(number):
            ward.lane(number).deliver(claim)
    ward.keeper.run_once()
    assert ward.broadcasts.status(broadcast).state == State.FINISHED

    home = ward.home_key(broadcast)
    for name, value in kept.items():
        if name != home:  # the last moments of the others are lost
            ward.client.restore(name, 60_000, value, replace=True)
    ward.due_now(broadcast, lane, at_home=True)
    ward.keeper.run_once()
    assert ward.broadcasts.status(broadcast).state == State.RUNNING
    assert ward.client.zscore(keys.active("shop"), broadcast)
    assert ward.copies(broadcast, "unsure") == ["1"] * 4
    for claim in others:
        ward.lane(lane).deliver(claim)
    ward.keeper.run_once()
    status = ward.broadcasts.status(broadcast)
    assert (status.state, status.outcomes) == (State.FINISHED, {"delivered": 20})


@FOUR
@pytest.mark.parametrize("forgotten", ["finish", "cancel", "pause", "resume"])
def test_what_a_home_forgot_and_lanes_know_is_made_anew(ward: Ward, forgotten: str) -> None:
    ward.form_ids(20)
    broadcast = ward.broadcast()
    ward.keeper.run_once()
    if forgotten == "resume":
        ward.broadcasts.pause(broadcast)
    kept = ward.client.dump(ward.home_key(broadcast))
    ward.move_home(broadcast, forgotten)
    ward.broadcasts.adopt(broadcast)
    ward.client.restore(ward.home_key(broadcast), 60_000, kept, replace=True)
    ward.nothing_is_due()
    ward.due_now(broadcast, ward.home(broadcast), at_home=True)

    ward.keeper.run_once()

    state = {"finish": "running", "cancel": "cancelled"}.get(forgotten, "paused")
    assert ward.broadcasts.status(broadcast).state == state
    assert ward.copies(broadcast, "state") == [state] * 4
    assert ward.copies(broadcast, "unsure") == ["1"] * 4
    if forgotten == "resume":
        ward.broadcasts.resume(broadcast)
    elif forgotten == "finish":
        assert len(ward.take(ward.home(broadcast))) > 0


@FOUR
def test_the_next_move_is_made_over_what_a_home_forgot(ward: Ward) -> None:
    ward.form_ids(20)
    broadcast = ward.broadcast()
    kept = ward.client.dump(ward.home_key(broadcast))
    for _ in range(3):
        ward.broadcasts.pause(broadcast)
        ward.broadcasts.resume(broadcast)
    ward.client.restore(ward.home_key(broadcast), 60_000, kept, replace=True)
    assert ward.broadcasts.pause(broadcast) == State.PAUSED
    assert ward.copies(broadcast, "state") == ["paused"] * 4
    assert ward.broadcasts.resume(broadcast) == State.RUNNING
    assert ward.copies(broadcast, "state") == ["running"] * 4


@FOUR
def test_one_lane_that_knows_of_an_end_is_enough(ward: Ward) -> None:
    """The others were away, or are of the node that forgot."""
    ward.form_ids(20)
    broadcast = ward.broadcast()
    other = (ward.home(broadcast) + 1) % 4
    kept = {
        name: ward.client.dump(name)
        for name in ward.client.keys("wxb:*")
        if f"{{{other}}}" not in name
    }
    assert ward.broadcasts.cancel(broadcast) == State.CANCELLED
    for name, value in kept.items():
        ward.client.restore(name, 60_000, value, replace=True)
    ward.due_now(broadcast, ward.home(broadcast), at_home=True)
    ward.keeper.run_once()
    status = ward.broadcasts.status(broadcast)
    assert (status.state, status.reason) == (State.CANCELLED, "asked for")
    ward.keeper.run_once()
    status = ward.broadcasts.status(broadcast)
    assert status.outcomes == {"cancelled": 20}
    assert status.complete


def test_an_end_that_lanes_adopt_though_their_home_forgot_it_is_found_without_the_net(
    ward: Ward,
) -> None:
    ward.form_ids(3)
    broadcast = ward.broadcast()
    ward.keeper.run_once()
    kept = ward.client.dump(ward.home_key(broadcast))
    ward.move_home(broadcast, "finish")
    ward.nothing_is_due()
    ward.broadcasts.adopt(broadcast)  # repeated on the server that came back
    ward.client.restore(ward.home_key(broadcast), 60_000, kept, replace=True)
    assert ward.take(0) == []

    ward.keeper.run_once()

    assert len(ward.take(0)) == 3


def test_an_end_that_comes_late_to_a_redis_that_forgot_is_taken_back(ward: Ward) -> None:
    ward.form_ids(3)
    broadcast = ward.broadcast()
    ward.move_home(broadcast, "finish")  # it was judged by what Redis has forgotten since
    ward.broadcasts.adopt(broadcast)
    assert ward.take(0) == []
    ward.keeper.run_once()
    for claim in ward.take(0):
        ward.lane(0).deliver(claim)
    ward.keeper.run_once()
    status = ward.broadcasts.status(broadcast)
    assert (status.state, status.outcomes) == (State.FINISHED, {"delivered": 3})


def test_a_finished_broadcast_whose_lane_is_gone_stays_finished(ward: Ward) -> None:
    ward.form_ids(3)
    broadcast = ward.broadcast()
    ward.move_home(broadcast, "finish")
    ward.client.delete(keys.lane_broadcast(0, broadcast))
    ward.keeper.run_once()
    assert ward.broadcasts.status(broadcast).state == State.FINISHED


# -- the canary over the lanes ------------------------------------------------------------------


@FOUR
def test_a_canary_begins_where_there_are_recipients(ward: Ward) -> None:
    ward.give(ward.users(2, 3))
    broadcast = ward.broadcast()
    assert ward.client.hget(ward.home_key(broadcast), "canary_lane") == "2"
    assert ward.copies(broadcast, "canary") == ["0", "0", str(ward.settings.canary), "0"]


@FOUR
def test_a_canary_whose_lane_is_empty_moves_to_one_that_has_recipients(ward: Ward) -> None:
    ward.give(ward.users(2, 3))
    broadcast = a_broadcast_from(ward, 0)
    assert [bool(ward.take(number)) for number in range(4)] == [False] * 4
    ward.keeper.run_once()
    assert ward.client.hget(ward.home_key(broadcast), "canary_lane") == "2"
    assert ward.copies(broadcast, "canary") == ["0", "0", str(ward.settings.canary), "0"]
    (*_, claim) = ward.take(2)
    ward.lane(2).deliver(claim)
    ward.keeper.run_once()
    assert ward.copies(broadcast, "open") == ["1"] * 4


@FOUR
def test_a_lane_that_gets_its_recipients_last_asks_for_the_canary(ward: Ward) -> None:
    """All others are through by then, and nobody else would say so."""
    ward.give(ward.users(2, 3))
    broadcast = a_broadcast_from(ward, 0)
    gone = (keys.lane_broadcast(2, broadcast), keys.queue(2, broadcast), keys.ring(2, "shop"))
    ward.client.delete(*gone, keys.due(2))
    for _ in range(2):
        ward.keeper.run_once()
    assert ward.copies(broadcast, "canary")[2] == str(ward.settings.canary)
    assert [claim.openid for claim in ward.take(2)]


def a_broadcast_from(ward: Ward, lane: int) -> str:
    """Create a broadcast whose home is there, and its canary, though nobody may be there."""
    while ward.home(broadcast := ward.broadcast()) != lane:
        ward.broadcasts.cancel(broadcast)
        ward.keeper.run_once()
    ward.client.hset(ward.home_key(broadcast), "canary_lane", lane)
    for number in range(4):
        canary = ward.settings.canary if number == lane else 0
        ward.client.hset(keys.lane_broadcast(number, broadcast), "canary", canary)
    return broadcast


@FOUR
def test_k_refusals_over_all_lanes_together_pause(
    client: "redis.Redis", make_settings: Callable[..., Settings]
) -> None:
    """Two users in each lane, and K is five: the fifth refusal, in the third lane, ends it."""
    ward = Ward(client, make_settings(canary=5, lanes=4))
    for number in range(4):
        ward.give(ward.users(number, 2), each=2)
    broadcast = a_broadcast_from(ward, 1)
    refused = 0
    for _ in range(8):
        for number in range(4):
            for claim in ward.take(number):
                ward.refuse(number, claim)
                refused += 1
        ward.keeper.run_once()
    status = ward.broadcasts.status(broadcast)
    assert (refused, status.state, status.outcomes) == (5, State.PAUSED, {"refused": 5})
    assert sum(lane.ledger().get("void:f", 0) for lane in ward.lanes) == 5  # one use of each


@FOUR
def test_a_canary_stays_where_it_has_somebody_to_send_to(ward: Ward) -> None:
    ward.form_ids(40)
    broadcast = ward.broadcast()
    home = ward.home(broadcast)
    for number in range(4):
        ward.due_now(broadcast, number)
    ward.keeper.run_once()
    assert ward.client.hget(ward.home_key(broadcast), "canary_lane") == str(home)
    canary = [str(ward.settings.canary) if number == home else "0" for number in range(4)]
    assert ward.copies(broadcast, "canary") == canary


@FOUR
def test_a_paused_broadcasts_canary_does_not_move(ward: Ward) -> None:
    ward.give(ward.users(2, 3))
    broadcast = a_broadcast_from(ward, 0)
    ward.broadcasts.pause(broadcast)
    ward.due_now(broadcast, 0, at_home=True)
    for number in range(4):
        ward.due_now(broadcast, number)
    ward.keeper.run_once()
    assert ward.client.hget(ward.home_key(broadcast), "canary_lane") == "0"


@FOUR
def test_a_delivery_opens_every_lane_and_tells_them(ward: Ward) -> None:
    ward.form_ids(40)
    broadcast = ward.broadcast()
    home = ward.home(broadcast)
    ward.lane(home).deliver(ward.take(home)[0])
    assert sorted(filter(None, ward.copies(broadcast, "open"))) == ["0", "0", "0", "1"]
    ward.keeper.run_once()
    assert ward.copies(broadcast, "open") == ["1"] * 4
    assert ward.copies(broadcast, "told") == ["1"] * 4


@FOUR
def test_a_lane_without_a_copy_is_opened_once_it_has_one(ward: Ward) -> None:
    ward.form_ids(40)
    broadcast = ward.broadcast()
    home = ward.home(broadcast)
    missing = (home + 1) % 4
    ward.lane(home).deliver(ward.take(home)[0])
    ward.client.delete(keys.lane_broadcast(missing, broadcast))
    others = [number for number in range(4) if number != home]
    assert not ward.keeper.wants.open_lanes("shop", broadcast, others)
    assert ward.copies(broadcast, "told")[home] != "1"  # not all are open yet
    for _ in range(2):
        ward.due_now(broadcast, home)
        ward.keeper.run_once()
    assert ward.copies(broadcast, "open") == ["1"] * 4


# -- nothing is lost ----------------------------------------------------------------------------


def test_a_need_that_is_written_while_the_keeper_works_on_it_is_served_too(
    client: "redis.Redis", settings: Settings
) -> None:
    """A verdict comes just as the keeper has adopted what it was told before."""
    ward = Ward(client, settings)
    ward.form_ids(5)
    broadcast = ward.broadcast()
    ward.keeper.run_once()

    class Interrupted(Broadcasts):
        def adopt(self, one: str) -> str:
            app = super().adopt(one)
            if client.hget(keys.lane_broadcast(0, one), "state") == "running":
                client.hset(keys.lane_broadcast(0, one), "verdict", "pause 43101")
                client.zadd(keys.due(0), {one: 0})
            return app

    ward.move_home(broadcast, "pause")
    ward.move_home(broadcast, "resume")
    keeper = Keeper(client, settings, Interrupted(client, settings), "k1")
    for _ in range(2):
        keeper.run_once()
    assert ward.broadcasts.status(broadcast).state == State.PAUSED


def test_what_could_not_be_done_is_said_comes_again_and_holds_nobody_up(
    ward: Ward, lines: list[Any]
) -> None:
    ward.form_ids(5)
    broken, sound = ward.broadcast(), ward.broadcast()
    ward.keeper.run_once()
    spec = ward.client.hget(ward.home_key(broken), "spec")
    ward.client.hset(ward.home_key(broken), "spec", "no spec at all")
    for broadcast in (broken, sound):
        ward.move_home(broadcast, "pause")
    ward.keeper.run_once()
    assert ward.copies(broken, "state") == ["running"]
    assert ward.copies(sound, "state") == ["paused"]
    failed = [line for line in lines if line["event"] == "duty_failed"]
    assert failed
    assert all((line["duty"], line["lane"]) == ("keep", 0) for line in failed)
    assert all(broken in line["error"] for line in failed)

    ward.client.hset(ward.home_key(broken), "spec", spec)
    doing = ward.client.zrange(keys.doing(0), 0, -1, withscores=True)
    again = {member: until_ms for member, until_ms in doing if member.startswith(broken)}
    assert again, "it was given, and not done"
    assert all(5000 < until_ms - ward.now_ms <= 10_000 for until_ms in again.values())
    ward.client.zadd(keys.doing(0), dict.fromkeys(again, 0))  # ten seconds later
    ward.keeper.run_once()
    assert ward.copies(broken, "state") == ["paused"]
    assert not ward.client.exists(keys.doing(0))


@FOUR
def test_a_lane_that_cannot_be_looked_at_is_said_and_holds_no_other_up(
    ward: Ward, lines: list[Any]
) -> None:
    ward.form_ids(20)
    broadcast = a_broadcast_from(ward, 1)
    ward.keeper.run_once()
    ward.client.delete(keys.due(3))
    ward.client.set(keys.due(3), "no zset")
    ward.move_home(broadcast, "pause")
    ward.keeper.run_once()
    assert ward.copies(broadcast, "state")[:3] == ["paused"] * 3
    failed = [line for line in lines if line["event"] == "duty_failed"]
    assert {(line["duty"], line["lane"]) for line in failed} >= {("look", 3)}


def test_what_was_done_is_not_given_again(ward: Ward) -> None:
    ward.form_ids(5)
    ward.broadcast()
    ward.keeper.run_once()
    assert not ward.client.exists(keys.doing(0))


def test_one_keeper_looks_after_a_lane_and_another_takes_over_when_it_is_gone(ward: Ward) -> None:
    ward.form_ids(5)
    broadcast = ward.broadcast()
    ward.keeper.run_once()
    ward.move_home(broadcast, "pause")
    other = ward.another("k2")
    other.run_once()
    assert ward.copies(broadcast, "state") == ["running"]
    assert 0 < ward.client.pttl(keys.keeper(0)) <= keeper_module.LEASE_MS
    ward.client.delete(keys.keeper(0))  # its lease has run out
    other.run_once()
    assert ward.copies(broadcast, "state") == ["paused"]
    assert ward.client.get(keys.keeper(0)) == "k2"


# -- the net ------------------------------------------------------------------------------------


@FOUR
def test_what_an_earlier_version_left_is_found_without_any_need(ward: Ward) -> None:
    ward.form_ids(20)
    broadcast = ward.broadcast()
    ward.move_home(broadcast, "cancel")
    ward.nothing_is_due()
    for number in range(4):
        ward.client.delete(keys.keeper(number))
    for _ in range(2):
        ward.keeper.run_once()
    status = ward.broadcasts.status(broadcast)
    assert status.outcomes == {"cancelled": 20}
    assert ward.client.zscore(keys.active("shop"), broadcast) is None


def test_the_net_is_cast_now_and_then_only(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    ward.form_ids(5)
    broadcast = ward.broadcast()
    ward.keeper.run_once()
    ward.move_home(broadcast, "pause")
    ward.nothing_is_due()
    for _ in range(3):
        ward.keeper.run_once()
    assert ward.copies(broadcast, "state") == ["running"]
    monkeypatch.setattr(ward.keeper._net, "_next_round", 0.0)  # a minute later
    ward.keeper.run_once()
    assert ward.copies(broadcast, "state") == ["paused"]


@FOUR
def test_without_the_first_lane_nobody_casts_it(ward: Ward) -> None:
    ward.form_ids(5)
    broadcast = ward.broadcast()
    ward.nothing_is_due()
    ward.client.set(keys.keeper(0), "somebody else", px=3_000)
    ward.keeper.run_once()
    assert all(not ward.client.zcard(keys.due(number)) for number in range(4))
    assert ward.broadcasts.status(broadcast).state == State.RUNNING


def test_a_round_over_many_takes_its_time_and_leaves_none_out(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(net_module, "_SPREAD", 1)
    monkeypatch.setattr(net_module, "_FIRST", 8)
    ward.form_ids(1)
    broadcasts = [ward.broadcast() for _ in range(10)]
    for broadcast in broadcasts:
        ward.move_home(broadcast, "pause")
    ward.nothing_is_due()
    paused = []
    for _ in range(4):
        ward.keeper.run_once()
        paused.append(sum(ward.copies(one, "state") == ["paused"] for one in broadcasts))
    assert paused == [4, 8, 10, 10]  # 8 places a second at first: a home and a lane each


def test_an_id_whose_home_never_came_is_forgotten_after_an_hour(ward: Ward) -> None:
    old, young = "0" * 21, "1" * 21
    ages = {old: ward.now_ms - HOUR - 1000, young: ward.now_ms - HOUR + 60_000}
    ward.client.zadd(keys.active("shop"), ages)
    ward.keeper.run_once()
    assert ward.client.zrange(keys.active("shop"), 0, -1) == [young]


# -- the stocks ---------------------------------------------------------------------------------


def test_past_hours_leave_the_stock_once_an_hour(ward: Ward, lines: list[Any]) -> None:
    def forget_an_hour() -> None:
        past = ward.now_ms // HOUR - 2
        ward.client.hset(keys.stock(0, "shop"), mapping={f"f:{past}": 3})
        ward.client.hdel(keys.stock(0, "shop"), "trimmed")

    def expired() -> list[int]:
        return [line["uses"] for line in lines if line["event"] == "permits_expired"]

    ward.form_ids(1)
    forget_an_hour()
    ward.keeper.run_once()
    assert expired() == [3]
    assert ward.client.hget(keys.ledger(0, "shop"), "expired:f") == "3"
    forget_an_hour()
    ward.keeper.run_once()
    assert expired() == [3]
    ward.keeper._stocks._hour -= 1  # the hour is over
    ward.keeper.run_once()
    assert expired() == [3, 3]


def test_what_a_producer_of_an_earlier_version_lets_run_is_looked_at_when_it_is_heard_of(
    client: "redis.Redis", settings: Settings
) -> None:
    """It writes no need and makes no app busy; the net finds that too, up to a minute later."""
    shop = Shop(client, settings)
    shop.give("oA", formId="a")
    broadcast = shop.broadcast()
    shop.broadcasts.pause(broadcast)
    shop.keeper.run_once()
    shop.keeper._net._next_part = shop.keeper._net._next_round = math.inf  # the net's turn is far
    home = keys.home(shop.broadcasts.home_lane(broadcast), broadcast)
    generation = shop.client.hincrby(home, "generation", 1)
    shop.client.hset(home, "state", "running")
    lane = shop.lane("oA")
    shop.client.delete(keys.busy(lane))  # as a take leaves it
    copy = {"state": "running", "generation": generation}
    for number in shop.settings.layout.lanes:
        shop.client.hset(keys.lane_broadcast(number, broadcast), mapping=copy)
    shop.keeper.run_once()
    assert not shop.client.smembers(keys.busy(lane))

    shop.keeper.hear(broadcast)
    shop.keeper.run_once()

    assert shop.client.smembers(keys.busy(lane)) == {"shop"}
    assert shop.client.lrange(keys.ring(lane, "shop"), 0, -1) == [broadcast]


# -- when it is due -----------------------------------------------------------------------------


def test_it_is_due_at_first_and_then_when_a_lane_has_been_quiet_for_a_while(
    client: "redis.Redis", settings: Settings
) -> None:
    shop = Shop(client, settings)
    assert shop.keeper.due(time.monotonic())
    shop.keeper.run_once()
    shop.keeper._net._next_part = math.inf  # the net's turn is far
    while shop.keeper._stocks.due:
        shop.keeper.run()
    assert not shop.keeper.due(time.monotonic())
    assert shop.keeper.due(time.monotonic() + 2), "a need may have been written"


def test_it_is_due_at_once_when_it_hears_of_a_broadcast(
    client: "redis.Redis", settings: Settings
) -> None:
    shop = Shop(client, settings)
    shop.keeper.run_once()
    shop.keeper._net._next_part = math.inf
    while shop.keeper._stocks.due:
        shop.keeper.run()
    shop.keeper.hear("b1")
    assert shop.keeper.due(time.monotonic())


def test_what_a_pass_had_no_time_for_is_due_in_the_next_one(
    client: "redis.Redis", settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(client, settings)
    shop.give("oA", formId="a")
    broadcast = shop.broadcast()
    shop.broadcasts.pause(broadcast)
    shop.keeper._net._next_part = math.inf
    monkeypatch.setattr(keeper_module, "_PASS_S", -1.0)
    shop.broadcasts.resume(broadcast)
    shop.keeper.hear(broadcast)
    shop.keeper.run_once()
    shop.keeper.hear(broadcast)  # by now it holds the first lane
    shop.keeper.run_once()
    assert shop.keeper._todo
    assert shop.keeper.due(time.monotonic())


def scripts_run(client: "redis.Redis") -> int:
    return int(client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])


@FOUR
def test_lanes_of_one_server_are_looked_at_in_one_call(ward: Ward) -> None:
    ward.keeper.run_once()  # loads the script, casts the net
    before = scripts_run(ward.client)
    ward.keeper.run_once()
    assert scripts_run(ward.client) - before == 1
    assert [ward.client.get(keys.keeper(lane)) for lane in range(4)] == ["k1"] * 4


@FOUR
def test_a_lane_whose_keys_are_broken_leaves_the_others_alone(
    ward: Ward, lines: list[dict[str, Any]]
) -> None:
    ward.client.set(keys.due(1), "no zset", px=60_000)
    for lane in range(4):
        ward.client.delete(keys.keeper(lane))
    ward.keeper.run_once()
    held = [ward.client.get(keys.keeper(lane)) for lane in range(4)]
    assert held == ["k1", None, "k1", "k1"]
    [line] = [one for one in lines if one["event"] == "duty_failed"]
    assert (line["duty"], line["lane"], line["error"]) == ("look", 1, "its keys are broken")


@FOUR
def test_a_lane_that_another_keeper_holds_is_left_to_it(ward: Ward) -> None:
    ward.client.set(keys.keeper(2), "k2", px=3000)
    ward.keeper.run_once()
    held = [ward.client.get(keys.keeper(lane)) for lane in range(4)]
    assert held == ["k1", "k1", "k2", "k1"]


# -- while a lane is divided --------------------------------------------------------------------


@pytest.mark.parametrize("lanes", [2])
def test_what_a_shut_lane_refuses_stops_no_other_lane_and_is_done_in_its_heirs(
    ward: Ward, division: Any, lines: list[Any]
) -> None:
    ward.form_ids(20)
    while ward.home(broadcast := ward.broadcast()) != 1:
        pass
    ward.keeper.run_once()
    assert ward.keeper._held == {0, 1}
    ward.move_home(broadcast, "pause")
    assert division.shut() == 0
    ward.keeper.run_once()
    assert ward.copies(broadcast, "state") == ["running", "paused"]
    assert (ward.keeper._held, ward.keeper._casts) == ({1}, True)
    assert broadcast in ward.keeper._todo, "it is tried again"
    assert not [line for line in lines if line["event"] == "duty_failed"]

    division.end()
    follow(ward.client, ward.settings)
    assert set(ward.settings.layout.lanes) == {2, 3, 4, 5}
    ward.keeper.run_once()
    assert ward.copies(broadcast, "state") == ["paused"] * 4
    assert ward.keeper._held == {2, 3, 4, 5}
    assert set(ward.keeper._quiet) <= {2, 3, 4, 5}
    assert ward.keeper._todo == {}
    assert not [line for line in lines if line["event"] == "duty_failed"]


def test_a_home_that_went_to_another_lane_is_no_orphan(ward: Ward, division: Any) -> None:
    ward.form_ids(5)
    broadcast = ward.broadcast()
    ward.client.zadd(keys.active("shop"), {broadcast: 1})
    ward.keeper._net._listed = {broadcast: "shop"}
    ward.keeper._now_ms = ward.now_ms
    before = ward.settings.layout
    gone = Standing(dict.fromkeys(("state", "generation", "starts_at_ms")), {0: {}})
    division.end()
    with pytest.raises(LaneDividedError):
        ward.keeper._serve_one(broadcast, [], gone, before)
    assert ward.client.zscore(keys.active("shop"), broadcast) == 1
    assert ward.keeper._serve_one(broadcast, [], gone, ward.settings.layout)
    assert ward.client.zscore(keys.active("shop"), broadcast) is None


def test_a_lane_that_is_shut_counts_as_no_lane_that_is_behind() -> None:
    copies = {0: {"generation": "1"}, 1: {"generation": "2"}}
    look = Standing({"generation": "2"}, copies, shut=0)
    assert (look.is_behind, look.waits_for_shut) == (False, True)
    look = Standing({"generation": "2"}, copies, shut=1)
    assert (look.is_behind, look.waits_for_shut) == (True, False)
