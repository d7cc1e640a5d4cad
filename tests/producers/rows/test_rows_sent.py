"""Rows on their way: kept packed, claimed with their message, gone when they are delivered."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from every_key import ASKED
from shop import TEMPLATE, Shop

from producers.broadcasts.create import Created
from producers.broadcasts.spec import Spec
from producers.errors import (
    IdempotencyConflictError,
    InvalidInputError,
    NotFoundError,
    StoreUnavailableError,
)
from producers.retries import Retries
from producers.retries.choice import Choice
from producers.rows import BadRowsError
from producers.store import keys
from producers.users.forget import Forgetter
from workers.sending.claim import Claim
from workers.sending.pumping.envelopes import Envelopes
from workers.sending.settle import SETTLE, SettleArgs, SettleKeys

both_layouts = pytest.mark.parametrize("lanes", [1, 4])

PEOPLE = {f"o{n:03}": (f"张{n}", str(n)) for n in range(60)}
SAID = {"thing1": "{name}，连续签到 {days} 天"}


def rows_of(people: dict[str, tuple[str, str]]) -> list[dict[str, str]]:
    return [{"openid": one, "name": name, "days": days} for one, (name, days) in people.items()]


def spec(**changes: Any) -> Spec:
    given = {"channel": "subscribe", "template_id": TEMPLATE, "data": SAID, **changes}
    return Spec.checked(app="shop", rows=True, **given)


def create(shop: Shop, rows: Any = None, key: str = "", **changes: Any) -> Created:
    return shop.broadcasts.create_with_rows(spec(**changes), rows or rows_of(PEOPLE), key)


def give(shop: Shop, openids: Any) -> None:
    uploads = [{"openid": one, "subscriptions": {TEMPLATE: "accept"}} for one in openids]
    shop.collector.collect("shop", uploads)


def kept(shop: Shop) -> dict[str, str]:
    """Return openid → its values, of all rows that are kept; what is counted is what there is."""
    found: dict[str, str] = {}
    for key in shop.client.scan_iter("*:rows:shop:*", count=1000):
        assert shop.client.ttl(key) > 0
        packed = "".join(shop.client.hvals(key))
        rows = [row.partition("\x1f") for row in packed.split("\x1e")[1:]]
        assert int(shop.client.get(key.replace(":rows:", ":size:"))) == len(rows)
        found |= {openid: values for openid, _, values in rows}
    return found


def said(shop: Shop, claim: Claim) -> dict[str, str]:
    """Return what a claim's message says, as a worker makes it of what the claim brought."""
    body = orjson.loads(Envelopes(shop.broadcasts).of(claim).body(claim.openid, ""))
    assert body["touser"] == claim.openid
    return {key: one["value"] for key, one in body["data"].items()}


@both_layouts
def test_each_is_told_what_the_row_says_and_the_row_goes_with_the_delivery(shop: Shop) -> None:
    give(shop, PEOPLE)
    made = create(shop)
    assert (made.known, made.rows and made.rows.rows) == (False, 60)
    assert kept(shop) == {one: "\x1f".join(values) for one, values in PEOPLE.items()}
    shop.open(made.id)
    sent = {}
    while claims := shop.take(7):
        for claim in claims:
            name, days = PEOPLE[claim.openid]
            assert said(shop, claim) == {"thing1": f"{name}，连续签到 {days} 天"}
            shop.settle(claim)
            sent[claim.openid] = claim
        assert kept(shop).keys() == PEOPLE.keys() - sent.keys()
        shop.keeper.run_once()
    shop.keeper.run_once()
    status = shop.broadcasts.status(made.id)
    assert (status.state, status.outcomes) == ("finished", {"delivered": 60})
    assert list(shop.client.scan_iter("*:rows:shop:*")) == []
    assert shop.wrong() == []


