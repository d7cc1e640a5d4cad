"""WeChat by https and through a proxy: whose certificates count, and what was surely not sent."""

import asyncio
import base64
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from urllib.request import urlopen

import orjson
import pytest
from certificate import Certificate
from http_proxy import HttpProxy
from tls_way import tls_way

from producers.sandbox import SandboxConfig
from producers.sandbox.thread import SandboxThread
from producers.settings import Settings
from workers.wechat.client import WeChat
from workers.wechat.envelope import TEMPLATE_SEND
from workers.wechat.reply import Fate

NAME = "api.weixin.qq.com:443"
PASSWORD = "p@ss:w/rd"
BODY = orjson.dumps({"touser": "oA", "form_id": "F1", "template_id": "T", "data": {}})

Opener = Callable[..., Awaitable[WeChat]]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Give a certificate of WeChat's name that no system trusts."""
    return Certificate(tmp_path_factory.mktemp("ca") / "c", "api.weixin.qq.com", "127.0.0.1")


@pytest.fixture
def sandbox() -> Iterator[SandboxThread]:
    with SandboxThread(SandboxConfig(permits="any")) as running:
        yield running


@pytest.fixture
def tls(sandbox: SandboxThread, authority: Certificate) -> Iterator[str]:
    """Give ``host:port`` where the sandbox is behind TLS."""
    with tls_way(sandbox.url, authority) as place:
        yield place


@pytest.fixture
async def proxy(tls: str) -> AsyncIterator[HttpProxy]:
    """Give a proxy that takes WeChat's name for the sandbox behind TLS."""
    async with HttpProxy({NAME: tls}).open() as running:
        yield running


@pytest.fixture
async def client_of(make_settings: Callable[..., Settings]) -> AsyncIterator[Opener]:
    async with contextlib.AsyncExitStack() as stack:

        async def opened(**changes: Any) -> WeChat:
            wechat = WeChat(make_settings(**changes))
            stack.push_async_callback(wechat.close)
            return wechat

        yield opened
    # TLS waits up to half a minute for the other side to end it, longer than this loop lives
    for transport in [*asyncio.get_running_loop()._transports.values()]:  # type: ignore[attr-defined]
        transport.abort()
    await asyncio.sleep(0)


async def sent(wechat: WeChat, sandbox: SandboxThread) -> tuple[Fate, str]:
    """Send one message; return its fate, and why."""
    url = f"{sandbox.url}/cgi-bin/token?grant_type=client_credential&appid=wx1&secret=s"
    token = orjson.loads(urlopen(url, timeout=5).read())["access_token"]  # noqa: ASYNC210, S310
    reply = await wechat.send("shop", token, TEMPLATE_SEND, BODY)
    return reply.fate, reply.errmsg


# -- certificates -------------------------------------------------------------------------------


async def test_a_wechat_of_an_authority_of_ones_own_is_sent_to(
    tls: str, sandbox: SandboxThread, authority: Certificate, client_of: Opener
) -> None:
    wechat = await client_of(wechat_url=f"https://{tls}", egress_ca_file=authority.path)
    assert await sent(wechat, sandbox) == (Fate.ANSWERED, "")
    assert await wechat.reaches("shop")
    assert await wechat.answers("shop")


async def test_a_stranger_s_certificate_is_sent_nothing(
    tls: str, sandbox: SandboxThread, client_of: Opener
) -> None:
    wechat = await client_of(wechat_url=f"https://{tls}")
    fate, why = await sent(wechat, sandbox)
    assert (fate, why) == (Fate.UNSENT, "ClientConnectorCertificateError")
    assert not await wechat.reaches("shop")
    assert sandbox.stats()["accepted"] == 0


async def test_another_name_s_certificate_is_sent_nothing(
    tls: str, sandbox: SandboxThread, authority: Certificate, client_of: Opener
) -> None:
    place = tls.replace("127.0.0.1", "localhost")
    wechat = await client_of(wechat_url=f"https://{place}", egress_ca_file=authority.path)
    assert (await sent(wechat, sandbox))[0] is Fate.UNSENT


def test_openssl_s_own_variable_counts_too(tls: str, authority: Certificate) -> None:
    script = (
        "import asyncio, sys\n"
        "from producers.local.isolation import Isolated\n"
        "from workers.wechat.client import WeChat\n"
        "async def main():\n"
        "    wechat = WeChat(Isolated(redis_url='redis://127.0.0.1:1/0', wechat_url=sys.argv[1],\n"
        "                             apps={'shop': {'appid': 'wx1', 'secret': 's'}}))\n"
        "    print(await wechat.reaches('shop'))\n"
        "    await wechat.close()\n"
        "asyncio.run(main())\n"
    )

    def ask(**env: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", script, f"https://{tls}"],
            env=os.environ | env,
            capture_output=True,
            text=True,
            check=True,
            timeout=25,
        ).stdout.strip()

    assert ask() == "False"
    assert ask(SSL_CERT_FILE=str(authority.path)) == "True"


# -- a proxy ------------------------------------------------------------------------------------


