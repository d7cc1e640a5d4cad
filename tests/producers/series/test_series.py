"""Series: a broadcast at each tick, one and never two, its audience read then."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from shop import TEMPLATE, Shop

from producers.errors import InvalidInputError, NotFoundError
from producers.series import Series, SeriesStatus
from producers.series.series import MOST, RAN, RanArgs, RanKeys
from producers.settings import Settings
from producers.store import keys
from producers.times.crons import Cron

SPEC: dict[str, Any] = {
    "app": "shop",
    "channel": "template",
    "template_id": TEMPLATE,
    "data": {"keyword1": "a"},
    "audience": "all",
}
MINUTE = 60_000
both_layouts = pytest.mark.parametrize("lanes", [1, 4])


@pytest.fixture
def series(shop: Shop) -> Series:
    shop.give("o1", formIds=["f1", "f2", "f3"])
    return Series(shop.client, shop.settings)


def comes(shop: Shop, name: str = "evening", *, ago_ms: int = 0) -> int:
    """Let a series' tick have come; returns it."""
    tick_ms = shop.now_ms() - ago_ms
    shop.client.hset(keys.series("shop", name), "next_ms", tick_ms)
    shop.client.zadd(keys.SERIES_DUE, {f"shop {name}": tick_ms})
    return tick_ms


def again(shop: Shop, name: str = "evening") -> None:
    """Let what was given out come again, as it does after a while."""
    shop.client.zadd(keys.SERIES_DUE, {f"shop {name}": 0})


@both_layouts
def test_each_tick_makes_a_broadcast_with_the_audience_of_then(shop: Shop, series: Series) -> None:
    made = series.create("evening", "0 21 * * *", zone="Asia/Shanghai", **SPEC)
    assert series.tick() == 0
    nine = datetime.fromtimestamp(made.next_at_ms / 1000, ZoneInfo("Asia/Shanghai"))
    assert (nine.hour, nine.minute, made.last_at_ms) == (21, 0, 0)
    shop.give("o2", formIds=["g1", "g2"])
    tick_ms = comes(shop)
    assert series.tick() == 1
    done = series.show("shop", "evening")
    assert (done.last_at_ms, done.note) == (tick_ms, "")
    assert done.next_at_ms == made.next_at_ms
    assert shop.broadcasts.status(done.last_broadcast).expected == 2
    shop.run_dry(done.last_broadcast)
    comes(shop)
    series.tick()
    second = series.show("shop", "evening").last_broadcast
    assert second != done.last_broadcast
    assert len(shop.broadcasts.latest("shop")) == 2
    assert shop.wrong() == []


