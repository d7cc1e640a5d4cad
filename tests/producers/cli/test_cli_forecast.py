"""``wxbroadcast forecast``."""

from cli_runs import run
from shop import TEMPLATE, Shop

from producers.settings import Settings


def test_a_forecast_is_a_table_or_json(shop: Shop, settings: Settings) -> None:
    people = [f"o{n}" for n in range(20)]
    shop.collector.collect("shop", [{"openid": one, "formId": one} for one in people])
    shop.audiences.import_rows("shop", "vip", [one.encode() for one in people[:5]])
    asked = ("forecast", "-a", "shop", "--channel", "template", "--audience", "vip", "--rate", 0)
    ran = run(settings, *asked)
    assert ran.code == 0
    rows = [" ".join(line.split()) for line in ran.out.splitlines()]
    assert "now 5 5 5 0" in rows
    assert "in 1 hour 5 5 5 0" in rows
    assert "in 1 day 5 5 5 0" in rows
    assert "in 7 days 0 0 0 5" in rows
    assert "5 members with 5 uses" in ran.err
    assert "at 0.0 sends/s (given)" in ran.err
    found = run(settings, *asked, "--json").json
    assert (found["method"], found["members"], found["uses"]) == ("scan", 5, 5)
    assert [one["users"] for one in found["horizons"]] == [5, 5, 5, 0]
    assert [one["expiring"] for one in found["horizons"]] == [0, 0, 0, 5]


def test_a_subscription_is_asked_for_by_its_template(shop: Shop, settings: Settings) -> None:
    shop.give("o1", subscriptions={TEMPLATE: "accept"})
    asked = ("forecast", "-a", "shop", "--channel", "subscribe")
    found = run(settings, *asked, "--template-id", TEMPLATE, "--json").json
    assert [one["users"] for one in found["horizons"]] == [1, 1, 1, 1]
    ran = run(settings, *asked, "--json")
    assert ran.code == 2
    assert "template_id" in ran.json["error"]


def test_wrong_questions_are_wrong_input(settings: Settings) -> None:
    ran = run(settings, "forecast", "-a", "shop", "--channel", "smoke", "--rate", -1, "--json")
    assert ran.code == 2
    assert len(ran.json["faults"]) == 2
    asked = ("forecast", "-a", "shop", "--channel", "template", "--audience", "nobody")
    ran = run(settings, *asked, "--json")
    assert ran.code == 2
    assert "nobody" in ran.json["error"]
