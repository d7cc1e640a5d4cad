"""Capped: a user gets so many broadcasts of a purpose a day, whoever dies, refuses or is late."""

import random
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import redis
from lane_driver import HOUR, TTL, Claimed, Lane, accept, form, row, swapped
from shop import Shop

from producers.errors import InvalidInputError
from producers.lanes.bounds import Bounding, Bounds, day_around
from producers.retries import Retries
from producers.store import keys
from producers.users import Users

DAY = 24 * HOUR


def caps(lane: Lane, most: int = 1, purpose: str = "news") -> Bounds:
    """Return a cap whose day is the UTC one."""
    day = lane.now_ms // DAY
    return Bounds("", f"{day} {day * DAY} {(day + 1) * DAY} {purpose}:{most}")


def stand(lane: Lane, name: str, *openids: str, **copy: Any) -> None:
    lane.collect({openid: [accept()] for openid in openids})
    lane.start(name, *openids, **{"channel": "subscribe", "open": 1, "purpose": "news", **copy})


def had(lane: Lane, openid: str, day: int | None = None) -> list[str]:
    """Return what counts for a user, by the broadcasts' ids."""
    day = lane.now_ms // DAY if day is None else day
    text = lane.client.hget(keys.daily(0, "shop", day, lane.bucket(openid)), openid) or ""
    return [word.partition(".")[0] for word in text.split()]


def rested(lane: Lane) -> None:
    """No user is being sent to any more."""
    lane.client.delete(lane.key("sending", "shop"))


def take_one(lane: Lane, most: int = 1) -> Claimed:
    (claim,) = lane.take(bounds=caps(lane, most)).claims
    return claim


