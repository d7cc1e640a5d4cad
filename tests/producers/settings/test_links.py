"""What Kubernetes sets for its Services is no setting, and what is nearly one is a fault still."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from log_lines import recorded

from producers.errors import SettingsError
from producers.settings import load
from producers.settings.links import is_link, links

GOOD = {
    "WXB_REDIS_URL": "redis://127.0.0.1:1/0",
    "WXB_APPS": json.dumps({"shop": {"appid": "wx1", "secret": "s"}}),
}
LEFT_BY_KUBERNETES = {
    "WXB_WEB_SERVICE_HOST": "10.96.0.17",
    "WXB_WEB_SERVICE_PORT": "80",
    "WXB_WEB_SERVICE_PORT_HTTP": "80",
    "WXB_WEB_PORT": "tcp://10.96.0.17:80",
    "WXB_WEB_PORT_80_TCP": "tcp://10.96.0.17:80",
    "WXB_WEB_PORT_80_TCP_PROTO": "tcp",
    "WXB_WEB_PORT_80_TCP_PORT": "80",
    "WXB_WEB_PORT_80_TCP_ADDR": "10.96.0.17",
    "WXB_METRICS_PORT": "tcp://[fd00::11]:9100",
    "WXB_VALKEY_0_PORT_6379_TCP": "tcp://10.96.0.18:6379",
}


@pytest.fixture(autouse=True)
def _good_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)


def test_service_links_set_nothing_and_are_named_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in LEFT_BY_KUBERNETES.items():
        monkeypatch.setenv(name, value)
    with recorded(tmp_path) as lines:
        settings = load()
    assert (settings.web_port, settings.metrics_port) == (8080, 0)
    [line] = lines()
    assert line["event"] == "settings_links_ignored"
    assert line["many"] == len(LEFT_BY_KUBERNETES)
    assert line["links"].split(", ") == sorted(LEFT_BY_KUBERNETES)


def test_a_setting_of_the_file_holds_beside_a_link_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("WXB_WEB_PORT=8081\n")
    monkeypatch.setenv("WXB_WEB_PORT", "tcp://10.96.0.17:80")
    assert load().web_port == 8081


def test_without_links_nothing_is_said(tmp_path: Path) -> None:
    with recorded(tmp_path) as lines:
        load()
    assert lines() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WXB_WEB_PORTS", "tcp://10.0.0.1:80"),
        ("WXB_WEB_PORT_80", "tcp://10.0.0.1:80"),
        ("WXB_WEB_SERVICE_HOSTS", "10.0.0.1"),
        ("WXB_WEB_PORT_HTTP", "80"),
        ("WXB_WEB_PORT", "10.0.0.1:80"),
        ("WXB_WEB_PORT", "http://10.0.0.1:80"),
    ],
)
def test_what_is_no_link_stops_the_start_as_ever(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}: "):
        load()


def test_a_link_is_known_in_any_case_and_only_with_the_prefix() -> None:
    assert is_link("wxb_web_port_80_tcp", None)
    assert links({"HOME": "/", "WEB_SERVICE_HOST": "h", "wxb_web_service_host": "h"}, "WXB_") == [
        "wxb_web_service_host"
    ]


def test_a_command_starts_beside_them_and_says_so_on_stderr() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "producers.cli", "apps", "list", "--json"],
        env=os.environ | LEFT_BY_KUBERNETES,
        capture_output=True,
        text=True,
        check=True,
        timeout=25,
    )
    assert json.loads(ran.stdout)
    [line] = [json.loads(text) for text in ran.stderr.splitlines()]
    assert (line["event"], line["level"]) == ("settings_links_ignored", "warning")
