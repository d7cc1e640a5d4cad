"""The WeChat client over real sockets: what it posts, and what it makes of every kind of reply."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import orjson
import pytest
import samples
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from send_path import soon

from producers.broadcasts.spec import Spec
from producers.sandbox import Era, FaultAction, FaultRule, Grants, Sandbox, SandboxConfig
from producers.settings import Settings
from workers.sending.claim import Claim
from workers.wechat.client import WeChat
from workers.wechat.envelope import SUBSCRIBE_SEND, TEMPLATE_SEND, Envelope
from workers.wechat.errcodes import RULES
from workers.wechat.reply import Fate, Reply, parse

TEMPLATE = "/message/wxopen/template/send"
SUBSCRIBE = "/message/subscribe/send"
TOKEN_SHAPED = "71_a-b_c" + "X" * 128
WEEK_MS = 7 * 24 * 3600 * 1000
TEXT = "早安 ☀️ 👩‍👩‍👧 “<&>” \\ / é"


def template_spec(**more: Any) -> Spec:
    return Spec.checked(
        **{
            "app": "shop",
            "channel": "template",
            "template_id": "TEMPLATE_ID",
            "audience": "all",
            "data": {"keyword1": TEXT, "keyword2": "2015年01月05日 12:30"},
            **more,
        }
    )


def subscribe_spec(**more: Any) -> Spec:
    return Spec.checked(
        **{
            "app": "shop",
            "channel": "subscribe",
            "template_id": "TEMPLATE_ID",
            "audience": "all",
            "data": {"thing1": "早安 ☀️ 👩‍👩‍👧", "phrase3": "审核通过"},
            **more,
        }
    )


def claim_of(member: str, openid: str = "oUSER-1_a") -> Claim:
    return Claim("shop", 0, "b1", f"17:{openid}", member, WEEK_MS, "1", 0, False, 0.0)


Answerer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Recorder:
    """An HTTP server that keeps every request, and answers as a test wants."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[tuple[web.Request, bytes]] = []
        self.answer: Answerer = self.ok

    async def ok(self, _: web.Request) -> web.StreamResponse:
        return web.Response(body=b'{"errcode":0,"errmsg":"ok"}', content_type="text/plain")

    def says(self, body: bytes, status: int = 200, **headers: str) -> None:
        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(body=body, status=status, headers=headers)

        self.answer = answer

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request, await request.read()))
        return await self.answer(request)

    @property
    def body(self) -> bytes:
        (_, body) = self.requests[-1]
        return body


@pytest.fixture
async def recorder() -> AsyncIterator[Recorder]:
    server = Recorder()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(SandboxConfig()) as running:
        yield running


Opener = Callable[..., Awaitable[WeChat]]


