"""The settings of webhooks are checked at the start, and never shown."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError
from webhook_end import SECRET

from producers.settings import AppSettings, Settings, faults_of, signing_keys

URL = "https://hooks.example/in?token=hush-hush"


def app(**fields: Any) -> AppSettings:
    return AppSettings.model_validate({"appid": "wx1", "secret": "s", **fields})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"webhook_url": URL}, "set both"),
        ({"webhook_secret": SECRET}, "set both"),
        ({"webhook_url": "hooks.example", "webhook_secret": SECRET}, "must be a URL"),
        ({"webhook_url": "https://u:p@hooks.example", "webhook_secret": SECRET}, "password"),
        ({"webhook_url": "ftp://hooks.example", "webhook_secret": SECRET}, "must be a URL"),
        ({"webhook_url": URL, "webhook_secret": "secret"}, "whsec_ and"),
        ({"webhook_url": URL, "webhook_secret": "whsec_c2hvcnQ="}, "24 to 64"),
        ({"webhook_url": URL, "webhook_secret": "whsec_!!!!"}, "whsec_ and"),
        ({"webhook_url": URL, "webhook_secret": " ".join([SECRET] * 4)}, "two or three"),
        ({"webhook_url": URL, "webhook_secret": SECRET, "webhook_events": ["x"]}, "broadcast"),
        ({"webhook_url": URL, "webhook_secret": SECRET, "webhook_events": []}, "at least 1"),
    ],
)
def test_a_wrong_setting_says_what_to_set(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says) as caught:
        app(**fields)
    told = " ".join(faults_of(caught.value))
    assert "hush-hush" not in told
    assert SECRET not in told


def test_url_and_secret_are_never_shown() -> None:
    shown = repr(app(webhook_url=URL, webhook_secret=SECRET))
    assert "hush-hush" not in shown
    assert SECRET not in shown


def test_keys_are_the_bytes_of_the_secrets() -> None:
    keys = signing_keys(f"{SECRET} whsec_{'a' * 32}")
    assert [len(key) for key in keys] == [32, 24]


def test_clear_text_is_for_ones_own_networks(make_settings: Callable[..., Settings]) -> None:
    own = {"webhook_url": "http://10.1.2.3/", "webhook_secret": SECRET}
    with pytest.raises(ValidationError, match="WXB_WEBHOOK_NETWORKS"):
        make_settings(app=own)
    assert make_settings(app=own, webhook_networks=["10.1.0.0/16"]).webhook_networks
