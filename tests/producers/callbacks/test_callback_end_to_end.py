"""The sandbox pushes over a socket, as WeChat does, and everything takes its effect."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import ClientSession, web
from wechat_pushes import AES_KEY, APPID, CHANGE, POPUP, TOKEN, Desk, choice

from producers.errors import ForgedError, InvalidInputError, StoreUnavailableError
from producers.sandbox import Sandbox, SandboxConfig
from producers.sandbox.pushes.envelope import sign
from producers.settings import Settings
from producers.store import keys


class Door:
    """A small web service around the callbacks, that can be told to fail first."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.failures = 0
        self.statuses: list[int] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        if self.failures:
            self.failures -= 1
            return web.Response(status=503)
        body = await request.read()
        try:
            await asyncio.to_thread(self.desk.callbacks.receive, "shop", request.query, body)
        except ForgedError:
            self.statuses.append(403)
            return web.Response(status=403)
        except (InvalidInputError, StoreUnavailableError):
            self.statuses.append(503)
            return web.Response(status=503)
        self.statuses.append(200)
        return web.Response(text="success")

    async def verify(self, request: web.Request) -> web.Response:
        return web.Response(text=self.desk.callbacks.verify("shop", request.query))


@pytest.fixture
async def door(
    client: Any, make_settings: Callable[..., Settings], request: pytest.FixtureRequest
) -> AsyncIterator[Door]:
    mode = getattr(request, "param", "secure")
    app = {"callback_token": TOKEN, "subscription_source": "events"}
    if mode != "plain":
        app["callback_aes_key"] = AES_KEY
    door = Door(Desk(client, make_settings(app=app)))
    service = web.Application()
    service.router.add_post("/wechat/shop", door.take)
    service.router.add_get("/wechat/shop", door.verify)
    runner = web.AppRunner(service)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    door.url = f"http://127.0.0.1:{runner.addresses[0][1]}/wechat/shop"
    yield door
    await runner.cleanup()


class WeChat:
    """The sandbox, that pushes to a door."""

    def __init__(self, sandbox: Sandbox, session: ClientSession) -> None:
        self.sandbox, self.session = sandbox, session
        self.token = ""

    async def post(self, path: str, body: Any) -> Any:
        async with self.session.post(self.sandbox.url + path, json=body) as response:
            return await response.json(content_type=None)

    async def event(self, name: str, *items: dict[str, str], openid: str = "oAnna") -> None:
        body = {"appid": APPID, "openid": openid, "event": name, "items": items}
        await self.post("/_sandbox/events", body)
        await self.sandbox.drain_events()

    async def send(self, openid: str) -> int:
        """Send a subscribe message as a worker would; return its msgid."""
        if not self.token:
            url = f"{self.sandbox.url}/cgi-bin/token"
            query = {"grant_type": "client_credential", "appid": APPID, "secret": "shop-secret"}
            async with self.session.get(url, params=query) as response:
                self.token = (await response.json(content_type=None))["access_token"]
        body = {"touser": openid, "template_id": "T", "data": {"thing1": {"value": "x"}}}
        path = f"/cgi-bin/message/subscribe/send?access_token={self.token}"
        return (await self.post(path, body))["msgid"]


@pytest.fixture
async def open_wechat(door: Door) -> AsyncIterator[Callable[..., Any]]:
    opened: list[WeChat] = []

    async def start(**callback: Any) -> WeChat:
        fields = {"url": door.url, "token": TOKEN, "encoding_aes_key": AES_KEY, **callback}
        sandbox = Sandbox(SandboxConfig.model_validate({"permits": "any", "callback": fields}))
        await sandbox.start()
        opened.append(WeChat(sandbox, ClientSession()))
        return opened[-1]

    yield start
    for wechat in opened:
        await wechat.session.close()
        await wechat.sandbox.stop()


async def work(door: Door) -> int:
    return await asyncio.to_thread(door.desk.callbacks.work, "shop")


@pytest.mark.parametrize(
    ("door", "mode"),
    [("plain", "plain"), ("plain", "compatible"), ("secure", "compatible"), ("secure", "secure")],
    indirect=["door"],
)
@pytest.mark.parametrize("style", ["json", "xml"])
async def test_what_users_choose_arrives_in_every_mode(
    door: Door, open_wechat: Callable[..., Any], mode: str, style: str
) -> None:
    wechat = await open_wechat(mode=mode, format=style, duplicates=1)
    await wechat.event(POPUP, choice("accept"), choice("accept", "U"))
    await work(door)
    assert (door.desk.count("T"), door.desk.count("U")) == (1, 1)
    await wechat.event(CHANGE, choice("reject", "U"))
    await work(door)
    assert (door.desk.count("T"), door.desk.count("U")) == (1, 0)
    assert door.statuses == [200] * 4


async def test_a_push_that_was_not_answered_comes_again_and_counts_once(
    door: Door, open_wechat: Callable[..., Any]
) -> None:
    wechat = await open_wechat(mode="secure", duplicates=2)
    door.failures = 3
    await wechat.event(POPUP, choice("accept"))
    assert await work(door) == 3
    assert door.desk.count() == 1


async def test_a_wrong_console_setting_lets_nothing_in(
    door: Door, open_wechat: Callable[..., Any]
) -> None:
    wechat = await open_wechat(mode="secure", token="another")
    await wechat.event(POPUP, choice("accept"))
    assert set(door.statuses) == {403}
    wechat = await open_wechat(mode="plain")
    await wechat.event(POPUP, choice("accept"))
    assert set(door.statuses) == {403}
    assert await work(door) == 0


@pytest.mark.parametrize("first", [True, False])
async def test_a_sent_event_is_a_receipt_even_before_the_answer(
    door: Door, open_wechat: Callable[..., Any], first: bool
) -> None:
    wechat = await open_wechat(mode="secure", before_reply=first)
    msgid = await wechat.send("oAnna")
    await wechat.sandbox.drain_events()
    assert await work(door) == 1
    lane = keys.place_of("oAnna", door.desk.settings)[0]
    kept = door.desk.client.hgetall(keys.receipts(lane, "shop", "oAnna"))
    assert list(kept) == [f"T {msgid}"]
    assert kept[f"T {msgid}"].startswith("0 ")


async def test_the_consoles_url_check_is_answered(door: Door) -> None:
    query = {"timestamp": "1714036504", "nonce": "1514711492"}
    query |= {"signature": sign(TOKEN, *query.values()), "echostr": "4375120948345356249"}
    async with ClientSession() as session, session.get(door.url, params=query) as response:
        assert await response.text() == "4375120948345356249"