@pytest.fixture
async def client_of(make_settings: Callable[..., Settings]) -> AsyncIterator[Opener]:
    """Give an opener of clients, each closed at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def opened(
            url: str, *, post_timeout_s: float = 5, connect_timeout_s: float = 3
        ) -> WeChat:
            wechat = WeChat(
                make_settings(
                    wechat_url=url,
                    post_timeout=timedelta(seconds=post_timeout_s),
                    connect_timeout=timedelta(seconds=connect_timeout_s),
                )
            )
            stack.push_async_callback(wechat.close)
            return wechat

        yield opened


async def login(wechat: WeChat) -> str:
    """Return a token that the sandbox takes."""
    url = f"{wechat.base('shop')}/cgi-bin/token?grant_type=client_credential&appid=wx1&secret=s"
    return str((await wechat.call("GET", url))["access_token"])


def body_of(spec: Spec, claim: Claim) -> bytes:
    return Envelope.of(spec).body(claim.openid, claim.permit_id)


async def post(wechat: WeChat, token: str, spec: Spec, claim: Claim) -> Reply:
    """Post one message as the sender does."""
    return await wechat.send("shop", token, Envelope.of(spec).path, body_of(spec, claim))


async def send_form_id(wechat: WeChat, token: str, form_id: str = "FORM1") -> Reply:
    return await post(wechat, token, template_spec(), claim_of(f"f:{form_id}"))


# -- what is posted -----------------------------------------------------------------------------


async def test_a_form_id_message_has_the_body_that_wechat_wants(
    recorder: Recorder, client_of: Opener
) -> None:
    wechat = await client_of(recorder.url)
    spec = template_spec(page="pages/index?foo=bar&x=早", emphasis_keyword="keyword1.DATA")
    await post(wechat, TOKEN_SHAPED, spec, claim_of("f:FORM1"))
    assert json.loads(recorder.body) == {
        "touser": "oUSER-1_a",
        "form_id": "FORM1",
        "template_id": "TEMPLATE_ID",
        "page": "pages/index?foo=bar&x=早",
        "data": {"keyword1": {"value": TEXT}, "keyword2": {"value": "2015年01月05日 12:30"}},
        "emphasis_keyword": "keyword1.DATA",
    }
    ((request, _),) = recorder.requests
    assert request.method == "POST"
    assert request.path == TEMPLATE_SEND
    assert dict(request.query) == {"access_token": TOKEN_SHAPED}
    assert request.content_type == "application/json"
    assert request.content_length == len(recorder.body)


async def test_a_subscribe_message_has_the_body_that_wechat_wants(
    recorder: Recorder, client_of: Opener
) -> None:
    wechat = await client_of(recorder.url)
    spec = subscribe_spec(page="index", miniprogram_state="trial", lang="zh_HK")
    await post(wechat, TOKEN_SHAPED, spec, claim_of("s:TEMPLATE_ID"))
    assert json.loads(recorder.body) == {
        "touser": "oUSER-1_a",
        "template_id": "TEMPLATE_ID",
        "page": "index",
        "data": {"thing1": {"value": "早安 ☀️ 👩‍👩‍👧"}, "phrase3": {"value": "审核通过"}},
        "miniprogram_state": "trial",
        "lang": "zh_HK",
    }
    ((request, _),) = recorder.requests
    assert request.path == SUBSCRIBE_SEND
    assert dict(request.query) == {"access_token": TOKEN_SHAPED}


@pytest.mark.parametrize("spec", [template_spec(), subscribe_spec()])
def test_bodies_are_utf8_without_escapes(spec: Spec) -> None:
    body = body_of(spec, claim_of("f:FORM1"))
    assert b"\\u" not in body
    assert "早安 ☀️ 👩‍👩‍👧".encode() in body
    assert json.loads(body)["data"] == {k: {"value": v} for k, v in spec.data.items()}


@pytest.mark.parametrize("spec", [template_spec(), subscribe_spec()])
def test_what_was_not_asked_for_is_not_sent(spec: Spec) -> None:
    document = json.loads(body_of(spec, claim_of("f:FORM1")))
    assert not {"page", "emphasis_keyword", "color"} & document.keys()


def test_the_last_two_fields_of_a_subscribe_message_are_always_sent() -> None:
    document = json.loads(body_of(subscribe_spec(), claim_of("s:TEMPLATE_ID")))
    assert (document["miniprogram_state"], document["lang"]) == ("formal", "zh_CN")


@pytest.mark.parametrize("use", [1, 2, 3])
def test_each_use_of_a_prepay_id_is_sent_as_the_prepay_id(use: int) -> None:
    body = body_of(template_spec(), claim_of(f"p:wx2018:a:{use}"))
    assert json.loads(body)["form_id"] == "wx2018:a"


async def test_the_token_is_carried_whole_whatever_it_holds(
    recorder: Recorder, client_of: Opener
) -> None:
    wechat = await client_of(recorder.url)
    for token in ("a+b/c==", "x&y=z#é", "%41"):
        await send_form_id(wechat, token)
        assert recorder.requests[-1][0].query["access_token"] == token


async def test_a_new_token_is_used_at_once(recorder: Recorder, client_of: Opener) -> None:
    wechat = await client_of(recorder.url)
    for token in ("first", "second", "first"):
        await send_form_id(wechat, token)
    sent = [request.query["access_token"] for request, _ in recorder.requests]
    assert sent == ["first", "second", "first"]


async def test_sends_reuse_one_connection(recorder: Recorder, client_of: Opener) -> None:
    wechat = await client_of(recorder.url)
    for _ in range(5):
        await send_form_id(wechat, "token")
    ports = {
        request.transport.get_extra_info("peername")
        for request, _ in recorder.requests
        if request.transport
    }
    assert len(ports) == 1


# -- the sandbox's replies ----------------------------------------------------------------------


async def test_an_accepted_form_id_message(sandbox: Sandbox, client_of: Opener) -> None:
    wechat = await client_of(sandbox.url)
    token = await login(wechat)
    sandbox.orders.give(
        Grants.model_validate({"form_ids": [{"openid": "oUSER-1_a", "form_id": "FORM1"}]})
    )
    reply = await send_form_id(wechat, token)
    assert reply == Reply(Fate.ANSWERED, latency_ms=reply.latency_ms)
    assert 0 < reply.latency_ms < 5000
    (received,) = sandbox.state.deliveries.of("oUSER-1_a")
    assert received["data"]["keyword1"] == {"value": TEXT}
    used = await send_form_id(wechat, token)
    assert (used.fate, used.errcode) == (Fate.ANSWERED, 41029)


async def test_an_accepted_subscribe_message_gives_its_64_bit_msgid_exactly(
    sandbox: Sandbox, client_of: Opener
) -> None:
    wechat = await client_of(sandbox.url)
    token = await login(wechat)
    accept = {"openid": "oUSER-1_a", "template_id": "TEMPLATE_ID"}
    sandbox.orders.give(Grants.model_validate({"subscriptions": [accept]}))
    claim = claim_of("s:TEMPLATE_ID")
    reply = await post(wechat, token, subscribe_spec(), claim)
    (received,) = sandbox.state.deliveries.of("oUSER-1_a")
    assert reply.fate is Fate.ANSWERED
    assert reply.msgid == str(received["msgid"])
    assert int(reply.msgid) > 2**53
    assert (reply.errcode, reply.errmsg, reply.rid) == (0, "", "")


@pytest.mark.parametrize("era", [Era.RID, Era.HINT])
async def test_an_errcode_comes_without_its_tail(
    sandbox: Sandbox, client_of: Opener, era: Era
) -> None:
    wechat = await client_of(sandbox.url)
    token = await login(wechat)
    sandbox.orders.configure({"errmsg_era": era})
    reply = await send_form_id(wechat, token, "NEVER_GIVEN")
    assert (reply.fate, reply.errcode) == (Fate.ANSWERED, 41028)
    assert reply.errmsg == "invalid form id"
    assert len(reply.rid) == (26 if era is Era.RID else 0)


async def test_a_wrong_token_is_an_errcode(sandbox: Sandbox, client_of: Opener) -> None:
    wechat = await client_of(sandbox.url)
    assert (await send_form_id(wechat, "nobody's")).errcode == 40001
    assert (await send_form_id(wechat, "")).errcode == 41001


@pytest.mark.parametrize(
    ("rule", "arrived"),
    [
        (FaultRule(action=FaultAction.CUT_BEFORE), 0),
        (FaultRule(action=FaultAction.CUT_AFTER), 1),
        (FaultRule(action=FaultAction.STATUS, status=502), 0),
        (FaultRule(action=FaultAction.STATUS, status=503, accept=True), 1),
        (FaultRule(action=FaultAction.GARBAGE), 0),
        (FaultRule(action=FaultAction.GARBAGE, accept=True), 1),
        (FaultRule(action=FaultAction.HANG, ms=5000), 0),
        (FaultRule(action=FaultAction.SLOW_DRIP, ms=5000), 1),
        (FaultRule(action=FaultAction.DELAY, ms=5000), 1),
    ],
    ids=lambda value: f"{value.action}-{value.accepts}" if isinstance(value, FaultRule) else "",
)
async def test_without_a_whole_answer_it_is_unanswered_and_posted_once(
    sandbox: Sandbox, client_of: Opener, rule: FaultRule, arrived: int
) -> None:
    wechat = await client_of(sandbox.url, post_timeout_s=0.3)
    token = await login(wechat)
    sandbox.orders.give(
        Grants.model_validate({"form_ids": [{"openid": "oUSER-1_a", "form_id": "FORM1"}]})
    )
    sandbox.orders.set_faults([rule.model_copy(update={"api": TEMPLATE})])
    reply = await send_form_id(wechat, token)
    assert (reply.fate, reply.errcode, reply.msgid) == (Fate.UNANSWERED, 0, "")
    assert reply.errmsg
    assert reply.latency_ms < 3000
    assert sandbox.orders.stats()["apis"][f"/cgi-bin{TEMPLATE}"]["requests"] == 1
    assert len(sandbox.state.deliveries.of("oUSER-1_a")) == arrived


async def test_a_cut_of_a_kept_connection_is_not_repeated(
    sandbox: Sandbox, client_of: Opener
) -> None:
    """A client that repeats by itself would send a subscribe message twice."""
    wechat = await client_of(sandbox.url)
    token = await login(wechat)
    accept = {"openid": "oUSER-1_a", "template_id": "TEMPLATE_ID", "count": 9}
    sandbox.orders.give(Grants.model_validate({"subscriptions": [accept]}))
    spec, claim = subscribe_spec(), claim_of("s:TEMPLATE_ID")
    assert (await post(wechat, token, spec, claim)).fate is Fate.ANSWERED
    cut = FaultRule(api=SUBSCRIBE, action=FaultAction.CUT_AFTER)
    sandbox.orders.set_faults([cut])
    assert (await post(wechat, token, spec, claim)).fate is Fate.UNANSWERED
    assert len(sandbox.state.deliveries.of("oUSER-1_a")) == 2


async def test_where_nobody_listens_nothing_was_sent(client_of: Opener) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    wechat = await client_of(url)
    reply = await send_form_id(wechat, TOKEN_SHAPED)
    assert (reply.fate, reply.errcode, reply.msgid) == (Fate.UNSENT, 0, "")
    assert reply.errmsg == "ClientConnectorError"


async def test_where_no_connection_comes_up_in_time_nothing_was_sent(client_of: Opener) -> None:
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # nobody accepts, so later ones wait for ever
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        wechat = await client_of(url, post_timeout_s=5, connect_timeout_s=0.2)
        reply = await send_form_id(wechat, TOKEN_SHAPED)
    assert (reply.fate, reply.errmsg) == (Fate.UNSENT, "ConnectionTimeoutError")
    assert reply.latency_ms < 3000


async def test_while_no_name_resolves_nothing_was_sent(
    client_of: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a name server away the resolver gives up after 10 s: in doubt would waste the permit."""
    answered = threading.Event()

    def away(*_: Any, **__: Any) -> Any:
        answered.wait(20)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", away)
    wechat = await client_of("http://wechat.test", post_timeout_s=1, connect_timeout_s=0.2)
    try:
        reply = await send_form_id(wechat, TOKEN_SHAPED)
    finally:
        answered.set()
    assert reply.fate is Fate.UNSENT
    assert TOKEN_SHAPED not in reply.errmsg


