"""reserve.lua: spacing, windows, the day, and what holds when WeChat says that it is too much."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lane_driver import Lane

from producers.store import keys
from producers.store.scripts import new_token
from workers.limits.limiter import (
    PENALIZE,
    RESERVE,
    PenalizeArgs,
    PenalizeKeys,
    ReserveArgs,
    ReserveKeys,
)

DAY_MS = 86_400_000
NOON = 1_800_000_000_000_000 // (DAY_MS * 1000) * DAY_MS * 1000 + DAY_MS * 500
"""µs: noon UTC of some day."""
AHEAD = 400_000


@dataclass
class Grant:
    now_us: int
    wait_ms: int
    level: int
    horizon_us: int
    rate: float
    groups: list[list[int]]
    spent_ms: int = 0

    @property
    def slots(self) -> list[int]:
        return self.groups[0]

    @property
    def offsets(self) -> list[int]:
        return [slot - self.now_us for slot in self.groups[0]]


@dataclass
class Shared:
    """One app's limits, and the moment."""

    lane: Lane
    now_us: int = NOON
    rate: float = 0
    per_minute: int = 0
    per_day: int = 0
    day_offset_ms: int = 0
    ahead_us: int = AHEAD
    own_rates: dict[str, float] = field(default_factory=dict)

    def reserve(
        self,
        plain: int,
        *,
        unused: int = 0,
        worker: str = "w1",
        token: str = "",
        channel: str = "subscribe",
        lead_us: int = 0,
        **own: int,
    ) -> Grant:
        args = ReserveArgs(
            rate=round(self.rate * 1000),
            per_minute=self.per_minute,
            per_day=self.per_day,
            day_offset_ms=self.day_offset_ms,
            unused=unused,
            ahead_us=self.ahead_us,
            plain=plain,
            channel=channel,
            lead_us=lead_us,
        )
        rates: list[int] = []
        for broadcast, wanted in own.items():
            rates += [round(self.own_rates[broadcast] * 1000), wanted]
        answer = self.lane.run(
            RESERVE,
            ReserveKeys(keys.limiter_reply("shop", worker), keys.limiter("shop")),
            args,
            rates,
            more_keys=[keys.broadcast_limiter("shop", broadcast) for broadcast in own],
            token=token,
            now=self.now_us,
        )
        counts = [int(count) for count in answer[8 : 9 + len(own)]]
        slots = [int(slot) for slot in answer[-1].split()]
        assert len(slots) == sum(counts)
        groups, at = [], 0
        for count in counts:
            groups.append(slots[at : at + count])
            at += count
        now_us, wait_ms, level, horizon_us, rate, _, _, spent_ms = map(int, answer[:8])
        return Grant(now_us, wait_ms, level, horizon_us, rate / 1000, groups, spent_ms)


def busiest(slots: list[int], window_us: int) -> int:
    """Return how many slots the busiest window holds."""
    slots, most, start = sorted(slots), 0, 0
    for end, slot in enumerate(slots):
        while slots[start] <= slot - window_us:
            start += 1
        most = max(most, end - start + 1)
    return most


@pytest.fixture
def shared(lane: Lane) -> Shared:
    return Shared(lane)


def test_slots_are_spaced_exactly_and_the_next_call_goes_on(shared: Shared) -> None:
    shared.rate = 10
    first = shared.reserve(3)
    assert first == Grant(
        NOON, 0, 0, NOON + 300_000, shared.rate, [[NOON, NOON + 100_000, NOON + 200_000]]
    )
    second = shared.reserve(1, worker="w2")
    assert second == Grant(NOON, 0, 0, NOON + 400_000, shared.rate, [[NOON + 300_000]])
    shared.now_us += 50_000
    assert shared.reserve(1).offsets == [350_000]


def test_idle_time_saves_up_no_burst(shared: Shared) -> None:
    shared.rate = 100
    shared.reserve(5)
    shared.now_us += 3_600_000_000
    assert shared.reserve(5).offsets == [0, 10_000, 20_000, 30_000, 40_000]


def test_who_needs_some_time_gets_no_slot_that_ends_before(shared: Shared) -> None:
    shared.rate, shared.own_rates = 100, {"b1": 10}
    grant = shared.reserve(2, lead_us=30_000, b1=2)
    assert grant.offsets == [40_000, 50_000]
    assert [slot - NOON for slot in grant.groups[1]] == [30_000, 130_000]
    assert shared.reserve(2, worker="w2").offsets == [60_000, 70_000]
    shared.rate = 0
    grant = shared.reserve(1, lead_us=30_000, b1=0)
    assert grant.offsets == [0]  # it does not end


