"""`wxbroadcast apps`: the apps of the settings, and a file before it is deployed."""

import json
from pathlib import Path

from typer.testing import CliRunner

from producers.cli import app

SECRET = "hush-hush-0123456789"
GOOD = {"shop": {"appid": "wx1", "secret": SECRET}, "news": {"appid": "wx2", "secret": SECRET}}


def put(path: Path, apps: object) -> str:
    path.write_text(json.dumps(apps))
    return str(path)


def ran(*args: str, **env: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["apps", *args], env=env)
    assert SECRET not in done.output
    return done.exit_code, done.stdout, done.stderr


def test_a_good_file_is_said_to_be_one_and_what_would_change(tmp_path: Path) -> None:
    old = put(tmp_path / "old.json", GOOD)
    shop = {**GOOD["shop"], "rate_per_second": 5, "zone": "UTC"}
    new = put(tmp_path / "new.json", {"shop": shop, "cafe": {"appid": "wx3", "secret": SECRET}})
    assert ran("check", old)[0] == 0
    code, _, said = ran("check", new, "--instead-of", old)
    assert code == 0
    assert said.splitlines()[-1] == (
        "2 apps, no fault; added: cafe; changed: shop (rate_per_second, zone); removed: news"
    )
    code, out, _ = ran("check", new, "--instead-of", old, "--json")
    assert json.loads(out.splitlines()[-1]) == {
        "file": new,
        "apps": 2,
        "added": ["cafe"],
        "changed": {"shop": ["rate_per_second", "zone"]},
        "removed": ["news"],
    }


def test_every_fault_is_named_and_the_exit_code_stops_a_deployment(tmp_path: Path) -> None:
    bad = put(tmp_path / "bad.json", {"shop": {"appid": 1, "secret": SECRET, "rates": 2}})
    code, out, _ = ran("check", bad, "--json")
    assert code == 2
    faults = json.loads(out.splitlines()[-1])["faults"]
    assert [one.partition(":")[0] for one in faults] == ["shop.appid", "shop.rates"]
    moved = put(tmp_path / "moved.json", {**GOOD, "news": {"appid": "wx9", "secret": SECRET}})
    code, _, said = ran("check", moved, "--instead-of", put(tmp_path / "old.json", GOOD))
    assert code == 2
    assert "news.appid: it is that of another mini-program" in said
    assert ran("check", str(tmp_path / "none.toml"))[0] == 2


def test_the_apps_of_the_settings_are_listed_without_their_secrets(tmp_path: Path) -> None:
    file = put(tmp_path / "apps.json", GOOD)
    env = {"WXB_REDIS_URL": "redis://localhost", "WXB_APPS_FILE": file}
    code, out, _ = ran("list", "--json", **env)
    assert code == 0
    listed = json.loads(out.splitlines()[-1])
    assert [(one["app"], one["appid"]) for one in listed["apps"]] == [
        ("shop", "wx1"),
        ("news", "wx2"),
    ]
    assert len(listed["digest"]) == 16
    assert "wx1" in ran("list", **env)[1]
