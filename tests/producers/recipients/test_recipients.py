"""Recipients: each of them comes, whatever the pages' size, and whatever happens meanwhile."""

from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from shop import TEMPLATE, Shop

from producers.errors import InvalidInputError, NotFoundError
from producers.recipients import Recipients
from producers.recipients.doubts import Doubts
from producers.recipients.exports import csv_lines, json_lines
from producers.recipients.pages import Page, Recipient
from producers.recipients.receipts import Receipts
from producers.store import keys
from producers.users.forget import Forgetter

both_layouts = pytest.mark.parametrize("lanes", [1, 4])

PEOPLE = [f"o{n:04}" for n in range(150)]
VERDICTS = (
    ("settle", "spent", "delivered", 0, "ok"),
    ("settle", "void_all", "refused", 43101, "-"),
    ("settle", "spent", "failed", 40037, "-"),
    ("settle", "doubt", "in_doubt", 0, "-"),
)


@pytest.fixture
def recipients(shop: Shop) -> Recipients:
    return Recipients(shop.client, shop.settings)


@pytest.fixture
def broadcast(shop: Shop) -> str:
    """Give a broadcast to 150, of whom every fifth has no permit, all settled in some way."""
    uploads = [
        {"openid": openid, "formId": f"{openid}f"} if n % 5 else
        {"openid": openid, "subscriptions": {TEMPLATE: "accept"}}
        for n, openid in enumerate(PEOPLE)
    ]  # fmt: skip
    shop.collector.collect("shop", uploads)
    made = shop.broadcast()
    shop.open(made)
    settle(shop)
    return made


def settle(shop: Shop) -> None:
    number = 0
    while claims := shop.take():
        for claim in claims:
            action, fate, outcome, errcode, streak = VERDICTS[number % len(VERDICTS)]
            number += 1
            shop.settle(
                claim, action, fate, outcome, errcode=errcode, streak=streak, msgid=f"9{number}"
            )


def pages(recipients: Recipients, broadcast: str, outcome: str | None, limit: int) -> list[Page]:
    found, cursor = [], ""
    while True:
        found.append(recipients.page(broadcast, outcome, cursor, limit))
        cursor = found[-1].cursor
        if not cursor:
            return found


@both_layouts
@pytest.mark.parametrize("limit", [1, 7, 100, 1000])
@pytest.mark.parametrize(
    "outcome", [None, "delivered", "refused", "no_permit", "in_doubt", "bad_data"]
)
def test_the_pages_together_are_what_lies_in_redis(
    shop: Shop, recipients: Recipients, broadcast: str, outcome: str | None, limit: int
) -> None:
    wanted = {
        openid: value
        for openid, value in shop.outcomes(broadcast).items()
        if outcome in (None, value.split(" ")[0])
    }
    rows = [row for page in pages(recipients, broadcast, outcome, limit) for row in page.rows]
    assert len(rows) == len(wanted)
    told = {
        row.openid: f"{row.outcome} {row.errcode}" if row.errcode else row.outcome for row in rows
    }
    assert told == wanted


@both_layouts
def test_a_row_has_errcode_and_msgid(recipients: Recipients, broadcast: str) -> None:
    row = next(recipients.iterate(broadcast, "refused"))
    assert (row.errcode, row.settled_by, row.msgid[:1]) == (43101, "answer", "9")
    assert next(recipients.iterate(broadcast, "no_permit")).msgid == ""
    assert set(row.as_dict()) == {"openid", "outcome", "errcode", "msgid", "settled_by"}


@both_layouts
def test_a_page_is_as_long_as_was_asked_or_one_bucket_longer(
    shop: Shop, recipients: Recipients, broadcast: str
) -> None:
    biggest = max(Counter(shop.bucket(openid) for openid in PEOPLE).values())
    lengths = [len(page.rows) for page in pages(recipients, broadcast, None, 10)]
    assert all(10 <= length < 10 + biggest for length in lengths[:-1])
    assert sum(lengths) == len(PEOPLE)


@both_layouts
@pytest.mark.parametrize("limit", [1, 60])
def test_whoever_had_an_outcome_before_the_first_page_comes_while_the_rest_is_settled(
    shop: Shop, recipients: Recipients, limit: int
) -> None:
    uploads = [{"openid": openid, "formId": f"{openid}f"} for openid in PEOPLE]
    shop.collector.collect("shop", uploads)
    broadcast = shop.broadcast()
    shop.open(broadcast)
    for claim in shop.take(15):
        shop.settle(claim)
    before = set(shop.outcomes(broadcast))
    assert 0 < len(before) < len(PEOPLE)
    seen: Counter[str] = Counter()
    cursor = ""
    while True:
        page = recipients.page(broadcast, None, cursor, limit)
        seen.update(row.openid for row in page.rows)
        for claim in shop.take(3):
            shop.settle(claim)
        cursor = page.cursor
        if not cursor:
            break
    assert before <= set(seen)
    assert set(seen.values()) == {1}