def test_without_a_rate_every_slot_is_now(shared: Shared) -> None:
    grant = shared.reserve(100)
    assert (set(grant.offsets), len(grant.slots), grant.wait_ms) == ({0}, 100, 0)


def test_no_slot_lies_further_ahead_than_allowed_and_the_answer_says_when(shared: Shared) -> None:
    shared.rate = 10
    grant = shared.reserve(20)
    assert grant.offsets == [0, 100_000, 200_000, 300_000, 400_000]
    assert grant.wait_ms == 100
    shared.now_us += 1000
    assert (shared.reserve(20).slots, shared.reserve(20).wait_ms) == ([], 99)
    shared.now_us += grant.wait_ms * 1000 - 1000
    assert shared.reserve(20).offsets == [400_000]


def test_the_same_token_returns_the_first_slots(shared: Shared) -> None:
    shared.rate = 10
    shared.per_day = 100
    token = new_token()
    first = shared.reserve(3, token=token)
    shared.now_us += 10_000
    assert shared.reserve(3, token=token) == first
    assert shared.lane.client.hget(keys.limiter("shop"), "day_count") == "3"
    assert shared.reserve(1).offsets == [290_000]


def test_a_broadcasts_own_rate_nests_under_the_apps(shared: Shared) -> None:
    shared.rate, shared.own_rates = 100, {"b1": 10}
    grant = shared.reserve(3, b1=4)
    assert [len(group) for group in grant.groups] == [3, 4]
    own = [slot - NOON for slot in grant.groups[1]]
    assert all(b - a >= 90_000 for a, b in pairwise(own))  # it waits for a place among the app's
    every = sorted(slot for group in grant.groups for slot in group)
    assert all(b - a >= 10_000 for a, b in pairwise(every))
    assert shared.lane.client.ttl(keys.broadcast_limiter("shop", "b1")) > 0


def test_an_own_rate_holds_without_one_of_the_app_and_across_calls(shared: Shared) -> None:
    shared.own_rates = {"b1": 10, "b2": 5}
    grant = shared.reserve(2, b1=2, b2=2)
    offsets = [[slot - NOON for slot in group] for group in grant.groups]
    assert offsets == [[0, 0], [0, 100_000], [0, 200_000]]
    grant = shared.reserve(0, worker="w2", b1=1, b2=1)
    assert [[slot - NOON for slot in group] for group in grant.groups] == [[], [200_000], [400_000]]


def test_a_capped_broadcast_costs_the_others_its_share_alone(shared: Shared) -> None:
    shared.rate, shared.own_rates = 200, {"b1": 20}
    plain: list[int] = []
    own: list[int] = []
    for _ in range(100):  # five seconds, two workers that ask for what they like
        own += shared.reserve(0, worker="w2", b1=5).groups[1]
        plain += shared.reserve(20).slots
        shared.now_us += 50_000
    every = sorted(plain + own)
    assert all(after - before >= 4_998 for before, after in pairwise(every))
    within = [slot for slot in every if slot < NOON + 5_000_000]
    assert len(within) >= 990
    assert busiest(every, 1_000_000) <= 201
    assert 98 <= sum(slot < NOON + 5_000_000 for slot in own) <= 101
    assert busiest(own, 1_000_000) <= 21


@pytest.mark.parametrize(("rate", "cap"), [(50, 20), (1000, 500), (347, 100)])
def test_a_capped_broadcast_has_its_rate_beside_others_in_one_call(
    shared: Shared, rate: int, cap: int
) -> None:
    shared.rate, shared.own_rates = rate, {"b1": cap}
    own: list[int] = []
    plain: list[int] = []
    for _ in range(25):  # five seconds of a worker whose batches are a fifth of a second
        of_own = cap // 5
        grant = shared.reserve(rate // 5 - of_own, b1=of_own)
        plain += grant.slots
        own += grant.groups[1]
        shared.now_us += 200_000
    within = [slot for slot in own if slot < NOON + 5_000_000]
    assert 0.98 * 5 * cap <= len(within) <= 5 * cap + 1
    assert busiest(own, 1_000_000) <= cap + 1
    assert len(plain) == 25 * (rate // 5 - cap // 5)  # nobody waits for it
    every = sorted(plain + own)
    assert all(after - before >= 1_000_000 / rate - 2 for before, after in pairwise(every))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([7, 50, 347, 3000]),
    st.sampled_from([1, 5, 40, 400]),
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 300_000)), max_size=25
    ),
)
def test_whatever_is_asked_slots_keep_their_distance(
    shared: Shared, rate: int, cap: int, steps: list[tuple[int, int, int]]
) -> None:
    shared.now_us += 10 * DAY_MS * 1000
    shared.rate, shared.own_rates = rate, {"b1": cap}
    plain: list[int] = []
    own: list[int] = []
    for some, capped, pause_us in steps:
        groups = shared.reserve(some, b1=capped).groups
        plain += groups[0]
        own += groups[1]
        shared.now_us += pause_us
    spacing = 1_000_000 / rate
    assert all(b - a >= spacing - 3 for a, b in pairwise(sorted(plain + own)))
    assert all(b - a >= 1_000_000 / cap - spacing - 3 for a, b in pairwise(sorted(own)))
    assert busiest(own, 1_000_000) <= cap + 1


