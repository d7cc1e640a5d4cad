"""The forecast against a count of every permit there is, by each of its three ways."""

import json
import random
import statistics
from typing import Any

import pytest
from shop import OTHER, TEMPLATE, Shop

from producers.errors import InvalidInputError, NotFoundError, UnknownAppError
from producers.lanes.bounds import day_around
from producers.planning import estimate
from producers.planning import forecast as module
from producers.planning.estimate import HORIZONS
from producers.planning.forecast import Forecast, Forecaster
from producers.store import keys
from producers.suppressions import Suppressions

both_layouts = pytest.mark.parametrize("lanes", [1, 4])

HOUR = 3_600_000
DAY = 24 * HOUR
MARGIN = 10_000
WITHIN = [round(one.total_seconds()) * 1000 for one in HORIZONS]
PEOPLE = [f"o{n:04}" for n in range(400)]
LONG = "L" * 43


@pytest.fixture
def forecaster(shop: Shop) -> Forecaster:
    return Forecaster(shop.client, shop.settings)


def crowd(shop: Shop, people: list[str] = PEOPLE, seed: int = 7) -> None:
    """Give most of them form_ids that end at any time within a week, and some prepay_ids."""
    rng = random.Random(seed)
    now = shop.now_ms()
    uploads: list[dict[str, Any]] = []
    for openid in people:
        for n in range(rng.choice([0, 1, 1, 2, 3])):
            end = now + rng.randrange(2 * 60_000, 7 * DAY - 60_000)
            uploads.append(
                {"openid": openid, "formIds": [{"formId": f"{openid}-{n}", "expire": end}]}
            )
        if rng.random() < 0.1:
            uploads.append({"openid": openid, "prepayId": f"wx{openid}"})
        if rng.random() < 0.3:
            uploads.append({"openid": openid, "subscriptions": {TEMPLATE: "accept"}})
    shop.collector.collect("shop", uploads)


def ends(shop: Shop, openid: str) -> list[int]:
    """Return when the uses of a user end."""
    key = keys.permits(shop.lane(openid), "shop", openid)
    return [int(score) for _, score in shop.client.zrange(key, 0, -1, withscores=True) if score > 0]


def reachable(shop: Shop, people: list[str], at_ms: int) -> list[int]:
    """Count who has a use that ends after each horizon."""
    last = [max(ends(shop, openid), default=0) for openid in people]
    return [sum(one > at_ms + MARGIN + within for one in last) for within in WITHIN]


def ended(shop: Shop, people: list[str], at_ms: int) -> list[int]:
    """Count the uses that end within each horizon."""
    all_ends = [end for openid in people for end in ends(shop, openid)]
    return [sum(at_ms < end <= at_ms + within for end in all_ends) for within in WITHIN]


def users(found: Forecast) -> list[int]:
    return [one.users for one in found.horizons]


@both_layouts
def test_everybody_is_counted_from_the_stock_exact_but_for_an_hour(
    shop: Shop, forecaster: Forecaster
) -> None:
    crowd(shop)
    found = forecaster.forecast("shop", "template")
    assert (found.method, found.sampled, found.audience) == ("stock", 0, "all")
    assert found.members == shop.audiences.count("shop", "all")
    exact = reachable(shop, PEOPLE, found.at_ms)
    for one, truth in zip(found.horizons, exact, strict=True):
        assert one.users_low <= truth <= one.users_high
        assert one.users_low <= one.users <= one.users_high
        assert one.users_high - one.users_low < 15  # those of one hour of a week
        assert (one.users_error, one.expiring_error) == (0, 0)
    assert [one.in_s for one in found.horizons] == [0, 3600, 86_400, 604_800]
    assert users(found)[-1] == found.horizons[-1].users_high == 0  # no permit lives longer


@both_layouts
def test_every_member_of_an_audience_is_looked_at(shop: Shop, forecaster: Forecaster) -> None:
    crowd(shop)
    some = [*PEOPLE[:150], "oStranger"]
    shop.audiences.import_rows("shop", "vip", [openid.encode() for openid in some])
    found = forecaster.forecast("shop", "template", audience="vip")
    assert (found.method, found.members) == ("scan", 151)
    exact = reachable(shop, some, found.at_ms)
    assert users(found) == exact
    assert [one.users_low for one in found.horizons] == exact
    assert [one.users_high for one in found.horizons] == exact
    usable = sum(end > found.at_ms + MARGIN for openid in some for end in ends(shop, openid))
    assert found.uses == usable


