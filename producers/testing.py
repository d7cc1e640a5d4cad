"""Testing: pytest fixtures for suites of your own, with a real Valkey and a local WeChat.

``pip install 'wxbroadcast[local]' pytest``, and they are there (else say ``pytest_plugins =
["producers.testing"]``)::

    def test_everybody_who_subscribed_is_reminded(wxbroadcast):
        wxbroadcast.producer.collect("shop", [{"openid": "oA", "subscriptions": {"T": "accept"}}])
        remind_everybody()  # your code, with a Producer of its own
        assert wxbroadcast.wait().outcomes == {"delivered": 1}
        [message] = wxbroadcast.wechat.received("oA")
        assert message["data"]["thing1"] == {"value": "每日签到"}

Other settings than those of one app `shop`, for instance your own aliases and templates::

    @pytest.fixture(scope="session")
    def wxbroadcast_settings():
        return {"apps": {"club": {"long_term_templates": ["T"]}}}

Each test finds it empty. The WXB_ variables lead to it while a test runs, and nowhere else; a
Producer that leads elsewhere, because it was called before the test, says so and sends nothing.
For a backend in another language ``wxbroadcast.serve()`` gives the URL of the HTTP service, and
``wxbroadcast.api_key()`` a key to it. `producers.local.Local` is the same without pytest.
"""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from producers.local import Local

__all__ = ["wxbroadcast", "wxbroadcast_local", "wxbroadcast_settings"]


@pytest.fixture(scope="session")
def wxbroadcast_settings() -> dict[str, Any]:
    """Give the fields of `producers.settings.Settings` to run with; override it."""
    return {}


@pytest.fixture(scope="session")
def wxbroadcast_local(
    wxbroadcast_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> "Iterator[Local]":
    """Give the deployment of this run; a test takes `wxbroadcast`, which is clean."""
    from producers.local import Local  # noqa: PLC0415 - every pytest run here loads this module

    folder = tmp_path_factory.mktemp("wxbroadcast")
    with Local(folder, **wxbroadcast_settings) as local:
        yield local


@pytest.fixture
def wxbroadcast(wxbroadcast_local: "Local", monkeypatch: pytest.MonkeyPatch) -> "Iterator[Local]":
    """Give a `producers.local.Local`, empty; ``Producer()`` and other processes find it too."""
    for name in list(os.environ):
        if name.startswith("WXB_"):
            monkeypatch.delenv(name)
    for name, text in wxbroadcast_local.variables.items():
        monkeypatch.setenv(name, text)
    from producers import producer  # noqa: PLC0415

    producer.confine(wxbroadcast_local.variables["WXB_REDIS_URL"])
    try:
        yield wxbroadcast_local
    finally:
        producer.confine(None)
        wxbroadcast_local.clean()
