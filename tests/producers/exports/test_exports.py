"""Exports: one app leaves one deployment and arrives in another, exact by the ledgers of both."""

import itertools
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import orjson
import pytest
import redis
from mishaps import DiedError, MortalClient
from own_valkey import APPS, OwnValkey, own_valkey
from shop import OTHER, TEMPLATE, Shop

from producers import store
from producers.access.api_keys import ApiKeys
from producers.audiences.reading import read_members
from producers.errors import InvalidInputError
from producers.exports import Exporter, Importer
from producers.exports.importing import IMPORT_USERS, ImportReport, UsersArgs, UsersKeys
from producers.permits.ledger import Ledger, totals
from producers.settings import Settings
from producers.store import keys
from producers.suppressions import Suppressions
from producers.users import Users
from producers.words import PermitKind

PEOPLE = [f"o{n:03}" for n in range(200)]
DAY = 86_400_000


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[OwnValkey]:
    with own_valkey() as valkey:
        yield valkey


@pytest.fixture
def there(elsewhere: OwnValkey) -> Iterator[Shop]:
    """Give the same app in another deployment, with other numbers of lanes and of buckets."""
    elsewhere.client.flushall()
    settings = elsewhere.made(lanes=8, buckets=1024)
    client = store.connect(settings)
    store.check_layout(client, settings)
    yield Shop(client, settings)
    client.close()
    client.connection_pool.disconnect()


def lived(shop: Shop) -> None:
    """Let a shop live: permits of each kind, of which some are held, spent, void or withdrawn."""
    lot = random.Random(5)
    now, uploads = shop.now_ms(), list[dict[str, Any]]()
    for openid in PEOPLE:
        for n in range(lot.choice([0, 1, 2, 3])):
            ends = now + lot.randrange(3_600_000, 7 * DAY)
            uploads.append(
                {"openid": openid, "formIds": [{"formId": f"{openid}.{n}", "expire": ends}]}
            )
        if lot.random() < 0.2:
            uploads.append({"openid": openid, "prepayId": f"wx{openid}"})
        for n in range(lot.choice([0, 0, 1, 3])):
            accept = {"openid": openid, "subscriptions": {TEMPLATE: "accept", OTHER: "accept"}}
            uploads.append({**accept, "id": f"{openid}{n}"})
        if lot.random() < 0.1:
            uploads.append({"openid": openid, "subscriptions": {OTHER: "reject"}, "id": "no"})
    shop.collector.collect("shop", uploads)
    shop.audiences.import_rows("shop", "vip", PEOPLE[:80])
    shop.audiences.import_rows("shop", "old-vip", [*PEOPLE[:3], "oStranger"])
    for channel in ("template", "subscribe"):
        broadcast = shop.broadcast(channel, "vip")
        shop.open(broadcast)
        for claim in shop.take(40):
            shop.settle(claim)
    list_ = Suppressions(shop.client, shop.settings)
    list_.import_rows("shop", "imported", PEOPLE[5:9])
    for openid in PEOPLE[9:12]:
        list_.opt_out("shop", openid)
    Users(shop.client, shop.settings).forget("shop", PEOPLE[9])
    ApiKeys(shop.client, shop.settings).create("backend", ["shop"], ["send"])


def exported(shop: Shop) -> list[bytes]:
    return list(Exporter(shop.client, shop.settings).export("shop"))


def imported(shop: Shop, lines: Any, **how: Any) -> ImportReport:
    return Importer(shop.client, shop.settings).load("shop", lines, **how)


def footer(lines: list[bytes]) -> dict[str, Any]:
    return orjson.loads(lines[-1])["end"]  # type: ignore[no-any-return]


def available(shop: Shop) -> dict[str, int]:
    return {kind.letter: uses.available for kind, uses in ledger_of(shop).kinds.items()}


def ledger_of(shop: Shop) -> Ledger:
    return totals(shop.client, shop.settings, "shop")


def has(shop: Shop, openid: str) -> Any:
    """Return all that a user has, and had."""
    lane = shop.lane(openid)
    permits = shop.client.zrange(keys.permits(lane, "shop", openid), 0, -1, withscores=True)
    marks = shop.client.hgetall(keys.marks(lane, "shop", openid))
    return (
        sorted(permits),
        shop.client.hgetall(keys.subscriptions(lane, "shop", openid)),
        {
            name: [*mark.split(" ")[:3], *sorted(mark.split(" ")[3:])]
            for name, mark in marks.items()
        },
    )


def content(shop: Shop) -> dict[str, str]:
    """Return everything but what tells the time or a caller's last answer."""
    return {
        key: text
        for key, text in shop.everything().items()
        if ":reply:" not in key and not key.endswith((":frozen", ":audiences"))
    }


