"""Reading a push: shapes as WeChat writes them, exact numbers, and nothing believed unread."""

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wechat_pushes import CHANGE, POPUP, SENT, choice, push, sent

from producers.callbacks.bodies import MAX_BYTES, parse
from producers.callbacks.pushes import Item, Push, read, unpack
from producers.errors import InvalidInputError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
FIELDS = (
    "ToUserName",
    "FromUserName",
    "CreateTime",
    "MsgType",
    "Event",
    "List",
    "SubscribeMsgPopupEvent",
    "TemplateId",
    "SubscribeStatusString",
    "MsgID",
    "ErrorCode",
    "ErrorStatus",
    "Encrypt",
)


def message(event: str = POPUP, **changes: Any) -> dict[str, Any]:
    fields = {
        "ToUserName": "gh_1",
        "FromUserName": "oAnna",
        "CreateTime": "1620973045",
        "MsgType": "event",
        "Event": event,
        "List": choice("accept") if event != SENT else sent(),
    }
    return {name: value for name, value in {**fields, **changes}.items() if value is not None}


def items(event: str, *entries: Any) -> tuple[Item, ...]:
    found = read(message(event, List=list(entries)))
    assert isinstance(found, Push)
    return found.items


@pytest.mark.parametrize("style", ["json", "xml"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_one_item_or_several_are_read_alike(style: str, count: int) -> None:
    given = [choice("accept" if n % 2 else "reject", f"T{n}") for n in range(count)]
    _, body = push(POPUP, *given, style=style)
    found = read(parse(body))
    assert isinstance(found, Push)
    assert found.items == tuple(
        Item(item["TemplateId"], item["SubscribeStatusString"]) for item in given
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"List": [choice("accept")]},
        {"List": None, "SubscribeMsgPopupEvent": {"List": choice("accept")}},
        {"List": None, "SubscribeMsgPopupEvent": {"List": [choice("accept")]}},
        {"List": None, "SubscribeMsgPopupEvent": [{"List": choice("accept")}]},
        {"CreateTime": 1620973045, "Unknown": {"deep": [1]}},
        {"List": [choice("accept"), 5, None, {"TemplateId": "a b"}, {"TemplateId": "T"}]},
    ],
)
def test_every_documented_shape_says_the_same(changes: dict[str, Any]) -> None:
    expected = Push("subscribe_msg_popup_event", "oAnna", 1620973045, (Item("T", "accept"),))
    assert read(message(**changes)) == expected


@given(msgid=st.integers(0, 2**64 - 1), as_text=st.booleans(), key=st.sampled_from(["D", "d"]))
def test_a_msgid_of_64_bits_is_exact(msgid: int, as_text: bool, key: str) -> None:
    item: dict[str, Any] = {k: v for k, v in sent().items() if k != "MsgID"}
    item[f"MsgI{key}"] = str(msgid) if as_text else msgid
    body = orjson.dumps(message(SENT, List=item))
    found = read(parse(body))
    assert isinstance(found, Push)
    assert found.items[0].msgid == str(msgid)


@pytest.mark.parametrize("msgid", [1.5, 2.0**70, True, None, [], "", "a b", "x" * 65])
def test_a_msgid_that_is_not_exact_is_none(msgid: Any) -> None:
    assert items(SENT, {**sent(), "MsgID": msgid})[0].msgid == ""


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("0", "success", (0, "success")),
        (0, "ok", (0, "ok")),
        ("-7", "system failed", (-7, "system failed")),
        (43101, None, (43101, "")),
        ("e1", "broken", (-1, "e1 broken")),
        (1.5, "odd", (-1, "1.5 odd")),
        (True, "odd", (-1, "True odd")),
        ("９", "odd", (-1, "９ odd")),
        ("0" * 30, "long", (-1, "0" * 30 + " long")),
    ],
)
def test_any_errcode_but_zero_is_a_failure(code: Any, status: Any, expected: Any) -> None:
    item = items(SENT, {**sent(), "ErrorCode": code, "ErrorStatus": status})[0]
    assert (item.errcode, item.status) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"FromUserName": None},
        {"FromUserName": "o Anna"},
        {"FromUserName": "o" * 65},
        {"FromUserName": ["oAnna"]},
        {"CreateTime": None},
        {"CreateTime": "soon"},
        {"CreateTime": -5},
        {"CreateTime": 10**11},
        {"CreateTime": True},
        {"List": None},
        {"List": []},
        {"List": "T"},
        {"List": {"TemplateId": "T"}},
        {"List": {"TemplateId": "T" * 129, "SubscribeStatusString": "accept"}},
        {"List": [choice("accept", f"T{n}") for n in range(101)]},
    ],
)
def test_a_broken_event_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        read(message(**changes))


