"""The apps' file: read whole or not at all, followed by looking, and silent about secrets."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from producers.errors import InvalidInputError, SettingsError
from producers.logs import lines as log_lines
from producers.settings import AppsFile, Settings, load
from producers.settings.apps_file import Change, check, parse, read

Lines = Callable[[str], list[Any]]

SECRET = "hush-hush-0123456789"
SIGNING = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
URL = "redis://localhost:6379/0"
TOML = f"""
[shop]
appid = "wx1"
secret = "{SECRET}"
rate_per_second = 2.5
subscribe_templates = ["T1"]

[news]
appid = "wx2"
secret = "{SECRET}"
"""


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Give a function that returns what was logged of an event."""
    log_lines._state.clear()
    with capture_logs() as captured:
        yield lambda event: [line for line in captured if line["event"] == event]


def app(number: int, **more: Any) -> dict[str, Any]:
    return {"appid": f"wx{number}", "secret": SECRET, **more}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give a file of two apps that has rested for a while."""
    path = tmp_path / "apps.toml"
    return put(path, TOML)


def put(path: Path, text: str | dict[str, Any]) -> Path:
    """Write it in place."""
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return path


def settings_of(file: Path, **more: Any) -> Settings:
    return Settings(_env_file=None, redis_url=URL, apps_file=file, **more)  # type: ignore[call-arg]


@pytest.fixture
def settings(file: Path) -> Settings:
    return settings_of(file)


@pytest.fixture
def follower(settings: Settings) -> AppsFile:
    found = settings.follow_apps()
    assert found is not None
    return found


def looked(follower: AppsFile) -> None:
    """Look as often as it takes for what was just written to count."""
    for _ in range(2):
        follower.look()


def faults(raw: bytes | str, **how: bool) -> list[str]:
    raw = raw if isinstance(raw, bytes) else raw.encode()
    with pytest.raises(InvalidInputError) as caught:
        check(parse(raw), private=how.get("private", False))
    assert SECRET not in repr(caught.value)
    return list(caught.value.faults)


def test_toml_and_json_say_the_same(tmp_path: Path, settings: Settings) -> None:
    assert settings.app("shop").rate_per_second == 2.5
    assert settings.app("shop").subscribe_templates == ("T1",)
    fields = {"rate_per_second": 2.5, "subscribe_templates": ["T1"]}
    other = settings_of(put(tmp_path / "apps", {"shop": app(1, **fields), "news": app(2)}))
    assert dict(other.apps) == dict(settings.apps)
    assert other.apps.digest == settings.apps.digest


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("", "it is empty"),
        ("{}", "there is no app in it"),
        ("# nothing yet\n", "there is no app in it"),
        (b"\xff\xfe[\x00s\x00", "not UTF-8"),
        (f'[shop]\nappid = "wx1"\nsecret = "{SECRET}', "not TOML: "),
        (f'{{"shop": {{"secret": "{SECRET}"', "not JSON: "),
        ('{"a": {}, "a": {}}', "a stands twice in one object"),
        ('[a]\nappid = "x"\n[a]\n', "not TOML: Cannot declare ('a',) twice"),
        ("{" + '"a":{' * 100_000, "too deeply nested"),
        ('{"a": ' + "1" * 5000 + "}", "it holds a number of thousands of digits"),
        ("a = " + "1" * 5000, "it holds a number of thousands of digits"),
        (
            f'[a]\nappid = "x"\nsecret = "{SECRET}"\ndaily_limit = 1{"0" * 300}',
            "a.daily_limit: Input should be less than or equal to 1000000000000",
        ),
        ('{"a": {"appid": "x", "secret": "\\ud800"}}', "a: secret: half a character"),
        (f'[shop]\nappid = "wx1"\nsecret = "{SECRET}"\nrates = 1\n', "shop.rates: unknown; "),
        (f'[shop]\nsecret = "{SECRET}"\n', "shop.appid: Field required (set: the mini-program's"),
        (f'[Shop]\nappid = "wx1"\nsecret = "{SECRET}"\n', "Shop: an alias is 1-32 of a-z, "),
        ("shop = 3\n", "shop: "),
        (
            TOML + f'webhook_url="http://10.0.0.1/h"\nwebhook_secret="{SIGNING}"',
            "webhook_url of news: http:// is for networks of yours",
        ),
    ],
)
def test_each_fault_is_named_by_where_it_stands_and_no_value_is(
    raw: bytes | str, said: str
) -> None:
    [fault] = faults(raw)
    assert fault.startswith(said)


def test_a_pipe_in_the_place_of_the_file_is_refused_and_keeps_nobody_waiting(
    tmp_path: Path,
) -> None:
    os.mkfifo(tmp_path / "apps")
    with pytest.raises(InvalidInputError, match="apps is no regular file; write the apps to one"):
        read(tmp_path / "apps", private=False)


def test_all_faults_are_told_at_once_and_a_mark_at_the_beginning_is_none() -> None:
    found = faults('﻿[a]\nsecret = 3\n[b]\nrate_per_second = "fast"\n')
    assert [one.partition(":")[0] for one in found] == [
        "a.appid",
        "a.secret",
        "b.appid",
        "b.secret",
        "b.rate_per_second",
    ]


def test_a_file_that_is_not_there_or_wrong_is_a_clear_error_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WXB_REDIS_URL", URL)
    monkeypatch.setenv("WXB_APPS_FILE", "apps.json")
    with pytest.raises(SettingsError, match=r"^WXB_APPS_FILE: apps\.json: .*No such file"):
        load()
    put(tmp_path / "apps.json", {"shop": {"appid": "wx1"}, "News": app(1)})
    with pytest.raises(SettingsError) as caught:
        load()
    first, second = str(caught.value).splitlines()
    assert first.startswith("WXB_APPS_FILE: apps.json: shop.secret: Field required")
    assert second.startswith("WXB_APPS_FILE: apps.json: News: an alias is")
    put(tmp_path / "apps.json", {"shop": app(1)})
    assert list(load().apps) == ["shop"]
    monkeypatch.setenv("WXB_APPS", json.dumps({"shop": app(1)}))
    with pytest.raises(SettingsError, match="WXB_APPS: WXB_APPS_FILE is set too"):
        load()
    monkeypatch.delenv("WXB_APPS")
    monkeypatch.setenv("WXB_APPS__SHOP__RATE_PER_SECOND", "3")
    with pytest.raises(SettingsError, match="WXB_APPS"):
        load()


def test_what_changed_is_there_for_all_who_hold_the_settings(
    file: Path, settings: Settings, follower: AppsFile, lines: Lines
) -> None:
    shared = settings.model_copy(update={"lanes": 2})
    news = settings.app("news")
    looked(follower)
    assert lines("apps_changed") == []
    put(file, TOML.replace("2.5", "7") + f'[cafe]\nappid = "wx3"\nsecret = "{SECRET}"\n')
    looked(follower)
    assert shared.app("shop").rate_per_second == 7
    assert sorted(shared.apps) == ["cafe", "news", "shop"]
    assert shared.app("news") is news
    [line] = lines("apps_changed")
    assert (line["apps"], line["came"], line["changed"]) == (3, "cafe", "shop")
    assert line["digest"] == settings.apps.digest
    assert SECRET not in json.dumps(line)
    put(file, {"shop": app(1)})
    looked(follower)
    assert list(settings.apps) == ["shop"]
    assert lines("apps_changed")[-1]["went"] == "cafe, news"


def test_a_file_with_a_fault_is_refused_whole_and_told_once(
    file: Path, settings: Settings, follower: AppsFile, lines: Lines
) -> None:
    put(file, TOML.replace('appid = "wx2"', "appid = 2") + "[cafe]\n")
    for _ in range(4):
        follower.look()
    assert sorted(settings.apps) == ["news", "shop"]
    [line] = lines("apps_refused")
    assert line["many"] == 3
    assert "news.appid: " in line["faults"]
    assert "cafe.secret: Field required" in line["faults"]
    assert SECRET not in json.dumps(line)
    put(file, TOML.replace("2.5", "9"))
    looked(follower)
    assert settings.app("shop").rate_per_second == 9


def test_an_alias_does_not_become_another_mini_program(
    file: Path, settings: Settings, follower: AppsFile, lines: Lines
) -> None:
    put(file, TOML.replace('"wx2"', '"wx7"').replace("2.5", "9"))
    looked(follower)
    assert settings.app("news").appid == "wx2"
    assert settings.app("shop").rate_per_second == 2.5
    assert "news.appid: it is that of another mini-program" in lines("apps_refused")[0]["faults"]
    put(file, {"shop": app(1)})  # nor after it was away
    looked(follower)
    put(file, {"shop": app(1), "news": app(7)})
    looked(follower)
    assert list(settings.apps) == ["shop"]
    put(file, {"shop": app(1), "news": app(2)})
    looked(follower)
    assert settings.app("news").appid == "wx2"


def test_half_a_file_that_is_whole_toml_takes_no_app_away(
    file: Path, settings: Settings, follower: AppsFile, lines: Lines
) -> None:
    """Somebody writes it in place, and is seen in the middle of it."""
    put(file, TOML[: TOML.index("[news]")])
    follower.look()
    assert sorted(settings.apps) == ["news", "shop"]
    put(file, TOML)
    looked(follower)
    assert sorted(settings.apps) == ["news", "shop"]
    assert lines("apps_changed") == []
    assert lines("apps_refused") == []


def test_a_file_that_rests_counts_at_the_first_look(
    file: Path, settings: Settings, follower: AppsFile, eventually: Any
) -> None:
    """A producer may look once an hour, at its call."""
    put(file, {"shop": app(1), "cafe": app(3)})
    rested = file.stat().st_ctime + 1.05
    eventually(lambda: time.time() > rested, "it was not touched for a second")
    follower.look()
    assert sorted(settings.apps) == ["cafe", "shop"]


def test_a_file_that_vanishes_leaves_the_apps_as_they_were(
    file: Path, settings: Settings, follower: AppsFile, lines: Lines
) -> None:
    looked(follower)
    file.unlink()
    follower.look()
    assert lines("apps_refused") == []  # a moment between two files
    for _ in range(4):
        follower.look()
    assert sorted(settings.apps) == ["news", "shop"]
    [line] = lines("apps_refused")
    assert line["faults"] == "apps.toml cannot be read: No such file or directory"
    put(file, {"shop": app(1)})
    looked(follower)
    assert list(settings.apps) == ["shop"]


def test_the_links_of_a_mounted_secret_are_followed(tmp_path: Path, lines: Lines) -> None:
    """Kubernetes: apps.toml → ..data/apps.toml, and ..data → a folder that is swapped for one."""

    def mount(name: str, text: str) -> None:
        (tmp_path / name).mkdir()
        put(tmp_path / name / "apps.toml", text)
        (tmp_path / "..new").symlink_to(name)
        (tmp_path / "..new").rename(tmp_path / "..data")

    mount("..2026_1", TOML)
    (tmp_path / "apps.toml").symlink_to("..data/apps.toml")
    settings = settings_of(tmp_path / "apps.toml")
    follower = settings.follow_apps()
    assert follower is not None
    looked(follower)
    mount("..2026_2", TOML.replace("2.5", "8"))
    looked(follower)
    assert settings.app("shop").rate_per_second == 8
    put(tmp_path / "moved", TOML.replace("2.5", "6")).rename(tmp_path / "..2026_2" / "apps.toml")
    looked(follower)
    assert settings.app("shop").rate_per_second == 6


def test_the_digest_tells_of_secrets_too_and_nothing_about_them(settings: Settings) -> None:
    other = check(parse(TOML.replace(SECRET, "another", 1).encode()), private=False)
    before = settings.apps.digest
    assert settings.apps.digest == before
    assert len(before) == 16
    settings.apps.put(other)
    assert settings.apps.digest != before
    assert Change.of(other, settings.apps.now).is_one is False
    assert repr(settings.apps) == "Apps(shop, news)"
    assert SECRET not in repr(settings)


def test_a_look_at_five_hundred_apps_costs_nothing_while_they_rest(
    tmp_path: Path, eventually: Any
) -> None:
    path = put(tmp_path / "apps.json", {f"app{n}": app(n) for n in range(500)})
    began = time.process_time()
    settings = settings_of(path)
    assert time.process_time() - began < 0.5  # 10 ms
    follower = settings.follow_apps()
    assert follower is not None
    rested = path.stat().st_ctime + 1.05
    eventually(lambda: time.time() > rested, "it was not touched for a second")
    follower.look()
    began = time.process_time()
    for _ in range(100):
        follower.look()
    assert (time.process_time() - began) / 100 < 0.001  # a stat: 5 us
