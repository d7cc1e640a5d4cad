"""Scheduled broadcasts: created for later, moved, cancelled, started at their time, or late."""

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from shop import Shop

from producers.broadcasts.spec import Spec
from producers.broadcasts.status import Register
from producers.errors import IdempotencyConflictError, IllegalMoveError, InvalidInputError
from producers.settings import Settings
from producers.store import keys
from producers.words import State
from workers.lanes import standing

both_layouts = pytest.mark.parametrize("lanes", [1, 4])


def at(**ahead: float) -> str:
    """Return a moment so far ahead, with its offset."""
    return (datetime.now(UTC) + timedelta(**ahead)).isoformat()


def home(shop: Shop, broadcast: str, **fields: Any) -> dict[str, str]:
    """Return what stands at a broadcast's home, with some of it changed."""
    key = keys.home(shop.broadcasts.home_lane(broadcast), broadcast)
    if fields:
        shop.client.hset(key, mapping=fields)
    return shop.client.hgetall(key)


def its_time_comes(shop: Shop, broadcast: str) -> None:
    home(shop, broadcast, starts_at_ms=shop.now_ms())
    member = f"{broadcast} home"
    shop.client.zadd(keys.due(shop.broadcasts.home_lane(broadcast)), {member: 0})
    shop.keeper.run_once()


@both_layouts
def test_it_waits_for_its_time_and_nothing_of_it_is_queued(shop: Shop) -> None:
    shop.give("o1", formIds=["f1"])
    starts = datetime.now(UTC) + timedelta(days=2)
    broadcast = shop.broadcast(at=starts.isoformat(), expires_in=timedelta(hours=1))
    shop.keeper.run_once()
    status = shop.broadcasts.status(broadcast)
    assert (status.state, status.total, status.queued) == (State.SCHEDULED, 0, 0)
    assert abs(status.starts_at_ms - starts.timestamp() * 1000) <= 1
    assert status.expires_at_ms - status.starts_at_ms == 3_600_000
    assert status.waiting.startswith("waiting for its time, 20")
    assert status.waiting.endswith(" Asia/Shanghai")
    assert shop.take() == []


@both_layouts
def test_at_its_time_it_reads_its_audience_and_runs(shop: Shop) -> None:
    shop.give("o1", formIds=["f1"])
    broadcast = shop.broadcast(at=at(hours=2))
    for user in range(2, 9):
        shop.give(f"o{user}", formIds=[f"f{user}"])
    its_time_comes(shop, broadcast)
    status = shop.broadcasts.status(broadcast)
    assert (status.state, status.expected, status.waiting) == (State.RUNNING, 8, "")
    shop.keeper.run_once()
    shop.run_dry(broadcast)
    assert len(shop.outcomes(broadcast)) == 8
    assert shop.wrong() == []


def test_the_keeper_is_back_at_the_very_moment(shop: Shop) -> None:
    shop.give("o1", formIds=["f1"])
    broadcast = shop.broadcast(at=at(seconds=1.2))
    before = time.monotonic()
    shop.keeper.run_once()
    assert shop.broadcasts.status(broadcast).state is State.SCHEDULED
    alarm_at = shop.keeper.alarm_at
    assert before + 0.8 < alarm_at <= time.monotonic() + 1.21
    shop.keeper.run_once()  # a pass before that finds nothing due, and leaves it
    assert shop.keeper.alarm_at == alarm_at
    assert shop.broadcasts.status(broadcast).state is State.SCHEDULED
    time.sleep(max(0.0, alarm_at - time.monotonic()))  # the very moment
    assert shop.keeper.due(time.monotonic())
    shop.keeper.run()
    assert shop.broadcasts.status(broadcast).state is State.RUNNING
    assert shop.keeper.alarm_at == float("inf")


@pytest.mark.parametrize(("ahead_ms", "is_set"), [(1, True), (0, False)])
def test_a_start_of_the_next_millisecond_is_waited_for_too(
    shop: Shop, ahead_ms: int, is_set: bool
) -> None:
    broadcast = shop.broadcast(at=at(seconds=60))
    layout = shop.settings.layout
    look = standing.read(shop.client, shop.broadcasts, layout.lanes, [broadcast])[broadcast]
    shop.keeper._now_ms = int(look.home["starts_at_ms"] or 0) - ahead_ms
    assert shop.keeper._serve_one(broadcast, [], look, layout)
    assert (shop.keeper.alarm_at < math.inf) == is_set


