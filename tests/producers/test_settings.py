"""The settings: read from the environment and .env, checked whole, and silent about secrets."""

import json
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from producers.errors import SettingsError, UnknownAppError
from producers.settings import Settings, load, ms
from producers.words import TokenSource

SECRET = "hush-hush-0123456789"
PASSWORD = "open-sesame-77"
SHOP = {"appid": "wx0000000000000001", "secret": SECRET}
URL = f"redis://:{PASSWORD}@redis.internal:6379/0"


@pytest.fixture(autouse=True)
def _away_from_any_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a function that sets variables, on top of a Redis and one app; None takes one away."""

    def put(**names: str | None) -> None:
        good = {"WXB_REDIS_URL": URL, "WXB_APPS": json.dumps({"shop": SHOP})}
        for name, value in {**good, **names}.items():
            if value is not None:
                monkeypatch.setenv(name, value)

    return put


def refusal(variables: Any, **names: str | None) -> str:
    """Load what must be refused; return the message, which tells no secret in any form."""
    variables(**names)
    with pytest.raises(SettingsError) as caught:
        load()
    error = caught.value
    told = [str(error), repr(error), *traceback.format_exception(error)]
    assert not [text for text in told if SECRET in text or PASSWORD in text]
    return str(error)


def shop(**more: Any) -> str:
    return json.dumps({"shop": {**SHOP, **more}})


def test_a_redis_and_one_app_are_enough_and_the_rest_has_the_stated_defaults(
    variables: Any,
) -> None:
    variables()
    settings = load()
    app = settings.app("shop")
    assert (app.appid, app.secret.get_secret_value()) == (SHOP["appid"], SECRET)
    assert settings.redis_url.get_secret_value() == URL
    assert settings.wechat_base("shop") == "https://api.weixin.qq.com"
    assert (settings.lanes, settings.buckets) == (16, 16384)
    assert settings.retention == timedelta(days=14)
    assert settings.window == timedelta(seconds=1)
    assert settings.canary == 10
    assert settings.post_timeout == timedelta(seconds=8)
    assert (app.rate_per_second, app.rate_per_minute, app.daily_limit) == (300, 0, 10_000_000)
    assert (app.day_starts_at_hour, app.day_zone) == (0, "Asia/Shanghai")
    assert app.token_source is TokenSource.STABLE
    assert (app.permits_per_user, app.subscription_source) == (100, "phone")


def test_every_field_of_an_app_can_stand_in_the_json(variables: Any) -> None:
    fields = {
        "wechat_url": "http://127.0.0.1:8070/base/",
        "rate_per_second": 2.5,
        "rate_per_minute": 100,
        "daily_limit": 0,
        "day_starts_at_hour": 8,
        "day_zone": "UTC",
        "token_source": "redis",
        "token_key": "their:token",
        "long_term_templates": ["T1", "T2"],
        "subscription_source": "events",
        "permits_per_user": 7,
        "retry_when_busy": False,
    }
    variables(WXB_APPS=shop(**fields))
    settings = load()
    app = settings.app("shop")
    assert settings.wechat_base("shop") == "http://127.0.0.1:8070/base"
    assert app.long_term_templates == ("T1", "T2")
    plain = {**fields, "long_term_templates": ("T1", "T2"), "wechat_url": app.wechat_url}
    assert {name: getattr(app, name) for name in fields} == plain


def test_several_apps_live_side_by_side_each_with_its_own_wechat(variables: Any) -> None:
    news = {"appid": "wx2", "secret": "s", "wechat_url": "http://127.0.0.1:1/"}
    variables(
        WXB_APPS=json.dumps({"shop": SHOP, "news": news}), WXB_WECHAT_URL="http://127.0.0.1:2"
    )
    settings = load()
    assert settings.wechat_base("shop") == "http://127.0.0.1:2"
    assert settings.wechat_base("news") == "http://127.0.0.1:1"


def test_fields_have_names_of_their_own(variables: Any) -> None:
    variables(
        WXB_APPS=None,
        WXB_APPS__SHOP__APPID="wx9",
        WXB_APPS__SHOP__SECRET=SECRET,
        WXB_APPS__SHOP__RATE_PER_SECOND="5",
        WXB_APPS__SHOP__LONG_TERM_TEMPLATES='["T1"]',
    )
    app = load().app("shop")
    assert (app.appid, app.rate_per_second, app.long_term_templates) == ("wx9", 5, ("T1",))


def test_a_field_s_own_name_wins_over_the_json(variables: Any) -> None:
    variables(WXB_APPS=shop(rate_per_second=5), WXB_APPS__SHOP__RATE_PER_SECOND="6")
    assert load().app("shop").rate_per_second == 6


def test_an_env_file_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        f"# the deployment\nWXB_REDIS_URL={URL}\nWXB_APPS='{shop()}'\nWXB_LANES=4\nOTHER=1\n"
    )
    settings = load()
    assert settings.lanes == 4
    assert settings.app("shop").secret.get_secret_value() == SECRET


def test_an_env_file_that_is_no_text_is_named_without_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(f"WXB_REDIS_URL={URL}".encode("utf-16"))
    with pytest.raises(SettingsError, match=r"^\.env: cannot be read as UTF-8 text") as caught:
        load()
    assert PASSWORD not in str(caught.value)


def test_another_env_file_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "prod.env"
    path.write_text(f"WXB_REDIS_URL={URL}\nWXB_APPS__SHOP__APPID=wx1\nWXB_APPS__SHOP__SECRET=s\n")
    assert load(path).app("shop").appid == "wx1"
    assert load(str(path)).app("shop").appid == "wx1"


@pytest.mark.parametrize(
    ("name", "in_file", "in_environment"),
    [
        ("WXB_CANARY", "3", "4"),
        ("WXB_APPS__SHOP__PERMITS_PER_USER", "3", "4"),
        ("WXB_APPS", shop(permits_per_user=3), shop(permits_per_user=4)),
    ],
)
def test_the_environment_wins_over_the_env_file(
    variables: Any, tmp_path: Path, name: str, in_file: str, in_environment: str
) -> None:
    (tmp_path / ".env").write_text(f"{name}='{in_file}'\n")
    variables(**{name: in_environment})
    settings = load()
    assert 4 in (settings.canary, settings.app("shop").permits_per_user)
    assert 3 not in (settings.canary, settings.app("shop").permits_per_user)


def test_app_fields_of_both_places_meet(variables: Any, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("WXB_APPS__SHOP__DAILY_LIMIT=9\n")
    variables(WXB_APPS__SHOP__RATE_PER_SECOND="8")
    app = load().app("shop")
    assert (app.daily_limit, app.rate_per_second) == (9, 8)


def test_the_settings_cannot_be_changed(variables: Any) -> None:
    variables()
    settings = load()
    with pytest.raises(ValidationError):
        settings.lanes = 2  # type: ignore[misc]
    with pytest.raises(ValidationError):
        settings.app("shop").appid = "wx2"  # type: ignore[misc]


def test_what_is_secret_shows_in_no_form(variables: Any) -> None:
    token_url = "http://tokens.internal/?key=s3cr3t-key"
    variables(WXB_APPS=shop(token_source="url", token_url=token_url))
    settings = load()
    for shown in (
        repr(settings),
        str(settings),
        settings.model_dump_json(),
        str(settings.model_dump()),
    ):
        for secret in (SECRET, PASSWORD, "s3cr3t-key"):
            assert secret not in shown


def test_an_unknown_app_names_those_that_there_are(variables: Any) -> None:
    variables()
    with pytest.raises(UnknownAppError, match=r"no app 'shoq' in WXB_APPS .*shop"):
        load().app("shoq")


@pytest.mark.parametrize(
    ("field", "meant"),
    [
        ("rate_persecond", "did you mean rate_per_second? "),
        ("app_id", "did you mean appid? "),
        ("colour", ""),
    ],
)
@pytest.mark.parametrize("place", ["json", "variable"])
def test_an_unknown_field_of_an_app_names_the_known_ones(
    variables: Any, place: str, field: str, meant: str
) -> None:
    name = f"WXB_APPS__SHOP__{field.upper()}"
    given = {name: "1"} if place == "variable" else {"WXB_APPS": shop(**{field: 1})}
    message = refusal(variables, **given)
    assert message.startswith(f"{name}: unknown; {meant}known are appid, secret, ")
    assert "daily_limit" in message
    assert "WXB_LANES" not in message


@pytest.mark.parametrize("place", ["environment", "file"])
@pytest.mark.parametrize("name", ["WXB_LANE", "WXB_REDIS", "WXB_LANES__X", "WXB_APP__SHOP__APPID"])
def test_an_unknown_name_is_refused_and_the_known_are_shown(
    variables: Any, tmp_path: Path, name: str, place: str
) -> None:
    if place == "file":
        (tmp_path / ".env").write_text(f"{name}=1\n")
        message = refusal(variables)
    else:
        message = refusal(variables, **{name: "1"})
    assert message.startswith(f"{name}: unknown")
    assert "WXB_LANES" in message


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"WXB_REDIS_URL": None}, ["WXB_REDIS_URL: ", "redis://host:6379/0"]),
        ({"WXB_APPS": None}, ["WXB_APPS: ", '{"shop": {"appid"']),
        ({"WXB_REDIS_URL": "localhost:6379"}, ["WXB_REDIS_URL: ", "redis://"]),
        ({"WXB_REDIS_URL": f"http://:{PASSWORD}@h"}, ["WXB_REDIS_URL: ", "redis://"]),
        ({"WXB_WECHAT_URL": "api.weixin.qq.com"}, ["WXB_WECHAT_URL: "]),
        ({"WXB_WECHAT_URL": "ftp://api.weixin.qq.com"}, ["WXB_WECHAT_URL: "]),
        ({"WXB_APPS": ""}, ["WXB_APPS: "]),
        ({"WXB_APPS": f"{{'shop': '{SECRET}'}}"}, ["WXB_APPS: ", "JSON"]),
        ({"WXB_APPS": "[]"}, ["WXB_APPS: "]),
        ({"WXB_APPS": "{}"}, ["WXB_APPS: "]),
        ({"WXB_APPS": json.dumps({"shop": SECRET})}, ["WXB_APPS__SHOP: "]),
        ({"WXB_APPS": json.dumps({"Shop!": SHOP})}, ["WXB_APPS__SHOP!: "]),
        ({"WXB_APPS": json.dumps({"shop": {"secret": SECRET}})}, ["WXB_APPS__SHOP__APPID: "]),
        ({"WXB_APPS": json.dumps({"shop": {"appid": "wx1"}})}, ["WXB_APPS__SHOP__SECRET: "]),
        ({"WXB_APPS": shop(appid="")}, ["WXB_APPS__SHOP__APPID: "]),
        ({"WXB_APPS": shop(app_id="wx1")}, ["WXB_APPS__SHOP__APP_ID: "]),
        ({"WXB_APPS": shop(wechat_url="nowhere")}, ["WXB_APPS__SHOP__WECHAT_URL: "]),
        ({"WXB_APPS": shop(rate_per_second=-1)}, ["WXB_APPS__SHOP__RATE_PER_SECOND: "]),
        ({"WXB_APPS": shop(rate_per_minute=-1)}, ["WXB_APPS__SHOP__RATE_PER_MINUTE: "]),
        ({"WXB_APPS": shop(daily_limit=-1)}, ["WXB_APPS__SHOP__DAILY_LIMIT: "]),
        ({"WXB_APPS": shop(day_starts_at_hour=24)}, ["WXB_APPS__SHOP__DAY_STARTS_AT_HOUR: "]),
        ({"WXB_APPS": shop(day_zone="Asia/Nowhere")}, ["WXB_APPS__SHOP__DAY_ZONE: ", "Shanghai"]),
        ({"WXB_APPS": shop(day_zone="../etc/passwd")}, ["WXB_APPS__SHOP__DAY_ZONE: "]),
        ({"WXB_APPS": shop(token_source="guess")}, ["WXB_APPS__SHOP__TOKEN_SOURCE: "]),
        ({"WXB_APPS": shop(token_source="url")}, ["WXB_APPS__SHOP", "set token_url"]),
        ({"WXB_APPS": shop(token_source="redis")}, ["WXB_APPS__SHOP", "set token_key"]),
        ({"WXB_APPS": shop(subscription_source="both")}, ["WXB_APPS__SHOP__SUBSCRIPTION_SOURCE"]),
        ({"WXB_APPS": shop(permits_per_user=0)}, ["WXB_APPS__SHOP__PERMITS_PER_USER: "]),
        ({"WXB_APPS__SHOP__RATE_PER_SECOND": "fast"}, ["WXB_APPS__SHOP__RATE_PER_SECOND: "]),
        ({"WXB_APPS__NEWS__SECRET": SECRET}, ["WXB_APPS__NEWS__APPID: "]),
        ({"WXB_APPS__SHOP__SPEED": "1"}, ["WXB_APPS__SHOP__SPEED: "]),
        ({"WXB_LANES": "0"}, ["WXB_LANES: "]),
        ({"WXB_LANES": "two"}, ["WXB_LANES: "]),
        ({"WXB_LANES": ""}, ["WXB_LANES: "]),
        ({"WXB_BUCKETS": "0"}, ["WXB_BUCKETS: "]),
        ({"WXB_LANES": "3"}, ["WXB_LANES", "WXB_BUCKETS", "multiple"]),
        ({"WXB_CANARY": "0"}, ["WXB_CANARY: "]),
        ({"WXB_IN_FLIGHT": "0"}, ["WXB_IN_FLIGHT: "]),
        ({"WXB_ATTEMPTS": "0"}, ["WXB_ATTEMPTS: "]),
        ({"WXB_LOG_SAMPLE": "1.5"}, ["WXB_LOG_SAMPLE: "]),
        ({"WXB_WINDOW": "soon"}, ["WXB_WINDOW: "]),
        ({"WXB_POST_TIMEOUT": "PT9S"}, ["WXB_POST_TIMEOUT: ", "8"]),
        ({"WXB_POST_TIMEOUT": "PT0S"}, ["WXB_POST_TIMEOUT: "]),
    ],
)
def test_a_wrong_setting_is_named_with_what_to_set(
    variables: Any, names: dict[str, str | None], said: list[str]
) -> None:
    message = refusal(variables, **names)
    for part in said:
        assert part in message


def test_all_faults_come_at_once(variables: Any) -> None:
    message = refusal(
        variables,
        WXB_REDIS_URL=None,
        WXB_LANES="0",
        WXB_TYPO="1",
        WXB_APPS=shop(rate_per_second=-1),
    )
    for name in ("WXB_REDIS_URL", "WXB_LANES", "WXB_TYPO", "WXB_APPS__SHOP__RATE_PER_SECOND"):
        assert any(line.startswith(f"{name}: ") for line in message.splitlines())


@pytest.mark.parametrize(
    ("written", "duration"),
    [
        ("2", timedelta(seconds=2)),
        ("0.5", timedelta(seconds=0.5)),
        ("PT2S", timedelta(seconds=2)),
        ("PT0.5S", timedelta(seconds=0.5)),
    ],
)
@pytest.mark.parametrize("name", ["window", "post_timeout", "redis_timeout", "connect_timeout"])
def test_a_duration_is_seconds_or_iso_8601(
    variables: Any, name: str, written: str, duration: timedelta
) -> None:
    variables(**{f"WXB_{name.upper()}": written})
    assert getattr(load(), name) == duration


def test_a_retention_can_be_written_in_days(variables: Any) -> None:
    variables(WXB_RETENTION="P30D")
    assert load().retention == timedelta(days=30)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WXB_REDIS_TIMEOUT", "PT0S"),
        ("WXB_REDIS_TIMEOUT", "-PT1S"),
        ("WXB_CONNECT_TIMEOUT", "PT0S"),
        ("WXB_WINDOW", "-PT1S"),
        ("WXB_RETENTION", "-P1D"),
        ("WXB_PERMIT_MARGIN", "-PT1S"),
        ("WXB_REDIS_URL", f"redis://:{PASSWORD}@redis.internal:port/0"),
        ("WXB_APPS__SHOP__SECRET", ""),
        ("WXB_APPS__SHOP__RATE_PER_SECOND", "inf"),
        ("WXB_APPS__SHOP__LONG_TERM_TEMPLATES", "T1,T2"),
    ],
)
def test_what_could_never_work_stops_the_start(variables: Any, name: str, value: str) -> None:
    assert f"{name}: " in refusal(variables, **{name: value})


def test_a_token_url_must_be_one(variables: Any) -> None:
    message = refusal(variables, WXB_APPS=shop(token_source="url", token_url="nowhere"))
    assert "WXB_APPS__SHOP" in message


def test_durations_are_milliseconds_inside() -> None:
    assert ms(timedelta(seconds=1.5)) == 1500
    assert ms(timedelta(microseconds=600)) == 1


def test_every_setting_says_what_it_is() -> None:
    app = Settings.model_fields["apps"].annotation.__args__[1]  # type: ignore[union-attr]
    for model in (Settings, app):
        assert [name for name, field in model.model_fields.items() if not field.description] == []
