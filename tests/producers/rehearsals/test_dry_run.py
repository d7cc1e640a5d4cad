"""The dry run: what would become of a broadcast, and that nothing is stored of it."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from clerks import shelve
from every_key import every_key
from shop import TEMPLATE, Shop

from producers import AsyncProducer, Producer
from producers.broadcasts.spec import Spec
from producers.errors import UnknownAppError
from producers.planning.draw import Draw
from producers.quotas.rates import Rates
from producers.rehearsals import DryRun, DryRuns, dry_run
from producers.series import Series
from producers.settings import Settings
from producers.store import keys
from producers.suppressions import Suppressions
from producers.templates import Template

both_layouts = pytest.mark.parametrize("lanes", [1, 4])
PEOPLE = [f"o{n:03}" for n in range(100)]
SPEC: dict[str, Any] = {
    "app": "shop",
    "channel": "template",
    "template_id": TEMPLATE,
    "audience": "all",
    "data": {"keyword1": "a"},
}

ROWS = ["openid,name\n", *(f"{one},N{one}\n" for one in PEOPLE)]


def look(shop: Shop, settings: Settings | None = None, **changes: Any) -> DryRun:
    return DryRuns(shop.client, settings or shop.settings).look(**{**SPEC, **changes})


def crowd(shop: Shop) -> None:
    """Give the first 60 a form_id, the next 20 an accept; the last 20 are members alone."""
    for n, openid in enumerate(PEOPLE[:60]):
        shop.give(openid, formIds=[{"formId": f"f{n}"}])
    for openid in PEOPLE[60:80]:
        shop.give(openid, subscriptions={TEMPLATE: "accept"})
    shop.audiences.import_rows("shop", "vip", [one.encode() for one in PEOPLE])


def in_hours(hours: float) -> str:
    return (datetime.now(UTC) + timedelta(hours=hours)).isoformat()


@both_layouts
def test_it_says_whom_it_would_reach_and_the_broadcast_does(shop: Shop) -> None:
    crowd(shop)
    Suppressions(shop.client, shop.settings).import_rows("shop", "imported", [b"o000", b"o099"])
    made = look(shop, audience="vip")
    assert made.faults == []
    assert (made.recipients, made.suppressed, made.reachable, made.no_permit) == (100, 2, 59, 39)
    assert (made.reachable_low, made.reachable_high, made.method) == (59, 59, "scan")
    assert (made.rate, made.others, made.eta_s, made.late, made.ending) == (300, 0, 1, 0, 0)
    assert (made.starts_at_ms, made.begins_at_ms) == (0, made.at_ms)
    assert made.expires_at_ms == made.at_ms + 7 * 86_400_000
    assert made.day_left == 10_000_000
    assert made.wechat_left is None
    assert made.notes[1:] == [made.hindered]
    assert made.notes[0].startswith("WeChat's list of the app's templates was not read yet")
    assert made.hindered.startswith("no worker alive")
    broadcast = shop.broadcast(audience="vip")
    shop.run_dry(broadcast)
    assert shop.broadcasts.status(broadcast).outcomes == {
        "delivered": 59,
        "no_permit": 39,
        "suppressed": 2,
    }


@both_layouts
def test_nothing_whatever_is_stored(shop: Shop, valkey_url: str) -> None:
    crowd(shop)
    Suppressions(shop.client, shop.settings).import_rows("shop", "imported", [b"o000"])
    shop.run_dry(shop.broadcast(audience="vip"))
    running = shop.broadcasts.create(Spec.checked(**SPEC), "used")
    shop.post("o070")
    Series(shop.client, shop.settings).create("evening", "0 21 * * *", **SPEC)
    before = every_key(valkey_url)
    assert len(before) > 40
    made = look(shop, audience="vip", at=in_hours(2), key="new")
    assert made.faults == []
    assert look(shop, key="used").known == running.id
    look(shop, every="0 21 * * *", key="night")
    look(shop, channel="subscribe", data={"thing1": "x"}, rate=5)
    look(shop, audience="nobody", at="soon", rate=-1, data="")
    with Producer(shop.settings) as producer:
        assert producer.dry_run(**SPEC).recipients == made.recipients - 20  # the members alone
    assert every_key(valkey_url) == before


async def test_it_is_awaited_too(shop: Shop) -> None:
    crowd(shop)
    async with AsyncProducer(shop.settings) as producer:
        assert (await producer.dry_run(**SPEC)).reachable == 60


def test_every_fault_is_named_at_once_and_the_rest_is_still_counted(shop: Shop) -> None:
    crowd(shop)
    made = look(
        shop,
        audience="vip",
        data={"keyword1": "", "k": "x"},
        lang="tlh",
        rate=-1,
        at="2026-03-29 02:30",
        zone="Europe/Berlin",
    )
    told = " ".join(made.faults)
    for word in ("keyword1", "'k'", "tlh", "rate", "does not exist in Europe/Berlin"):
        assert word in told, told
    assert (made.recipients, made.reachable) == (100, 60)
    assert made.zone == "Europe/Berlin"
    [fault] = look(shop, audience="nobody").faults
    assert fault.startswith("no audience 'nobody' of app 'shop'")
    unknown = look(shop, channel="smoke")
    assert (len(unknown.faults), unknown.method) == (1, "")
    with pytest.raises(UnknownAppError):
        look(shop, app="cafe")


def test_it_is_compared_with_the_templates_as_they_were_read_and_asks_for_no_newer_list(
    shop: Shop, valkey_url: str, make_settings: Callable[..., Settings]
) -> None:
    crowd(shop)
    shelve(shop.client, Template("T1"), channel="template", age_ms=3_600_000)
    before = every_key(valkey_url)
    made = look(shop)
    assert made.faults == []  # it may have been added since
    assert any("has no such template" in note and "read anew" in note for note in made.notes)
    assert every_key(valkey_url) == before
    shelve(shop.client, Template("T1"), channel="template")
    [fault] = look(shop).faults
    assert "has no such template" in fault
    assert look(shop, template_id="T1").faults == []
    told = {"audience": "", "data": {"keyword1": "{name}"}}
    assert len(look(shop, **told, rows=ROWS).faults) == 1
    off = make_settings(lanes=1, app={"templates": "off"})
    assert look(shop, off).notes == [made.hindered]


def test_a_key_that_was_used_says_what_would_become_of_it(shop: Shop) -> None:
    crowd(shop)
    created = shop.broadcasts.create(Spec.checked(**SPEC), "monday")
    again = look(shop, key="monday")
    assert (again.known, again.faults) == (created.id, [])
    assert any("nothing new would be created" in note for note in again.notes)
    other = look(shop, key="monday", data={"keyword1": "b"})
    assert created.id in other.faults[0]
    assert "use another key" in other.faults[0]
    assert "visible ASCII" in look(shop, key="a b").faults[0]


def test_a_start_ahead_is_reckoned_from_there(shop: Shop) -> None:
    now = shop.now_ms()
    for n, openid in enumerate(PEOPLE[:20]):
        ends = now + (3_600_000 if n < 8 else 20 * 3_600_000)
        shop.give(openid, formIds=[{"formId": f"f{n}", "expire": ends}])
    shop.audiences.import_rows("shop", "vip", [one.encode() for one in PEOPLE[:20]])
    assert look(shop, audience="vip").reachable == 20
    made = look(shop, audience="vip", at=in_hours(2), expires_in=timedelta(hours=1))
    assert (made.reachable, made.no_permit) == (12, 8)
    assert made.begins_at_ms == made.starts_at_ms
    assert abs(made.starts_at_ms - now - 2 * 3_600_000) < 5000
    assert made.expires_at_ms == made.starts_at_ms + 3_600_000
    # the eight end in an hour, and go first: ten can be sent by then, or 3.6
    assert look(shop, audience="vip", rate=20 / 7200).ending == 0
    slow = look(shop, audience="vip", rate=0.001)
    assert slow.ending == 4
    assert any("no permit any more" in note for note in slow.notes)


def test_what_would_be_late_is_said_before(shop: Shop) -> None:
    crowd(shop)
    made = look(shop, rate=0.5, expires_in=timedelta(minutes=1))
    assert (made.eta_s, made.late) == (120, 30)
    [note] = [note for note in made.notes if "would be late" in note]
    assert note.startswith("about 30 would be late: it ends ")
    until = look(shop, rate=0.5, until=in_hours(0.01))
    assert until.late > 30


def test_outside_the_hours_it_says_when_they_open(
    shop: Shop, make_settings: Callable[..., Settings]
) -> None:
    crowd(shop)
    hour = datetime.fromtimestamp(shop.now_ms() / 1000, UTC).hour
    opens, closes = (hour + 2) % 24, (hour + 3) % 24
    window = f"{opens:02}:00-{closes:02}:00"
    settings = make_settings(lanes=1, app={"send_window": window, "zone": "UTC"})
    made = look(shop, settings)
    assert made.window == window
    assert 3_600_000 <= made.opens_at_ms - made.at_ms <= 2 * 3_600_000
    assert made.begins_at_ms == made.opens_at_ms
    assert any(f"{opens:02}:00:00 UTC" in note for note in made.notes)
    inside = look(shop, settings, at=in_hours(2))
    assert (inside.opens_at_ms, inside.begins_at_ms) == (0, inside.starts_at_ms)


@both_layouts
def test_the_rate_is_the_one_in_force_and_shared_with_those_under_way(shop: Shop) -> None:
    crowd(shop)
    Rates(shop.client, shop.settings).set("shop", 2)
    shop.broadcast("subscribe", audience="vip")
    made = look(shop)
    assert (made.rate, made.others, made.others_waiting) == (2, 1, 100)
    # half of two a second until its sixty are through; the other one has a hundred
    assert made.eta_s == 60
    assert look(shop, weight=3).eta_s == 40  # three quarters
    first = look(shop, priority=True)
    assert first.eta_s == 30
    assert look(shop, rate=0.5).eta_s == 120


def test_a_limit_that_wechat_lowered_is_reckoned_with_and_told(shop: Shop) -> None:
    crowd(shop)
    lowered = f"6000 6001 {shop.now_ms()} 600000 0"  # see climb.lua: six a second for a while
    shop.client.hset(keys.limiter("shop"), "limit", lowered)
    shop.client.expire(keys.limiter("shop"), 60)
    made = look(shop)
    assert (made.rate, made.eta_s) == (6, 10)
    assert any("hold the app at 6 sends/s now" in note for note in made.notes)


def test_the_days_budget_is_what_the_limiter_leaves(
    shop: Shop, make_settings: Callable[..., Settings]
) -> None:
    crowd(shop)
    settings = make_settings(lanes=1, app={"daily_limit": 100})
    app = settings.app("shop")
    today = (shop.now_ms() + app.day_offset_ms()) // 86_400_000
    limiter = keys.limiter("shop")
    shop.client.hset(limiter, mapping={"day": today, "day_count": 70})
    shop.client.expire(limiter, 60)
    made = look(shop, settings)
    assert made.day_left == 30
    assert made.ends_at_ms > (today + 1) * 86_400_000 - app.day_offset_ms()
    assert any("daily_limit carries 30 of" in note for note in made.notes)
    assert any("it is paused then" in note for note in made.notes)
    told = look(shop, settings, carry_over=True)
    assert any("the rest goes on at" in note for note in told.notes)
    end_ms = (today + 1) * 86_400_000 - app.day_offset_ms()
    shop.client.hset(limiter, mapping={"quota:template": f"12 {end_ms}", "sent:template": 2})
    shop.client.hset(keys.quotas("shop"), "template", f"50 38 12 0 0 {shop.now_ms()}")
    shop.client.expire(keys.quotas("shop"), 60)
    made = look(shop, settings)
    assert (made.day_left, made.wechat_left) == (30, 10)
    assert any("WeChat's quota of today carries 10 of" in note for note in made.notes)
    shop.client.hset(limiter, "day", today - 1)
    assert look(shop, settings).day_left == 100


def test_a_series_is_looked_at_as_of_its_next_tick(shop: Shop) -> None:
    crowd(shop)
    made = look(shop, every="0 21 * * *", key="evening", zone="Asia/Shanghai")
    assert made.faults == []
    at = datetime.fromtimestamp(made.starts_at_ms / 1000, UTC)
    assert (at.hour, at.minute, made.zone) == (13, 0, "Asia/Shanghai")
    assert made.begins_at_ms == made.starts_at_ms
    bad = look(shop, every="0 21 * *", key="", at="2026-12-01 21:00", missed="never")
    told = " ".join(bad.faults)
    for word in ("five fields", "name: 1-64", "at: not of a series", "missed 'never'"):
        assert word in told


def test_it_reaches_nobody_and_says_so(shop: Shop) -> None:
    crowd(shop)
    shop.audiences.import_rows("shop", "bare", [b"o099"])
    made = look(shop, audience="bare")
    assert (made.recipients, made.reachable, made.eta_s) == (1, 0, None)
    assert any("would reach no one" in note for note in made.notes)


def test_who_is_kept_or_capped_is_counted_apart(client: Any, make_settings: Any) -> None:
    bounds = {"keep_for_messages": 1, "per_user_per_day": {"news": 1}}
    shop = Shop(client, make_settings(app=bounds))
    for n, openid in enumerate(PEOPLE[:30]):
        shop.give(openid, formIds=[f"f{n}x{use}" for use in range(1 + n % 3)])
    shop.audiences.import_rows("shop", "some", [one.encode() for one in PEOPLE[:10]])
    shop.run_dry(shop.broadcast(audience="some", purpose="news"))
    made = look(shop, purpose="news")
    assert (made.recipients, made.capped, made.kept, made.reachable) == (30, 6, 10, 14)
    assert (made.no_permit, made.faults) == (0, [])
    assert look(shop, purpose="news", at=in_hours(48)).capped == 0
    wrong = look(shop, purpose="newz")
    assert len(wrong.faults) == 1
    assert "add it there" in wrong.faults[0]


@both_layouts
def test_of_rows_it_says_whom_they_reach_and_what_they_break(shop: Shop, valkey_url: str) -> None:
    crowd(shop)
    Suppressions(shop.client, shop.settings).import_rows("shop", "imported", [b"o000", b"o099"])
    before = every_key(valkey_url)
    told = {"audience": "", "data": {"keyword1": "{name}"}}
    made = look(shop, **told, rows=ROWS, rate=1, expires_in=timedelta(seconds=30))
    assert (made.faults, made.recipients, made.suppressed, made.reachable) == ([], 100, 2, 59)
    assert (made.no_permit, made.method, made.eta_s, made.late) == (39, "scan", 59, 29)
    bad = [*ROWS, "o000,again\n", "oX,\n", "o Y,Y\n"]
    wrong = look(shop, **told, rows=bad, lang="tlh", at="soon")
    assert (wrong.recipients, wrong.reachable) == (100, 59)
    words = " ".join(wrong.faults)
    for word in ("tlh", "'soon'", "3 of 103 rows are bad", "row 102: the openid has a row before"):
        assert word in words, words
    assert look(shop, **told, rows=bad, skip_bad=True).faults == []
    lost = look(shop, audience="", data={"keyword1": "{nobody}"}, rows=ROWS)
    assert (lost.method, len(lost.faults)) == ("", 1)
    assert "no column 'nobody'" in lost.faults[0]
    assert look(shop, audience="", data={"nonsense": "{name}"}, rows=ROWS).method == ""
    assert every_key(valkey_url) == before
    made_before = shop.broadcasts.create(Spec.checked(**{**SPEC, "audience": "vip"}), "k").id
    (note,) = [one for one in look(shop, **told, rows=ROWS, key="k").notes if "its key" in one]
    assert (made_before in note, "it would be refused" in note) == (True, True)


@both_layouts
def test_of_many_rows_some_are_looked_at_and_the_error_is_told(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd(shop)
    monkeypatch.setattr(dry_run, "Draw", lambda: Draw(40))
    random.seed(5)
    told = {"audience": "", "data": {"keyword1": "{name}"}}
    within = 0
    for _ in range(20):
        made = look(shop, **told, rows=ROWS)
        assert (made.method, made.recipients) == ("sample", 100)
        assert made.reachable_low < made.reachable < made.reachable_high
        within += made.reachable_low <= 60 <= made.reachable_high
    assert within >= 17