# -- other servers' replies ---------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(
    recorder: Recorder, client_of: Opener, status: int
) -> None:
    """It would carry token and message to wherever it points, perhaps a second time."""
    wechat = await client_of(recorder.url)
    recorder.says(b"", status, Location=f"{recorder.url}/elsewhere")
    reply = await send_form_id(wechat, TOKEN_SHAPED)
    assert (reply.fate, reply.errmsg) == (Fate.UNANSWERED, f"HTTP {status}")
    assert [request.path for request, _ in recorder.requests] == [TEMPLATE_SEND]


async def test_a_huge_reply_is_not_read_to_its_end(recorder: Recorder, client_of: Opener) -> None:
    written = 0
    whole = 200 << 20

    async def flood(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while written < whole:
                await response.write(b" " * (1 << 20))
                written += 1 << 20
        return response

    recorder.answer = flood
    wechat = await client_of(recorder.url, post_timeout_s=8)
    reply = await send_form_id(wechat, "token")
    assert (reply.fate, reply.errmsg) == (Fate.UNANSWERED, "not JSON")
    assert written < whole / 2
    recorder.answer = recorder.ok
    assert (await send_form_id(wechat, "token")).fate is Fate.ANSWERED


async def test_the_content_type_says_nothing(recorder: Recorder, client_of: Opener) -> None:
    wechat = await client_of(recorder.url)
    for content_type in ("text/html", "text/plain; charset=gbk", "application/octet-stream"):
        recorder.says(b'{"errcode":43101,"errmsg":"no"}', **{"Content-Type": content_type})
        assert (await send_form_id(wechat, "token")).errcode == 43101


async def test_a_reply_in_pieces_is_read_whole(recorder: Recorder, client_of: Opener) -> None:
    async def pieces(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for byte in b'{"errcode":0,"errmsg":"ok","msgid":1988810812324364291}':
            await response.write(bytes([byte]))
        return response

    recorder.answer = pieces
    wechat = await client_of(recorder.url)
    assert (await send_form_id(wechat, "token")).msgid == "1988810812324364291"


async def test_no_cookie_is_kept(recorder: Recorder, client_of: Opener) -> None:
    wechat = await client_of(recorder.url)
    recorder.says(b'{"errcode":0}', **{"Set-Cookie": "a=b"})
    await send_form_id(wechat, "token")
    await send_form_id(wechat, "token")
    assert "Cookie" not in recorder.requests[-1][0].headers


async def test_one_slow_answer_delays_no_other(recorder: Recorder, client_of: Opener) -> None:
    go_on = asyncio.Event()

    async def slow_for_one(request: web.Request) -> web.StreamResponse:
        if b"SLOW" in await request.read():
            await go_on.wait()
        return await recorder.ok(request)

    recorder.answer = slow_for_one
    wechat = await client_of(recorder.url)
    slow = asyncio.create_task(send_form_id(wechat, "token", "SLOW"))
    await soon(lambda: recorder.requests, "the slow one arrived")
    quick = await asyncio.gather(*(send_form_id(wechat, "token", f"F{n}") for n in range(20)))
    assert {reply.fate for reply in quick} == {Fate.ANSWERED}
    assert not slow.done()
    go_on.set()
    assert (await slow).fate is Fate.ANSWERED


async def test_a_call_that_is_no_send_wants_a_json_object(
    recorder: Recorder, client_of: Opener
) -> None:
    wechat = await client_of(recorder.url)
    recorder.says('{"name":"早"}'.encode())
    url = f"{recorder.url}/any?a=%41+b"
    assert await wechat.call("POST", url, json={"名": "早"}) == {"name": "早"}
    ((request, body),) = recorder.requests
    assert request.path_qs == "/any?a=%41+b"
    assert body == '{"名":"早"}'.encode()
    for nonsense in (b"[]", b"<html>", b"", b"\xff"):
        recorder.says(nonsense)
        with pytest.raises(ValueError, match=r"."):
            await wechat.call("GET", url)


# -- parse --------------------------------------------------------------------------------------


def published() -> list[Any]:
    """Return the published reply samples, or one that is skipped."""
    return [
        pytest.param(case, id=case["id"])
        for case in samples.cases()
        if case["kind"] in {"error-response", "response"} and isinstance(case.get("body"), str)
    ]


@samples.needs_cases
@pytest.mark.parametrize("case", published())
def test_every_published_sample_is_understood(case: dict[str, Any]) -> None:
    raw = case["body"].encode()
    reply = parse(200, raw)
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:  # a documented body with a comment in it
        assert reply == Reply(Fate.UNANSWERED, errmsg="not JSON")
        return
    errcode = document.get("errcode", 0)
    assert errcode == case.get("expect", {}).get("errcode", errcode)
    assert (reply.fate, reply.errcode) == (Fate.ANSWERED, errcode)
    assert reply.msgid == str(document.get("msgid", ""))
    if case["kind"] == "error-response":
        assert errcode in RULES
        assert reply.errmsg
        assert "hint" not in reply.errmsg
        assert len(reply.rid) in {0, 26}
        assert not reply.rid or reply.rid in document["errmsg"]
        assert not reply.rid or reply.rid not in reply.errmsg


@pytest.mark.parametrize(
    ("errmsg", "text", "rid"),
    [
        (
            "invalid openid rid: 61b0437c-57de737e-47cbfd49",
            "invalid openid",
            "61b0437c-57de737e-47cbfd49",
        ),
        (
            "invalid code, rid: 652d44d0-1d0af18b-5b069232",
            "invalid code",
            "652d44d0-1d0af18b-5b069232",
        ),
        ("user refuse to accept the msg rid: ", "user refuse to accept the msg", ""),
        ("user refuse to accept hint: [yXWaVA08193936]", "user refuse to accept", ""),
        ("reach max hints: [GHdaKi0gE-LTxHYa!]", "reach max", ""),
        ("code been used, hints: [ req_id: FHEaL8yFe-MRy_NA ]", "code been used", ""),
        ("not in whitelist hint:[UIluoA05892067]", "not in whitelist", ""),
        (
            "argument invalid! hint: [IWJsFA00994126] data.thing1.value is emtpy",
            "argument invalid! data.thing1.value is emtpy",
            "",
        ),
        ("", "", ""),
        ("x" * 1000, "x" * 200, ""),
    ],
)
def test_the_tail_of_an_errmsg_is_cut_off(errmsg: str, text: str, rid: str) -> None:
    raw = orjson.dumps({"errcode": 40003, "errmsg": errmsg})
    assert parse(200, raw) == Reply(Fate.ANSWERED, 40003, text, rid)


@pytest.mark.parametrize(
    ("raw", "errcode"),
    [
        (b'{"errcode":"40001","errmsg":1}', 40001),
        (b'{"errcode":-1,"errmsg":null}', -1),
        (b'{"errcode":9800006}', 9800006),
        (b'{"errmsg":"ok"}', 0),
        (b'{"errcode":null}', 0),
        (b'{"errcode":"0"}', 0),
    ],
)
def test_an_errcode_in_an_odd_shape_is_still_one(raw: bytes, errcode: int) -> None:
    reply = parse(200, raw)
    assert (reply.fate, reply.errcode) == (Fate.ANSWERED, errcode)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"ok",
        b"[]",
        b'"ok"',
        b"0",
        b"null",
        b"<html>502 Bad Gateway</html>",
        b'{"errcode":0,"errmsg":"o',
        b'{"errcode":"none"}',
        b'{"errcode":[0]}',
        b'{"errcode":{"code":0}}',
        b"\xff\xfe{}",
        b'{"errcode":0}{"errcode":0}',
    ],
)
def test_what_is_no_json_object_with_an_errcode_says_nothing(raw: bytes) -> None:
    assert parse(200, raw) == Reply(Fate.UNANSWERED, errmsg="not JSON")


