"""A client of a sandbox, and a clock that stands still until a test moves it."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from producers.sandbox import Sandbox

APPID = "wx0123456789abcdef"
TEMPLATE = "/cgi-bin/message/wxopen/template/send"
SUBSCRIBE = "/cgi-bin/message/subscribe/send"


class Clock:
    """Epoch seconds, moved by hand."""

    def __init__(self) -> None:
        self.at_s = 1_700_000_000.0

    def __call__(self) -> float:
        return self.at_s

    def advance(self, seconds: float) -> None:
        self.at_s += seconds


class WeChat:
    """What a test says to the sandbox, as its client and as its master."""

    def __init__(self, sandbox: Sandbox, session: aiohttp.ClientSession, clock: Clock) -> None:
        self.sandbox = sandbox
        self.session = session
        self.clock = clock
        self.token = ""

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        async with self.session.get(self.sandbox.url + path, params=query) as response:
            return json.loads(await response.text())

    async def post(self, path: str, body: Any, **query: str) -> dict[str, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
        url = self.sandbox.url + path
        async with self.session.post(url, data=data, params=query) as response:
            return json.loads(await response.text())

    async def call(self, path: str, body: Any) -> dict[str, Any]:
        return await self.post(path, body, access_token=self.token)

    async def log_in(self, appid: str = APPID) -> str:
        query = {"grant_type": "client_credential", "appid": appid, "secret": "s"}
        self.token = (await self.get("/cgi-bin/token", **query))["access_token"]
        return self.token

    async def send_template(self, openid: str, form_id: str, **more: Any) -> dict[str, Any]:
        body = {
            "touser": openid,
            "template_id": "T",
            "form_id": form_id,
            "data": {"keyword1": {"value": "签到"}},
            **more,
        }
        return await self.call(TEMPLATE, body)

    async def send_subscribe(self, openid: str, **more: Any) -> dict[str, Any]:
        body = {
            "touser": openid,
            "template_id": "T",
            "data": {"thing1": {"value": "签到"}},
            **more,
        }
        return await self.call(SUBSCRIBE, body)

    async def order(self, name: str, body: Any) -> Any:
        return await self.post(f"/_sandbox/{name}", body)

    async def ask(self, name: str, **query: str) -> Any:
        return await self.get(f"/_sandbox/{name}", **query)


Opener = Callable[..., Awaitable[WeChat]]
