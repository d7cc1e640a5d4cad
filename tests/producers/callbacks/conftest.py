"""Callbacks of an app that lets WeChat's events count, on one lane and on four."""

from collections.abc import Callable
from typing import Any

import pytest
import samples
from wechat_pushes import AES_KEY, TOKEN, Desk

from producers.settings import Settings


@pytest.fixture
def open_desk(client: Any, make_settings: Callable[..., Settings]) -> Callable[..., Desk]:
    """Give a maker of desks: fields of the app, `lanes`, and other settings."""

    def make(*, key: bool = False, settings: dict[str, Any] | None = None, **app: Any) -> Desk:
        fields = {"callback_token": TOKEN, "subscription_source": "events", **app}
        if key:
            fields["callback_aes_key"] = AES_KEY
        return Desk(client, make_settings(app=fields, **(settings or {})))

    return make


@pytest.fixture(params=[1, 4])
def desk(request: pytest.FixtureRequest, open_desk: Callable[..., Desk], client: Any) -> Desk:
    """Plain mode, on one lane and on four."""
    client.flushall()
    return open_desk(settings={"lanes": request.param})


@pytest.fixture
def secure(open_desk: Callable[..., Desk]) -> Desk:
    """Secure mode."""
    return open_desk(key=True)


@pytest.fixture(scope="session")
def cases() -> list[dict[str, Any]]:
    """Real samples, where they are at hand."""
    if not samples.CASES.is_file():
        pytest.skip(samples.ABSENT)
    return samples.cases()