def test_one_more_than_the_cap_is_capped_and_costs_no_permit(lane: Lane) -> None:
    for name in ("b1", "b2", "b3"):
        stand(lane, name, "anna")
    for name in ("b1", "b2"):
        claim = take_one(lane, 2)
        assert claim.broadcast == name
        lane.deliver(claim)
        rested(lane)
        lane.now_ms += 1000
        for other in ("b2", "b3"):
            lane.promote(other)
    assert lane.take(bounds=caps(lane, 2)).claims == []
    assert lane.outcomes("b3") == {"anna": "capped"}
    assert lane.counts("b3") == {"total": 1, "done": 1, "o:capped": 1}
    assert lane.subs("anna") == {"T": "1"}
    assert had(lane, "anna") == ["b1", "b2"]
    assert lane.client.pttl(keys.daily(0, "shop", lane.now_ms // DAY, lane.bucket("anna"))) > 0
    lane.check_ledger("b3")


def test_other_purposes_none_and_single_messages_do_not_count(lane: Lane) -> None:
    stand(lane, "b1", "anna")
    lane.deliver(take_one(lane))
    for name, copy in (("b2", {"purpose": "alerts"}), ("b3", {"purpose": ""}), ("m1", {})):
        rested(lane)
        stand(lane, name, "anna", **copy)
        lane.client.hset(lane.key("mail", "m1"), lane.item("anna"), f"{lane.now_ms + HOUR} {{}}")
        lane.ends("mail", "m1")
        lane.deliver(take_one(lane))
    assert had(lane, "anna") == ["b1"]


@pytest.mark.parametrize(
    ("answer", "counts"),
    [
        (("settle", "spent", "delivered"), True),
        (("settle", "doubt", "in_doubt"), True),
        (("settle", "void_all", "refused"), False),
        (("settle", "back", "bad_data"), False),
        (("settle", "void", "failed"), False),
        (("swap", "void", "no_permit"), False),
        (("delay", "back"), False),
        (("requeue", "back"), False),
    ],
)
def test_what_surely_was_not_sent_counts_no_more(
    lane: Lane, answer: tuple[str, ...], counts: bool
) -> None:
    stand(lane, "b1", "anna")
    claim = take_one(lane)
    assert had(lane, "anna") == ["b1"]
    lane.settle(row(claim, *answer))
    assert had(lane, "anna") == (["b1"] if counts else [])
    lane.give("anna", accept())
    stand(lane, "b2", "anna")
    lane.client.delete(lane.key("queue", "b1"), lane.key("delayed", "b1"))
    assert [one.broadcast for one in lane.take(bounds=caps(lane)).claims] == (
        [] if counts else ["b2"]
    )


def test_busy_may_have_been_sent_and_counts_once(lane: Lane) -> None:
    stand(lane, "b1", "anna")
    claim = take_one(lane)
    lane.settle(row(claim, "delay", "back", errcode=-1, delay=1000))
    assert had(lane, "anna") == ["b1"]
    rested(lane)
    stand(lane, "b2", "anna")
    assert lane.take(bounds=caps(lane)).claims == []
    assert lane.outcomes("b2") == {"anna": "capped"}
    lane.now_ms += 1000
    lane.promote("b1")
    lane.deliver(take_one(lane))  # its own earlier attempt does not cap it
    assert had(lane, "anna") == ["b1"]


def test_a_swap_is_the_same_message(lane: Lane) -> None:
    lane.give("anna", form("A", lane.now_ms + HOUR), form("B"))
    stand(lane, "b1", "anna", channel="template")
    claim = take_one(lane)
    settled = lane.settle(row(claim, "swap", "void", "no_permit", errcode=41028))
    claim = swapped(claim, settled.results[0])
    assert had(lane, "anna") == ["b1"]
    lane.settle(row(claim, "settle", "void_all", "refused", errcode=43101))
    assert had(lane, "anna") == []


@pytest.mark.parametrize(("posted", "counts"), [(True, True), (False, False)])
def test_a_dead_workers_messages_count_if_they_were_perhaps_sent(
    lane: Lane, posted: bool, counts: bool
) -> None:
    stand(lane, "b1", "anna")
    take_one(lane)
    lane.recover("b1", "w1", posted=posted)
    assert had(lane, "anna") == (["b1"] if counts else [])
    assert lane.outcomes("b1") == ({"anna": "in_doubt"} if posted else {})


def test_a_resumed_message_is_not_capped_by_itself_or_others(lane: Lane) -> None:
    stand(lane, "b1", "anna", channel="template")
    lane.give("anna", form("A"), form("B"))
    take_one(lane)
    lane.recover("b1", "w1")
    other = keys.daily(0, "shop", lane.now_ms // DAY, lane.bucket("anna"))
    lane.client.hset(other, "anna", "b1.news b8.news b9.news")
    (claim,) = lane.take("w2", bounds=caps(lane)).claims
    assert claim.resumed
    lane.deliver(claim, "w2")
    assert had(lane, "anna") == ["b1", "b8", "b9"]


def test_what_waits_resumed_and_is_cancelled_still_counts(lane: Lane) -> None:
    stand(lane, "b1", "anna", channel="template")
    lane.give("anna", form("A"))
    take_one(lane)
    lane.recover("b1", "w1")
    lane.adopt("b1", 2, "cancelled", "cancelled")
    assert lane.outcomes("b1") == {"anna": "in_doubt"}
    assert had(lane, "anna") == ["b1"]


def test_a_cancelled_broadcasts_unsent_messages_count_no_more(lane: Lane) -> None:
    stand(lane, "b1", "anna")
    claim = take_one(lane)
    lane.adopt("b1", 2, "cancelled", "cancelled", sweep=False)
    lane.settle(row(claim, "requeue", "back"))
    assert lane.counts("b1")["o:cancelled"] == 1
    assert had(lane, "anna") == []


def test_the_day_ends_by_the_servers_clock(lane: Lane) -> None:
    lane.now_ms = (lane.now_ms // DAY + 1) * DAY - 1
    stand(lane, "b1", "anna")
    bounds = caps(lane)  # a worker that does not know yet that the day is over
    (claim,) = lane.take(bounds=bounds).claims
    lane.now_ms += 1
    rested(lane)
    stand(lane, "b2", "anna")
    (second,) = lane.take(bounds=bounds).claims
    assert (second.broadcast, had(lane, "anna")) == ("b2", ["b2"])
    today = lane.now_ms // DAY
    assert had(lane, "anna", today - 1) == ["b1"]
    lane.settle(row(claim, "settle", "void", "failed"))  # it is taken back from the day it was on
    assert (had(lane, "anna"), had(lane, "anna", today - 1)) == (["b2"], [])


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Niue", "America/Santiago"])
@pytest.mark.parametrize("hour", [0, 9, 23])
def test_what_is_taken_back_is_found_in_any_zone(
    lane: Lane, make_settings: Any, zone: str, hour: int
) -> None:
    lane.now_ms = lane.now_ms // DAY * DAY + hour * HOUR
    settings = make_settings(app={"per_user_per_day": {"news": 1}, "zone": zone})
    bounds = Bounding(settings, "shop").at(lane.now_ms)
    stand(lane, "b1", "anna")
    (claim,) = lane.take(bounds=bounds).claims
    day = datetime.fromtimestamp(lane.now_ms / 1000, ZoneInfo(zone)).date().toordinal() - 719_163
    assert had(lane, "anna", day) == ["b1"]
    lane.settle(row(claim, "requeue", "back"))
    assert had(lane, "anna", day) == []


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25", "2026-09-06", "2026-04-05"])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Santiago", "Africa/Cairo"])
def test_days_follow_each_other_where_clocks_are_moved(day: str, zone: str) -> None:
    at_ms = int(datetime.fromisoformat(f"{day}T00:00").replace(tzinfo=UTC).timestamp() * 1000)
    number, starts, ends = day_around(at_ms, ZoneInfo(zone))
    assert starts <= at_ms < ends
    assert 22 * HOUR < ends - starts < 26 * HOUR
    assert day_around(ends, ZoneInfo(zone))[:2] == (number + 1, ends)
    assert day_around(starts - 1, ZoneInfo(zone))[::2] == (number - 1, starts)


@pytest.mark.parametrize("spoiled", ["", "x", "b2.news ", "news news", ".news", "a b c"])
def test_what_somebody_wrote_into_it_breaks_nothing(lane: Lane, spoiled: str) -> None:
    stand(lane, "b1", "anna")
    daily = keys.daily(0, "shop", lane.now_ms // DAY, lane.bucket("anna"))
    lane.client.hset(daily, "anna", spoiled)
    lane.client.pexpire(daily, TTL)
    for claim in lane.take(bounds=caps(lane, 5)).claims:
        lane.settle(row(claim, "requeue", "back"))
    assert "b1" not in had(lane, "anna")


@pytest.mark.parametrize("seed", range(3))
def test_no_order_of_events_breaks_a_cap(lane: Lane, seed: int) -> None:
    """Claimed, answered, lost, buried, resumed, cancelled: what counts is what was perhaps had."""
    rng = random.Random(seed)
    users = [f"o{number}" for number in range(6)]
    names = [f"b{number}" for number in range(5)]
    for name in names:
        lane.collect({user: [form(f"{name}{user}"), form(f"{name}{user}x")] for user in users})
        stand(lane, name, *users, channel=rng.choice(["template", "subscribe"]))
    generations = dict.fromkeys(names, 1)
    claims: list[tuple[str, Claimed]] = []
    for _ in range(120):
        worker = rng.choice(["w1", "w2"])
        match rng.randrange(7):
            case 0 | 1 | 2:
                taken = lane.take(worker, rng.randint(1, 9), bounds=caps(lane, 2))
                claims += [(worker, claim) for claim in taken.claims]
            case 3 | 4 if claims:
                of, claim = claims.pop(rng.randrange(len(claims)))
                rows = [
                    row(claim, "settle", "spent", "delivered", streak="ok"),
                    row(claim, "settle", "void", "failed", errcode=99999),
                    row(claim, "swap", "void", "no_permit", errcode=41028),
                    row(claim, "delay", "back", delay=100),
                    row(claim, "requeue", "back"),
                    row(claim, "keep", "keep", delay=100),
                    row(claim, "settle", "doubt", "in_doubt"),
                ]
                (result,) = lane.settle(rng.choice(rows), worker=of).results
                if result.startswith("next"):
                    claims.append((of, swapped(claim, result)))
            case 5:
                name = rng.choice(names)
                if rng.random() < 0.2:
                    generations[name] += 1
                    lane.adopt(name, generations[name], "cancelled", "cancelled")
                else:
                    lane.recover(name, worker, posted=rng.random() < 0.5)
            case _:
                lane.now_ms += rng.choice([200, 13_000])
                for name in names:
                    lane.promote(name)
        for user in users:
            sent = {name for name in names if lane.outcomes(name).get(user, "") in COUNTING}
            held = {name for name in names if user in lane.flight(name)}
            assert len(sent | held) <= 2
            assert set(had(lane, user)) == sent | held
    assert {"delivered", "capped", "in_doubt"} <= {
        outcome for name in names for outcome in lane.outcomes(name).values()
    }


COUNTING = {"delivered", "in_doubt"}


def capped_shop(client: "redis.Redis", make_settings: Any, **app: Any) -> Shop:
    caps_of = {"per_user_per_day": {"news": 1, "notes": 0}, **app}
    return Shop(client, make_settings(app=caps_of, lanes=2))


def test_a_cap_holds_from_door_to_take_and_a_retry_takes_the_capped(
    client: "redis.Redis", make_settings: Any
) -> None:
    shop = capped_shop(client, make_settings)
    for user in range(8):
        shop.give(f"o{user}", formIds=[f"f{user}", f"g{user}"])
    first = shop.broadcast(purpose="news")
    shop.run_dry(first)
    second = shop.broadcast(purpose="news")
    shop.run_dry(second)
    status = shop.broadcasts.status(second)
    assert (status.outcomes, status.purpose) == ({"capped": 8}, "news")
    assert shop.wrong() == []
    shop.keeper.run_once()
    shop.broadcasts.finish(second)
    tomorrow = shop.bounding.at(shop.now_ms() + DAY)
    shop.bounding.at = lambda _: tomorrow  # type: ignore[method-assign]
    made = Retries(client, shop.settings).retry(second, "kept,capped")
    assert made.recipients == 8
    for key in client.scan_iter("*:daily:*"):
        client.delete(key)
    shop.run_dry(made.id)
    assert shop.broadcasts.status(made.id).outcomes == {"delivered": 8}


def test_a_purpose_that_the_settings_do_not_name_is_refused(
    client: "redis.Redis", make_settings: Any
) -> None:
    shop = capped_shop(client, make_settings)
    shop.give("o1", formIds=["f1"])
    with pytest.raises(InvalidInputError, match="names news, notes; add it there"):
        shop.broadcast(purpose="newz")
    with pytest.raises(InvalidInputError, match="a letter first"):
        shop.broadcast(purpose="News!")
    with pytest.raises(InvalidInputError, match="a single message goes before"):
        shop.post("o1", purpose="news")
    assert shop.broadcasts.page("shop").broadcasts == []
    for _ in range(3):  # named without a cap: nothing is kept of it
        shop.broadcast(purpose="notes")
    assert client.keys("*:daily:*") == []


def test_a_forgotten_user_leaves_no_count(client: "redis.Redis", make_settings: Any) -> None:
    shop = capped_shop(client, make_settings)
    shop.give("o1", formIds=["f1"])
    shop.run_dry(shop.broadcast(purpose="news"))
    assert len(client.keys("*:daily:*")) == 1
    Users(client, shop.settings).forget("shop", "o1")
    assert client.keys("*:daily:*") == []


def test_a_user_costs_so_many_bytes(client: "redis.Redis", make_settings: Any) -> None:
    settings = make_settings(app={"per_user_per_day": {"marketing": 3}}, buckets=32)
    shop = Shop(client, settings)
    users = [f"o{number:027}" for number in range(600)]
    shop.collector.collect("shop", [{"openid": user, "formIds": [f"f{user}"]} for user in users])
    shop.run_dry(shop.broadcast(purpose="marketing"))
    used = sum(client.memory_usage(key, samples=0) for key in client.scan_iter("*:daily:*"))
    assert used / len(users) <= 64