def test_a_slow_broadcast_does_not_hold_the_apps_slots(shared: Shared) -> None:
    shared.rate, shared.own_rates = 100, {"b1": 2}
    grant = shared.reserve(0, b1=3)
    assert (len(grant.groups[1]), grant.wait_ms) == (1, 100)
    assert shared.reserve(1).offsets == [10_000]


def test_the_next_slot_that_is_told_is_a_free_one(shared: Shared) -> None:
    """Who waits for it is not called when another's slot, given ahead, begins."""
    shared.rate, shared.own_rates = 100, {"b1": 50}
    ahead = shared.reserve(0, b1=2)
    assert [slot - NOON for slot in ahead.groups[1]] == [0, 20_000]
    assert ahead.horizon_us - NOON == 10_000
    between = shared.reserve(1)
    assert between.offsets == [10_000]
    assert between.horizon_us - NOON == 30_000


@pytest.mark.parametrize("worker", ["w1", "w2"])
def test_a_minute_holds_no_more_than_its_share(shared: Shared, worker: str) -> None:
    shared.per_minute = 10
    assert len(shared.reserve(7).slots) == 7
    shared.now_us += 30_000_000
    grant = shared.reserve(7, worker=worker)
    assert (len(grant.slots), grant.wait_ms > 0) == (3, True)
    shared.now_us += grant.wait_ms * 1000
    assert len(shared.reserve(7).slots) == 7
    assert shared.reserve(7).slots == []


def test_a_minute_slides_over_the_edges_of_its_seconds(shared: Shared) -> None:
    """I4 holds in any window, not only in those that begin with a second."""
    shared.per_minute = 10
    shared.now_us += 999_000
    first = shared.reserve(10).slots
    shared.now_us += 59_001_000 + 1000
    second = shared.reserve(10).slots
    assert len([slot for slot in second if slot < first[-1] + 60_000_000]) <= 1


def test_a_slot_that_lies_ahead_counts_in_its_own_minute(shared: Shared) -> None:
    shared.per_minute, shared.rate = 5, 10
    shared.now_us = NOON + 990_000
    slots = shared.reserve(5).slots
    assert slots[-1] == shared.now_us + 400_000
    shared.now_us = NOON + 61_000_000
    slots += shared.reserve(5).slots
    assert busiest(slots, 60_000_000) <= 6


def test_a_day_ends_at_its_hour_and_the_next_begins_empty(shared: Shared) -> None:
    shared.per_day, shared.day_offset_ms = 10, 8 * 3_600_000
    assert len(shared.reserve(8).slots) == 8
    grant = shared.reserve(8)
    assert (len(grant.slots), grant.spent_ms, grant.wait_ms) == (2, 4 * 3_600_000, 0)
    assert (shared.reserve(8).slots, shared.reserve(8).spent_ms) == ([], 4 * 3_600_000)
    shared.now_us += grant.spent_ms * 1000 - 1
    assert shared.reserve(8).slots == []
    shared.now_us += 1
    assert len(shared.reserve(8).slots) == 8


def test_slots_that_passed_unused_return_to_the_day(shared: Shared) -> None:
    shared.per_day = 10
    assert len(shared.reserve(10).slots) == 10
    assert shared.reserve(1).slots == []
    assert len(shared.reserve(5, unused=3).slots) == 3
    assert shared.reserve(1).slots == []


def test_all_windows_hold_together(shared: Shared) -> None:
    shared.rate, shared.per_minute, shared.per_day = 1000, 50, 60
    assert len(shared.reserve(100).slots) == 50
    shared.now_us += 61_000_000
    assert len(shared.reserve(100).slots) == 10
    shared.now_us += 61_000_000
    assert shared.reserve(100).slots == []


