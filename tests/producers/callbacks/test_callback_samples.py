"""The public samples of signatures, encryption and pushes all mean what their source says."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from wechat_pushes import Desk

from producers.callbacks import crypto, pushes
from producers.callbacks.bodies import parse
from producers.callbacks.envelope import echo, open_push
from producers.callbacks.pushes import Happening, Push
from producers.errors import ForgedError, InvalidInputError
from producers.sandbox.pushes.envelope import encrypt
from producers.settings import AppSettings


def of(cases: list[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    found = [case for case in cases if case["kind"] in kinds]
    assert found, kinds
    return found


def appid(case: dict[str, Any]) -> str:
    """Return whom it is for; one sample says so only inside."""
    return case.get("appid") or case.get("expect", {}).get("appid") or "wx1"


def app(case: dict[str, Any], **changes: Any) -> AppSettings:
    return AppSettings.model_validate(
        {
            "appid": appid(case),
            "secret": "s",
            "callback_token": case["token"],
            "callback_aes_key": case.get("encoding_aes_key"),
            **changes,
        }
    )


def encrypted(case: dict[str, Any]) -> str:
    for holder in (case, case["expect"]):
        if "Encrypt" in holder:
            return holder["Encrypt"]
    if "xml" in case["expect"]:
        return parse(case["expect"]["xml"].encode())["Encrypt"]
    if "body_json" in case:
        return case["body_json"]["Encrypt"]
    return parse(case["body"].encode())["Encrypt"]


def test_sorted_parts_give_the_sampled_hashes(cases: list[dict[str, Any]]) -> None:
    for case in of(cases, "sorted-sha1"):
        assert crypto.sign(*case["parts"]) == case["expect"]["sha1"], case["id"]


def test_an_empty_part_is_refused() -> None:
    with pytest.raises(ForgedError):
        crypto.check(crypto.sign("", "345", "token"), "", "345", "token")


def test_url_checks_are_answered_or_refused(cases: list[dict[str, Any]]) -> None:
    signed = [case for case in of(cases, "url-verification", "negative") if "token" in case]
    checked = [case for case in signed if "signature" in case.get("query", {})]
    assert {case["expect"]["valid"] for case in checked} == {True, False}
    for case in checked:
        query = {"echostr": "given", **case["query"]}
        if case["expect"]["valid"]:
            assert echo(app(case), query) == case["expect"].get("response_body", "given")
        else:
            with pytest.raises(ForgedError):
                echo(app(case), query)


def test_an_unsigned_url_check_is_refused_whatever_a_library_does(
    cases: list[dict[str, Any]],
) -> None:
    [case] = [case for case in cases if case["id"] == "server-echostr-easywechat"]
    with pytest.raises(ForgedError):
        echo(app({"token": "anything"}), case["query"])


def test_encrypted_url_checks_are_decrypted_or_refused(cases: list[dict[str, Any]]) -> None:
    known = [case for case in of(cases, "encrypted-echostr") if "appid" in case]
    for case in known:
        assert echo(app(case), case["query"]) == case["expect"]["plaintext"]
        with pytest.raises(ForgedError, match="appid"):
            echo(app(case, appid="wx_another"), case["query"])
    [bad] = [case for case in cases if case["id"] == "echostr-encrypted-wechatpy-bad-nonce"]
    with pytest.raises(ForgedError, match="signature"):
        echo(app(bad), bad["query"])
    assert known


def test_ciphertexts_say_what_their_source_says(cases: list[dict[str, Any]]) -> None:
    kinds = ("aes-json", "aes-xml", "aes-encrypt", "aes-decrypt-xml")
    for case in of(cases, *kinds):
        key, text = case["encoding_aes_key"], encrypted(case)
        message = crypto.decrypt(key, text, appid(case)).decode()
        assert message == case.get("msg", case["expect"].get("msg")), case["id"]
        with pytest.raises(ForgedError, match="appid"):
            crypto.decrypt(key, text, appid(case) + "x")


def test_replies_are_signed_like_pushes(cases: list[dict[str, Any]]) -> None:
    [case] = [case for case in cases if case["id"] == "reply-secure-official"]
    parts = (case["token"], str(case["timestamp"]), str(case["nonce"]), encrypted(case))
    crypto.check(case["expect"]["MsgSignature"], *parts)


def test_what_the_sandbox_encrypts_of_a_sample_comes_back(cases: list[dict[str, Any]]) -> None:
    for case in of(cases, "aes-roundtrip-json"):
        message = json.dumps(case["msg_json"]).encode()
        text = encrypt(case["encoding_aes_key"], b"r" * 16, message, case["appid"])
        assert crypto.decrypt(case["encoding_aes_key"], text, case["appid"]) == message


def test_signed_ciphertexts_are_opened_and_wrong_ones_refused(
    cases: list[dict[str, Any]],
) -> None:
    seen = set()
    for case in of(cases, "aes-json", "aes-decrypt-xml", "negative"):
        query = case.get("query", {})
        if "encoding_aes_key" not in case or "echostr" in query or case["id"].startswith("reply-"):
            continue
        query = query or {name: case[name] for name in ("timestamp", "nonce", "msg_signature")}
        body = json.dumps({"ToUserName": "gh", "Encrypt": encrypted(case)}).encode()
        if case["expect"]["valid"]:
            opened = open_push(app(case), query, body)
            assert opened.message == parse(case["expect"]["msg"].encode())
        else:
            with pytest.raises(ForgedError):
                open_push(app(case), query, body)
        seen.add(case["id"])
    assert {"push-secure-official", "aes-wrong-appid-easywechat"} <= seen


def test_the_signature_covers_the_whole_ciphertext(cases: list[dict[str, Any]]) -> None:
    [case] = [case for case in cases if case["id"] == "sig-tampered-cipher-powerwechat"]
    query = case["query"]
    with pytest.raises(ForgedError):
        crypto.check(
            query["msg_signature"],
            case["token"],
            query["timestamp"],
            query["nonce"],
            case["Encrypt"],
        )


def test_the_official_plain_push_is_genuine(cases: list[dict[str, Any]]) -> None:
    [case] = of(cases, "plain-json")
    opened = open_push(app(case), case["query"], case["body"].encode())
    assert pushes.read(opened.message) == case["expect"]["event"]


def test_bodies_are_told_apart_by_their_first_character(cases: list[dict[str, Any]]) -> None:
    for case in of(cases, "body-format"):
        if case["expect"]["parsed"]:
            assert parse(case["body"].encode())["key"] == "value"
        else:
            with pytest.raises(InvalidInputError):
                parse(case["body"].encode())


def test_every_sampled_event_is_read_or_left_alone(cases: list[dict[str, Any]]) -> None:
    read: dict[str, int] = {}
    for case in of(cases, "event-xml", "event-json", "event-json-doc", "message-json", "probe"):
        found = pushes.read(parse(case["body"].encode()))
        if case.get("event") in set(Happening):
            assert isinstance(found, Push), case["id"]
            assert found.event == case["event"]
            assert found.openid.startswith(("o", "test_openid"))
            assert found.created_s > 1_600_000_000
            read[found.event] = read.get(found.event, 0) + 1
        else:
            expected = case.get("event") or {"message-json": "text"}.get(case["kind"])
            assert found == (expected or "CheckContainerPath"), case["id"]
    assert set(read) == set(Happening)


def test_the_msgids_of_the_samples_are_exact(cases: list[dict[str, Any]]) -> None:
    for case in cases:
        if case.get("event") == Happening.SENT:
            push = pushes.read(parse(case["body"].encode()))
            assert isinstance(push, Push)
            [item] = push.items
            assert item.msgid in case["body"]
            assert item.msgid in {"1700827132819554304", "1864323726461255680", "msg_1"}
            assert item.errcode == 0


def test_the_official_push_runs_through_when_its_age_does_not_matter(
    cases: list[dict[str, Any]], open_desk: Callable[..., Desk]
) -> None:
    [case] = [case for case in cases if case["id"] == "push-secure-official"]
    fields = {"callback_token": case["token"], "callback_aes_key": case["encoding_aes_key"]}
    body = json.dumps(case["body_json"]).encode()
    desk = open_desk(settings={"callback_max_age": 0}, **fields, appid=case["appid"])
    desk.take((case["query"], body))
    assert desk.counts() == {"dropped": "1"}
    desk = open_desk(**fields, appid=case["appid"])
    with pytest.raises(ForgedError, match="stale"):
        desk.take((case["query"], body))
