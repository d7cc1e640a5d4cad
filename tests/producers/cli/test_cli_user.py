"""``wxbroadcast user show, user forget, plan``."""

import pytest
from cli_runs import Ran, run
from shop import OTHER, TEMPLATE, Shop

from producers.settings import Settings

ANN = "oAnn"


def rows(ran: Ran) -> list[str]:
    return [" ".join(line.split()) for line in ran.out.splitlines()]


def test_a_card_is_tables_or_json(shop: Shop, settings: Settings) -> None:
    shop.give(ANN, formIds=["a", "b"], subscriptions={TEMPLATE: "accept", OTHER: "reject"})
    shop.audiences.import_rows("shop", "vip", [ANN.encode()])
    broadcast = shop.broadcast()
    shop.open(broadcast)
    (claim,) = shop.take()
    shop.settle(claim, "settle", "spent", "failed", errcode=40037, streak="-", msgid="991")
    ran = run(settings, "user", "show", "-a", "shop", "--openid", ANN)
    assert ran.code == 0
    shown = rows(ran)
    assert f"user {ANN}" in shown
    assert "audiences all, vip" in shown
    assert "usable form_id 1" in shown
    assert f"{TEMPLATE} 1" in shown
    assert any(row.startswith(f"{OTHER} 0 withdrawn ") for row in shown)
    assert any(row.startswith("form_id 1 before ") for row in shown)
    (sent,) = (row for row in shown if row.startswith(broadcast))
    assert sent.endswith(f"{TEMPLATE} failed 40037 991")
    card = run(settings, "user", "show", "-a", "shop", "--openid", ANN, "--json").json
    assert card["usable"] == {"form_id": 1, "prepay_id": 0, "subscription": 1}
    assert [send["outcome"] for send in card["sends"]] == ["failed"]


def test_a_stranger_has_a_card_too(settings: Settings) -> None:
    ran = run(settings, "user", "show", "-a", "shop", "--openid", "nobody")
    assert ran.code == 0
    assert "audiences none" in rows(ran)


def test_forgetting_says_what_was_known(shop: Shop, settings: Settings) -> None:
    shop.give(ANN, formIds=["a", "b"])
    ran = run(settings, "user", "forget", "-a", "shop", "--openid", ANN)
    assert ran.code == 0
    assert {"uses 2", "audiences 1", "in hands 0"} <= set(rows(ran))
    again = run(settings, "user", "forget", "-a", "shop", "--openid", ANN, "--json")
    assert set(again.json.values()) == {0}
    assert shop.mentions(ANN) == set()


def test_a_plan_says_what_to_ask_for_and_why(shop: Shop, settings: Settings) -> None:
    ran = run(settings, "plan", "-a", "shop", "--openid", ANN)
    assert (ran.code, ran.out) == (0, "")
    assert "nothing to ask for" in ran.err
    shop.audiences.import_rows("shop", "vip", [ANN.encode()])
    shop.broadcast("subscribe", "vip")
    ran = run(settings, "plan", "-a", "shop", "--openid", ANN)
    wanted = "1 broadcast under way and about 0.5 a week lately; the user has none"
    assert f"{TEMPLATE} 1.5 {wanted}" in rows(ran)
    plan = run(settings, "plan", "-a", "shop", "--openid", ANN, "--json").json
    assert plan["templates"][0]["template_id"] == TEMPLATE
    assert plan["templates"][0]["shortage"] == 1.5
    shop.give(ANN, subscriptions={TEMPLATE: "reject"})
    assert f"to skip: {TEMPLATE}" in run(settings, "plan", "-a", "shop", "--openid", ANN).err


@pytest.mark.parametrize("command", [("user", "show"), ("user", "forget"), ("plan",)])
def test_what_is_no_openid_or_no_app_is_wrong_input(
    settings: Settings, command: tuple[str, ...]
) -> None:
    ran = run(settings, *command, "-a", "shop", "--openid", "o 1", "--json")
    assert (ran.code, ran.json["error"]) == (2, "openid 'o 1': 1-64 letters, digits, _ or -")
    ran = run(settings, *command, "-a", "shoq", "--openid", ANN, "--json")
    assert ran.code == 2
    assert "shoq" in ran.json["error"]
    assert run(settings, *command, "-a", "shop").code == 2
