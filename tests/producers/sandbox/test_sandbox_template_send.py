"""The form_id API."""

import pytest
from sandbox_client import TEMPLATE, Opener, WeChat

DAY_MS = 86_400_000


async def give(wechat: WeChat, openid: str = "o1", form_id: str = "f1") -> None:
    await wechat.order("permits", {"form_ids": [{"openid": openid, "form_id": form_id}]})


async def test_a_form_id_delivers_one_message(wechat: WeChat) -> None:
    await give(wechat)
    assert await wechat.send_template("o1", "f1") == {"errcode": 0, "errmsg": "ok"}
    assert (await wechat.send_template("o1", "f1"))["errcode"] == 41029


async def test_a_prepay_id_delivers_three_messages(wechat: WeChat) -> None:
    await wechat.order("permits", {"prepay_ids": [{"openid": "o1", "prepay_id": "wx1"}]})
    answers = [(await wechat.send_template("o1", "wx1"))["errcode"] for _ in range(4)]
    assert answers == [0, 0, 0, 41029]


async def test_a_form_id_lives_seven_days(wechat: WeChat) -> None:
    await give(wechat)
    await give(wechat, form_id="f2")
    wechat.clock.advance(7 * 86_400 - 1)
    await wechat.log_in()
    assert (await wechat.send_template("o1", "f1"))["errcode"] == 0
    wechat.clock.advance(1)
    assert (await wechat.send_template("o1", "f2"))["errcode"] == 41028


async def test_a_form_id_may_be_given_an_earlier_end(wechat: WeChat) -> None:
    soon_ms = int(wechat.clock.at_s * 1000) + 1000
    permit = {"openid": "o1", "form_id": "f1", "expires_at_ms": soon_ms}
    await wechat.order("permits", {"form_ids": [permit]})
    wechat.clock.advance(1)
    assert (await wechat.send_template("o1", "f1"))["errcode"] == 41028


async def test_a_form_id_serves_its_own_user_only(wechat: WeChat) -> None:
    await give(wechat)
    assert (await wechat.send_template("o2", "f1"))["errcode"] == 41028
    assert (await wechat.send_template("o1", "f1"))["errcode"] == 0


async def test_an_unknown_form_id_is_invalid(wechat: WeChat) -> None:
    assert (await wechat.send_template("o1", "f1"))["errcode"] == 41028


async def test_any_form_id_is_good_once_when_told_so(open_wechat: Opener) -> None:
    wechat = await open_wechat(permits="any")
    assert [(await wechat.send_template("o1", "f1"))["errcode"] for _ in range(2)] == [0, 41029]
    prepay = [(await wechat.send_template("o1", "wx2"))["errcode"] for _ in range(4)]
    assert prepay == [0, 0, 0, 41029]


@pytest.mark.parametrize(
    ("change", "errcode"),
    [
        ({"touser": ""}, 40003),
        ({"touser": "a b"}, 40003),
        ({"touser": None}, 40003),
        ({"template_id": ""}, 40037),
        ({"template_id": "U"}, 40037),
        ({"page": "pages/none?x=1"}, 41030),
        ({"page": 5}, 41030),
        ({"form_id": ["f1"]}, 41028),
        ({"data": "{}"}, 47001),
        ({"data": {"keyword1": {"value": "x" * 2000}}}, 45014),
        ({"emphasis_keyword": "keyword1"}, 40138),
        ({"emphasis_keyword": "keyword9.DATA"}, 40138),
    ],
)
async def test_a_wrong_field_is_refused_and_uses_up_nothing(
    open_wechat: Opener, change: dict[str, object], errcode: int
) -> None:
    templates = [{"template_id": "T", "channel": "template"}]
    wechat = await open_wechat(templates=templates, pages=["pages/index"])
    await give(wechat)
    body = {
        "touser": "o1",
        "template_id": "T",
        "form_id": "f1",
        "page": "pages/index?a=b",
        "data": {"keyword1": {"value": "1"}},
        "emphasis_keyword": "keyword1.DATA",
    }
    assert (await wechat.call(TEMPLATE, {**body, **change}))["errcode"] == errcode
    assert (await wechat.call(TEMPLATE, body))["errcode"] == 0


@pytest.mark.parametrize(("mode", "errcode"), [("retired", 45103), ("retired_46101", 46101)])
async def test_the_retired_api_says_so(open_wechat: Opener, mode: str, errcode: int) -> None:
    wechat = await open_wechat(template_api=mode, permits="any")
    assert (await wechat.send_template("o1", "f1"))["errcode"] == errcode


async def test_it_is_asked_by_post(wechat: WeChat) -> None:
    assert (await wechat.get(TEMPLATE, access_token=wechat.token))["errcode"] == 43002


async def test_openids_may_belong_to_another_app(wechat: WeChat) -> None:
    await give(wechat)
    await wechat.order("openids", {"appid": "wxother", "openids": ["o1"]})
    assert (await wechat.send_template("o1", "f1"))["errcode"] == 40003
    await wechat.log_in("wxother")
    assert (await wechat.send_template("o1", "f1"))["errcode"] == 0


async def test_unknown_and_invalid_openids_can_be_refused(open_wechat: Opener) -> None:
    wechat = await open_wechat(known_openids_only=True, invalid_openids=["o2"], permits="any")
    await give(wechat)
    await give(wechat, "o2", "f2")
    assert (await wechat.send_template("o1", "f1"))["errcode"] == 0
    assert (await wechat.send_template("o2", "f2"))["errcode"] == 40003
    assert (await wechat.send_template("o3", "f3"))["errcode"] == 40003


async def test_uniform_send_is_withdrawn(wechat: WeChat) -> None:
    answer = await wechat.call("/cgi-bin/message/wxopen/template/uniform_send", {})
    assert answer["errcode"] == 45109
