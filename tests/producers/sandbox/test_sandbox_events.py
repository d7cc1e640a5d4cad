"""Events pushed to a callback."""

import asyncio
import base64
import hashlib
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from pydantic import ValidationError
from sandbox_client import APPID, Opener, WeChat

from producers.sandbox import Callback
from producers.sandbox.pushes.envelope import encrypt, sign
from producers.sandbox.pushes.events import Event, write_push

AES_KEY = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"


class Endpoint:
    """A callback address that remembers, and fails as often as it is told."""

    def __init__(self) -> None:
        self.pushes: list[tuple[dict[str, str], str]] = []
        self.failures = 0
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        self.pushes.append((dict(request.query), await request.text()))
        if self.failures:
            self.failures -= 1
            return web.Response(status=500)
        return web.Response(text="success")


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    endpoint = Endpoint()
    app = web.Application()
    app.router.add_post("/callback", endpoint.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    endpoint.url = f"http://127.0.0.1:{port}/callback"
    yield endpoint
    await runner.cleanup()


def parse(text: str) -> dict[str, Any]:
    return json.loads(text)


async def test_an_accepted_message_is_followed_by_its_sent_event(
    open_wechat: Opener, endpoint: Endpoint
) -> None:
    wechat = await open_wechat(permits="any", callback={"url": endpoint.url, "token": "t"})
    sent = await wechat.send_subscribe("o1")
    await wechat.sandbox.drain_events()
    [(query, body)] = endpoint.pushes
    parts = "".join(sorted(("t", query["timestamp"], query["nonce"])))
    assert query["signature"] == hashlib.sha1(parts.encode()).hexdigest()  # noqa: S324
    assert parse(body) == {
        "ToUserName": "gh_123456789abc",
        "FromUserName": "o1",
        "CreateTime": str(int(wechat.clock.at_s)),
        "MsgType": "event",
        "Event": "subscribe_msg_sent_event",
        "List": {
            "TemplateId": "T",
            "MsgID": str(sent["msgid"]),
            "ErrorCode": "0",
            "ErrorStatus": "success",
        },
    }


async def test_a_refused_message_has_no_event(open_wechat: Opener, endpoint: Endpoint) -> None:
    wechat = await open_wechat(callback={"url": endpoint.url, "token": "t"})
    await wechat.send_subscribe("o1")
    await wechat.sandbox.drain_events()
    assert endpoint.pushes == []


async def test_an_unanswered_event_is_pushed_three_more_times(
    open_wechat: Opener, endpoint: Endpoint
) -> None:
    wechat = await open_wechat(permits="any", callback={"url": endpoint.url, "token": "t"})
    endpoint.failures = 9
    await wechat.send_subscribe("o1")
    await wechat.sandbox.drain_events()
    assert len(endpoint.pushes) == 4
    assert (await wechat.ask("stats"))["events"] == {
        "delivered": 0,
        "redelivered": 3,
        "failed": 1,
        "dropped": 0,
    }


async def test_duplicates_are_pushed_when_told_so(open_wechat: Opener, endpoint: Endpoint) -> None:
    callback = {"url": endpoint.url, "token": "t", "duplicates": 2}
    wechat = await open_wechat(permits="any", callback=callback)
    await wechat.send_subscribe("o1")
    await wechat.sandbox.drain_events()
    assert len({body for _, body in endpoint.pushes}) == 1
    assert len(endpoint.pushes) == 3


async def test_an_event_can_come_before_the_reply(open_wechat: Opener, endpoint: Endpoint) -> None:
    callback = {"url": endpoint.url, "token": "t", "before_reply": True}
    wechat = await open_wechat(permits="any", callback=callback)
    sent = await wechat.send_subscribe("o1")
    assert len(endpoint.pushes) == 1
    assert parse(endpoint.pushes[0][1])["List"]["MsgID"] == str(sent["msgid"])


async def test_a_lost_answer_still_has_its_event(open_wechat: Opener, endpoint: Endpoint) -> None:
    wechat = await open_wechat(permits="any", callback={"url": endpoint.url, "token": "t"})
    await wechat.order("faults", [{"api": "subscribe/send", "action": "cut_after"}])
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await wechat.send_subscribe("o1")
    await wechat.sandbox.drain_events()
    assert len(endpoint.pushes) == 1


async def test_a_rule_makes_an_event_report_a_failure(
    open_wechat: Opener, endpoint: Endpoint
) -> None:
    rule = {"openid": "o2", "error_code": 7, "error_status": "broken"}
    callback = {"url": endpoint.url, "token": "t", "receipts": [rule]}
    wechat = await open_wechat(permits="any", callback=callback)
    await wechat.send_subscribe("o1")
    await wechat.send_subscribe("o2")
    await wechat.sandbox.drain_events()
    items = [parse(body) for _, body in endpoint.pushes]
    codes = {item["FromUserName"]: item["List"]["ErrorCode"] for item in items}
    assert codes == {"o1": "0", "o2": "7"}


async def test_events_beyond_the_queue_are_dropped_and_counted(
    open_wechat: Opener, endpoint: Endpoint
) -> None:
    callback = {"url": endpoint.url, "token": "t", "queue": 1, "concurrency": 1, "duplicates": 9}
    wechat = await open_wechat(permits="any", callback=callback)
    await wechat.send_subscribe("o1")
    assert (await wechat.ask("stats"))["events"]["dropped"] == 9


async def test_other_events_are_pushed_on_demand(wechat: WeChat, endpoint: Endpoint) -> None:
    await wechat.order("config", {"callback": {"url": endpoint.url, "token": "t"}})
    item = {"TemplateId": "T", "SubscribeStatusString": "accept", "PopupScene": "0"}
    event = {"appid": APPID, "openid": "o1", "event": "subscribe_msg_popup_event"}
    await wechat.order("events", {**event, "items": [item, item]})
    await wechat.sandbox.drain_events()
    assert parse(endpoint.pushes[0][1])["List"] == [item, item]


async def test_a_callback_can_be_taken_away(open_wechat: Opener, endpoint: Endpoint) -> None:
    wechat = await open_wechat(permits="any", callback={"url": endpoint.url, "token": "t"})
    await wechat.order("config", {"callback": None})
    await wechat.send_subscribe("o1")
    await asyncio.sleep(0)
    assert (await wechat.ask("stats"))["events"] == {}


def write(mode: str, style: str) -> tuple[str, str]:
    fields = {"url": "http://h/c?a=b", "token": "t", "mode": mode, "format": style}
    callback = Callback.model_validate({**fields, "encoding_aes_key": AES_KEY})
    item = {"TemplateId": "T", "MsgID": "17", "ErrorCode": "0", "ErrorStatus": "success"}
    event = Event(APPID, "o1", "subscribe_msg_sent_event", (item,), 1610969468)
    push = write_push(callback, event, 1610969469, random.Random(1))
    return push.url, push.body.decode()


def test_xml_wraps_its_items_by_event() -> None:
    url, body = write("plain", "xml")
    assert url.startswith("http://h/c?a=b&signature=")
    assert body == (
        "<xml><ToUserName><![CDATA[gh_123456789abc]]></ToUserName>"
        "<FromUserName><![CDATA[o1]]></FromUserName><CreateTime>1610969468</CreateTime>"
        "<MsgType><![CDATA[event]]></MsgType><Event><![CDATA[subscribe_msg_sent_event]]></Event>"
        "<SubscribeMsgSentEvent><List><TemplateId><![CDATA[T]]></TemplateId><MsgID>17</MsgID>"
        "<ErrorCode>0</ErrorCode><ErrorStatus><![CDATA[success]]></ErrorStatus></List>"
        "</SubscribeMsgSentEvent></xml>"
    )


@pytest.mark.parametrize("mode", ["secure", "compatible"])
def test_a_secure_push_hides_its_message(mode: str) -> None:
    url, body = write(mode, "json")
    document = parse(body)
    assert ("FromUserName" in document) == (mode == "compatible")
    assert "openid=o1&encrypt_type=aes&msg_signature=" in url
    key = base64.b64decode(AES_KEY + "=")
    decryptor = Cipher(algorithms.AES(key), modes.CBC(key[:16])).decryptor()
    plain = decryptor.update(base64.b64decode(document["Encrypt"])) + decryptor.finalize()
    plain = plain[: -plain[-1]]
    length = int.from_bytes(plain[16:20], "big")
    assert parse(plain[20 : 20 + length].decode())["FromUserName"] == "o1"
    assert plain[20 + length :].decode() == APPID


def test_encryption_and_signature_match_the_official_sample(
    cases: dict[str, dict[str, Any]],
) -> None:
    case = cases["push-secure-official"]
    expected, query = case["expect"], case["query"]
    encrypted = encrypt(
        case["encoding_aes_key"],
        expected["random16"].encode(),
        expected["msg"].encode(),
        case["appid"],
    )
    assert encrypted == case["body_json"]["Encrypt"]
    parts = (case["token"], query["timestamp"], query["nonce"])
    assert sign(*parts) == query["signature"]
    assert sign(*parts, encrypted) == query["msg_signature"]


def test_a_secure_callback_needs_its_key() -> None:
    with pytest.raises(ValidationError, match="needs encoding_aes_key"):
        Callback.model_validate({"url": "http://h", "token": "t", "mode": "secure"})
