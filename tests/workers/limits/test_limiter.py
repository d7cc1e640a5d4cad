"""The limiter through Python: server slots as monotonic seconds, shared by several workers."""

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
import redis
from send_path import by, connected, connected_async, way_to

from producers.settings import AppSettings, Settings
from producers.store import keys, scripts
from workers.limits.limiter import AHEAD_US, Grant, Limiter, Penalty

AHEAD_S = AHEAD_US / 1e6
DAY_MS = 24 * 3600 * 1000


class Worker:
    """One worker's limiter, and the longest time that an answer took to come."""

    def __init__(self, limiter: Limiter, app: AppSettings) -> None:
        self.limiter = limiter
        self.app = app
        self.took = 0.0
        self.began = 0.0
        self.ended = 0.0

    def reserve(
        self,
        plain: int = 0,
        own: dict[str, tuple[float, int]] | None = None,
        *,
        unused: int = 0,
        token: str = "",
    ) -> Grant:
        self.began = time.monotonic()
        token = token or scripts.new_token()
        grant = self.limiter.reserve("shop", self.app, plain, own or {}, unused, token)
        self.ended = time.monotonic()
        self.took = max(self.took, self.ended - self.began)
        return grant


Opener = Callable[..., Worker]


@pytest.fixture
def worker(make_settings: Callable[..., Settings]) -> Iterator[Opener]:
    """Give an opener of workers, each with a client of its own."""
    with contextlib.ExitStack() as stack:

        def opened(name: str = "w1", **app: object) -> Worker:
            settings = make_settings(app={"rate_per_second": 10, **app})
            client = stack.enter_context(connected(settings))
            return Worker(Limiter(client, name), settings.apps["shop"])

        yield opened


def check_spaced(slots: list[float], rate: float, error: float) -> None:
    for first, second in pairwise(sorted(slots)):
        assert second - first >= 1 / rate - error, slots


def test_the_first_slot_is_now(worker: Opener) -> None:
    me = worker()
    grant = me.reserve(1)
    ((slot,),) = grant.slots
    assert me.began <= slot <= me.ended
    assert (grant.wait_s, grant.level) == (0, 0)
    assert grant.horizon == pytest.approx(slot + 0.1, abs=2e-6)


def test_slots_are_spaced_by_the_rate_and_lie_near(worker: Opener) -> None:
    me = worker()
    grant = me.reserve(50)
    (slots,) = grant.slots
    assert len(slots) == 5  # now, and each tenth of a second up to 0.4 s
    for n, slot in enumerate(slots):
        assert slot == pytest.approx(slots[0] + n / 10, abs=1e-5)
    assert grant.wait_s == pytest.approx(0.1, abs=0.002)
    assert grant.horizon == pytest.approx(slots[0] + 0.5, abs=1e-5)


def test_two_workers_share_one_rate(worker: Opener) -> None:
    first, second = worker("w1"), worker("w2")
    slots: list[float] = []
    for _ in range(2):
        slots += first.reserve(1).slots[0]
        slots += second.reserve(1).slots[0]
    assert len(slots) == 4
    assert slots == sorted(slots)
    check_spaced(slots, 10, first.took + second.took)


def test_without_a_rate_all_is_granted_at_once(worker: Opener) -> None:
    me = worker(rate_per_second=0)
    grant = me.reserve(500)
    assert len(grant.slots[0]) == 500
    assert set(grant.slots[0]) == {grant.slots[0][0]}
    assert me.began <= grant.slots[0][0] <= me.ended
    assert grant.wait_s == 0


def test_a_fraction_of_a_send_per_second(worker: Opener) -> None:
    me = worker(rate_per_second=0.5)
    assert len(me.reserve(3).slots[0]) == 1
    grant = me.reserve(1)
    assert grant.slots == [[]]
    assert 2 - AHEAD_S - 0.5 < grant.wait_s <= 2