def penalize(shared: Shared, base: int = 1000) -> None:
    names, now_ms = PenalizeKeys(keys.limiter("shop")), shared.now_us // 1000
    shared.lane.run(PENALIZE, names, PenalizeArgs(base, 30_000), now=now_ms)


def test_a_limit_error_holds_everyone_back_then_one_at_a_time_probes(shared: Shared) -> None:
    shared.rate = 1000
    penalize(shared)
    for worker in ("w1", "w2"):
        grant = shared.reserve(5, worker=worker)
        assert (grant.slots, grant.wait_ms, grant.level) == ([], 1000, 1)
    shared.now_us += 1_000_000
    grant = shared.reserve(5)
    assert (grant.offsets, grant.level, grant.wait_ms > 0) == ([0], 1, True)
    assert shared.reserve(5, worker="w2").offsets == [100_000]
    penalize(shared, 0)
    assert (len(shared.reserve(5).slots), shared.reserve(1).level) == (5, 0)


def test_probing_keeps_to_a_lower_rate_and_to_one_without_any(shared: Shared) -> None:
    for rate, spacing in ((0, 100_000), (2, 500_000)):
        shared.lane.client.delete(keys.limiter("shop"))
        shared.rate, shared.ahead_us = rate, 1_000_000
        penalize(shared)
        shared.now_us += 1_000_000
        assert [shared.reserve(3).offsets for _ in range(2)] == [[0], [spacing]]
        shared.now_us += 10_000_000


def test_nothing_wanted_is_nothing_granted(shared: Shared) -> None:
    shared.rate = 10
    grant = shared.reserve(0)
    assert (grant.slots, grant.wait_ms, grant.horizon_us) == ([], 0, NOON)
    assert shared.reserve(1).offsets == [0]


def test_its_keys_live_two_days(shared: Shared) -> None:
    shared.per_minute = 5
    shared.reserve(1)
    assert 0 < shared.lane.client.pttl(keys.limiter("shop")) <= 2 * DAY_MS
    assert shared.lane.client.pttl(keys.limiter_reply("shop", "w1")) > 0


@given(data=st.data())
def test_no_window_ever_holds_more_than_its_share(valkey_url: str, data: st.DataObject) -> None:
    client = redis.Redis.from_url(valkey_url, decode_responses=True)
    client.flushall()
    shared = Shared(Lane(client))
    shared.rate = data.draw(st.sampled_from([1, 3, 7.5, 40, 300]), "rate")
    shared.per_minute = data.draw(st.sampled_from([0, 5, 30]), "per minute")
    shared.own_rates = {"b1": data.draw(st.sampled_from([0.5, 2, 11]), "own rate")}
    granted: list[int] = []
    own: list[int] = []
    gaps = st.one_of(st.integers(0, 3000), st.integers(0, 1_500_000), st.integers(0, 70_000_000))
    for gap in data.draw(st.lists(gaps, max_size=40), "gaps"):
        shared.now_us += gap
        grant = shared.reserve(
            data.draw(st.integers(0, 60), "plain"),
            worker=data.draw(st.sampled_from(["w1", "w2", "w3"]), "worker"),
            b1=data.draw(st.integers(0, 5), "own"),
        )
        slots = [slot for group in grant.groups for slot in group]
        assert all(grant.now_us <= slot <= grant.now_us + AHEAD for slot in slots)
        granted += slots
        own += grant.groups[1]
    client.close()
    client.connection_pool.disconnect()
    assert busiest(granted, 1_000_000) <= shared.rate + 1
    assert busiest(own, 1_000_000) <= shared.own_rates["b1"] + 1
    if shared.per_minute:
        assert busiest(granted, 60_000_000) <= shared.per_minute * 1.01 + 1
    assert max(Counter(granted).values(), default=1) == 1


def set_live(shared: Shared, rate: float) -> None:
    shared.lane.client.hset(keys.limiter("shop"), "rate", round(rate * 1000))


def test_a_rate_that_is_set_live_goes_before_the_settings_one(shared: Shared) -> None:
    shared.rate = 100
    assert shared.reserve(1).rate == 100
    set_live(shared, 1000)
    grant = shared.reserve(4)
    assert grant.rate == 1000
    assert [after - before for before, after in pairwise(grant.slots)] == [1000, 1000, 1000]