def test_a_sent_item_without_a_code_says_nothing() -> None:
    with pytest.raises(InvalidInputError):
        items(SENT, {"TemplateId": "T", "MsgID": "1", "ErrorStatus": "success"})


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"MsgType": "text", "Content": "hi"}, "text"),
        ({"MsgType": "event", "Event": "debug_demo"}, "debug_demo"),
        ({"MsgType": "text", "Event": POPUP}, POPUP),
        ({"action": "CheckContainerPath"}, "CheckContainerPath"),
        ({"MsgType": "event", "Event": "x" * 900}, "x" * 64),
        ({"MsgType": 5, "Event": ["a"]}, "nothing"),
        ({}, "nothing"),
    ],
)
def test_other_messages_are_named_and_left_alone(fields: dict[str, Any], name: str) -> None:
    assert read(fields) == name


@pytest.mark.parametrize("event", [POPUP, CHANGE, SENT])
def test_a_push_survives_the_inbox(event: str) -> None:
    found = read(message(event))
    assert isinstance(found, Push)
    assert unpack(found.packed()) == found


@given(st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_any_json_is_read_or_refused(fields: dict[str, Any]) -> None:
    for event in (POPUP, SENT):
        with contextlib.suppress(InvalidInputError):
            read({**message(event), **fields})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[1]",
        b"<xml>",
        b"<html></html>",
        b"<xml><a></xml>",
        b"{" * 100_000,
        b'{"a":' * 40_000 + b"1" + b"}" * 40_000,
        b"[" * 100_000,
        b"<a>" * 80_000,
        b'<?xml version="1.0" encoding="x-none"?><xml><a>1</a></xml>',
        b'<?xml version="1.0" encoding="utf-16"?><xml><a>1</a></xml>',
        b'<?xml version="1.0" encoding="shift_jis"?><xml><a>1</a></xml>',
        b"<!DOCTYPE xml><xml><a>1</a></xml>",
        b'<!DOCTYPE xml [<!ENTITY a "aaaa">]><xml><b>&a;</b></xml>',
        b'<!DOCTYPE xml [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;">]><xml><c>&b;</c></xml>',
        b'<!DOCTYPE xml [<!ENTITY x SYSTEM "file:///etc/hostname">]><xml><c>&x;</c></xml>',
        b'<!DOCTYPE xml SYSTEM "http://127.0.0.1:1/x.dtd"><xml><c>1</c></xml>',
        b"<xml>" + b"x" * MAX_BYTES + b"</xml>",
    ],
)
def test_a_hostile_body_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInputError):
        parse(body)


def test_deep_elements_end_somewhere() -> None:
    found = parse(b"<xml>" + b"<a>" * 30_000 + b"x" + b"</a>" * 30_000 + b"</xml>")
    assert found == {"a": {"a": {"a": {"a": {}}}}}


def test_a_byte_order_mark_and_trailing_commas_do_no_harm() -> None:
    body = b'\xef\xbb\xbf {"a": "x,}", "List": [{"b": "\\",]"},],\n}'
    assert parse(body) == {"a": "x,}", "List": [{"b": '",]'}]}


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    for start in (b"", b"<xml>", b'{"'):
        with contextlib.suppress(InvalidInputError):
            assert isinstance(parse(start + body), dict)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("piece", [b'\\"', b'"', b",", b'",'])
def test_no_body_takes_long_to_be_no_json(piece: bytes) -> None:
    with pytest.raises(InvalidInputError):
        parse(b'{"' + piece * (MAX_BYTES // len(piece) - 4))