def test_a_broadcasts_own_rate_nests_under_the_apps(worker: Opener) -> None:
    me = worker(rate_per_second=100)
    grant = me.reserve(5, {"b1": (10.0, 9), "b2": (20.0, 9)})
    plain, first, second = grant.slots
    assert (len(plain), len(first), len(second)) == (5, 5, 8)
    check_spaced(first, 10, 0.01001)  # but for the wait for a place among the app's
    check_spaced(second, 20, 0.01001)
    check_spaced([*plain, *first, *second], 100, 1e-5)
    assert grant.wait_s > 0


def test_own_rates_hold_across_workers(worker: Opener) -> None:
    first, second = worker("w1", rate_per_second=0), worker("w2", rate_per_second=0)
    slots: list[float] = []
    for _ in range(2):
        slots += first.reserve(0, {"b1": (10.0, 1)}).slots[1]
        slots += second.reserve(0, {"b1": (10.0, 1)}).slots[1]
    assert len(slots) == 4
    check_spaced(slots, 10, first.took + second.took)


def test_the_order_of_the_groups_is_the_order_asked(worker: Opener) -> None:
    me = worker(rate_per_second=0)
    grant = me.reserve(2, {"b2": (1.0, 3), "b1": (100.0, 4), "b3": (5.0, 0)})
    assert [len(slots) for slots in grant.slots] == [2, 1, 4, 0]


def test_a_minute_holds_no_more_than_its_limit(worker: Opener) -> None:
    first, second = worker("w1", rate_per_minute=7), worker("w2", rate_per_minute=7)
    first.app = second.app = first.app.model_copy(update={"rate_per_second": 0})
    granted = [len(one.reserve(4).slots[0]) for one in (first, second, first)]
    assert granted == [4, 3, 0]


def test_a_used_up_minute_says_when_the_next_begins(worker: Opener) -> None:
    me = worker(rate_per_second=0, rate_per_minute=7)
    assert len(me.reserve(9).slots[0]) == 7
    grant = me.reserve(1)
    assert grant.slots == [[]]
    assert 58 < grant.wait_s <= 61


def test_unused_slots_are_handed_back_to_the_day(worker: Opener) -> None:
    first, second = worker("w1", **_day(5)), worker("w2", **_day(5))
    assert len(first.reserve(9).slots[0]) == 5
    assert second.reserve(9).slots == [[]]
    assert len(second.reserve(9, unused=2).slots[0]) == 2
    assert first.reserve(9).slots == [[]]


def _day(limit: int) -> dict[str, object]:
    return {"rate_per_second": 0, "daily_limit": limit}


def test_a_used_up_day_says_when_the_next_begins(worker: Opener) -> None:
    me = worker(**_day(1), day_zone="UTC", day_starts_at_hour=6)
    assert len(me.reserve(1).slots[0]) == 1
    grant = me.reserve(1)
    assert grant.slots == [[]]
    assert (grant.wait_s, 0 < grant.spent_s <= 24 * 3600) == (0, True)
    turns = datetime.now(UTC) + timedelta(seconds=grant.spent_s)
    from_six = (turns - turns.replace(hour=6, minute=0, second=0, microsecond=0)).total_seconds()
    assert abs(from_six) < 5


async def test_a_limit_error_holds_everyone_back_and_then_one_probes(
    make_settings: Callable[..., Settings], worker: Opener
) -> None:
    first, second = worker("w1", rate_per_second=100), worker("w2", rate_per_second=100)
    async with connected_async(make_settings()) as loop_client:
        penalty = Penalty(loop_client)
        until_ms, level, *_ = await penalty.hit("shop", 100, 60_000, 600_000)
        assert level == 1
        assert until_ms / 1000 - time.time() == pytest.approx(60, abs=3)
        for one in (first, second):
            grant = one.reserve(5)
            assert (grant.slots, grant.level) == ([[]], 1)
            assert grant.wait_s == pytest.approx(60, abs=3)
        assert await penalty.lift("shop") == 1  # not while it lasts: an answer to an older send
        assert await penalty.hit("shop", 100, 60_000, 600_000) == (until_ms, 1, 0, 0)
        await loop_client.hset(keys.limiter("shop"), "blocked_until_ms", 1)
        grant = first.reserve(5)
        assert (len(grant.slots[0]), grant.level) == (1, 1)
        assert await penalty.lift("shop") == 0
        assert len(first.reserve(5).slots[0]) == 5


