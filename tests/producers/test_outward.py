"""How services are called: login codes and the doctor by https and a proxy, and the settings."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificate import Certificate
from http_proxy import HttpProxy
from tls_way import tls_way
from yarl import URL

from producers.access.login_codes import LoginCodes
from producers.care.apps import examine_apps
from producers.care.check import Health
from producers.errors import SettingsError
from producers.outward import Outward
from producers.sandbox import SandboxConfig
from producers.sandbox.thread import SandboxThread
from producers.settings import Settings, load

NAME = "api.weixin.qq.com"
PASSWORD = "open-sesame-77"


@pytest.fixture
def authority(tmp_path: Path) -> Certificate:
    return Certificate(tmp_path / "ca", NAME)


@pytest.fixture
def tls(authority: Certificate) -> Iterator[str]:
    """Give ``host:port`` of a WeChat behind TLS."""
    with (
        SandboxThread(SandboxConfig(codes="any")) as sandbox,
        tls_way(sandbox.url, authority) as place,
    ):
        yield place


@pytest.fixture
async def proxy(tls: str) -> AsyncIterator[HttpProxy]:
    async with HttpProxy({f"{NAME}:443": tls}).open() as running:
        yield running


async def test_a_login_code_is_exchanged_through_the_proxy(
    proxy: HttpProxy, authority: Certificate, make_settings: Callable[..., Settings]
) -> None:
    codes = LoginCodes(make_settings(egress_proxy=proxy.url, egress_ca_file=authority.path))
    found = await codes.exchange("shop", "CODE-1")
    assert found.openid
    proxy.refusal = 403
    await codes.close()
    codes = LoginCodes(make_settings(egress_proxy=proxy.url, egress_ca_file=authority.path))
    refused = await codes.exchange("shop", "CODE-2")
    await codes.close()
    assert refused.error == "ProxyError 403"
    assert proxy.asked == [f"CONNECT {NAME}:443"] * 2


async def test_the_doctor_asks_wechat_through_the_proxy(
    proxy: HttpProxy, authority: Certificate, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(egress_proxy=proxy.url, egress_ca_file=authority.path)

    async def token() -> Any:
        checks = await asyncio.to_thread(examine_apps, settings)
        return next(check for check in checks if check.name == "app shop: token")

    assert (await token()).health is Health.OK
    proxy.refusal = 407
    assert "ProxyError 407" in (await token()).found


def test_without_settings_a_call_goes_as_ever(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    outward = Outward(make_settings())
    assert outward.tls is True
    assert outward.way(URL("https://api.weixin.qq.com/x")) == {}


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("WXB_EGRESS_PROXY", f"socks5://u:{PASSWORD}@h:1", "WXB_EGRESS_PROXY: must be http://host"),
        ("WXB_EGRESS_PROXY", f"http://u:{PASSWORD}@h", "WXB_EGRESS_PROXY: must be http://host"),
        ("WXB_EGRESS_PROXY", f"http://u:{PASSWORD}/@h:1", "WXB_EGRESS_PROXY: must be http://host"),
        ("WXB_EGRESS_PROXY", "http://h:99999", "WXB_EGRESS_PROXY: must be http://host"),
        ("HTTPS_PROXY", f"https://u:{PASSWORD}@h:1", "WXB_EGRESS_PROXY: HTTPS_PROXY must be http:"),
        ("WXB_EGRESS_CA_FILE", "/nowhere.pem", "WXB_EGRESS_CA_FILE: cannot be read: No such file"),
        ("WXB_EGRESS_CA_FILE", __file__, "WXB_EGRESS_CA_FILE: holds no certificate in PEM"),
    ],
)
def test_what_is_wrong_with_them_stops_the_start_and_shows_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WXB_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("WXB_APPS", json.dumps({"shop": {"appid": "wx1", "secret": "s"}}))
    if variable == "HTTPS_PROXY":
        monkeypatch.setenv("WXB_EGRESS_PROXY", "environment")
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        load()
    assert str(caught.value).startswith(told)
    assert PASSWORD not in repr(caught.value)
