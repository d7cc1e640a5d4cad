"""Where webhooks may go: the address that is connected to is looked at, each time."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest
from webhook_end import HERE, End, of_app

from producers.settings import Settings
from workers.webhooks.addresses import ForbiddenAddressError, Resolver, is_address, is_allowed
from workers.webhooks.post import Poster


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",  # where clouds keep credentials
        "100.64.0.1",
        "0.0.0.0",  # noqa: S104
        "255.255.255.255",
        "224.0.0.1",
        "240.0.0.1",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::10.0.0.1",
        "2002:7f00:1::1",
        "no address",
        "",
    ],
)
def test_no_private_address_is_reached(address: str) -> None:
    assert not is_allowed(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
def test_public_addresses_are(address: str) -> None:
    assert is_allowed(address)


def test_networks_of_the_settings_are_and_no_others() -> None:
    networks = [ip_network("10.1.0.0/16"), ip_network("fd00::/8")]
    assert is_allowed("10.1.2.3", networks)
    assert is_allowed("::ffff:10.1.2.3", networks)
    assert is_allowed("fd00::5", networks)
    assert not is_allowed("10.2.0.1", networks)
    assert not is_allowed("127.0.0.1", networks)


def test_an_address_is_told_from_a_name() -> None:
    assert is_address("[::1]")
    assert is_address("10.0.0.1")
    assert not is_address("example.com")
    assert not is_address("2130706433")  # which the name server's library takes for 127.0.0.1


def answers(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Let each look-up of a name give the next address; return the names asked for."""
    asked: list[str] = []

    def getaddrinfo(host: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        address = addresses[min(len(asked), len(addresses)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


async def test_a_name_that_turns_private_is_found_out_at_the_next_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers(monkeypatch, "93.184.215.14", "127.0.0.1")
    resolver = Resolver([])
    (found,) = await resolver.resolve("rebinding.example", 443)
    assert (found["host"], found["port"]) == ("93.184.215.14", 443)
    with pytest.raises(ForbiddenAddressError):
        await resolver.resolve("rebinding.example", 443)


async def test_a_rebinding_name_reaches_nobody_inside(
    monkeypatch: pytest.MonkeyPatch, make_settings: Callable[..., Settings]
) -> None:
    with End().open() as end:
        port = end.url.rsplit(":", 1)[1].split("/")[0]
        answers(monkeypatch, "127.0.0.1")
        inner = of_app(f"https://rebinding.example:{port}/hook")
        poster = Poster(make_settings(app=inner))
        answer = await poster.post("shop", "evt_1", 0, b"{}")
        await poster.close()
    assert (answer.status, answer.error) == (0, "forbidden address: see WXB_WEBHOOK_NETWORKS")
    assert end.came == []


async def test_a_name_that_is_allowed_is_posted_to(
    monkeypatch: pytest.MonkeyPatch, make_settings: Callable[..., Settings]
) -> None:
    with End().open() as end:
        asked = answers(monkeypatch, "127.0.0.1")
        url = end.url.replace("127.0.0.1", "hooks.example")
        poster = Poster(make_settings(app=of_app(url), webhook_networks=[HERE]))
        answer = await poster.post("shop", "evt_1", int(time.time()), b'{"type": "x"}')
        await poster.close()
    assert (answer.status, answer.error) == (204, "")
    assert asked == ["hooks.example"]


async def test_a_name_server_that_hangs_holds_up_no_other_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stuck = threading.Event()
    asked: list[str] = []

    def getaddrinfo(host: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        if host == "stuck.example":
            stuck.wait(20)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.215.14", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    resolver = Resolver([])
    waiting = [asyncio.create_task(resolver.resolve("stuck.example")) for _ in range(50)]
    try:
        async with asyncio.timeout(5):
            assert await resolver.resolve("quick.example")
        assert asked.count("stuck.example") == 1  # one thread for all who wait for it
        waiting[0].cancel()
    finally:
        stuck.set()
    found = await asyncio.gather(*waiting[1:])
    assert len(found) == 49


async def test_a_name_without_an_address_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "nobody")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(OSError, match="nobody"):
        await Resolver([]).resolve("nobody.example")
