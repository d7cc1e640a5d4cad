"""The pytest plugin, as a suite of somebody else's uses it."""

import os
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
import redis

from producers.settings import Settings
from producers.store import keys

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(120)

BACKEND = """
from producers import Producer


def remind_everybody():
    with Producer() as producer:  # settings from the environment, as in production
        producer.broadcast(
            app="shop",
            channel="subscribe",
            template_id="REMIND",
            audience="all",
            data={"thing1": "每日签到"},
            key="today",
        )
"""
SUITE = """
import os

from backend import remind_everybody


def test_everybody_who_subscribed_is_reminded(wxbroadcast):
    wxbroadcast.producer.collect(
        "shop", [{"openid": "oA", "subscriptions": {"REMIND": "accept"}}]
    )
    remind_everybody()
    remind_everybody()
    assert wxbroadcast.wait().outcomes == {"delivered": 1}
    [message] = wxbroadcast.wechat.received("oA")
    assert message["data"]["thing1"] == {"value": "每日签到"}


def test_a_refusal_is_no_delivery(wxbroadcast):
    uploads = [{"openid": one, "subscriptions": {"REMIND": "accept"}} for one in ("oA", "oB")]
    wxbroadcast.producer.collect("shop", uploads)
    wxbroadcast.wechat.fail({"action": "errcode", "errcode": 43101, "openid": "oB"})
    remind_everybody()
    assert wxbroadcast.wait().outcomes == {"delivered": 1, "refused": 1}
    assert wxbroadcast.wechat.counts() == {"oA": 1}


def test_without_it_nothing_of_it_is_there():
    assert os.environ["WXB_REDIS_URL"] == "redis://production:6379/0"
"""
OWN_SETTINGS = """
import pytest


@pytest.fixture(scope="session")
def wxbroadcast_settings():
    return {"lanes": 2, "apps": {"club": {"appid": "wxclub", "long_term_templates": ["T"]}}}
"""
CLUB = """
def test_one_accept_of_a_long_term_template_serves_many(wxbroadcast):
    wxbroadcast.producer.collect("club", [{"openid": "oA", "subscriptions": {"T": "accept"}}])
    for key in "abc":
        created = wxbroadcast.producer.broadcast(
            app="club", channel="subscribe", template_id="T", audience="all",
            data={"thing1": "x"}, key=key,
        )
        assert wxbroadcast.wait(created.id).outcomes == {"delivered": 1}
    assert wxbroadcast.wechat.counts() == {"oA": 3}
"""


def run(
    folder: Path, *options: str, env: dict[str, str] | None = None, **files: str
) -> subprocess.CompletedProcess[str]:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    clean = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", *options],
        cwd=folder,
        env={
            **clean,
            "PYTHONPATH": str(ROOT),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # of this machine's plugins: ours is named
            "WXB_REDIS_URL": "redis://production:6379/0",
            "WXB_LANES": "7",
            **(env or {}),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_a_backends_own_code_is_tested_in_ten_lines(tmp_path: Path) -> None:
    done = run(tmp_path, "-p", "producers.testing", backend=BACKEND, test_backend=SUITE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


MODULE_LEVEL = """
from functools import partial

from producers import Producer

producer = Producer()  # one per program, made where the module is loaded
remind = partial(
    producer.broadcast,
    app="shop",
    channel="subscribe",
    template_id="REMIND",
    audience="all",
    data={"thing1": "a"},
)
"""


def test_a_producer_of_a_module_leads_to_the_tests_deployment(tmp_path: Path) -> None:
    suite = """
    from backend import remind


    def test_everybody_is_reminded(wxbroadcast):
        upload = {"openid": "oA", "subscriptions": {"REMIND": "accept"}}
        wxbroadcast.producer.collect("shop", [upload])
        remind()
        assert wxbroadcast.wait().outcomes == {"delivered": 1}
    """
    done = run(tmp_path, "-p", "producers.testing", backend=MODULE_LEVEL, test_backend=suite)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_producer_that_leads_elsewhere_sends_nothing_from_a_test(
    tmp_path: Path, settings: Settings, client: "redis.Redis"
) -> None:
    url = settings.redis_url.get_secret_value()
    live = {"WXB_REDIS_URL": url, "WXB_LANES": "1", "WXB_BUCKETS": "256"}
    live["WXB_APPS"] = '{"shop": {"appid": "wx1", "secret": "s"}}'
    suite = """
    import pytest
    from backend import producer, remind
    from producers.errors import SettingsError

    producer.collect("shop", [{"openid": "oA", "subscriptions": {"REMIND": "accept"}}])


    def test_everybody_is_reminded(wxbroadcast):
        with pytest.raises(SettingsError, match="within the test"):
            remind()


    def test_without_the_fixture_it_goes_where_it_went():
        assert producer.count_audience("shop", "all") == 1
    """
    done = run(
        tmp_path, "-p", "producers.testing", env=live, backend=MODULE_LEVEL, test_backend=suite
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert client.zcard(keys.history("shop")) == 0


def test_a_suite_has_settings_of_its_own(tmp_path: Path) -> None:
    plugin = 'pytest_plugins = ["producers.testing"]\n'
    done = run(tmp_path, conftest=plugin + OWN_SETTINGS, test_club=CLUB)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_whoever_does_not_use_it_loads_nothing_but_the_plugin(tmp_path: Path) -> None:
    suite = """
    import sys

    def test_it():
        loaded = {name for name in sys.modules if name.partition(".")[0] == "producers"}
        assert loaded == {"producers", "producers.testing"}
        assert not {"aiohttp", "redis", "pydantic"} & set(sys.modules)
    """
    done = run(tmp_path, "-p", "producers.testing", test_none=suite)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_installed_package_brings_it_along() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    [(name, module)] = project["entry-points"]["pytest11"].items()
    assert name == module == "producers.testing"


def test_no_other_module_of_ours_needs_pytest() -> None:
    users = [
        path.relative_to(ROOT).as_posix()
        for package in ("producers", "workers")
        for path in (ROOT / package).rglob("*.py")
        if "import pytest" in path.read_text("utf-8")
    ]
    assert users == ["producers/testing.py"]