@both_layouts
@pytest.mark.parametrize("buckets", [4])
def test_a_bucket_beyond_a_listpack_is_read_in_pieces(
    shop: Shop, make_settings: object, lanes: int, buckets: int
) -> None:
    shop.client.flushall()
    small = Shop(shop.client, make_settings(lanes=lanes, buckets=buckets))  # type: ignore[operator]
    people = [f"o{n}" for n in range(3000)]
    small.collector.collect("shop", [{"openid": one, "formId": one} for one in people])
    broadcast = small.broadcast()
    small.run_dry(broadcast)
    recipients = Recipients(small.client, small.settings)
    found = pages(recipients, broadcast, None, 100)
    assert max(len(page.rows) for page in found) < 400
    assert Counter(row.openid for page in found for row in page.rows) == Counter(people)


@both_layouts
def test_outcomes_outlive_their_audience(shop: Shop, recipients: Recipients) -> None:
    shop.collector.collect("shop", [{"openid": openid, "formId": openid} for openid in PEOPLE])
    shop.audiences.import_rows("shop", "vip", [openid.encode() for openid in PEOPLE])
    broadcast = shop.broadcast(audience="vip")
    shop.run_dry(broadcast)
    shop.audiences.delete("shop", "vip")
    assert {row.openid for row in recipients.iterate(broadcast)} == set(PEOPLE)
    assert shop.wrong() == []


@both_layouts
def test_who_waits_and_who_is_in_flight_can_be_looked_at(
    shop: Shop, recipients: Recipients
) -> None:
    shop.collector.collect("shop", [{"openid": openid, "formId": openid} for openid in PEOPLE])
    broadcast = shop.broadcast()
    shop.open(broadcast)
    claims = shop.take(10)
    shop.settle(claims[0], "delay", "back", "-", streak="-")
    flying = {claim.openid for claim in claims[1:]}
    for limit in (1, 7, 1000):
        rows = [r for page in pages(recipients, broadcast, "in_flight", limit) for r in page.rows]
        assert {row.openid for row in rows} == flying
        rows = [r for page in pages(recipients, broadcast, "queued", limit) for r in page.rows]
        assert Counter(row.openid for row in rows) == Counter(set(PEOPLE) - flying)
    assert rows[0] == Recipient(rows[0].openid, "queued")
    shop.recover(broadcast)
    assert list(recipients.iterate(broadcast, "in_flight")) == []
    assert len(list(recipients.iterate(broadcast, "queued"))) == len(PEOPLE)


@both_layouts
def test_who_settled_it_is_told(shop: Shop, recipients: Recipients) -> None:
    for openid in ("o1", "o2"):
        shop.give(openid, subscriptions={TEMPLATE: "accept"})
    broadcast = shop.broadcast("subscribe")
    shop.open(broadcast)
    shop.take()
    shop.recover(broadcast)
    receipts = Receipts(shop.client, shop.settings)
    receipts.settle("shop", "o1", TEMPLATE, msgid="7", errcode=0, at_ms=shop.now_ms())
    Doubts(shop.client, shop.settings).decide(broadcast, "failed")
    rows = {row.openid: (row.outcome, row.settled_by) for row in recipients.iterate(broadcast)}
    assert rows == {"o1": ("delivered", "receipt"), "o2": ("failed", "operator")}


@both_layouts
def test_a_forgotten_recipient_stays_without_a_name(
    shop: Shop, recipients: Recipients, broadcast: str
) -> None:
    Forgetter(shop.client, shop.settings).forget("shop", PEOPLE[0])
    names = [row.openid for row in recipients.iterate(broadcast)]
    assert PEOPLE[0] not in names
    assert len(names) == len(PEOPLE)
    assert sum(name.startswith("~") for name in names) == 1


@pytest.mark.parametrize("outcome", ["cancelled", "late"])
def test_what_is_not_recorded_one_by_one_is_said(
    recipients: Recipients, broadcast: str, outcome: str
) -> None:
    with pytest.raises(InvalidInputError, match="counted"):
        recipients.page(broadcast, outcome)