@both_layouts
def test_a_mover_that_died_before_the_lanes_heard_of_it_delays_no_start(shop: Shop) -> None:
    shop.give("o1", formIds=["f1"])
    broadcast = shop.broadcast(at=at(hours=2))
    home(shop, broadcast, generation=7)
    its_time_comes(shop, broadcast)
    assert shop.broadcasts.status(broadcast).state is State.RUNNING


def test_it_keeps_its_key_also_once_its_time_is_past(shop: Shop) -> None:
    shop.give("o1", formIds=["f1"])
    spec = spec_of(at=at(hours=1))
    created = shop.broadcasts.create(spec, "tonight")
    its_time_comes(shop, created.id)
    past = spec_of(at=at(hours=-1))
    with pytest.raises(InvalidInputError, match="is past; it is "):
        shop.broadcasts.create(past, "other")
    again = shop.broadcasts.create(spec, "tonight")
    assert (again.id, again.known) == (created.id, True)
    with pytest.raises(IdempotencyConflictError):
        shop.broadcasts.create(spec_of(at=at(hours=2)), "tonight")
    # what was refused has not used its key up
    assert not shop.broadcasts.create(spec_of(at=at(hours=3)), "other").known


def spec_of(**changes: Any) -> Spec:
    given = {"app": "shop", "channel": "template", "template_id": "T", "audience": "all"}
    return Spec.checked(**{**given, "data": "a", **changes})


@pytest.mark.parametrize(
    ("times", "fault"),
    [
        ({"at": at(seconds=-5)}, "at: .* is past; it is .* Asia/Shanghai now"),
        ({"at": at(days=31)}, "at most 30 days"),
        ({"until": at(seconds=-5)}, "until: .* is past"),
        ({"at": at(hours=2), "until": at(hours=1)}, "is not after its start"),
        ({"at": at(hours=2), "until": at(days=8)}, "at most 7 days after its start"),
        ({"at": "2026-03-29 02:30", "zone": "Europe/Berlin"}, "does not exist"),
        ({"at": "2026-10-25 02:30", "zone": "Europe/Berlin"}, "comes twice"),
    ],
)
def test_a_time_that_cannot_be_is_refused_and_nothing_stored(
    shop: Shop, times: dict[str, Any], fault: str
) -> None:
    with pytest.raises(InvalidInputError, match=fault):
        shop.broadcasts.create(spec_of(**times), "k")
    assert list(shop.client.scan_iter("*key:*")) == []
    assert shop.broadcasts.latest("shop") == []


def test_a_zone_alone_or_an_unknown_one_is_told_with_all_other_faults() -> None:
    with pytest.raises(InvalidInputError) as refused:
        spec_of(zone="Asia/Shangai", rate=-1)
    assert len(refused.value.faults) == 3
    with pytest.raises(InvalidInputError, match="at 'soon': a date and a time"):
        spec_of(at="soon")


def test_without_times_the_digest_is_what_it_was_before_there_were_any() -> None:
    assert spec_of().digest() == "82f0a19eb535c29576d91dcc7353ffe5"


