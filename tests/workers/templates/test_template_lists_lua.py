"""template_want, template_begin and template_end, step by step, by a clock of the test's own."""

from typing import Any

import pytest
import redis

from producers.store import keys
from producers.templates.templates import WANT, WantArgs, WantKeys
from workers.templates.clerk import BEGIN, END, BeginArgs, EndArgs, ListKeys

MEMBER = "subscribe shop"
DAY = 86_400_000
NOON = 20_000 * DAY + DAY // 2
HERE = ListKeys(keys.templates("shop", "subscribe"), keys.TEMPLATES_DUE)


class Desk:
    """The three scripts on one list: leases of 15 s, 3 s apart, 600 s after two a day."""

    def __init__(self, client: "redis.Redis") -> None:
        self.client = client
        self._want, self._begin, self._end = WANT.on(client), BEGIN.on(client), END.on(client)

    def want(self, now: int) -> list[int]:
        return self._want(WantKeys(*HERE), WantArgs(MEMBER, DAY, 3_600_000), now=now)

    def begin(self, now: int, worker: str = "w1") -> int:
        args = BeginArgs(MEMBER, worker, 15_000, 3_000, 2, 600_000, DAY)
        return self._begin(HERE, args, now=now)[0]

    def end(self, now: int, began: int, outcome: str = "read", **more: Any) -> list[int]:
        worker, listed = more.get("worker", "w1"), more.get("list", "L")
        why = "" if outcome == "read" else "why"
        args = EndArgs(MEMBER, worker, began, outcome, listed, why, 60_000, 200_000, DAY)
        return self._end(HERE, args, now=now)

    def has(self, *names: str) -> list[str | None]:
        return self.client.hmget(HERE.list, names)

    def due(self) -> float | None:
        return self.client.zscore(HERE.due, MEMBER)


@pytest.fixture
def desk(client: "redis.Redis") -> Desk:
    return Desk(client)


def test_what_nobody_wants_is_not_read(desk: Desk) -> None:
    assert desk.begin(NOON) == 0
    assert desk.client.exists(*HERE) == 0


def test_one_worker_reads_what_is_wanted_and_then_it_is_not_wanted(desk: Desk) -> None:
    assert desk.want(NOON) == [NOON, NOON]
    assert (desk.begin(NOON + 1), desk.begin(NOON + 2, "w2")) == (1, 0)
    assert desk.end(NOON + 50, NOON + 1) == [1, NOON + 3_001]
    assert desk.has("list", "read_at_ms", "trouble", "tried_at_ms") == [
        "L",
        str(NOON + 1),
        "",
        str(NOON + 50),
    ]
    assert desk.due() is None
    assert desk.begin(NOON + 5_000) == 0


def test_what_is_wanted_while_it_is_read_is_read_again_after_the_pause(desk: Desk) -> None:
    desk.want(NOON)
    desk.begin(NOON + 1)
    desk.want(NOON + 10)
    assert desk.end(NOON + 50, NOON + 1) == [1, NOON + 3_001]
    assert (desk.begin(NOON + 3_000), desk.begin(NOON + 3_001)) == (0, 1)


def test_a_dead_workers_call_is_made_by_another_after_the_lease(desk: Desk) -> None:
    desk.want(NOON)
    desk.begin(NOON)
    assert (desk.begin(NOON + 14_999, "w2"), desk.begin(NOON + 15_000, "w2")) == (0, 1)
    assert desk.end(NOON + 15_001, NOON, worker="w1") == [0, NOON + 18_000]  # too late
    assert desk.has("list") == [None]
    assert desk.end(NOON + 15_002, NOON + 15_000, worker="w2")[0] == 1


def test_what_is_wanted_while_it_is_read_is_not_begun_before_the_lease_ends(desk: Desk) -> None:
    desk.want(NOON)
    desk.begin(NOON)
    desk.want(NOON + 10)
    assert (desk.begin(NOON + 4_000, "w2"), desk.begin(NOON + 15_000, "w2")) == (0, 1)


def test_a_late_answer_of_the_same_worker_is_no_answer_to_its_next_call(desk: Desk) -> None:
    desk.want(NOON)
    desk.begin(NOON)
    desk.begin(NOON + 15_000)
    assert desk.end(NOON + 15_001, NOON)[0] == 0
    assert desk.end(NOON + 15_002, NOON + 15_000)[0] == 1


def test_after_some_calls_in_a_day_they_come_far_apart_until_the_next_day(desk: Desk) -> None:
    now, nexts = NOON, []
    for _ in range(4):
        desk.want(now)
        assert desk.begin(now) == 1
        nexts.append(desk.end(now + 1, now)[1] - now)
        now += nexts[-1]
    assert nexts == [3_000, 3_000, 600_000, 600_000]
    tomorrow = NOON + DAY
    desk.want(tomorrow)
    assert desk.begin(tomorrow) == 1
    assert desk.end(tomorrow + 1, tomorrow) == [1, tomorrow + 3_000]


@pytest.mark.parametrize("least", [("lease_ms", 1), ("ttl_ms", 1), ("pause_ms", 0), ("quick", 0)])
def test_what_no_call_can_last_is_refused(desk: Desk, least: tuple[str, int]) -> None:
    field, lowest = least
    args = BeginArgs(MEMBER, "w1", 15_000, 3_000, 2, 600_000, DAY)
    desk.want(NOON)
    with pytest.raises(redis.ResponseError, match=field):
        desk._begin(HERE, args._replace(**{field: lowest - 1}), now=NOON)
    assert desk._begin(HERE, args._replace(**{field: lowest}), now=NOON) == [1, NOON]


def test_an_end_of_no_list_is_refused(desk: Desk) -> None:
    desk.want(NOON)
    desk.begin(NOON)
    args = EndArgs("", "w1", NOON, "failed", "", "why", 60_000, 200_000, DAY)
    with pytest.raises(redis.ResponseError, match="member"):
        desk._end(HERE, args, now=NOON)
    assert desk.client.zcard(HERE.due) == 1


def test_failures_wait_ever_longer_and_keep_what_was_read(desk: Desk) -> None:
    desk.want(NOON)
    desk.begin(NOON)
    desk.end(NOON, NOON)
    waits, now = [], NOON + DAY
    for _ in range(4):
        desk.want(now)
        desk.begin(now)
        waits.append(desk.end(now, now, "failed")[1] - now)
        assert desk.due() is None
        now += DAY
    assert waits == [60_000, 120_000, 200_000, 200_000]
    assert desk.has("list", "read_at_ms", "trouble") == ["L", str(NOON), "why"]


def test_who_could_not_ask_leaves_it_to_others_at_once(desk: Desk) -> None:
    desk.want(NOON)
    desk.begin(NOON)
    assert desk.end(NOON + 5, NOON, "left") == [1, NOON + 5]
    assert desk.begin(NOON + 5, "w2") == 1


def test_a_clock_that_was_set_back_stops_nothing_for_good(desk: Desk) -> None:
    desk.want(NOON)
    desk.begin(NOON)
    early = NOON - 30 * DAY
    desk.client.zadd(HERE.due, {MEMBER: early})
    assert desk.begin(early + 1) == 0
    assert desk.due() <= early + 1 + DAY


def test_what_no_worker_reads_is_given_up(desk: Desk) -> None:
    desk.client.zadd(HERE.due, {"subscribe gone": NOON})
    desk.want(NOON + 3_600_001)
    assert desk.client.zrange(HERE.due, 0, -1) == [MEMBER]
