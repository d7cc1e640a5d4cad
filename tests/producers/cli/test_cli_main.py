"""The command line as a whole: help, exit codes, settings, the catalogue of events."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from cli_runs import command, run
from typer.testing import CliRunner

from producers.cli import app
from producers.logs.events import catalogue
from producers.settings import Settings

COMMANDS = (
    "audience",
    "broadcast",
    "cancel",
    "collect",
    "demo",
    "events",
    "list",
    "pause",
    "resume",
    "sandbox",
    "settings",
    "status",
    "up",
)


HEAVY = {"aiohttp", "cryptography", "dramatiq", "pydantic", "redis", "structlog"}
"""What a command needs to work, and --help does not: each takes a tenth of a second or more."""


def test_help_answers_without_loading_what_commands_need_and_names_every_command() -> None:
    line = [sys.executable, "-X", "importtime", "-m", "producers.cli", "--help"]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    loaded = {row.rpartition("|")[2].strip().partition(".")[0] for row in done.stderr.splitlines()}
    assert "typer" in loaded
    assert loaded & HEAVY == set()
    assert all(name in done.stdout for name in COMMANDS)
    assert "Exit codes" in done.stdout


def test_the_version_is_told() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"wxbroadcast {version('wxbroadcast')}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0
    assert "--json" in result.stdout or name in {"audience", "sandbox", "up"}


def test_a_wrong_option_is_wrong_usage() -> None:
    assert CliRunner().invoke(app, ["status", "--nonsense"]).exit_code == 2


def test_missing_settings_are_named_without_a_traceback(tmp_path: Path) -> None:
    env = {name: text for name, text in os.environ.items() if not name.startswith("WXB_")}
    done = subprocess.run(
        command("status", "x", "--json"),
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "WXB_REDIS_URL" in done.stderr
    assert "WXB_APPS" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(json.loads(done.stdout)["faults"]) == 2


def test_a_deployment_of_other_lanes_is_refused(settings: Settings) -> None:
    run(settings, "audience", "list", "-a", "shop")
    ran = run(settings.model_copy(update={"lanes": 2}), "audience", "list", "-a", "shop")
    assert ran.code == 2
    assert "WXB_LANES" in ran.err


def test_the_catalogue_of_events_is_a_markdown_table() -> None:
    result = CliRunner().invoke(app, ["events"])
    _, catalogued, meant = result.stdout.split("\n\n")
    rows = catalogued.splitlines()
    assert rows[1] == "|---|---|---|---|"
    assert [row.split("`")[1] for row in rows[2:]] == [model.name() for model in catalogue()]
    assert "| `latency_ms` | from the request to its answer | ms |" in meant


def test_the_schema_of_events_is_json() -> None:
    result = CliRunner().invoke(app, ["events", "--schema"])
    schema = json.loads(result.stdout)
    assert len(schema["oneOf"]) == len(list(catalogue()))
    one_line = CliRunner().invoke(app, ["events", "--schema", "--json"]).stdout
    assert json.loads(one_line.splitlines()[-1]) == schema
    described = CliRunner().invoke(app, ["events", "--json"]).stdout
    assert len(json.loads(described.splitlines()[-1])["events"]) == len(schema["oneOf"])
