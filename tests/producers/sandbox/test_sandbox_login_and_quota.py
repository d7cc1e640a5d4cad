"""Login codes, quotas, the log of refusals."""

import json
from typing import Any

from sandbox_client import APPID, SUBSCRIBE, TEMPLATE, Opener, WeChat

QUOTA_GET = "/cgi-bin/openapi/quota/get"


async def log_user_in(wechat: WeChat, code: str, **more: str) -> dict[str, Any]:
    query = {"appid": APPID, "secret": "s", "js_code": code, "grant_type": "authorization_code"}
    return await wechat.get("/sns/jscode2session", **{**query, **more})


async def test_a_code_gives_its_openid_once(wechat: WeChat) -> None:
    await wechat.order("codes", {"code": "c1", "openid": "o1"})
    first = await log_user_in(wechat, "c1")
    assert first["openid"] == "o1"
    assert set(first) == {"openid", "session_key"}
    assert (await log_user_in(wechat, "c1"))["errcode"] == 40163


async def test_a_code_lives_five_minutes(wechat: WeChat) -> None:
    await wechat.order("codes", {"code": "c1", "openid": "o1"})
    wechat.clock.advance(300)
    assert (await log_user_in(wechat, "c1"))["errcode"] == 40029


async def test_unknown_codes_are_invalid_unless_any_is_good(open_wechat: Opener) -> None:
    assert (await log_user_in(await open_wechat(), "c1"))["errcode"] == 40029
    wechat = await open_wechat(codes="any")
    assert len((await log_user_in(wechat, "c1"))["openid"]) == 28
    assert (await log_user_in(wechat, ""))["errcode"] == 41008


async def test_a_login_checks_the_secret(open_wechat: Opener) -> None:
    wechat = await open_wechat(apps={APPID: "s"}, codes="any")
    assert (await log_user_in(wechat, "c1", secret="wrong"))["errcode"] == 40125


async def test_the_daily_quota_holds_until_midnight_in_shanghai(open_wechat: Opener) -> None:
    wechat = await open_wechat(permits="any", quotas={SUBSCRIBE: {"daily": 2}})
    answers = [(await wechat.send_subscribe("o1"))["errcode"] for _ in range(3)]
    assert answers == [0, 0, 45009]
    wechat.clock.advance(86_400 - (wechat.clock.at_s + 8 * 3600) % 86_400)
    await wechat.log_in()
    assert (await wechat.send_subscribe("o1"))["errcode"] == 0


async def test_the_minute_quota_holds_until_the_next_minute(open_wechat: Opener) -> None:
    wechat = await open_wechat(permits="any", quotas={TEMPLATE: {"per_minute": 1}})
    assert (await wechat.send_template("o1", "f1"))["errcode"] == 0
    assert (await wechat.send_template("o1", "f2"))["errcode"] == 45011
    wechat.clock.advance(60)
    assert (await wechat.send_template("o1", "f2"))["errcode"] == 0


async def test_quota_get_counts(open_wechat: Opener) -> None:
    quota = {"daily": 5, "per_minute": 4}
    wechat = await open_wechat(permits="any", quotas={SUBSCRIBE: quota})
    await wechat.send_subscribe("o1")
    answer = await wechat.call(QUOTA_GET, {"cgi_path": SUBSCRIBE})
    assert answer["quota"] == {"daily_limit": 5, "used": 1, "remain": 4}
    assert answer["rate_limit"] == {"call_count": 4, "refresh_second": 60}
    for path, errcode in (("/cgi-bin/none", 76021), ("/sns/jscode2session", 76022), ("x", 76003)):
        assert (await wechat.call(QUOTA_GET, {"cgi_path": path}))["errcode"] == errcode


async def test_clear_quota_is_granted_ten_times(open_wechat: Opener) -> None:
    wechat = await open_wechat(permits="any", quotas={SUBSCRIBE: {"daily": 1}})
    assert (await wechat.call("/cgi-bin/clear_quota", {"appid": "wxother"}))["errcode"] == 40013
    for _ in range(9):
        assert (await wechat.send_subscribe("o1"))["errcode"] == 0
        assert (await wechat.call("/cgi-bin/clear_quota", {"appid": APPID}))["errcode"] == 0
    by_secret = {"appid": APPID, "appsecret": "s"}
    assert (await wechat.post("/cgi-bin/clear_quota/v2", by_secret))["errcode"] == 0
    assert (await wechat.call("/cgi-bin/clear_quota", {"appid": APPID}))["errcode"] == 48006
    path_order = {"cgi_path": SUBSCRIBE}
    assert (await wechat.call("/cgi-bin/openapi/quota/clear", path_order))["errcode"] == 0


async def test_a_refusal_can_be_asked_about_by_its_rid(wechat: WeChat) -> None:
    refused = await wechat.send_template("o1", "none")
    rid = refused["errmsg"].partition(" rid: ")[2]
    answer = await wechat.call("/cgi-bin/openapi/rid/get", {"rid": rid})
    assert json.loads(answer["request"]["response_body"]) == refused
    assert json.loads(answer["request"]["request_body"])["form_id"] == "none"
    assert answer["request"]["invoke_time"] == int(wechat.clock.at_s)
    unknown = {"rid": "00000000-00000000-00000000"}
    assert (await wechat.call("/cgi-bin/openapi/rid/get", unknown))["errcode"] == 76001
    assert (await wechat.call("/cgi-bin/openapi/rid/get", {"rid": "x"}))["errcode"] == 76002
    await wechat.log_in("wxother")
    assert (await wechat.call("/cgi-bin/openapi/rid/get", {"rid": rid}))["errcode"] == 76003