def test_the_zone_is_the_apps_unless_one_is_given(
    client: Any, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(zone="UTC", app={"zone": "Europe/Berlin"})
    shop = Shop(client, settings)
    noon = (datetime.now(UTC) + timedelta(days=3)).strftime("%Y-%m-%d 12:00")
    here, there = shop.broadcast(at=noon), shop.broadcast(at=noon, zone="Asia/Shanghai")
    starts = [shop.broadcasts.status(one).starts_at_ms for one in (there, here)]
    assert starts[1] - starts[0] in {6 * 3_600_000, 7 * 3_600_000}
    assert Register(client, settings).status(there).waiting.endswith("12:00 Asia/Shanghai")
    assert Register(client, settings).status(here).waiting.endswith("12:00 Europe/Berlin")


@both_layouts
def test_it_is_moved_until_it_starts(shop: Shop) -> None:
    shop.give("o1", formIds=["f1"])
    broadcast = shop.broadcast(at=at(hours=2), expires_in=timedelta(minutes=5))
    born = shop.broadcasts.status(broadcast)
    assert shop.broadcasts.reschedule(broadcast, at(hours=5)) is State.SCHEDULED
    moved = shop.broadcasts.status(broadcast)
    assert moved.starts_at_ms - born.starts_at_ms == pytest.approx(3 * 3_600_000, abs=5000)
    assert moved.expires_at_ms - moved.starts_at_ms == 300_000
    key = keys.home(shop.broadcasts.home_lane(broadcast), broadcast)
    lives_ms = shop.client.pttl(key) - shop.broadcasts.ttl_ms
    assert lives_ms == pytest.approx(5 * 3_600_000, abs=5000)
    with pytest.raises(InvalidInputError, match="is past"):
        shop.broadcasts.reschedule(broadcast, at(hours=-1))
    shop.broadcasts.reschedule(broadcast, at(hours=1), until=at(hours=1, minutes=1))
    with pytest.raises(InvalidInputError, match="is not after its start"):
        shop.broadcasts.reschedule(broadcast, at(hours=4))
    its_time_comes(shop, broadcast)
    with pytest.raises(IllegalMoveError, match=r"cannot reschedule .* it is running"):
        shop.broadcasts.reschedule(broadcast, at(hours=5))


@both_layouts
def test_cancelled_before_its_time_it_never_starts(shop: Shop) -> None:
    shop.give("o1", formIds=["f1"])
    broadcast = shop.broadcast(at=at(hours=2))
    shop.broadcasts.cancel(broadcast)
    its_time_comes(shop, broadcast)
    shop.keeper.run_once()
    status = shop.broadcasts.status(broadcast)
    assert (status.state, status.outcomes) == (State.CANCELLED, {"cancelled": 1})
    assert status.complete
    assert shop.take() == []
    assert shop.wrong() == []


def test_nobody_starts_it_before_its_time(shop: Shop) -> None:
    shop.give("o1", formIds=["f1"])
    broadcast = shop.broadcast(at=at(hours=2))
    with pytest.raises(IllegalMoveError, match="it is scheduled"):
        shop.broadcasts.start(broadcast)
    for verb in (shop.broadcasts.pause, shop.broadcasts.resume):
        with pytest.raises(IllegalMoveError, match="it is scheduled"):
            verb(broadcast)


def test_one_whose_audience_is_gone_is_cancelled_with_that_reason(shop: Shop) -> None:
    shop.audiences.import_rows("shop", "vip", [b"o1"])
    broadcast = shop.broadcast(audience="vip", at=at(hours=2))
    shop.audiences.delete("shop", "vip")
    its_time_comes(shop, broadcast)
    status = shop.broadcasts.status(broadcast)
    assert status.state is State.CANCELLED
    assert "vip" in status.reason


@both_layouts
def test_until_ends_it_and_the_rest_is_late(shop: Shop) -> None:
    for user in range(5):
        shop.give(f"o{user}", formIds=[f"f{user}"])
    broadcast = shop.broadcast(until=at(hours=3))
    left_ms = shop.broadcasts.status(broadcast).expires_at_ms - shop.now_ms()
    assert left_ms == pytest.approx(3 * 3_600_000, abs=5000)
    home(shop, broadcast, expires_at_ms=shop.now_ms())
    member = f"{broadcast} home"
    shop.client.zadd(keys.due(shop.broadcasts.home_lane(broadcast)), {member: 0})
    for _ in range(3):
        shop.keeper.run_once()
    status = shop.broadcasts.status(broadcast)
    assert (status.state, status.outcomes) == (State.FINISHED, {"late": 5})


@both_layouts
def test_one_that_all_workers_slept_through_is_late_once_until_is_past(shop: Shop) -> None:
    shop.give("o1", formIds=["f1"])
    broadcast = shop.broadcast(at=at(hours=1), until=at(hours=2))
    home(shop, broadcast, expires_at_ms=shop.now_ms() - 1)
    its_time_comes(shop, broadcast)
    shop.keeper.run_once()
    shop.keeper.run_once()
    assert shop.broadcasts.status(broadcast).outcomes == {"late": 1}
    assert shop.take() == []


def test_the_window_is_told_while_it_is_waited_for(
    client: Any, make_settings: Callable[..., Settings]
) -> None:
    now = datetime.now(UTC)
    opens, closes = (f"{now + timedelta(hours=hours):%H}:30" for hours in (6, 12))
    app = {"zone": "UTC", "send_window": f"{opens}-{closes}"}
    shop = Shop(client, make_settings(app=app))
    shop.give("o1", formIds=["f1"])
    broadcast, carrier = shop.broadcast(), shop.post("o1")
    status = shop.broadcasts.status(broadcast)
    assert status.waiting == f"waiting for the window, opens {opens}"
    assert 0 < status.opens_at_ms - shop.now_ms() < 7 * 3_600_000
    assert shop.broadcasts.status(carrier).waiting == ""  # single messages pass
    holding = make_settings(app={**app, "window_holds_messages": True})
    assert Register(client, holding).status(carrier).waiting == status.waiting
    opened = make_settings(app={**app, "send_window": f"{closes}-{opens}"})
    assert Register(client, opened).status(broadcast).waiting == ""
    shop.broadcasts.pause(broadcast)
    assert shop.broadcasts.status(broadcast).waiting == ""