@both_layouts
def test_the_suppressed_are_counted_and_reached_by_nothing(
    shop: Shop, forecaster: Forecaster
) -> None:
    crowd(shop)
    suppressions = Suppressions(shop.client, shop.settings)
    suppressions.import_rows("shop", "imported", [one.encode() for one in PEOPLE[:40]])
    suppressions.opt_out("shop", PEOPLE[0])  # named twice, counted once
    shop.audiences.import_rows("shop", "vip", [one.encode() for one in PEOPLE[30:90]])
    found = forecaster.forecast("shop", "template", audience="vip")
    assert (found.members, found.suppressed) == (60, 10)
    assert users(found) == reachable(shop, PEOPLE[40:90], found.at_ms)
    everybody = forecaster.forecast("shop", "template")
    assert (everybody.method, users(everybody)) == (
        "scan",
        reachable(shop, PEOPLE[40:], everybody.at_ms),
    )


@both_layouts
def test_uses_that_end_unsent_are_reckoned_at_a_rate(shop: Shop, forecaster: Forecaster) -> None:
    crowd(shop)
    found = forecaster.forecast("shop", "template", rate=0)
    for one, exact in zip(found.horizons, ended(shop, PEOPLE, found.at_ms), strict=True):
        assert abs(one.expiring - exact) <= 20  # the uses of one hour
    assert found.rate_from == "given"
    fast = forecaster.forecast("shop", "template", rate=1000)
    assert [one.expiring for one in fast.horizons] == [0, 0, 0, 0]
    assert fast.uses == found.uses


@both_layouts
def test_a_subscription_has_no_end(shop: Shop, make_settings: Any, lanes: int) -> None:
    settings = make_settings(lanes=lanes, app={"long_term_templates": [LONG]})
    shop = Shop(shop.client, settings)
    for openid in PEOPLE[:30]:
        shop.give(openid, subscriptions={TEMPLATE: "accept"}, id="1")
    for openid in PEOPLE[:10]:
        shop.give(openid, subscriptions={TEMPLATE: "accept"}, id="2")
    for openid in PEOPLE[25:40]:
        shop.give(openid, subscriptions={LONG: "accept", OTHER: "reject"})
    forecaster = Forecaster(shop.client, settings)
    found = forecaster.forecast("shop", "subscribe", TEMPLATE, rate=0)
    assert (found.method, found.members, found.uses) == ("scan", 40, 40)
    assert users(found) == [30, 30, 30, 30]
    assert [one.expiring for one in found.horizons] == [0, 0, 0, 0]
    found = forecaster.forecast("shop", "subscribe", LONG)
    assert (users(found)[0], found.uses) == (15, 0)  # any number is not counted
    assert users(forecaster.forecast("shop", "subscribe", OTHER)) == [0, 0, 0, 0]