@pytest.mark.parametrize("lanes", [1, 4])
def test_an_app_arrives_as_it_was(shop: Shop, there: Shop) -> None:
    lived(shop)
    before = ledger_of(shop)
    assert all(
        before.kinds[kind].held + before.kinds[kind].spent
        for kind in PermitKind
        if kind != PermitKind.PREPAY_ID
    )
    lines = exported(shop)
    assert ledger_of(shop) == before
    sums = footer(lines)["sums"]
    assert {letter: sums["uses"].get(letter, 0) for letter in "fps"} == available(shop)
    report = imported(there, lines)
    assert report.whole, (report.problems, report.listed)
    assert dict(report.new) == available(shop)
    assert available(there) == available(shop)
    arrived = ledger_of(there)
    for uses in arrived.kinds.values():  # nothing but what can be had has come
        assert (uses.collected, uses.held + uses.spent + uses.void) == (uses.available, 0)
    members = read_members(shop.client, shop.settings, "shop", "all")
    for openid in itertools.chain(
        *(some for _, some in members)
    ):  # who did nothing but reject has no line
        assert has(there, openid) == has(shop, openid)
    for name in ("all", "vip", "old-vip"):
        assert there.audiences.count("shop", name) == shop.audiences.count("shop", name)
    assert there.audiences.count("shop", "vip & old-vip") == 3
    assert not shop.wrong()
    assert not there.wrong()


def test_an_audience_that_nobody_is_in_is_there_afterwards(shop: Shop, there: Shop) -> None:
    shop.audiences.import_rows("shop", "churned", [b"openid"])
    report = imported(there, exported(shop))
    assert (report.whole, dict(report.audiences)) == (True, {"churned": 0})
    assert there.audiences.count("shop", "churned") == 0  # not: there is no such audience


def test_the_same_file_twice_changes_nothing(shop: Shop, there: Shop) -> None:
    lived(shop)
    lines = exported(shop)
    imported(there, lines)
    before = content(there)
    again = imported(there, lines)
    assert (again.whole, again.added, again.users, again.gone, again.lost) == (True, 0, 0, 0, 0)
    assert content(there) == before


def test_what_was_spent_here_is_not_had_again_by_the_same_file(shop: Shop, there: Shop) -> None:
    lived(shop)
    lines = exported(shop)
    imported(there, lines)
    for channel in ("template", "subscribe"):
        there.run_dry(there.broadcast(channel))
    before = ledger_of(there)
    imported(there, lines)
    assert ledger_of(there) == before
    assert not there.wrong()


def test_what_is_gone_there_is_not_collected_here(shop: Shop, there: Shop) -> None:
    soon = shop.now_ms() + DAY
    shop.give("oA", formIds=[{"formId": "sent", "expire": soon}, "kept"])
    shop.open(shop.broadcast())
    (claim,) = shop.take()
    shop.settle(claim)
    there.give("oA", formIds=["sent"])  # the phone reached the new deployment, too
    report = imported(there, exported(shop))
    assert (report.lost, report.gone) == (1, 0)
    assert there.give("oA", formIds=["sent", "kept"]) == 0
    uses = ledger_of(there).kinds[PermitKind.FORM_ID]
    assert (uses.collected, uses.available, uses.void) == (2, 1, 1)
    assert not there.wrong()


def test_what_is_held_meanwhile_stays_where_it_is(shop: Shop, there: Shop) -> None:
    shop.give("oA", formIds=["f1"])
    shop.open(shop.broadcast())
    (claim,) = shop.take()
    report = imported(there, exported(shop))
    assert (report.added, report.gone) == (0, 1)
    shop.settle(claim, "delay", "back", "-", streak="-")
    assert (available(shop)["f"], available(there)["f"]) == (1, 0)


def test_results_that_a_phone_sends_again_count_once_in_both(shop: Shop, there: Shop) -> None:
    accept = {"subscriptions": {TEMPLATE: "accept"}, "id": "r1"}
    shop.give("oA", **accept)
    imported(there, exported(shop))
    assert there.give("oA", **accept) == 0
    assert there.give("oA", **{**accept, "id": "r2"}) == 1
    assert available(there)["s"] == 2


def test_a_later_export_counts_accepts_of_new_users_alone(shop: Shop, there: Shop) -> None:
    shop.give("oA", subscriptions={TEMPLATE: "accept"}, id="1")
    imported(there, exported(shop))
    shop.give("oA", subscriptions={TEMPLATE: "accept"}, id="2")
    shop.give("oB", subscriptions={TEMPLATE: "accept"}, id="1")
    report = imported(there, exported(shop))
    assert (report.new["s"], report.left_out) == (1, 2)
    assert available(there)["s"] == 2