@both_layouts
def test_wrong_questions_are_refused(recipients: Recipients, broadcast: str, lanes: int) -> None:
    for bad in (
        "x",
        "1",
        "0.0",
        f"{lanes}.0.0",
        "-1.0.0",
        "0.0.0 ",
        "0.0.0\n",
        "٣.0.0",
        f"0.0.{2**64}",
        "9" * 99,
    ):
        with pytest.raises(InvalidInputError, match="cursor"):
            recipients.page(broadcast, None, bad)
    for limit in (0, -1, 10_001):
        with pytest.raises(InvalidInputError, match="limit"):
            recipients.page(broadcast, None, "", limit)
    with pytest.raises(InvalidInputError, match="outcome 'won'"):
        recipients.page(broadcast, "won")
    with pytest.raises(NotFoundError):
        recipients.page("nothing")


@both_layouts
@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.from_regex(r"[0-9]{1,4}\.[0-9]{1,8}\.[0-9]{1,18}", fullmatch=True), st.integers(1, 50),
       st.sampled_from([None, "delivered", "queued", "in_flight"]))  # fmt: skip
def test_no_cursor_that_somebody_makes_up_breaks_a_page(
    recipients: Recipients, broadcast: str, cursor: str, limit: int, outcome: str | None
) -> None:
    try:
        page = recipients.page(broadcast, outcome, cursor, limit)
    except InvalidInputError:
        return
    assert all(row.openid in PEOPLE for row in page.rows)


def test_the_last_cursor_that_is_one_breaks_nothing(recipients: Recipients, broadcast: str) -> None:
    for outcome in (None, "queued", "in_flight"):
        for cursor in (f"0.0.{'9' * 18}", f"0.1.{'9' * 18}", f"0.{'9' * 8}.0"):
            page = recipients.page(broadcast, outcome, cursor, 10_000)
            assert all(row.openid in PEOPLE for row in page.rows)


def test_buckets_that_lie_far_apart_are_all_found(shop: Shop, make_settings: object) -> None:
    shop.client.flushall()
    wide = Shop(shop.client, make_settings(buckets=200_000))  # type: ignore[operator]
    people = [f"o{n}" for n in range(40)]
    wide.collector.collect("shop", [{"openid": one, "formId": one} for one in people])
    broadcast = wide.broadcast()
    wide.run_dry(broadcast)
    recipients = Recipients(wide.client, wide.settings)
    for limit in (1, 1000):
        found = pages(recipients, broadcast, None, limit)
        assert Counter(row.openid for page in found for row in page.rows) == Counter(people)
        assert len(found) == (40 if limit == 1 else 1)


@both_layouts
def test_recipients_are_found_as_long_as_the_last_outcome_lives(
    shop: Shop, make_settings: object, lanes: int
) -> None:
    for days in (0, 14, 90):
        kept = make_settings(lanes=lanes, retention=timedelta(days=days))  # type: ignore[operator]
        shop = Shop(shop.client, kept)
        shop.give("o1", formId=f"f{days}")
        broadcast = shop.broadcast()
        lane = shop.lane("o1")
        bitmap = timedelta(milliseconds=shop.client.pttl(keys.recipients(lane, broadcast)))
        # an outcome that is written at the end of a broadcast's life of 7 days
        assert bitmap > timedelta(days=7 + 7 + days)
        assert bitmap < timedelta(days=7 + 7 + days + 2)
        shop.broadcasts.cancel(broadcast)


def test_a_page_reads_a_bounded_number_of_buckets(shop: Shop, make_settings: object) -> None:
    shop.client.flushall()
    wide = Shop(shop.client, make_settings(buckets=4096))  # type: ignore[operator]
    people = [f"o{n}" for n in range(2500)]
    wide.collector.collect("shop", [{"openid": one, "formId": one} for one in people])
    broadcast = wide.broadcast()
    wide.run_dry(broadcast)
    recipients = Recipients(wide.client, wide.settings)
    found = pages(recipients, broadcast, "refused", 10)
    assert len(found) > 2
    assert [page.rows for page in found] == [[]] * len(found)
    assert len(wide.client.keys(keys.outcomes(0, broadcast, "*"))) > 512  # type: ignore[arg-type]


def test_an_export_has_its_header_though_nobody_comes() -> None:
    assert list(csv_lines([])) == [b"openid,outcome,errcode,msgid,settled_by\r\n"]
    assert list(csv_lines([Recipient("oA", "delivered", 0, "7", "answer")], "\n"))[1:] == [
        b"oA,delivered,0,7,answer\n"
    ]


def test_an_export_of_nothing_that_exists_has_no_line(recipients: Recipients) -> None:
    for lines in (csv_lines, json_lines):
        with pytest.raises(NotFoundError):
            next(lines(recipients.iterate("nobody")))