def test_whoever_dies_with_a_tick_delays_it_and_nobody_makes_it_twice(
    shop: Shop, series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    series.create("evening", "0 21 * * *", **SPEC)
    comes(shop)
    monkeypatch.setattr(series, "_ran", Dies())
    with pytest.raises(KeyboardInterrupt):
        series.tick()
    assert len(shop.broadcasts.latest("shop")) == 1  # made, and nobody was told
    other = Series(shop.client, shop.settings)
    assert other.tick() == 0  # it is given out, for a while
    again(shop)
    assert other.tick() == 1
    assert [other.show("shop", "evening").last_broadcast] == shop.broadcasts.latest("shop")
    again(shop)
    assert other.tick() == 0  # its next tick is another day's
    assert len(shop.broadcasts.latest("shop")) == 1


class Dies:
    def repeated(self, *_: Any) -> None:
        raise KeyboardInterrupt


def test_only_the_tick_that_is_due_moves_it_on(shop: Shop, series: Series) -> None:
    series.create("evening", "0 21 * * *", **SPEC)
    tick_ms = comes(shop)
    ran, names = RAN.on(shop.client), RanKeys(keys.series("shop", "evening"), keys.SERIES_DUE)
    assert ran(names, RanArgs("shop evening", tick_ms - 1, tick_ms + 9, "b", "")) == 0
    assert ran(names, RanArgs("shop evening", tick_ms, tick_ms + 9, "b", "")) == 1
    assert shop.client.zscore(keys.SERIES_DUE, "shop evening") == tick_ms + 9
    assert ran(names, RanArgs("shop evening", tick_ms, tick_ms + 9, "b", "")) == 0


@pytest.mark.parametrize(
    ("missed", "ago_ms", "made"),
    [("skip", 30_000, 1), ("skip", 5 * MINUTE, 0), ("run", 5 * MINUTE, 1)],
)
def test_what_nobody_made_in_time_is_skipped_or_run_once(
    shop: Shop, series: Series, missed: str, ago_ms: int, made: int
) -> None:
    series.create("evening", "* * * * *", missed=missed, **SPEC)
    comes(shop, ago_ms=ago_ms)
    series.tick()
    series.tick()
    done = series.show("shop", "evening")
    assert len(shop.broadcasts.latest("shop")) == made
    assert done.note.startswith("" if made else "missed: ")
    assert 0 < done.next_at_ms - shop.now_ms() <= MINUTE  # five ticks were missed, and one run


def test_paused_it_makes_nothing_and_resumed_it_goes_on_from_now(
    shop: Shop, series: Series
) -> None:
    series.create("evening", "0 21 * * *", missed="run", **SPEC)
    comes(shop)
    paused = series.pause("shop", "evening")
    assert (paused.state, paused.next_at_ms, paused.note) == ("paused", 0, "asked for")
    again(shop)
    assert series.tick() == 0
    resumed = series.resume("shop", "evening")
    assert (resumed.state, resumed.note) == ("active", "")
    assert resumed.next_at_ms > shop.now_ms()
    assert series.tick() == 0
    assert shop.broadcasts.latest("shop") == []


def test_deleted_it_is_gone_and_what_it_made_goes_on(shop: Shop, series: Series) -> None:
    series.create("evening", "0 21 * * *", **SPEC)
    comes(shop)
    series.tick()
    last = series.delete("shop", "evening").last_broadcast
    assert shop.broadcasts.status(last).state == "running"
    assert series.list("shop") == []
    assert list(shop.client.scan_iter("{wxb:series}*")) == []
    with pytest.raises(NotFoundError, match="no series 'evening' of app 'shop'"):
        series.show("shop", "evening")
    assert series.create("evening", "0 22 * * *", **SPEC).every == "0 22 * * *"


def test_the_same_call_changes_nothing_and_another_one_is_refused(
    shop: Shop, series: Series
) -> None:
    made = series.create("evening", "0  21 * * *", **SPEC)
    assert series.create("evening", "0 21 * * *", **SPEC) == made
    with pytest.raises(InvalidInputError, match="another series 'evening'; delete it first"):
        series.create("evening", "0 22 * * *", **SPEC)
    assert [one.name for one in series.list("shop")] == ["evening"]
    assert series.list("shop") == [series.show("shop", "evening")]


def test_one_whose_audience_is_gone_says_so_and_goes_on(shop: Shop, series: Series) -> None:
    shop.audiences.import_rows("shop", "vip", [b"o1"])
    series.create("evening", "0 21 * * *", **{**SPEC, "audience": "vip"})
    shop.audiences.delete("shop", "vip")
    comes(shop)
    assert series.tick() == 1
    done = series.show("shop", "evening")
    assert (done.state, done.last_broadcast) == ("active", "")
    assert "vip" in done.note


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"every": "0 21 * *"}, "wrong number of fields; five fields: minute, hour"),
        ({"every": "0 21 * * * *"}, "wrong number of fields"),
        ({"every": "61 21 * * *"}, "bad minute"),
        ({"every": "0 0 31 2 *"}, "bad day-of-month"),
        ({"zone": "Mars"}, "unknown time zone"),
        ({"missed": "twice"}, "missed 'twice': skip or run"),
        ({"name": "an evening"}, "name: 1-64 of"),
        ({"at": "2030-01-01 00:00"}, "at: not of a series"),
        ({"data": {}}, "data"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_stored(
    shop: Shop, series: Series, wrong: dict[str, Any], fault: str
) -> None:
    given = {"name": "evening", "every": "0 21 * * *", **SPEC, **wrong}
    with pytest.raises(InvalidInputError, match=fault):
        series.create(**given)
    assert list(shop.client.scan_iter("{wxb:series}*")) == []


def test_an_app_has_a_bounded_number(shop: Shop, series: Series) -> None:
    shop.client.sadd(keys.series_names("shop"), *map(str, range(MOST)))
    with pytest.raises(InvalidInputError, match="100 series: delete one"):
        series.create("evening", "0 21 * * *", **SPEC)


def test_an_unknown_app_of_another_worker_waits_for_it(
    shop: Shop, series: Series, make_settings: Callable[..., Settings]
) -> None:
    shop.client.zadd(keys.SERIES_DUE, {"cafe morning": 0})
    series.create("evening", "0 21 * * *", **SPEC)
    comes(shop)
    assert series.tick() == 1
    assert shop.client.zscore(keys.SERIES_DUE, "cafe morning") > shop.now_ms()


def test_those_of_an_app_that_is_gone_take_nobodys_turn(shop: Shop, series: Series) -> None:
    shop.client.zadd(keys.SERIES_DUE, {f"gone s{n}": n for n in range(500)})
    series.create("evening", "0 21 * * *", **SPEC)
    comes(shop)
    assert series.tick() == 1


def test_after_an_old_backup_what_may_have_run_waits_for_an_operator(
    shop: Shop, series: Series
) -> None:
    for name in ("evening", "morning"):
        series.create(name, "0 21 * * *", missed="run", **SPEC)
    comes(shop, ago_ms=30 * MINUTE)
    series.pause_overdue("redis may be an old backup")
    found: list[SeriesStatus] = series.list("shop")
    assert {one.name: one.state for one in found} == {"evening": "paused", "morning": "active"}
    assert found[0].note == "redis may be an old backup"


@pytest.mark.parametrize(
    ("from_", "then"),
    [
        ("2026-03-28T12:00+01:00", ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]),
        ("2026-10-24T12:00+02:00", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
    ],
)
def test_where_clocks_are_moved_each_day_has_one_tick(from_: str, then: list[str]) -> None:
    cron = Cron.read("30 2 * * *", ZoneInfo("Europe/Berlin"))
    at_ms = round(datetime.fromisoformat(from_).timestamp() * 1000)
    for expected in then:
        at_ms = cron.after(at_ms)
        assert datetime.fromtimestamp(at_ms / 1000, UTC) == datetime.fromisoformat(expected)