@both_layouts
@pytest.mark.parametrize("channel", ["template", "subscribe"])
def test_a_large_audience_is_sampled_and_the_error_is_told(
    shop: Shop, forecaster: Forecaster, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [f"o{n:04}" for n in range(2000)]
    crowd(shop, people)
    shop.audiences.import_rows("shop", "vip", [openid.encode() for openid in people])
    exact = users(forecaster.forecast("shop", channel, TEMPLATE, "vip"))
    monkeypatch.setattr(module, "SCANNED", 100)
    monkeypatch.setattr(module, "_SAMPLED", 500)
    random.seed(11)
    within = 0
    for _ in range(20):
        found = forecaster.forecast("shop", channel, TEMPLATE, "vip")
        assert (found.method, found.members) == ("sample", 2000)
        assert 300 < found.sampled < 700
        for one, truth in zip(found.horizons, exact, strict=True):
            within += one.users_low <= truth <= one.users_high
            assert one.users_low <= one.users <= one.users_high <= 2000
            assert abs(one.users - truth) < max(200, 5 * one.users_error)
    assert within >= 64  # of 80: nominally 76, and the four horizons of a sample are related
    assert any(one.users_error > 0 for one in found.horizons)


@both_layouts
def test_a_sample_of_every_bucket_is_a_scan(
    shop: Shop, forecaster: Forecaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd(shop)
    monkeypatch.setattr(module, "SCANNED", 1)
    shop.audiences.import_rows("shop", "vip", [b"o%04d" % n for n in range(10)])
    found = forecaster.forecast("shop", "template", audience="vip")
    assert (found.method, found.sampled) == ("scan", 0)
    assert users(found) == reachable(shop, PEOPLE[:10], found.at_ms)


@both_layouts
def test_what_is_nearly_over_reaches_nobody(shop: Shop, forecaster: Forecaster) -> None:
    now = shop.now_ms()
    shop.give("oAnn", formIds=[{"formId": "a", "expire": now + 8000}])
    shop.audiences.import_rows("shop", "vip", [b"oAnn"])
    assert users(forecaster.forecast("shop", "template", audience="vip")) == [0, 0, 0, 0]
    assert forecaster.forecast("shop", "template").horizons[0].users_low == 0


@both_layouts
def test_nobody_is_nobody(shop: Shop, forecaster: Forecaster) -> None:
    shop.audiences.import_rows("shop", "empty", [])
    for found in (
        forecaster.forecast("shop", "template"),
        forecaster.forecast("shop", "subscribe", TEMPLATE),
        forecaster.forecast("shop", "template", audience="empty"),
    ):
        assert (found.members, found.uses) == (0, 0)
        assert {value for one in found.horizons for value in (one.users, one.users_high)} == {0}
        json.dumps(found.as_dict())


def test_the_rate_is_the_app_s_own_of_today_or_yesterday(
    shop: Shop, forecaster: Forecaster
) -> None:
    found = forecaster.forecast("shop", "template")
    assert (found.rate, found.rate_from) == (0, "none")
    offset = shop.settings.app("shop").day_offset_ms()

    def sent(days_ago: int, count: int) -> tuple[float, str]:
        today = (shop.now_ms() + offset) // DAY
        fields = {"day": today - days_ago, "day_count": count}
        shop.client.hset(keys.limiter("shop"), mapping=fields)
        shop.client.expire(keys.limiter("shop"), 60)
        found = forecaster.forecast("shop", "template")
        return found.rate, found.rate_from

    assert sent(1, 86_400) == (1.0, "last_day")
    assert sent(2, 86_400) == (0.0, "none")
    assert sent(0, 0) == (0.0, "none")
    rate, since = sent(0, 36_000)
    assert since == "today"
    assert 36_000 / 86_400 - 0.001 <= rate <= 10  # of a young day an hour is reckoned


def test_what_is_wrong_is_said_all_at_once(shop: Shop, forecaster: Forecaster) -> None:
    with pytest.raises(InvalidInputError) as caught:
        forecaster.forecast("shop", "smoke", "not one", rate=-1)
    assert len(caught.value.faults) == 3
    for rate in (float("nan"), float("inf"), 1e9):
        with pytest.raises(InvalidInputError, match="rate"):
            forecaster.forecast("shop", "template", rate=rate)
    with pytest.raises(InvalidInputError, match="template_id"):
        forecaster.forecast("shop", "subscribe")
    with pytest.raises(NotFoundError):
        forecaster.forecast("shop", "template", audience="nobody")
    with pytest.raises(UnknownAppError):
        forecaster.forecast("shoq", "template")


def test_forecasting_changes_nothing(shop: Shop, forecaster: Forecaster) -> None:
    crowd(shop, PEOPLE[:20])
    shop.audiences.import_rows("shop", "vip", [b"o0001"])
    before = shop.everything()
    forecaster.forecast("shop", "template")
    forecaster.forecast("shop", "subscribe", TEMPLATE, "vip")
    assert shop.everything() == before


def test_in_the_first_hour_of_a_day_an_hour_is_reckoned(shop: Shop, make_settings: Any) -> None:
    def rate(hours_ago: int) -> float:
        """The rate after 7,200 sends of a day that began in the hour that is so long ago."""
        hour = (shop.now_ms() // HOUR - hours_ago) % 24
        app = {"day_zone": "UTC", "day_starts_at_hour": hour}
        settings = make_settings(app=app, lanes=shop.settings.lanes)
        today = (shop.now_ms() + settings.app("shop").day_offset_ms()) // DAY
        shop.client.hset(keys.limiter("shop"), mapping={"day": today, "day_count": 7200})
        shop.client.expire(keys.limiter("shop"), 60)
        return Forecaster(shop.client, settings).forecast("shop", "template").rate

    assert rate(0) == 2.0
    assert 2 / 3 <= rate(2) <= 1.0
    assert 2 / 6 <= rate(5) <= 2 / 5


def test_the_error_told_is_the_spread_of_samples() -> None:
    """Against the spread of every sample's own estimate, over thousands of draws."""
    lot = random.Random(5)
    members = [lot.randrange(20, 60) for _ in range(100)]
    reachable = [sum(lot.random() < 0.4 for _ in range(size)) for size in members]
    total = sum(members)
    estimates, errors = [], []
    for _ in range(4000):
        drawn = lot.sample(range(100), 25)
        seen = estimate.Seen(members=[members[n] for n in drawn], of=100)
        values = [reachable[n] for n in drawn]
        estimates.append(sum(values) / sum(seen.members) * total)
        errors.append(estimate._error(values, seen, total))
    spread = statistics.pstdev(estimates)
    assert statistics.mean(errors) == pytest.approx(spread, rel=0.05)


def test_a_sample_of_one_bucket_knows_nothing_and_one_of_all_knows_it_all() -> None:
    seen = estimate.Seen(members=[10], of=5)
    assert estimate._error([3], seen, 50) == 50
    assert estimate._error([3, 4], estimate.Seen(members=[10, 9], of=2), 19) == 0


BOUNDS = {"keep_for_messages": 1, "per_user_per_day": {"news": 1}}


@both_layouts
@pytest.mark.parametrize("channel", ["template", "subscribe"])
def test_it_knows_who_will_be_kept_or_capped(
    client: Any, make_settings: Any, lanes: int, channel: str
) -> None:
    shop = Shop(client, make_settings(app=BOUNDS, lanes=lanes))
    people = PEOPLE[:120]
    crowd(shop, people)
    for openid in people[::2]:
        shop.give(openid, subscriptions={TEMPLATE: "accept"})
    shop.audiences.import_rows("shop", "vip", [one.encode() for one in people[:40]])
    shop.run_dry(shop.broadcast(channel, audience="vip", purpose="news"))
    found = Forecaster(client, shop.settings).forecast(
        "shop", channel, TEMPLATE, purpose="news", rate=0
    )
    tomorrow, today = found.horizons[2], found.horizons[0]
    now = day_around(shop.now_ms(), shop.settings.zone_of("shop"))[2]
    assert found.capped > 0
    if now > shop.now_ms() + 60_000:  # not just before midnight
        broadcast = shop.broadcast(channel, purpose="news")
        shop.run_dry(broadcast)
        outcomes = shop.broadcasts.status(broadcast).outcomes
        counts = {"delivered": today.users, "kept": found.kept, "capped": found.capped}
        assert {name: outcomes.get(name, 0) for name in counts} == counts
        assert min(counts.values()) > 0
    assert tomorrow.users >= today.users  # the cap is over by then
    plain = Forecaster(client, shop.settings).forecast("shop", channel, TEMPLATE, rate=0)
    assert plain.capped == 0


def test_a_purpose_that_is_none_is_no_question(client: Any, make_settings: Any) -> None:
    shop = Shop(client, make_settings(app=BOUNDS))
    with pytest.raises(InvalidInputError, match="names news; add it there"):
        Forecaster(client, shop.settings).forecast("shop", "template", purpose="newz")


def test_a_crowded_bucket_is_looked_at_in_pages(client: Any, make_settings: Any) -> None:
    shop = Shop(client, make_settings(lanes=1, buckets=1))
    people = [f"o{n:04}" for n in range(1200)]
    crowd(shop, people)
    shop.audiences.import_rows("shop", "vip", (openid.encode() for openid in people))
    found = Forecaster(client, shop.settings).forecast("shop", "template", audience="vip")
    assert (found.members, users(found)) == (1200, reachable(shop, people, found.at_ms))