def test_accepts_of_this_very_deployment_are_counted_when_asked_for(shop: Shop) -> None:
    shop.give("oA", subscriptions={TEMPLATE: "accept"}, id="1")
    lines = exported(shop)
    assert imported(shop, lines).left_out == 1
    for key in (keys.subscriptions, keys.marks):
        shop.client.delete(key(shop.lane("oA"), "shop", "oA"))
    shop.client.delete(keys.stock(shop.lane("oA"), "shop"), keys.ledger(shop.lane("oA"), "shop"))
    assert imported(shop, lines, again=True).new["s"] == 1
    assert imported(shop, lines, again=True).new["s"] == 0
    assert available(shop)["s"] == 1


def test_who_withdrew_here_since_gets_nothing_back(shop: Shop, there: Shop) -> None:
    shop.give("oA", subscriptions={TEMPLATE: "accept"}, id="1")
    lines = exported(shop)
    there.give("oA", subscriptions={TEMPLATE: "reject"}, id="2")
    report = imported(there, lines)
    assert (report.new["s"], report.withdrawn) == (0, 1)


@pytest.mark.parametrize("buckets", [1024, 64, 96, 4099])
def test_the_suppressed_stay_suppressed(shop: Shop, elsewhere: OwnValkey, buckets: int) -> None:
    lived(shop)
    elsewhere.client.flushall()
    settings = elsewhere.made(buckets=buckets)
    client = store.connect(settings)
    store.check_layout(client, settings)
    report = Importer(client, settings).load("shop", exported(shop))
    counts = Suppressions(client, settings).counts("shop")
    assert (counts["imported"], counts["opted_out"]) == (4, 2)
    there = Shop(client, settings)
    there.give(PEOPLE[9], formIds=["back"])
    assert report.whole == (buckets != 4099)  # it has no divisor in common with 256
    if report.whole:
        broadcast = there.broadcast()
        there.open(broadcast)
        there.take()
        assert there.outcomes(broadcast)[PEOPLE[9]] == "suppressed"
    else:
        assert "fit into no bucket" in report.problems[0]
    client.close()
    client.connection_pool.disconnect()


def test_no_secret_is_in_the_lines(shop: Shop, make_settings: Any) -> None:
    lived(shop)
    apps = {**APPS, "cafe": {"appid": "wx0000000000000002", "secret": "cafe-secret"}}
    api_keys = ApiKeys(shop.client, make_settings(apps=apps))
    api_keys.create("other", ["cafe"], ["send"])
    token = api_keys.create("k", ["shop", "cafe"], ["read"])
    text = b"".join(exported(shop)).decode()
    digest = ApiKeys(shop.client, shop.settings).find(token.key.id)
    assert digest is not None
    for secret in ("shop-secret", token.token, digest.digest, token.token[-43:], "cafe", "other"):
        assert secret not in text
    assert '"name":"backend"' in text


def test_an_import_that_dies_anywhere_is_finished_by_another(shop: Shop, there: Shop) -> None:
    lived(shop)
    lines = exported(shop)
    for steps in itertools.count(0, 7):
        client: Any = MortalClient(there.client.connection_pool, steps)
        with suppress(DiedError):
            Importer(client, there.settings).load("shop", lines)
            break
    assert steps > 20
    assert available(there) == available(shop)
    assert not there.wrong()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda lines: lines[:-1], "cut short"),
        (lambda lines: lines[:5], "cut short"),
        (lambda lines: [*lines[:20], *lines[22:]], "missing or were changed"),
    ],
)
def test_a_file_that_is_not_whole_is_told(
    shop: Shop, there: Shop, change: Any, problem: str
) -> None:
    lived(shop)
    report = imported(there, change(exported(shop)))
    assert not report.whole
    assert problem in report.problems[0]
    assert report.users > 0
    assert not there.wrong()


