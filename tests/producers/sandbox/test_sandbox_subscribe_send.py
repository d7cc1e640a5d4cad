"""The subscribe API."""

import asyncio
from typing import Any

import pytest
from sandbox_client import SUBSCRIBE, Opener, WeChat


async def subscribe(wechat: WeChat, openid: str = "o1", count: int = 1) -> None:
    grant = {"openid": openid, "template_id": "T", "count": count}
    await wechat.order("permits", {"subscriptions": [grant]})


async def test_each_accept_delivers_one_message(wechat: WeChat) -> None:
    await subscribe(wechat, count=2)
    answers = [(await wechat.send_subscribe("o1"))["errcode"] for _ in range(3)]
    assert answers == [0, 0, 43101]


async def test_accepts_add_up_per_template_and_user(wechat: WeChat) -> None:
    await subscribe(wechat)
    await subscribe(wechat)
    other = await wechat.send_subscribe("o1", template_id="U")
    assert other["errcode"] == 43101
    assert (await wechat.send_subscribe("o2"))["errcode"] == 43101
    assert [(await wechat.send_subscribe("o1"))["errcode"] for _ in range(2)] == [0, 0]


async def test_a_user_can_take_accepts_back(wechat: WeChat) -> None:
    await subscribe(wechat, count=3)
    taken = {"openid": "o1", "template_id": "T"}
    await wechat.order("permits", {"unsubscriptions": [taken]})
    assert (await wechat.send_subscribe("o1"))["errcode"] == 43101


async def test_msgids_are_64_bit_and_differ(wechat: WeChat) -> None:
    await subscribe(wechat, count=2)
    msgids = [(await wechat.send_subscribe("o1"))["msgid"] for _ in range(2)]
    assert len(set(msgids)) == 2
    assert all(2**53 < msgid < 2**63 for msgid in msgids)


async def test_a_long_term_template_needs_one_accept(open_wechat: Opener) -> None:
    wechat = await open_wechat(templates=[{"template_id": "T", "type": 3}])
    assert (await wechat.send_subscribe("o1"))["errcode"] == 43101
    await subscribe(wechat)
    assert [(await wechat.send_subscribe("o1"))["errcode"] for _ in range(3)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("data", "tail"),
    [
        ({"thing1": {"value": ""}}, "data.thing1.value is empty"),
        ({"thing1": {}}, "data.thing1.value is empty"),
        ({"thing1": "x"}, "data.thing1.value is empty"),
        ({"thing1": {"value": "x" * 21}}, "data.thing1.value invalid"),
        ({"thing1.DATA": {"value": "x"}}, "data.thing1.DATA.value invalid"),
        ({"character_string1": {"value": "汉"}}, "data.character_string1.value i"),
        ({"character_string13": {"value": "汉"}}, "data.character_string13.value"),
        ("{}", "data is invalid"),
    ],
)
async def test_wrong_data_is_named_and_cut_at_48_characters(
    wechat: WeChat, data: Any, tail: str
) -> None:
    await subscribe(wechat)
    answer = await wechat.send_subscribe("o1", data=data)
    assert answer["errcode"] == 47003
    assert answer["errmsg"].partition(" rid: ")[0] == f"argument invalid! {tail}"
    assert (await wechat.send_subscribe("o1"))["errcode"] == 0


async def test_a_template_wants_all_its_keys_and_listed_values(open_wechat: Opener) -> None:
    template = {
        "template_id": "T",
        "content": "物品:{{thing1.DATA}}\n状态:{{enum_string2.DATA}}\n",
        "enums": {"enum_string2": ["开", "关"]},
    }
    wechat = await open_wechat(templates=[template], permits="any")
    missing = await wechat.send_subscribe("o1")
    assert "data.enum_string2.value is emp" in missing["errmsg"]
    data = {"thing1": {"value": "灯"}, "enum_string2": {"value": "坏"}}
    assert (
        "data.enum_string2.value invali" in (await wechat.send_subscribe("o1", data=data))["errmsg"]
    )
    data["enum_string2"] = {"value": "开"}
    assert (await wechat.send_subscribe("o1", data=data))["errcode"] == 0
    assert (await wechat.send_subscribe("o1", template_id="U"))["errcode"] == 40037


async def test_a_word_of_the_blacklist_is_refused(open_wechat: Opener) -> None:
    wechat = await open_wechat(blacklist=["赌"], permits="any")
    answer = await wechat.send_subscribe("o1", data={"thing1": {"value": "来赌一把"}})
    assert answer["errcode"] == 45168


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        (b"", 44002),
        (b"{", 47001),
        (b"[]", 47001),
        (b'{"touser":"o1","template_id":"T","data":{"thing1":{"value":"\\u7b7e"}}}', 47002),
        (b'{"touser":"o1","template_id":"T","data":{"thing1":{"value":"\\\\u7b7e"}}}', 0),
    ],
)
async def test_a_body_is_utf8_json_without_escapes(
    open_wechat: Opener, body: bytes, errcode: int
) -> None:
    wechat = await open_wechat(permits="any")
    assert (await wechat.call(SUBSCRIBE, body))["errcode"] == errcode


async def test_escapes_pass_when_not_strict(open_wechat: Opener) -> None:
    wechat = await open_wechat(permits="any", strict_json=False)
    body = b'{"touser":"o1","template_id":"T","data":{"thing1":{"value":"\\u7b7e"}}}'
    assert (await wechat.call(SUBSCRIBE, body))["errcode"] == 0


async def test_checks_come_in_order(open_wechat: Opener) -> None:
    wechat = await open_wechat(templates=[{"template_id": "T"}], pages=["index"])
    token, wechat.token = wechat.token, "bad"
    body: dict[str, Any] = {"touser": "", "template_id": "U", "page": "x", "data": {"thing1": 1}}
    assert (await wechat.call(SUBSCRIBE, b"{"))["errcode"] == 40001
    wechat.token = token
    assert (await wechat.call(SUBSCRIBE, b"{"))["errcode"] == 47001
    for fix, errcode in (
        ({}, 40003),
        ({"touser": "o1"}, 40037),
        ({"template_id": "T"}, 41030),
        ({"page": "index"}, 43101),
    ):
        body |= fix
        assert (await wechat.call(SUBSCRIBE, body))["errcode"] == errcode
    await subscribe(wechat)
    assert (await wechat.call(SUBSCRIBE, body))["errcode"] == 47003


async def test_two_messages_to_one_user_at_once_are_refused(open_wechat: Opener) -> None:
    wechat = await open_wechat(permits="any", latency={"fixed_ms": 100})
    answers = await asyncio.gather(*(wechat.send_subscribe(user) for user in ("o1", "o1", "o2")))
    assert sorted(answer["errcode"] for answer in answers) == [0, 0, 43108]
    assert (await wechat.send_subscribe("o1"))["errcode"] == 0


async def test_a_client_that_leaves_frees_its_user(open_wechat: Opener) -> None:
    fault = {"api": SUBSCRIBE, "action": "hang", "accept": True, "count": 1}
    wechat = await open_wechat(permits="any", faults=[fault])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(wechat.send_subscribe("o1"), 0.05)
    for _ in range(1000):  # until the sandbox has noticed
        if not wechat.sandbox.state.sending:
            break
        await asyncio.sleep(0.001)
    assert (await wechat.send_subscribe("o1"))["errcode"] == 0
