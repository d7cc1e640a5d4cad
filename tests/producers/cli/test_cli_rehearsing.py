"""``wxbroadcast broadcast`` before it goes out: the dry run, the question, a test send."""

import os
import pty
import subprocess
from pathlib import Path

import pytest
from cli_runs import command, run, variables
from every_key import every_key
from shop import TEMPLATE, Shop

from producers.settings import Settings

CREATE = ("broadcast", "-a", "shop", "--channel", "template", "--template-id", TEMPLATE)
DATA = '{"keyword1": "{name}"}'
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


def test_a_dry_run_sends_no_test_and_what_belongs_to_a_test_needs_one(settings: Settings) -> None:
    for options in (("--dry-run", "--test", "oA"), ("--then",), ("--test-state", "trial")):
        ran = run(settings, *ALL, *options, "--json")
        assert (ran.code, "test: " in ran.json["error"]) == (2, True)
    ran = run(settings, *ALL, "--test", "oA,oA, o B", "--json")
    assert (ran.code, "twice" in ran.json["error"]) == (2, True)


def test_more_recipients_than_confirmed_are_refused_where_nobody_can_be_asked(
    shop: Shop, settings: Settings
) -> None:
    crowd(shop)
    ran = run(settings, *ALL, "--confirm-above", 19, "--json")
    assert ran.code == 2
    assert ran.json["error"].startswith("20 recipients, more than 19: nothing was created")
    assert "--yes" in ran.json["error"]
    series = run(settings, *ALL, "--confirm-above", 1, "--every", "0 21 * * *", "--key", "evening")
    assert series.code == 2
    assert run(settings, "list", "-a", "shop", "--json").json["broadcasts"] == []
    assert run(settings, "series", "list", "-a", "shop", "--json").json == {"series": []}
    for enough in (("--confirm-above", 20), ("--confirm-above", 1, "--yes"), ()):
        assert run(settings, *ALL, *enough).code == 0


def test_good_rows_are_what_is_confirmed(shop: Shop, settings: Settings, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("openid,name\noA,Anna\noB,Bert\noA,Anna\n")
    asked = (*CREATE, "--data", DATA, "--rows", rows, "--skip-bad")
    refused = run(settings, *asked, "--confirm-above", 1, "--json")
    assert refused.json["error"].startswith("2 recipients, more than 1")
    assert run(settings, *asked, "--confirm-above", 2).code == 0
    piped = (*CREATE, "--data", DATA, "--rows", "-")
    text = rows.read_text()
    ran = run(settings, *piped, "--confirm-above", 1, "--json", stdin=text)
    assert (ran.code, "give a file, or --yes" in ran.json["error"]) == (2, True)
    ran = run(settings, *piped, "--test", "oA", "--then", "--json", stdin=text)
    assert (ran.code, "cannot be read twice" in ran.json["error"]) == (2, True)


def test_what_would_follow_a_test_is_checked_before_the_test_spends_anything(
    shop: Shop, settings: Settings, tmp_path: Path
) -> None:
    crowd(shop)
    rows = tmp_path / "rows.csv"
    rows.write_text("openid,name\no1,Anna\no1,Anna\n")
    of_rows = (*CREATE, "--data", DATA, "--rows", rows)
    for asked, says in (
        ((*ALL, "--purpose", "typo"), "per_user_per_day"),
        ((*ALL, "--every", "noon", "--key", "k"), "five fields"),
        ((*ALL, "--at", "2020-01-01 10:00"), "is past"),
        ((*CREATE, "--audience", "nosuch", "--data", "a,b"), "no audience"),
        (of_rows, "the openid has a row before"),
        ((*of_rows, "--skip-bad"), "no worker"),  # the test itself, which nobody would send
    ):
        ran = run(settings, *asked, "--test", "o1", "--then", "--json")
        assert (ran.code != 0, says in ran.json["error"]) == (True, True), ran.json


def test_a_setting_asks_always_and_an_option_goes_before_it(
    shop: Shop, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd(shop)
    monkeypatch.setenv("WXB_CONFIRM_ABOVE", "5")
    assert run(settings, *ALL).code == 2
    assert run(settings, *ALL, "--confirm-above", 0).code == 0
    created = run(settings, *ALL, "--yes")
    broadcast = created.out.strip()
    shop.run_dry(broadcast)
    shop.keeper.run_once()
    refused = run(settings, "retry", broadcast, "--outcome", "no_permit,delivered")
    assert refused.code == 2  # whatever is wrong beside it
    monkeypatch.delenv("WXB_CONFIRM_ABOVE")


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 3)])
def test_at_a_terminal_somebody_is_asked(
    shop: Shop, settings: Settings, answer: str, code: int
) -> None:
    crowd(shop)
    here, there = pty.openpty()
    asked = subprocess.Popen(
        command(*ALL, "--confirm-above", 5),
        env={**os.environ, **variables(settings)},
        stdin=there,
        stdout=subprocess.PIPE,
        stderr=there,
        start_new_session=True,
    )
    os.close(there)
    seen = b""
    while b"[y/N]" not in seen:
        seen += os.read(here, 1000)
    assert b"Send to 20 recipients?" in seen
    os.write(here, f"{answer}\n".encode())
    out, _ = asked.communicate(timeout=20)
    os.close(here)
    assert asked.returncode == code
    assert len(shop.broadcasts.latest("shop")) == (1 if answer == "y" else 0)
    assert bool(out) is (answer == "y")  # nothing of the question