@pytest.mark.parametrize("status", [201, 204, 400, 401, 403, 404, 413, 429, 500, 502, 504])
def test_any_other_status_says_nothing_about_the_message(status: int) -> None:
    raw = b'{"errcode":0,"errmsg":"ok"}'
    assert parse(status, raw) == Reply(Fate.UNANSWERED, errmsg=f"HTTP {status}")


@pytest.mark.parametrize(
    ("msgid", "expected"),
    [
        (1988810812324364291, "1988810812324364291"),
        (2**64 - 1, "18446744073709551615"),
        ("1988810812324364291", "1988810812324364291"),
        (0, "0"),
        (1.5, ""),
        (-3, ""),
        (True, ""),
        (None, ""),
        ("a b", ""),
        ([1], ""),
    ],
)
def test_a_msgid_is_digits_or_nothing(msgid: object, expected: str) -> None:
    assert parse(200, orjson.dumps({"errcode": 0, "msgid": msgid})).msgid == expected


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(),
    st.lists(st.integers(), max_size=2),
)


@given(st.fixed_dictionaries({}, optional={"errcode": ODD, "errmsg": ODD, "msgid": ODD}))
def test_no_json_object_breaks_it(document: dict[str, object]) -> None:
    reply = parse(200, json.dumps(document).encode())
    assert reply.fate in {Fate.ANSWERED, Fate.UNANSWERED}
    assert len(reply.errmsg) <= 200
    assert " " not in reply.msgid + reply.rid


@given(st.binary(max_size=200))
def test_no_bytes_break_it(raw: bytes) -> None:
    assert parse(200, raw).fate in {Fate.ANSWERED, Fate.UNANSWERED}


@pytest.mark.parametrize("number", [b"1e308", b"1e309", b"1e400", b"-1e400", b"9" * 400, b"1E+999"])
def test_an_errcode_beyond_all_numbers_is_none_that_a_log_line_cannot_hold(number: bytes) -> None:
    reply = parse(200, b'{"errcode":%b}' % number)
    assert reply.fate in {Fate.ANSWERED, Fate.UNANSWERED}
    assert -(2**63) <= reply.errcode < 2**63


def test_what_wechat_says_shows_no_secret() -> None:
    """Redacted before it is cut: else the half of a password's URL would stay."""
    secret = "abcdefghijklmnopqrstuvwxyz0123456789"
    for pad in range(120, 200, 9):
        said = f"{'x' * pad} access_token={secret} redis://:{secret}@h"
        raw = json.dumps({"errcode": 40001, "errmsg": said}).encode()
        errmsg = parse(200, raw).errmsg
        assert len(errmsg) <= 200
        assert "abcdefgh" not in errmsg
