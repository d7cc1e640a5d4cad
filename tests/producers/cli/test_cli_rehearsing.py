"""``wxbroadcast broadcast`` before it goes out: the dry run."""

from cli_runs import run
from every_key import every_key
from shop import TEMPLATE, Shop

from producers.settings import Settings

CREATE = ("broadcast", "-a", "shop", "--channel", "template", "--template-id", TEMPLATE)
ALL = (*CREATE, "--audience", "all", "--data", "a,b")


def crowd(shop: Shop, people: int = 20) -> None:
    for n in range(people):
        shop.give(f"o{n}", formIds=[f"f{n}"])


def test_a_dry_run_is_a_table_or_json_and_changes_nothing(
    shop: Shop, settings: Settings, valkey_url: str
) -> None:
    crowd(shop)
    before = every_key(valkey_url)
    ran = run(settings, *ALL, "--dry-run", "--rate", 2, "--expires-in", "5s")
    assert ran.code == 0
    rows = [" ".join(line.split()) for line in ran.out.splitlines()]
    assert "dry run would be created" in rows
    assert "recipients 20" in rows
    assert "reachable 20 (counted by expiry hour)" in rows
    assert "rate 2 sends/s at the most, nothing else runs" in rows
    assert any(row.startswith("late after") and row.endswith(": about 10") for row in rows)
    assert "left today 10,000,000 by the app's daily limit" in rows
    assert any("no worker alive" in row for row in rows)
    assert "nothing was stored" in ran.err
    found = run(settings, *ALL, "--dry-run", "--json").json
    assert (found["reachable"], found["faults"], found["wechat_left"]) == (20, [], None)
    assert every_key(valkey_url) == before


def test_a_dry_run_with_faults_tells_them_and_what_it_knows(shop: Shop, settings: Settings) -> None:
    crowd(shop)
    asked = (*ALL, "--dry-run", "--at", "soon", "--lang", "tlh")
    ran = run(settings, *asked, "--json")
    assert ran.code == 2
    assert (len(ran.json["faults"]), ran.json["reachable"]) == (2, 20)
    table = run(settings, *asked)
    assert table.code == 2
    assert "would be refused" in table.out
    assert "wxbroadcast: at 'soon'" in table.err


def test_a_dry_run_of_a_series_makes_none(shop: Shop, settings: Settings) -> None:
    crowd(shop)
    asked = (*ALL, "--dry-run", "--every", "0 21 * * *", "--key", "evening", "--zone", "UTC")
    made = run(settings, *asked, "--json").json
    assert (made["faults"], made["zone"]) == ([], "UTC")
    assert made["starts_at_ms"] % 86_400_000 == 21 * 3_600_000
    assert run(settings, "series", "list", "-a", "shop", "--json").json == {"series": []}
