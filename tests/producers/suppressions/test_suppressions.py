"""The suppression list: who is on it is sent nothing, and stays on it as long as it must."""

from pathlib import Path

import pytest
from log_lines import recorded
from shop import TEMPLATE, Shop

from producers.errors import InvalidInputError, UnknownAppError
from producers.permits import ledger
from producers.planning.forecast import Forecaster
from producers.planning.plan import Planner
from producers.store import keys
from producers.suppressions import Reason, Suppressions
from producers.suppressions.suppressions import digest
from producers.users import Users
from producers.users.forget import Forgetter

both_layouts = pytest.mark.parametrize("lanes", [1, 4])

PEOPLE = [f"oPerson{n:02}" for n in range(12)]
NONE = dict.fromkeys(Reason, 0)


@pytest.fixture
def suppressions(shop: Shop) -> Suppressions:
    return Suppressions(shop.client, shop.settings)


def give(shop: Shop, *openids: str) -> None:
    shop.collector.collect("shop", [{"openid": one, "formId": f"{one}f"} for one in openids])


def reasons(shop: Shop, openid: str) -> list[str]:
    return Users(shop.client, shop.settings).show("shop", openid).suppressed


def sent(shop: Shop, broadcast: str) -> set[str]:
    """Deliver all that can be claimed of a broadcast; returns to whom."""
    shop.open(broadcast)
    found = set()
    while claims := shop.take():
        for claim in claims:
            found.add(claim.openid)
            shop.settle(claim)
    shop.keeper.run_once()
    return found


@both_layouts
def test_whoever_is_listed_is_sent_nothing_and_keeps_the_permit(
    shop: Shop, suppressions: Suppressions
) -> None:
    give(shop, *PEOPLE)
    report = suppressions.import_rows("shop", "imported", [b"openid", *map(str.encode, PEOPLE[:3])])
    assert (report.added, report.known, report.bad) == (3, 0, 0)
    suppressions.opt_out("shop", PEOPLE[3])
    broadcast = shop.broadcast()
    assert sent(shop, broadcast) == {*PEOPLE[4:]}
    status = shop.broadcasts.status(broadcast)
    assert (status.state, status.outcomes) == ("finished", {"delivered": 8, "suppressed": 4})
    assert ledger.totals(shop.client, shop.settings, "shop").total.available == 4
    assert shop.wrong() == []
    assert suppressions.counts("shop") == {**NONE, "imported": 3, "opted_out": 1}
    assert shop.audiences.names("shop") == ["all"]


def test_who_is_listed_while_a_message_waits_is_not_sent_it(
    shop: Shop, suppressions: Suppressions
) -> None:
    give(shop, *PEOPLE)
    broadcast = shop.broadcast()
    carrier = shop.post(PEOPLE[0], "template")
    suppressions.opt_out("shop", PEOPLE[0])
    assert PEOPLE[0] not in sent(shop, broadcast)
    assert shop.outcomes(carrier) == {PEOPLE[0]: "suppressed"}
    assert not shop.client.exists(keys.mail(0, carrier))


def test_what_was_perhaps_sent_is_in_doubt_and_never_repeated(
    shop: Shop, suppressions: Suppressions
) -> None:
    give(shop, *PEOPLE[:4])
    broadcast = shop.broadcast()
    taken = shop.take(2)
    shop.recover(broadcast)
    for claim in taken:
        suppressions.opt_out("shop", claim.openid)
    found = {claim.openid for claim in shop.take()}
    assert found == {*PEOPLE[:4]} - {claim.openid for claim in taken}
    lane = shop.client.hgetall(keys.lane_broadcast(0, broadcast))
    assert (lane["o:in_doubt"], lane["unjudged"]) == ("2", "2")
    assert shop.wrong() == []


@pytest.mark.parametrize("rows", [[], [b"openid"], [b"", b"  "]])
def test_a_file_without_a_row_empties_no_list_unless_it_is_meant(
    shop: Shop, suppressions: Suppressions, rows: list[bytes]
) -> None:
    ann, *_ = PEOPLE
    suppressions.import_rows("shop", "imported", [ann])
    with pytest.raises(InvalidInputError, match="no row"):
        suppressions.replace_rows("shop", "imported", rows)
    assert reasons(shop, ann) == ["imported"]
    assert suppressions.replace_rows("shop", "imported", rows, allow_empty=True).removed == 1
    assert suppressions.counts("shop") == NONE


@both_layouts
def test_the_list_is_replaced_and_users_words_stay(shop: Shop, suppressions: Suppressions) -> None:
    ann, bob, eve, *_ = PEOPLE
    suppressions.import_rows("shop", "imported", [ann, bob])
    suppressions.opt_out("shop", eve)
    report = suppressions.replace_rows("shop", "imported", [bob])
    assert (report.added, report.known, report.removed) == (0, 1, 1)
    assert [reasons(shop, one) for one in (ann, bob, eve)] == [[], ["imported"], ["opted_out"]]
    removed = suppressions.remove_rows("shop", [ann, bob, eve, "", "no openid"])
    assert (removed.removed, removed.unknown, removed.bad) == (2, 1, 1)
    assert suppressions.counts("shop") == NONE