def test_bad_lines_are_told_and_the_others_stored(shop: Shop, there: Shop) -> None:
    lived(shop)
    lines = exported(shop)
    bad = [
        b"nonsense\n",
        b"[]\n",
        b"{}\n",
        b'{"user": "o 1"}\n',
        b'{"user": "oX", "uses": {"x:1": 5}}\n',
        b'{"user": "oX", "uses": {"f:1": -5}}\n',
        b'{"user": "oX", "accepts": {"T:T": 1}}\n',
        b'{"user": "oX", "accepts": {"T": true}}\n',
        b'{"user": "oX", "marks": {"T": "1 2"}}\n',
        b'{"audience": "all", "openids": []}\n',
        b'{"audience": "~x", "openids": ["oA"]}\n',
        '{"user": "oX", "marks": {"T": "١ ١ ١"}}\n'.encode(),
        b'{"suppressed": "whim", "openids": ["oA"]}\n',
        b'{"suppressed": [], "openids": ["oA"]}\n',
        b'{"suppressed": "forgotten", "bucket": 1, "digests": ["oA"]}\n',
        b'{"key": {"name": "k", "scopes": [1]}}\n',
        b'{"key": {"scopes": ["read"]}}\n',
        b'{"key": {"name": "\\u001b[2J", "scopes": []}}\n',
        b'{"key": {"name": "k", "scopes": ["' + b"x" * 9000 + b'"]}}\n',
        b'{"end": {}}\n',
    ]
    report = imported(there, [*lines[:3], *bad, *lines[3:], lines[3]])
    assert (report.bad, report.whole) == (len(bad) + 1, False)
    assert [line for line, _ in report.listed] == [
        *range(4, 4 + len(bad)),
        len(lines) + len(bad) + 1,
    ]
    assert available(there) == available(shop)


@pytest.mark.parametrize(
    ("first", "sentence"),
    [
        (b"", "no file of `wxbroadcast export`"),
        (b"openid\noA\n", "no file of `wxbroadcast export`"),
        (b'{"openid": "oA"}\n', "no file of `wxbroadcast export`"),
        (b'{"form": "wxbroadcast export", "version": 2}\n', "version 2"),
        (b'{"form": "wxbroadcast export", "version": 1}\n', "lacks something"),
    ],
)
def test_a_foreign_file_is_refused_whole(there: Shop, first: bytes, sentence: str) -> None:
    before = content(there)
    with pytest.raises(InvalidInputError, match=sentence):
        imported(there, [first, b'{"user": "oA", "uses": {"f:1": 99999999999999}}\n'])
    assert content(there) == before


def test_another_mini_programs_file_is_refused(shop: Shop, make_settings: Any) -> None:
    shop.give("oA", formIds=["f1"])
    settings: Settings = make_settings(app={"appid": "wx0000000000000002"})
    with pytest.raises(InvalidInputError, match="wx0000000000000002"):
        Importer(shop.client, settings).load("shop", exported(shop))


def test_a_user_with_more_uses_than_a_line_holds_arrives_whole(shop: Shop, there: Shop) -> None:
    for start in range(0, 500, 100):
        shop.give("oA", formIds=[f"f{n}" for n in range(start, start + 100)])
    lines = exported(shop)
    assert footer(lines)["sums"]["users"] == 1
    imported(there, lines)
    assert has(there, "oA") == has(shop, "oA")
    assert not there.wrong()


@pytest.mark.parametrize("here", [1, 5])
def test_a_user_arrives_with_twenty_marks_at_the_most(shop: Shop, there: Shop, here: int) -> None:
    def marked(house: Shop, templates: list[str]) -> str:
        accept = {"openid": "oMany", "subscriptions": {TEMPLATE: "accept"}, "id": "once"}
        house.collector.collect("shop", [accept])
        key = keys.marks(house.lane("oMany"), "shop", "oMany")
        house.client.hset(key, mapping=dict.fromkeys(templates, "1 1 1"))
        return key

    many = marked(shop, [f"T{n:02}" for n in range(25)])
    assert shop.client.hlen(many) == 26
    arrived = marked(there, [f"H{n:02}" for n in range(here)])
    assert imported(there, exported(shop)).whole
    assert there.client.hlen(arrived) == 20


@pytest.mark.parametrize(("keys_more", "args_more"), [(1, 0), (0, 1), (5, 0)])
def test_a_call_that_brings_more_than_it_says_stores_nothing(
    shop: Shop, keys_more: int, args_more: int
) -> None:
    lane = shop.lane("oX")
    import_users = IMPORT_USERS.on(shop.client)
    own = [f"{keys.lane_prefix(lane)}own:{n}" for n in range(5)]
    more = [f"{keys.lane_prefix(lane)}more:{n}" for n in range(keys_more)]
    brought = ["oX", 0, 1, 0, 0, "f:A", shop.now_ms() + DAY, *["more"] * args_more]
    before = shop.everything()
    with pytest.raises(redis.ResponseError, match="arguments"):
        import_users(
            UsersKeys.of(lane, "shop", "took"),
            UsersArgs(shop.now_ms(), DAY, 1, 1),
            brought,
            more_keys=[*own, *more],
        )
    assert shop.everything() == before


def test_a_forgotten_user_leaves_what_an_import_remembers(shop: Shop, there: Shop) -> None:
    shop.give("oA", subscriptions={TEMPLATE: "accept"}, id="1", formIds=["f1"])
    imported(there, exported(shop))
    Users(there.client, there.settings).forget("shop", "oA")
    assert there.mentions("oA") == set()
