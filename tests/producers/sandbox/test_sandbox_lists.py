"""What an app may look up of itself."""

import json
from typing import Any

from sandbox_client import Opener, WeChat

GETTEMPLATE = "/wxaapi/newtmpl/gettemplate"
LIST = "/cgi-bin/wxopen/template/list"


async def test_the_templates_are_listed(open_wechat: Opener, cases: dict[str, Any]) -> None:
    template = {"template_id": "T", "title": "会议", "enums": {"enum_string2": ["开"]}}
    wechat = await open_wechat(templates=[template])
    path = "/wxaapi/newtmpl/gettemplate"
    answer = await wechat.get(path, access_token=wechat.token)
    real = json.loads(cases["res-gettemplate"]["body"])
    assert list(answer) == list(real)
    assert set(answer["data"][0]) == set(real["data"][0]) | {"keywordEnumValueList"}


async def test_templates_of_the_form_id_api_come_in_pages(
    open_wechat: Opener, cases: dict[str, Any]
) -> None:
    templates = [
        {"template_id": f"T{number:02}", "channel": "template", "content": "{{keyword1.DATA}}"}
        for number in range(25)
    ]
    wechat = await open_wechat(templates=[*templates, {"template_id": "S"}])
    real = json.loads(cases["res-2018-getTemplateList"]["body"])
    first = await wechat.call(LIST, {"offset": 0, "count": 20})
    assert list(first) == list(real)
    assert set(first["list"][0]) == set(real["list"][0])
    assert [one["template_id"] for one in first["list"]] == [f"T{n:02}" for n in range(20)]
    rest = await wechat.call(LIST, {"offset": 20, "count": 50})
    assert len(rest["list"]) == 5
    assert (await wechat.call(LIST, {"offset": "x", "count": 1}))["errcode"] == 47001
    assert (await wechat.get(LIST, access_token=wechat.token))["errcode"] == 43002


async def test_a_retired_form_id_api_lists_nothing(open_wechat: Opener) -> None:
    wechat = await open_wechat(template_api="retired")
    assert (await wechat.call(LIST, {"offset": 0, "count": 20}))["errcode"] == 45103


async def test_an_app_has_its_own_templates_and_those_of_all(open_wechat: Opener) -> None:
    mine = {"template_id": "MINE", "appid": "wxmine"}
    wechat = await open_wechat(templates=[mine], permits="any")
    assert (await wechat.send_subscribe("o1", template_id="MINE"))["errcode"] == 0  # none of its
    token = await wechat.log_in("wxmine")
    listed = await wechat.get(GETTEMPLATE, access_token=token)
    assert [one["priTmplId"] for one in listed["data"]] == ["MINE"]
    assert (await wechat.send_subscribe("o1", template_id="T"))["errcode"] == 40037
    await wechat.order("config", {"templates": [mine, {"template_id": "T"}]})
    assert (await wechat.send_subscribe("o1", template_id="T"))["errcode"] == 0
    token = await wechat.log_in("wxother")
    listed = await wechat.get(GETTEMPLATE, access_token=token)
    assert [one["priTmplId"] for one in listed["data"]] == ["T"]
    assert (await wechat.send_subscribe("o1", template_id="MINE"))["errcode"] == 40037


async def test_categories_and_addresses_are_listed(wechat: WeChat, cases: dict[str, Any]) -> None:
    listed = await wechat.get("/wxaapi/newtmpl/getcategory", access_token=wechat.token)
    real = json.loads(cases["res-getcategory"]["body"])
    assert (list(listed), listed["data"][0]) == (list(real), real["data"][0])
    for path in ("/cgi-bin/getcallbackip", "/cgi-bin/get_api_domain_ip"):
        assert await wechat.get(path, access_token=wechat.token) == {"ip_list": ["127.0.0.1"]}
    assert (await wechat.get("/cgi-bin/getcallbackip"))["errcode"] == 41001