def test_a_user_takes_back_an_opt_out_and_not_what_was_imported(
    shop: Shop, suppressions: Suppressions
) -> None:
    ann, *_ = PEOPLE
    suppressions.opt_out("shop", ann)
    suppressions.import_rows("shop", "imported", [ann])
    assert suppressions.opt_in("shop", ann)
    assert not suppressions.opt_in("shop", ann)
    assert reasons(shop, ann) == ["imported"]


@pytest.mark.parametrize("is_open", [True, False])
def test_40003_suppresses_once_somebody_was_delivered(
    shop: Shop, suppressions: Suppressions, is_open: bool
) -> None:
    give(shop, *PEOPLE[:2])
    broadcast = shop.broadcast()
    if is_open:
        shop.open(broadcast)
    first, second = shop.take()
    for claim, code in ((first, 40003), (second, 40013)):
        shop.settle(claim, "settle", "void_all", "invalid_user", errcode=code, streak="refusal")
    assert suppressions.counts("shop") == {**NONE, "invalid": int(is_open)}
    assert reasons(shop, first.openid) == ["invalid"] * is_open
    assert reasons(shop, second.openid) == []


@both_layouts
def test_a_forgotten_user_stays_suppressed_by_a_digest_alone(
    shop: Shop, suppressions: Suppressions
) -> None:
    ann, bob, eve, *_ = PEOPLE
    suppressions.import_rows("shop", "imported", [ann])
    suppressions.opt_out("shop", bob)
    shop.client.sadd(keys.audience(shop.lane(eve), "shop", "!invalid", shop.bucket(eve)), eve)
    shop.client.set(keys.audience_size(shop.lane(eve), "shop", "!invalid"), 1)
    for one in (ann, bob, eve):
        Forgetter(shop.client, shop.settings).forget("shop", one)
        assert shop.mentions(one) == set()
        Forgetter(shop.client, shop.settings).forget("shop", one)
    assert suppressions.counts("shop") == {**NONE, "forgotten": 2}
    assert shop.mentions(digest(ann))
    give(shop, ann, bob, eve)
    assert sent(shop, shop.broadcast()) == {eve}
    assert suppressions.opt_in("shop", bob)
    assert suppressions.remove_rows("shop", [ann]).removed == 1
    assert suppressions.counts("shop") == NONE


def test_forecast_and_plan_leave_them_out(shop: Shop, suppressions: Suppressions) -> None:
    give(shop, *PEOPLE)
    shop.give(PEOPLE[0], subscriptions={TEMPLATE: "accept"})
    forecaster = Forecaster(shop.client, shop.settings)
    assert forecaster.forecast("shop", "template").method == "stock"
    shop.broadcast("subscribe")
    planner = Planner(shop.client, shop.settings)
    assert [one.template_id for one in planner.plan("shop", PEOPLE[1]).templates] == [TEMPLATE]
    suppressions.import_rows("shop", "imported", PEOPLE[:5])
    seen = forecaster.forecast("shop", "template")
    assert (seen.method, seen.members, seen.horizons[0].users) == ("scan", 12, 7)
    assert forecaster.forecast("shop", "subscribe", TEMPLATE).horizons[0].users == 0
    plan = planner.plan("shop", PEOPLE[1])
    assert (plan.templates, plan.skip) == ([], [TEMPLATE])


def test_what_is_wrong_is_said(suppressions: Suppressions) -> None:
    with pytest.raises(InvalidInputError, match="take imported or opted_out"):
        suppressions.import_rows("shop", "invalid", [])
    for verb in (suppressions.opt_out, suppressions.opt_in):
        with pytest.raises(InvalidInputError):
            verb("shop", "no openid")
        with pytest.raises(UnknownAppError):
            verb("nobody", "oA")
    with pytest.raises(UnknownAppError):
        suppressions.counts("nobody")


def test_it_leaves_its_lines(suppressions: Suppressions, tmp_path: Path) -> None:
    with recorded(tmp_path) as lines:
        suppressions.import_rows("shop", "imported", ["oA", "oB"])
        suppressions.remove_rows("shop", ["oA"])
        suppressions.opt_out("shop", "oC")
        suppressions.opt_in("shop", "oC")
        written = lines()
    found = [
        (one["event"], one.get("added"), one.get("removed"), one.get("out")) for one in written
    ]
    assert found == [
        ("suppression_changed", 2, 0, None),
        ("suppression_changed", 0, 1, None),
        ("user_opted", None, None, True),
        ("user_opted", None, None, False),
    ]
