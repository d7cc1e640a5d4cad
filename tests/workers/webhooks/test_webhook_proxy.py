"""Webhooks through a proxy: to an address that was looked at here, with the name's certificate."""

import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificate import Certificate
from http_proxy import HttpProxy
from tls_way import tls_way
from webhook_end import HERE, End, of_app

from producers.settings import Settings
from workers.webhooks.post import Answer, Poster

PUBLIC = "93.184.215.14"
URL = "https://hooks.example/hook?key=1"


@pytest.fixture
def end() -> Iterator[End]:
    with End().open() as running:
        yield running


@pytest.fixture
def authority(tmp_path: Path) -> Certificate:
    return Certificate(tmp_path / "ca", "hooks.example")


@pytest.fixture
def tls(end: End, authority: Certificate) -> Iterator[str]:
    with tls_way(end.url, authority) as place:
        yield place


@pytest.fixture
async def proxy(tls: str) -> AsyncIterator[HttpProxy]:
    async with HttpProxy({f"{PUBLIC}:443": tls}).open() as running:
        yield running


def looked_up(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Let every name have this address."""
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: Any, *_: Any, **__: Any) -> list[Any]:
        if host == "hooks.example":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))]
        return real(host, port, type=socket.SOCK_STREAM)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


async def posted(settings: Settings) -> Answer:
    poster = Poster(settings)
    answer = await poster.post("shop", "evt_1", int(time.time()), b'{"type": "x"}')
    await poster.close()
    return answer


async def test_a_tunnel_leads_to_the_address_that_was_looked_at(
    end: End,
    proxy: HttpProxy,
    authority: Certificate,
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_up(monkeypatch, PUBLIC)
    answer = await posted(
        make_settings(app=of_app(URL), egress_proxy=proxy.url, egress_ca_file=authority.path)
    )
    assert (answer.status, answer.error) == (204, "")
    assert proxy.asked == [f"CONNECT {PUBLIC}:443"]
    assert end.types == ["x"]
    assert end.hosts == ["hooks.example"]


async def test_an_address_inside_is_asked_of_no_proxy(
    end: End,
    proxy: HttpProxy,
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for inner in ("127.0.0.1", "169.254.169.254", "::ffff:10.0.0.1"):
        looked_up(monkeypatch, inner)
        answer = await posted(make_settings(app=of_app(URL), egress_proxy=proxy.url))
        assert answer.error == "forbidden address: see WXB_WEBHOOK_NETWORKS"
    answer = await posted(
        make_settings(app=of_app("https://127.0.0.1/hook"), egress_proxy=proxy.url)
    )
    assert answer.error == "forbidden address: see WXB_WEBHOOK_NETWORKS"
    assert proxy.heads == []
    assert end.came == []


async def test_another_name_s_certificate_is_posted_nothing(
    end: End, proxy: HttpProxy, authority: Certificate, make_settings: Callable[..., Settings]
) -> None:
    url = f"https://{PUBLIC}/hook"
    answer = await posted(
        make_settings(app=of_app(url), egress_proxy=proxy.url, egress_ca_file=authority.path)
    )
    assert answer.error.startswith("TLS: ")
    assert end.came == []


async def test_networks_of_the_settings_are_reached_past_the_proxy(
    end: End,
    tls: str,
    proxy: HttpProxy,
    authority: Certificate,
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_up(monkeypatch, "127.0.0.1")
    url = f"https://hooks.example:{tls.rpartition(':')[2]}/hook"
    answer = await posted(
        make_settings(
            app=of_app(url),
            webhook_networks=[HERE],
            egress_proxy=proxy.url,
            egress_ca_file=authority.path,
        )
    )
    assert answer.status == 204
    assert proxy.heads == []


async def test_what_the_proxy_refuses_is_said(
    proxy: HttpProxy, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up(monkeypatch, PUBLIC)
    proxy.refusal = 407
    answer = await posted(make_settings(app=of_app(URL), egress_proxy=proxy.url))
    assert (answer.status, answer.error) == (0, "ProxyError 407")