@both_layouts
def test_nobody_is_told_what_another_ones_row_says_through_kills_pauses_and_retries(
    shop: Shop,
) -> None:
    give(shop, PEOPLE)
    made = create(shop).id
    shop.open(made)
    for number, claim in enumerate(shop.take(20)):
        if number % 4 == 0:
            shop.settle(claim, "delay", "back", "-", streak="-")
        elif number % 4 == 1:
            shop.settle(claim, "requeue", "back", "-", streak="-")
    shop.recover(made)
    shop.broadcasts.pause(made)
    shop.broadcasts.resume(made)
    told = {}
    for _ in range(3):
        while claims := shop.take(9):
            for claim in claims:
                told[claim.openid] = said(shop, claim)["thing1"]
                shop.settle(claim)
        for lane in shop.settings.layout.lanes:
            waits = keys.delayed(lane, made)
            for item in shop.client.zrange(waits, 0, -1):
                shop.client.zadd(waits, {item: 1})
        shop.keeper.run_once()
    outcomes = shop.outcomes(made)
    assert told == {
        one: f"{PEOPLE[one][0]}，连续签到 {PEOPLE[one][1]} 天"
        for one, outcome in outcomes.items()
        if outcome == "delivered"
    }
    doubted = {one for one, outcome in outcomes.items() if outcome == "in_doubt"}
    assert told.keys() | doubted == PEOPLE.keys()
    assert kept(shop).keys() == doubted  # until a retry, or a day is over
    assert shop.wrong() == []


@both_layouts
def test_with_one_bad_row_nothing_is_created(shop: Shop) -> None:
    bad = [*rows_of(PEOPLE), *rows_of({"oX": ("长" * 30, "1"), "o001": ("a", "1")})]
    before = set(shop.everything())
    with pytest.raises(BadRowsError) as wrong:
        create(shop, bad, key="k")
    report = wrong.value.report
    assert (report.rows, report.bad) == (62, 2)
    assert dict(report.rules) == {"thing1 invalid": 1, "duplicate": 1}
    assert [row for row, _ in sorted(report.listed)] == [61, 62]
    assert "2 of 62 rows are bad" in wrong.value.faults[0]
    assert "nothing was created" in wrong.value.faults[0]
    left = set(shop.everything()) - before
    asked = (*ASKED, ":reply:")  # questions, to WeChat too, which say nothing of the rows
    assert {key for key in left if not any(one in key for one in asked)} == set()
    made = shop.broadcasts.create_with_rows(spec(), bad, "k", skip_bad=True)
    assert kept(shop) == {one: "\x1f".join(values) for one, values in PEOPLE.items()}
    assert shop.broadcasts.status(made.id).total == 60


def test_a_purpose_that_the_app_does_not_name_is_refused_with_rows_too(shop: Shop) -> None:
    with pytest.raises(InvalidInputError, match="per_user_per_day"):
        shop.broadcasts.create_with_rows(replace(spec(), purpose="typo"), rows_of(PEOPLE))
    assert shop.broadcasts.page("shop", "", 10).broadcasts == []


def test_rows_of_which_none_is_good_create_nothing(shop: Shop) -> None:
    plain = replace(spec(), audience="all")
    with pytest.raises(InvalidInputError, match="the rows say who it is for"):
        shop.broadcasts.create_with_rows(plain, rows_of(PEOPLE))
    for skip_bad in (False, True):
        with pytest.raises(InvalidInputError):
            shop.broadcasts.create_with_rows(spec(), ["openid,name,days", "o"], skip_bad=skip_bad)
    with pytest.raises(InvalidInputError, match="none of them is good"):
        shop.broadcasts.create_with_rows(spec(), ["openid,name,days"])
    assert shop.broadcasts.page("shop", "", 10).broadcasts == []


