"""Replies against samples of real ones."""

import json
import re
from typing import Any

import pytest
from sandbox_client import SUBSCRIBE, TEMPLATE, Opener, WeChat

RID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}")
HINT = re.compile(r"\[ ?(?:req_id: )?[\w!-]{12,18} ?\]")
UNIFORM = "/cgi-bin/message/wxopen/template/uniform_send"
LOGIN = "/sns/jscode2session"

Case = dict[str, Any]


def shape(body: str) -> tuple[list[str], str]:
    """Keys in order, and the errmsg with its random parts blotted out."""
    answer = json.loads(body)
    return list(answer), HINT.sub("[hint]", RID.sub("[rid]", answer["errmsg"]))


async def raw(wechat: WeChat, path: str, errcode: int, errmsg: str | None) -> str:
    fault = {"api": path, "action": "errcode", "errcode": errcode}
    await wechat.order("faults", [{**fault, "errmsg": errmsg}])
    url = f"{wechat.sandbox.url}{path}"
    async with wechat.session.post(url, data=b"{}") as response:
        assert response.status == 200
        return await response.text()


@pytest.mark.parametrize(
    ("case_id", "path", "errmsg"),
    [
        ("err-43101-rid", SUBSCRIBE, None),
        ("err-47003-empty-rid", SUBSCRIBE, "argument invalid! data.thing1.value is empty"),
        ("err-47003-invalid-rid", SUBSCRIBE, "argument invalid! data.phrase3.value invalid"),
        ("err-47003-cut-1", SUBSCRIBE, "argument invalid! data.character_string1.value invalid"),
        ("err-47003-cut-2", SUBSCRIBE, "argument invalid! data.character_string13.value invalid"),
        ("err-40037-rid", SUBSCRIBE, None),
        ("err-40003-rid", SUBSCRIBE, None),
        ("err-minus1-rid", SUBSCRIBE, None),
        ("err-45103-rid", TEMPLATE, None),
        ("err-45109-rid", UNIFORM, None),
        ("err-40001-long", SUBSCRIBE, None),
        ("err-40164-ipv6", "/cgi-bin/token", None),
        ("err-45009-rid", SUBSCRIBE, None),
        ("err-48001-rid", SUBSCRIBE, None),
        ("err-48004-rid", SUBSCRIBE, None),
        ("err-48011-rid", SUBSCRIBE, None),
        ("err-50002-rid", SUBSCRIBE, None),
        ("err-50004-rid", "/cgi-bin/token", None),
        ("err-40029-rid", LOGIN, None),
        ("err-40029-headers", LOGIN, None),
        ("err-40163-rid", LOGIN, None),
        ("err-76001-rid", "/cgi-bin/openapi/rid/get", None),
        ("err-40013-rid", UNIFORM, None),
        ("err-40165-rid", SUBSCRIBE, None),
    ],
)
async def test_a_refusal_reads_as_the_real_one(
    wechat: WeChat, cases: dict[str, Case], case_id: str, path: str, errmsg: str | None
) -> None:
    real = cases[case_id]["body"]
    assert shape(await raw(wechat, path, json.loads(real)["errcode"], errmsg)) == shape(real)


@pytest.mark.parametrize(
    ("case_id", "path", "errmsg"),
    [
        ("err-43101-hint", SUBSCRIBE, None),
        ("err-47003-emtpy-hint", SUBSCRIBE, "argument invalid! data.thing1.value is empty"),
        ("err-47003-invalid-hint", SUBSCRIBE, "argument invalid! data.name1.value invalid"),
        ("err-40037-hint", SUBSCRIBE, None),
        ("err-41028-hint", TEMPLATE, None),
        ("err-41029-hint", TEMPLATE, None),
        ("err-45103-hint", TEMPLATE, None),
        ("err-40001-hint", TEMPLATE, None),
        ("err-45009-hints", "/wxaapi/newtmpl/gettemplate", None),
        ("err-40029-hints", LOGIN, None),
        ("err-40163-hints", LOGIN, None),
    ],
)
async def test_a_refusal_reads_as_the_real_one_of_before_2020(
    open_wechat: Opener, cases: dict[str, Case], case_id: str, path: str, errmsg: str | None
) -> None:
    wechat = await open_wechat(errmsg_era="hint")
    real = cases[case_id]["body"]
    assert shape(await raw(wechat, path, json.loads(real)["errcode"], errmsg)) == shape(real)


async def test_a_success_has_the_keys_of_a_real_one(
    open_wechat: Opener, cases: dict[str, Case]
) -> None:
    wechat = await open_wechat(permits="any")
    sent = await wechat.send_subscribe("o1")
    assert list(sent) == list(json.loads(cases["res-subscribe-send-msgid"]["body"]))


@pytest.mark.parametrize("case_id", ["req-subscribe-send-2", "req-2018-sendTemplateMessage"])
async def test_a_documented_request_is_accepted(
    open_wechat: Opener, cases: dict[str, Case], case_id: str
) -> None:
    wechat = await open_wechat(permits="any")
    case = cases[case_id]
    answer = await wechat.call(case["api"].removeprefix("POST "), case["body"].encode())
    assert answer["errcode"] == 0


async def test_a_rid_begins_with_the_time_of_the_call(wechat: WeChat) -> None:
    answer = await wechat.send_template("o1", "none")
    found = RID.search(answer["errmsg"])
    assert found is not None
    assert int(found[0][:8], 16) == int(wechat.clock.at_s)


async def test_login_answers_as_plain_text_and_the_rest_as_json(wechat: WeChat) -> None:
    for path, kind in ((LOGIN, "text/plain"), ("/cgi-bin/token", "application/json")):
        async with wechat.session.get(wechat.sandbox.url + path) as response:
            assert (response.status, response.content_type) == (200, kind)


async def test_an_unknown_path_is_404(wechat: WeChat) -> None:
    async with wechat.session.get(wechat.sandbox.url + "/cgi-bin/nothing") as response:
        assert response.status == 404