def through(proxy: HttpProxy, authority: Certificate, **more: Any) -> dict[str, Any]:
    """Return settings with WeChat's own name, behind a proxy that wants a password."""
    host = proxy.url.removeprefix("http://")
    return {
        "wechat_url": "https://api.weixin.qq.com",
        "egress_ca_file": authority.path,
        "egress_proxy": f"http://mail%40corp:p%40ss%3Aw%2Frd@{host}",
        **more,
    }


async def test_sends_go_through_one_tunnel_that_shows_the_proxy_nothing(
    proxy: HttpProxy, sandbox: SandboxThread, authority: Certificate, client_of: Opener
) -> None:
    wechat = await client_of(**through(proxy, authority))
    for _ in range(3):
        assert (await sent(wechat, sandbox))[0] is Fate.ANSWERED
    assert proxy.asked == [f"CONNECT {NAME}"]
    told = base64.b64encode(f"mail@corp:{PASSWORD}".encode()).decode()
    assert f"\r\nProxy-Authorization: Basic {told}\r\n" in proxy.heads[0]
    assert "access_token" not in "".join(proxy.heads)


async def test_the_proxy_s_password_is_in_nothing_that_could_be_printed(
    proxy: HttpProxy, sandbox: SandboxThread, authority: Certificate, client_of: Opener
) -> None:
    wechat = await client_of(**through(proxy, authority))
    await sent(wechat, sandbox)
    assert wechat._session.connector is not None
    told = repr(wechat._session.connector._conns) + repr(wechat._settings)
    assert proxy.url in told  # the pool's key tells the proxy
    encoded = base64.b64encode(f"mail@corp:{PASSWORD}".encode()).decode()
    for secret in (PASSWORD, "p%40ss", encoded):
        assert secret not in told


@pytest.mark.parametrize(
    ("refusal", "why"),
    [(407, "ProxyError 407"), (503, "ProxyError 503"), (-1, "ProxyError")],
)
async def test_what_the_proxy_refuses_was_not_sent(
    proxy: HttpProxy,
    sandbox: SandboxThread,
    authority: Certificate,
    client_of: Opener,
    refusal: int,
    why: str,
) -> None:
    proxy.refusal = refusal
    wechat = await client_of(**through(proxy, authority))
    assert await sent(wechat, sandbox) == (Fate.UNSENT, why)
    assert not await wechat.reaches("shop")
    proxy.refusal = 0
    assert await wechat.reaches("shop")


async def test_a_proxy_that_does_not_answer_is_no_connection(
    proxy: HttpProxy, sandbox: SandboxThread, authority: Certificate, client_of: Opener
) -> None:
    proxy.refusal = -2
    wechat = await client_of(**through(proxy, authority, connect_timeout=0.2))
    assert await sent(wechat, sandbox) == (Fate.UNSENT, "ConnectionTimeoutError")


async def test_a_proxy_that_is_away_is_no_connection(
    proxy: HttpProxy, sandbox: SandboxThread, authority: Certificate, client_of: Opener
) -> None:
    away = through(proxy, authority, egress_proxy="http://127.0.0.1:1")
    assert (await sent(await client_of(**away), sandbox))[0] is Fate.UNSENT


async def test_a_certificate_is_looked_at_within_a_tunnel_too(
    proxy: HttpProxy, sandbox: SandboxThread, authority: Certificate, client_of: Opener
) -> None:
    wechat = await client_of(**through(proxy, authority, egress_ca_file=None))
    assert await sent(wechat, sandbox) == (Fate.UNSENT, "ClientConnectorCertificateError")


async def test_an_answer_cut_within_a_tunnel_may_have_been_sent(
    proxy: HttpProxy, sandbox: SandboxThread, authority: Certificate, client_of: Opener
) -> None:
    sandbox.fail({"action": "cut_after", "api": TEMPLATE_SEND})
    wechat = await client_of(**through(proxy, authority))
    assert (await sent(wechat, sandbox))[0] is Fate.UNANSWERED


async def test_the_environment_s_proxy_is_asked_only_where_the_settings_say_so(
    proxy: HttpProxy,
    tls: str,
    sandbox: SandboxThread,
    authority: Certificate,
    client_of: Opener,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.url.removeprefix("http://"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,.inner")
    direct = {"wechat_url": f"https://{tls}", "egress_ca_file": authority.path}
    assert (await sent(await client_of(**direct), sandbox))[0] is Fate.ANSWERED
    by_environment = through(proxy, authority, egress_proxy="environment")
    assert (await sent(await client_of(**by_environment), sandbox))[0] is Fate.ANSWERED
    assert proxy.asked == [f"CONNECT {NAME}"]
    excepted = {**direct, "egress_proxy": "environment"}
    assert (await sent(await client_of(**excepted), sandbox))[0] is Fate.ANSWERED
    assert proxy.asked == [f"CONNECT {NAME}"]


async def test_a_wechat_by_http_is_the_proxy_s_to_forward(
    sandbox: SandboxThread, proxy: HttpProxy, authority: Certificate, client_of: Opener
) -> None:
    wechat = await client_of(**through(proxy, authority, wechat_url=sandbox.url))
    assert (await sent(wechat, sandbox))[0] is Fate.ANSWERED
    assert proxy.asked[0].startswith(f"POST {sandbox.url}/cgi-bin/")
    assert "\r\nProxy-Authorization: Basic " in proxy.heads[0]
