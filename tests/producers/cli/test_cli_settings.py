"""`wxbroadcast settings`: the fields themselves, and the tables that stand in a README."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from producers.cli import app
from producers.settings import AppSettings, Settings

ROOT = next(one for one in Path(__file__).parents if (one / "pyproject.toml").is_file())
README = ROOT / "producers" / "README.md"
BLOCK = re.compile(
    r"^<!-- made by: wxbroadcast (?P<args>.+?) -->\n(?P<text>.*?)^<!-- end -->$",
    re.MULTILINE | re.DOTALL,
)


def out(*args: str) -> str:
    done = CliRunner().invoke(app, ["settings", *args], env={"WXB_REDIS_URL": "nonsense"})
    assert done.exit_code == 0, done.output
    return done.stdout


def described() -> dict[str, dict[str, dict[str, object]]]:
    tables = json.loads(out("--json").splitlines()[-1])
    return {name: {row["name"]: row for row in rows} for name, rows in tables.items()}


def test_every_field_is_there_with_its_variable_and_its_meaning() -> None:
    found = described()
    assert list(found["settings"]) == list(Settings.model_fields)
    assert list(found["app"]) == list(AppSettings.model_fields)
    for name, row in found["settings"].items():
        assert row["variable"] == f"WXB_{name.upper()}"
        assert row["meaning"], f"{name} has no description"
    for name, row in found["app"].items():
        assert row["variable"] == f"WXB_APPS__ALIAS__{name.upper()}"
        assert row["meaning"], f"{name} has no description"


@pytest.mark.parametrize(
    ("table", "name", "row"),
    [
        ("settings", "redis_url", ("text, secret", "", None, None, None, True)),
        ("settings", "wechat_url", ("URL", "", None, None, "https://api.weixin.qq.com", False)),
        ("settings", "lanes", ("integer", "", 1, 1024, 16, False)),
        ("settings", "retention", ("duration", "seconds", 0, None, 14 * 86_400, False)),
        ("settings", "window", ("duration", "seconds", 0, None, 1, False)),
        ("settings", "error_budget", ("number", "", 0, 1, 0.5, False)),
        ("settings", "web_body_limit", ("integer", "bytes", 1024, 67_108_864, 1_048_576, False)),
        ("app", "secret", ("text, secret", "", None, None, None, True)),
        ("app", "wechat_url", ("URL", "", None, None, None, False)),
        ("app", "rate_per_second", ("number", "sends per second", None, None, 300, False)),
        ("app", "subscription_source", ("phone or events", "", None, None, "phone", False)),
        ("app", "subscribe_templates", ("JSON list", "", None, None, [], False)),
        ("app", "callback_plain", ("true or false", "", None, None, False, False)),
    ],
)
def test_a_row_says_type_unit_range_and_default(
    table: str, name: str, row: tuple[object, ...]
) -> None:
    found = described()[table][name]
    names = ("type", "unit", "least", "most", "default", "required")
    assert tuple(found[one] for one in names) == row


def test_what_is_excluded_is_told() -> None:
    found = described()["settings"]
    assert [name for name in ("window", "retention") if found[name]["above"]] == ["window"]


def test_people_read_defaults_in_words() -> None:
    rows = out("--markdown")
    for row in (
        "| `WXB_RETENTION` | seconds | 14 days |",
        "| `WXB_WEB_PORT` | integer, 0 to 65,535 | 8080 |",
        "| `WXB_WEB_STREAM_LIMIT` | bytes, 1024 or more | 1 GiB |",
        "| `WXB_POST_TIMEOUT` | seconds, more than 0 | 8 seconds |",
        "| `daily_limit` | per day, 0 to 1,000,000,000,000 | 10,000,000 |",
        "| `callback_plain` | true or false | false |",
        "| `secret` | text, secret | must be set |",
    ):
        assert row in rows


def test_the_tables_on_a_terminal_have_the_same_rows() -> None:
    shown = out()
    names = [row["variable"] for row in described()["settings"].values()]
    assert [name for name in (*names, *AppSettings.model_fields) if str(name) not in shown] == []


def test_the_tables_of_the_readme_are_what_it_prints() -> None:
    [block] = BLOCK.finditer(README.read_text("utf-8"))
    command, *args = block["args"].split()
    assert command == "settings"
    assert block["text"] == out(*args)


def test_markdown_or_json() -> None:
    done = CliRunner().invoke(app, ["settings", "--markdown", "--json"])
    assert done.exit_code == 2
    assert "one of them" in json.loads(done.stdout)["error"]