def test_the_same_token_again_is_the_same_grant(worker: Opener, client: "redis.Redis") -> None:
    me = worker(rate_per_second=100)
    token = scripts.new_token()
    first = me.reserve(3, {"b1": (10.0, 2)}, token=token)
    horizon = client.hget(keys.limiter("shop"), "next_us")
    again = me.reserve(3, {"b1": (10.0, 2)}, token=token)
    assert client.hget(keys.limiter("shop"), "next_us") == horizon
    assert [len(slots) for slots in first.slots] == [3, 2]
    for slots, same in zip(first.slots, again.slots, strict=True):
        assert same == pytest.approx(slots, abs=me.took + 0.005)


@pytest.mark.parametrize("earlier", [1, 0], ids=["a_later_one", "the_very_first"])
def test_a_grant_whose_reply_was_lost_keeps_its_moments(
    make_settings: Callable[..., Settings], client: "redis.Redis", earlier: int
) -> None:
    """Its slots lie where the server gave them: later ones belong to others meanwhile (I4)."""
    settings = make_settings(app={"rate_per_second": 100})
    with way_to(settings) as way, connected(by(settings, way, timeout_s=0.5)) as lossy:
        me = Worker(Limiter(lossy, "w1"), settings.apps["shop"])
        for _ in range(earlier):
            me.reserve(1)
        way.lose(keys.limiter_reply("shop", "w1"), "silence")
        token = scripts.new_token()
        began = time.monotonic()
        with pytest.raises(redis.TimeoutError):
            me.reserve(10, token=token)
        assert way.lost == 1
        grant = me.reserve(10, token=token)
        # given at the first call, half a second ago, and none of them lies further ahead than that
        assert len(grant.slots[0]) == 10
        assert grant.slots[0][-1] < began + 0.11 + 0.2
        assert grant.horizon < began + 0.12 + 0.2
        # and the distance of the clocks is what it is for whoever lost no answer
        other = Worker(Limiter(client, "w2"), settings.apps["shop"]).reserve(1)
        assert grant.server_ahead == pytest.approx(other.server_ahead, abs=0.7)


# -- the day ------------------------------------------------------------------------------------


def app_of(zone: str, hour: int) -> AppSettings:
    return AppSettings.model_validate(
        {"appid": "wx1", "secret": "s", "day_zone": zone, "day_starts_at_hour": hour}
    )


@pytest.mark.parametrize(
    ("zone", "hour", "hours"),
    [
        ("Asia/Shanghai", 0, 8),
        ("Asia/Shanghai", 5, 3),
        ("Asia/Shanghai", 23, -15),
        ("UTC", 0, 0),
        ("UTC", 6, -6),
        ("Asia/Kolkata", 0, 5.5),
        ("Pacific/Kiritimati", 0, 14),
        ("Pacific/Kiritimati", 1, 13),
    ],
)
def test_the_day_offset(zone: str, hour: int, hours: float) -> None:
    assert app_of(zone, hour).day_offset_ms() == hours * 3_600_000


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/Berlin", "Asia/Shanghai", "UTC"])
@pytest.mark.parametrize("hour", [0, 1, 12, 23])
def test_the_day_turns_at_its_hour_in_its_zone(zone: str, hour: int) -> None:
    now = datetime.now(ZoneInfo(zone))
    offset_ms = app_of(zone, hour).day_offset_ms()
    starts = now.replace(hour=hour, minute=0, second=0, microsecond=0)
    if starts.utcoffset() != now.utcoffset():
        pytest.skip("the clocks change today")
    starts_ms = round(starts.timestamp() * 1000)
    assert (starts_ms + offset_ms) % DAY_MS == 0
    before_ms = round((starts - timedelta(milliseconds=1)).timestamp() * 1000)
    assert (before_ms + offset_ms) // DAY_MS == (starts_ms + offset_ms) // DAY_MS - 1