def test_a_duplicate_is_seen_in_another_step(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producers.rows.store._WAITING_ROWS", 7)
    monkeypatch.setattr("producers.rows.store._ROWS", 3)
    twice = rows_of({**PEOPLE}) + rows_of({"o003": ("b", "2"), "o059": ("b", "2")})
    made = shop.broadcasts.create_with_rows(spec(), twice, skip_bad=True)
    assert made.rows is not None
    assert sorted(row for row, _ in made.rows.listed) == [61, 62]
    assert kept(shop) == {one: "\x1f".join(values) for one, values in PEOPLE.items()}


def test_the_same_key_with_the_same_rows_is_the_same_broadcast(shop: Shop) -> None:
    made = create(shop, key="k")
    again = create(shop, key="k")
    assert (again.id, again.known) == (made.id, True)
    assert shop.broadcasts.status(made.id).total == 60
    assert len(kept(shop)) == 60
    for other in (rows_of({**PEOPLE, "o000": ("b", "1")}), rows_of(PEOPLE)[1:]):
        with pytest.raises(IdempotencyConflictError):
            create(shop, other, key="k")
    with pytest.raises(IdempotencyConflictError):
        create(shop, key="k", data={"thing1": "{name}"})
    assert len(list(shop.client.scan_iter("*:rows:shop:*"))) == 1


@pytest.mark.parametrize("where", ["load", "_claim_id", "_store", "_adopt_where_it_may"])
def test_a_draft_that_was_not_finished_never_sends_and_the_same_key_goes_on(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    give(shop, PEOPLE)

    class DeadError(Exception):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise DeadError

    def lost() -> Iterator[dict[str, str]]:
        yield from rows_of(PEOPLE)[:40]
        raise DeadError

    with monkeypatch.context() as patch:
        patch.setattr("producers.rows.store._WAITING_ROWS", 5)
        patch.setattr(shop.broadcasts._rows, "discard", lambda *_: None)  # as one that is killed
        if where != "load":
            patch.setattr(shop.broadcasts, where, die)
        with pytest.raises(DeadError):
            create(shop, lost() if where == "load" else None, key="k")
    assert len(kept(shop)) == (40 if where == "load" else 60)  # each has an end
    shop.keeper.run_once()
    if where != "_adopt_where_it_may":  # else it is written at its home: the keeper goes on
        assert shop.broadcasts.page("shop", "", 10).broadcasts == []
        assert shop.take() == []
    made = create(shop, key="k")
    assert made.known == (where == "_adopt_where_it_may")
    shop.run_dry(made.id)
    assert set(shop.outcomes(made.id)) == PEOPLE.keys()


def test_a_store_that_is_silent_after_the_broadcast_was_written_loses_no_row(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: Any) -> None:
        raise StoreUnavailableError

    with monkeypatch.context() as patch:
        patch.setattr(shop.broadcasts, "_adopt_where_it_may", silent)
        with pytest.raises(StoreUnavailableError):
            create(shop, key="k")
    assert len(kept(shop)) == 60


@both_layouts
def test_a_scheduled_one_keeps_its_rows_until_its_time(shop: Shop) -> None:
    give(shop, PEOPLE)
    soon = datetime.fromtimestamp(shop.now_ms() / 1000 + 3600, UTC).isoformat()
    made = create(shop, at=soon).id
    assert shop.take() == []
    assert shop.client.hget(keys.lane_broadcast(0, made), "cursor") == "r0"
    assert min(shop.client.ttl(key) for key in shop.client.scan_iter("*:rows:shop:*")) > 14 * 86_400
    shop.client.hset(keys.home(shop.broadcasts.home_lane(made), made), "starts_at_ms", 1)
    shop.broadcasts.start(made)
    for lane in shop.settings.layout.lanes:
        shop.broadcasts._splitter.fill(made, lane)
    shop.run_dry(made)
    assert shop.broadcasts.status(made).outcomes == {"delivered": 60}


@both_layouts
@pytest.mark.parametrize("end", ["cancel", "late"])
def test_an_end_leaves_the_rows_of_the_undelivered_for_a_day(shop: Shop, end: str) -> None:
    give(shop, PEOPLE)
    made = create(shop).id
    shop.open(made)
    done = set()
    for claim in shop.take(5):
        shop.settle(claim)
        done.add(claim.openid)
    if end == "cancel":
        shop.broadcasts.cancel(made)
    else:
        shop.broadcasts.move(made, "expire")
    shop.keeper.run_once()
    shop.keeper.run_once()
    left = "cancelled" if end == "cancel" else "late"
    status = shop.broadcasts.status(made)
    assert (status.complete, status.outcomes["delivered"]) == (True, len(done))
    assert status.outcomes[left] == 60 - len(done)
    assert kept(shop).keys() == PEOPLE.keys() - done
    assert all(0 < shop.client.ttl(key) <= 86_400 for key in shop.client.scan_iter("*:rows:shop:*"))
    retries = Retries(shop.client, shop.settings)
    with pytest.raises(InvalidInputError, match="the rows were checked"):
        retries.retry(made, left, data={"thing1": "a"})
    retry = retries.retry(made, left)
    assert retry.recipients == 60 - len(done)
    shop.open(retry.id)
    while claims := shop.take():
        for claim in claims:
            assert said(shop, claim)["thing1"].startswith(PEOPLE[claim.openid][0] + "，")
            shop.settle(claim)
            done.add(claim.openid)
        shop.keeper.run_once()
    assert done == PEOPLE.keys()
    assert shop.wrong() == []


def test_a_retry_carries_the_rows_of_the_chosen_while_they_are_kept(shop: Shop) -> None:
    give(shop, list(PEOPLE)[:40])  # the others have no permit
    made = create(shop).id
    shop.open(made)
    failed = {claim.openid for claim in shop.take(10) if shop.settle(claim, outcome="failed")}
    shop.run_dry(made)
    shop.keeper.run_once()
    retries = Retries(shop.client, shop.settings)
    without = set(list(PEOPLE)[40:])
    assert kept(shop).keys() == without | failed
    name = retries._frozen.name("shop", 60_000, rows=True)
    rows = shop.broadcasts.spec(made).audience
    for _ in range(2):  # as after a lost answer
        choice = Choice.checked("failed", (), even_in_doubt=False)
        given: dict[str, Any] = {"rest": "", "rows": rows, "others": [], "members": 60}
        assert retries._frozen.choose("shop", name, made, choice, **given, ttl_ms=60_000) == 10
    assert kept(shop).keys() == without | failed
    retries._frozen.discard("shop", name)
    first = retries.retry(made, "no_permit")
    assert first.recipients == 20
    shop.broadcasts.cancel(first.id)
    shop.keeper.run_once()
    for key in shop.client.scan_iter("*:rows:shop:*"):
        shop.client.delete(key)
    with pytest.raises(NotFoundError, match=r"rows of 20 of broadcast .* are not kept any more"):
        retries.retry(made, "no_permit")
    assert list(shop.client.scan_iter("*:rows:shop:*")) == []


@both_layouts
def test_forgetting_a_user_removes_the_row_wherever_it_lies(shop: Shop) -> None:
    give(shop, PEOPLE)
    running = create(shop).id
    shop.open(running)
    draft = shop.broadcasts._rows.load("shop", spec(), rows_of(PEOPLE))
    soon = datetime.fromtimestamp(shop.now_ms() / 1000 + 3600, UTC).isoformat()
    create(shop, at=soon)
    forgetter = Forgetter(shop.client, shop.settings)
    (claim,) = shop.take(1)[:1]
    for one in ("o007", "o008", claim.openid):
        forgetter.forget("shop", one)
    assert shop.mentions("o007") == shop.mentions("o008") == set()
    assert not {key for key in shop.mentions(claim.openid) if ":rows:" in key}
    shop.broadcasts._rows.discard("shop", draft.name)
    shop.settle(claim)
    shop.run_dry(running)
    assert shop.wrong() == []


def test_whose_row_is_gone_is_late_and_never_told_what_nobody_wrote(shop: Shop) -> None:
    give(shop, PEOPLE)
    made = create(shop).id
    shop.open(made)
    shop.client.delete(*shop.client.scan_iter("*:rows:shop:*"))
    assert shop.take() == []
    assert shop.broadcasts.status(made).outcomes == {"late": 60}


def test_an_earlier_version_makes_no_message_of_it_and_splits_nothing(shop: Shop) -> None:
    give(shop, PEOPLE)
    made = create(shop).id
    home = shop.client.hgetall(keys.home(shop.broadcasts.home_lane(made), made))
    stored = orjson.loads(home["spec"])
    with pytest.raises(AttributeError):  # its envelope: of each field of the data
        {key: {"value": value} for key, value in stored["data"].items()}
    cursor = shop.client.hget(keys.lane_broadcast(0, made), "cursor")
    with pytest.raises(ValueError, match="invalid literal"):  # its split
        int(cursor)
    assert shop.broadcasts.spec(made).data == SAID
    claim = next(iter(shop.take(1)))
    with pytest.raises(ValueError, match="zip"):  # nor is one made without the values
        Envelopes(shop.broadcasts).of(claim._replace(payload=""))


def test_an_openid_that_begins_another_finds_its_own_row(shop: Shop) -> None:
    shop = Shop(shop.client, shop.settings.model_copy(update={"buckets": 1}))
    people = {one: (f"n{one}", "1") for one in ("oAB", "oA", "oABC", "AB", "o")}
    give(shop, people)
    made = create(shop, rows_of(people)).id
    shop.open(made)
    queue = keys.queue(0, made)
    items = shop.client.lrange(queue, 0, -1)
    shop.client.lpush(queue, *items)  # not in the order in which they lie
    shop.client.ltrim(queue, 0, len(items) - 1)
    claims = shop.take()
    assert [claim.item for claim in claims] == items[::-1]
    for claim in claims:
        assert said(shop, claim)["thing1"] == f"n{claim.openid}，连续签到 1 天"
    shop.settle(claims[1])
    assert kept(shop).keys() == people.keys() - {claims[1].openid}
    rest = [claims[0], *claims[2:4]]
    args = SettleArgs("w1", keys.lane_prefix(0), "shop", 1, 1, 60_000, 10)
    answers = [f"{made} {one.item} {one.fence} settle spent delivered 0 0 ok - -" for one in rest]
    SETTLE.on(shop.client)(SettleKeys.of(0, "shop", "w1"), args, answers)
    assert kept(shop).keys() == {claims[4].openid}
    shop.settle(claims[4])
    assert kept(shop) == {}


@both_layouts
def test_those_whose_permit_ends_first_go_first_with_their_own_rows(shop: Shop) -> None:
    now_ms = shop.now_ms()
    urgent = [
        {"openid": one, "formId": f"f{one}", "expire": now_ms + 15_000 + 400 * n}
        for n, one in enumerate(PEOPLE)
    ]
    people = {**PEOPLE, **{f"p{n}": (f"李{n}", str(n)) for n in range(200)}}
    later = [{"openid": one, "formId": f"f{one}"} for one in people if one not in PEOPLE]
    shop.collector.collect("shop", [*urgent, *later])
    data = {"keyword1": SAID["thing1"]}
    made = create(shop, rows_of(people), channel="template", data=data, rate=3).id
    shop.open(made)
    told: dict[str, str] = {}
    while len(told) < len(people):
        for lane in shop.settings.layout.lanes:
            shop.broadcasts._splitter.fill(made, lane)
        claims = shop.take(50)
        assert claims
        for claim in claims:
            told[claim.openid] = said(shop, claim)["keyword1"]
            shop.settle(claim)
    assert told == {one: f"{name}，连续签到 {days} 天" for one, (name, days) in people.items()}
    if shop.settings.lanes == 1:
        assert set(list(told)[:60]) == PEOPLE.keys()
    shop.keeper.run_once()
    assert shop.broadcasts.status(made).outcomes == {"delivered": len(people)}
    assert kept(shop) == {}
    assert shop.wrong() == []