@pytest.mark.parametrize("own", [False, True])
def test_a_slow_rate_made_fast_is_not_waited_for(shared: Shared, own: bool) -> None:
    shared.own_rates = {"b1": 0.1}
    wanted = {"b1": 1} if own else {}
    shared.rate = 0 if own else 0.1
    first = shared.reserve(0 if own else 1, **wanted).groups[-1]
    assert len(first) == 1  # the next one would come 10 s later
    shared.now_us += 100_000
    shared.own_rates["b1"] = 100
    if not own:
        set_live(shared, 100)
    shared.reserve(0 if own else 1, **wanted)
    shared.now_us += 100_000
    (slot,) = shared.reserve(0 if own else 1, **wanted).groups[-1]
    assert slot - shared.now_us <= AHEAD


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from([0.5, 3, 40, 500]), st.integers(1, 30)), max_size=12))
def test_no_change_of_the_rate_lets_more_through_than_the_fastest_of_them(
    shared: Shared, steps: list[tuple[float, int]]
) -> None:
    shared.now_us += 10 * DAY_MS * 1000
    slots: list[int] = []
    for rate, wanted in steps:
        set_live(shared, rate)
        slots += shared.reserve(wanted).slots
        shared.now_us += 50_000
    assert slots == sorted(slots)
    fastest = max((rate for rate, _ in steps), default=1)
    assert busiest(slots, 1_000_000) <= fastest + 1


def test_the_limiter_of_an_app_with_a_live_rate_stays(shared: Shared) -> None:
    shared.reserve(1)
    assert shared.lane.client.pttl(keys.limiter("shop")) > 0
    set_live(shared, 100)
    shared.lane.client.persist(keys.limiter("shop"))
    shared.reserve(1)
    assert shared.lane.client.pttl(keys.limiter("shop")) == -1


@pytest.mark.parametrize("ask", [lambda shared: shared.reserve(1), penalize])
def test_a_rate_that_is_set_live_never_ends_by_itself(
    shared: Shared, ask: Callable[[Shared], object]
) -> None:
    set_live(shared, 100)
    shared.lane.client.pexpire(keys.limiter("shop"), 1000)  # as an earlier version left it
    ask(shared)
    assert shared.lane.client.pttl(keys.limiter("shop")) == -1


def test_plain_sends_of_an_unlimited_app_never_wait_for_an_own_rates_slots(
    shared: Shared,
) -> None:
    shared.own_rates = {"b1": 10}
    for _ in range(5):
        grant = shared.reserve(3, b1=5)
        assert grant.offsets == [0, 0, 0]
        shared.now_us += 90_000
    assert busiest(shared.reserve(0, b1=5).groups[1], 1_000_000) <= 11


@pytest.mark.parametrize("before", [90, 300])
def test_minute_counts_of_a_quiet_app_do_not_pile_up(shared: Shared, before: int) -> None:
    shared.per_minute = 100
    limiter = keys.limiter("shop")
    earlier = {f"m:{NOON // 1_000_000 - second}": 1 for second in range(1000, 1000 + before)}
    shared.lane.client.hset(limiter, mapping=earlier)
    for _ in range(300):
        shared.now_us += 70_000_000
        assert len(shared.reserve(1).slots) == 1
    assert shared.lane.client.hlen(limiter) <= 75
    assert not [name for name in shared.lane.client.hkeys(limiter) if name.startswith("m:")]


def test_a_clock_that_is_set_back_an_hour_holds_nobody_back(shared: Shared) -> None:
    shared.rate, shared.per_minute, shared.own_rates = 100, 50, {"b1": 1}
    shared.reserve(50, b1=1)
    penalize(shared, 30_000)
    shared.now_us -= 3_600_000_000
    assert shared.reserve(5).wait_ms <= 1000
    shared.now_us += 1_000_000
    assert len(shared.reserve(5).slots) == 1, "one at a time, as long as the errors last"
    penalize(shared, 0)
    assert shared.reserve(0, b1=1).wait_ms <= 1000
    shared.now_us += 1_000_000
    assert len(shared.reserve(0, b1=1).groups[1]) == 1
    shared.now_us += 400_000
    assert len(shared.reserve(5).slots) == 5


def test_a_limit_error_after_the_clock_was_set_back_holds_as_long_as_it_says(
    shared: Shared,
) -> None:
    penalize(shared, 10_000)
    shared.now_us -= 3_600_000_000
    penalize(shared, 1000)
    assert 0 < shared.reserve(1).wait_ms <= 2000
