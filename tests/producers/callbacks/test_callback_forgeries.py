"""What is not WeChat's, not for this app, or not of this moment is refused, and changes nothing."""

import base64
import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wechat_pushes import AES_KEY, APPID, POPUP, TOKEN, Desk, Request, choice, push

from producers.callbacks.bodies import parse
from producers.callbacks.crypto import sign
from producers.callbacks.envelope import Opened, open_push
from producers.callbacks.pushes import read
from producers.errors import ForgedError, InvalidInputError
from producers.settings import AppSettings
from producers.store import keys

APP = AppSettings.model_validate(
    {"appid": APPID, "secret": "s", "callback_token": TOKEN, "callback_aes_key": AES_KEY}
)
PLAIN_APP = APP.model_copy(update={"callback_aes_key": None})


def refused(desk: Desk, request: Request, reason: str | None = None) -> None:
    with pytest.raises(ForgedError, match=reason):
        desk.callbacks.receive("shop", *request)
    assert desk.callbacks.waiting("shop") == 0


def with_query(request: Request, **changes: str) -> Request:
    query = {**request[0], **changes}
    return {name: value for name, value in query.items() if value}, request[1]


@pytest.mark.parametrize("style", ["json", "xml"])
@pytest.mark.parametrize("mode", ["secure", "compatible"])
def test_an_encrypted_push_is_taken(secure: Desk, mode: str, style: str) -> None:
    secure.take(push(POPUP, choice("accept"), mode=mode, style=style))
    assert secure.count() == 1


def test_a_compatible_push_is_taken_without_a_key_by_its_clear_fields(desk: Desk) -> None:
    desk.take(push(POPUP, choice("accept"), mode="compatible"))
    assert desk.count() == 1


def test_the_clear_fields_of_a_compatible_push_count_for_nothing(secure: Desk) -> None:
    query, body = push(POPUP, choice("accept"), mode="compatible")
    secure.take((query, body.replace(b"oAnna", b"oEve1", 1)))
    assert (secure.count(), secure.count(openid="oEve1")) == (1, 0)


def test_with_a_key_a_plain_push_is_refused_unless_a_setting_allows_it(
    secure: Desk, open_desk: Callable[..., Desk]
) -> None:
    request = push(POPUP, choice("accept"))
    refused(secure, request, "not_encrypted")
    open_desk(key=True, callback_plain=True).take(request)
    assert secure.count() == 1


def test_where_plain_is_allowed_too_a_forged_encrypted_push_is_still_refused(
    open_desk: Callable[..., Desk],
) -> None:
    both = open_desk(key=True, callback_plain=True)
    request = push(POPUP, choice("accept"), mode="compatible")
    refused(both, with_query(request, msg_signature="0" * 40), "signature")
    refused(both, push(POPUP, choice("accept"), token="another"), "signature")


@pytest.mark.parametrize("mode", ["secure", "compatible"])
def test_the_url_of_a_secure_push_is_good_for_no_plain_one(
    open_desk: Callable[..., Desk], mode: str
) -> None:
    """Whoever reads a URL, in a proxy's log say, has a fresh signature that covers no body."""
    both = open_desk(key=True, callback_plain=True)
    query, body = push(POPUP, choice("accept"), mode=mode)
    both.take((query, body))
    _, forged = push(POPUP, choice("accept"), openid="oEve1")
    refused(both, (query, forged), "replayed")
    both.take((query, body))  # as WeChat pushes it again
    assert (both.count(), both.count(openid="oEve1")) == (1, 0)


def test_a_secure_push_is_taken_whatever_came_with_its_url_before(
    open_desk: Callable[..., Desk],
) -> None:
    both = open_desk(key=True, callback_plain=True)
    query, body = push(POPUP, choice("accept"), mode="secure")
    both.take((query, push(POPUP, choice("accept"), openid="oEve1")[1]))
    both.take((query, body))
    assert both.count() == 1


def test_a_secure_push_without_a_key_says_what_to_set(desk: Desk) -> None:
    with pytest.raises(InvalidInputError, match="callback_aes_key"):
        desk.take(push(POPUP, choice("accept"), mode="secure"))


@pytest.mark.parametrize("name", ["signature", "timestamp", "nonce"])
@pytest.mark.parametrize("value", ["", "0", "f" * 40, "１７１４０３６５０４", "-1", "é", "\udc80"])
def test_a_plain_push_needs_each_part_of_its_signature(desk: Desk, name: str, value: str) -> None:
    refused(desk, with_query(push(POPUP, choice("accept")), **{name: value}))


@pytest.mark.parametrize("name", ["msg_signature", "timestamp", "nonce"])
def test_a_secure_push_needs_each_part_of_its_signature(secure: Desk, name: str) -> None:
    request = push(POPUP, choice("accept"), mode="secure")
    refused(secure, with_query(request, **{name: ""}))
    refused(secure, with_query(request, **{name: "1" + request[0][name][1:] + "2"}))


def test_the_signature_in_capitals_is_another_one(desk: Desk) -> None:
    request = push(POPUP, choice("accept"), nonce=3)
    assert request[0]["signature"].upper() != request[0]["signature"]
    refused(desk, with_query(request, signature=request[0]["signature"].upper()), "signature")


def test_the_plain_signature_does_not_open_an_encrypted_push(secure: Desk) -> None:
    request = push(POPUP, choice("accept"), mode="secure")
    signature = request[0]["signature"]
    refused(secure, with_query(request, msg_signature=signature), "signature")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"token": "another"}, "signature"),
        ({"appid": "wx0000000000000002"}, "appid"),
        ({"encoding_aes_key": "B" * 43}, "undecryptable|appid"),
    ],
)
def test_a_push_of_another_account_is_refused(
    secure: Desk, changes: dict[str, str], reason: str
) -> None:
    refused(secure, push(POPUP, choice("accept"), mode="secure", **changes), reason)


@pytest.mark.parametrize("seconds", [-301, 301, -(10**9), 10**9])
@pytest.mark.parametrize("mode", ["plain", "secure"])
def test_a_push_that_was_not_signed_now_is_refused(
    open_desk: Callable[..., Desk], mode: str, seconds: int
) -> None:
    desk = open_desk(key=mode == "secure")
    request = push(POPUP, choice("accept"), mode=mode, signed_s=time.time() + seconds)
    refused(desk, request, "stale")
    allowing = open_desk(key=mode == "secure", settings={"callback_max_age": 0})
    allowing.take(request)
    assert allowing.count() == 1


def test_a_plain_signature_is_good_for_one_body_only(desk: Desk) -> None:
    query, body = push(POPUP, choice("accept"))
    desk.take((query, body), (query, body))
    refused(desk, (query, body.replace(b"oAnna", b"oEve1")), "replayed")
    assert (desk.count(), desk.count(openid="oEve1")) == (1, 0)


def test_digits_moved_between_timestamp_and_nonce_make_no_new_signature(desk: Desk) -> None:
    """The signed parts are sorted and joined, so another split of them has the same signature."""
    now = int(time.time())
    first = {"timestamp": str(now), "nonce": str(now - 1)}
    first["signature"] = sign(TOKEN, *first.values())
    swapped = {**first, "timestamp": first["nonce"], "nonce": first["timestamp"]}
    _, body = push(POPUP, choice("accept"))
    desk.take((first, body))
    refused(desk, (swapped, body.replace(b"oAnna", b"oEve1")), "replayed")


def test_what_a_signature_came_with_is_forgotten_when_it_is_stale(desk: Desk) -> None:
    query, body = push(POPUP, choice("accept"))
    desk.take((query, body))
    [key] = desk.client.keys("wxb:{app:shop}:push:*")
    assert 590_000 < desk.client.pttl(key) <= 600_000


def test_an_app_without_a_token_takes_no_callbacks(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(callback_token=None)
    for call in (
        lambda query, _: desk.callbacks.verify("shop", {**query, "echostr": "1"}),
        lambda query, body: desk.callbacks.receive("shop", query, body),
    ):
        with pytest.raises(InvalidInputError, match="callback_token"):
            call(*push(POPUP, choice("accept")))


@pytest.mark.parametrize("echostr", ["", "<b>é</b>", "a b", "x" * 513])
def test_a_strange_echo_is_not_echoed(desk: Desk, echostr: str) -> None:
    query, _ = push(POPUP, choice("accept"))
    with pytest.raises(InvalidInputError):
        desk.callbacks.verify("shop", {**query, "echostr": echostr})
    assert desk.callbacks.verify("shop", {**query, "echostr": "4375120948345356249"})


def opened(query: dict[str, str], body: bytes) -> Opened | None:
    """Return what an app in secure mode takes a push for; None if it refuses."""
    try:
        return open_push(APP, query, body)
    except (ForgedError, InvalidInputError):
        return None


SECURE = [
    push(POPUP, choice("accept"), choice("reject", "U"), mode=mode, style=style, nonce=7)
    for mode in ("secure", "compatible")
    for style in ("json", "xml")
]


@pytest.mark.parametrize("request_", SECURE, ids=["secure-json", "secure-xml", "json", "xml"])
def test_no_flipped_bit_of_a_secure_push_changes_what_is_taken(request_: Request) -> None:
    query, body = request_
    genuine = opened(query, body)
    assert genuine is not None
    encrypted = parse(body)["Encrypt"].encode()
    start = body.index(encrypted)
    for place in range(len(body)):
        for bit in range(8):
            changed = bytearray(body)
            changed[place] ^= 1 << bit
            found = opened(query, bytes(changed))
            assert found is None or found == genuine
            if start <= place < start + len(encrypted):
                assert found is None, (place, bit)


@pytest.mark.parametrize("name", ["msg_signature", "timestamp", "nonce"])
def test_no_flipped_bit_of_its_signed_query_is_taken(name: str) -> None:
    query, body = SECURE[0]
    for place in range(len(query[name])):
        for bit in range(7):
            value = list(query[name])
            value[place] = chr(ord(value[place]) ^ 1 << bit)
            assert opened({**query, name: "".join(value)}, body) is None


@given(
    cut=st.integers(0, 400),
    drop=st.integers(0, 400),
    into=st.sampled_from(["nonce", "timestamp", ""]),
)
def test_no_part_of_a_ciphertext_passes_for_a_message(cut: int, drop: int, into: str) -> None:
    """Cut at either end, with what was cut moved to where the joined text stays the same."""
    query, body = SECURE[0]
    text = parse(body)["Encrypt"]
    kept = text[cut : len(text) - drop]
    moved = {**query, **({into: query[into] + text[:cut]} if into else {})}
    if kept != text:
        assert opened(moved, b'{"Encrypt":"' + kept.encode() + b'"}') is None


@given(plain=st.binary(max_size=200), seed=st.integers(0, 2**32))
def test_whatever_was_encrypted_with_the_key_is_read_or_refused(plain: bytes, seed: int) -> None:
    """Somebody who has the token and the key, and no idea of the layout, crashes nothing."""
    key = base64.b64decode(AES_KEY + "=")
    padded = plain + bytes(-len(plain) % 32)
    encryptor = Cipher(algorithms.AES(key), modes.CBC(key[:16])).encryptor()
    text = base64.b64encode(encryptor.update(padded) + encryptor.finalize()).decode()
    query = {"timestamp": "1700000000", "nonce": str(seed)}
    query["msg_signature"] = sign(TOKEN, *query.values(), text)
    assert opened(query, b'{"Encrypt":"' + text.encode() + b'"}') is None


GENUINE = {read(open_push(APP, *request).message).packed() for request in SECURE}

TEXT = st.text(max_size=50) | st.text(st.characters(), max_size=50)
QUERIES = st.dictionaries(
    st.sampled_from(
        ["signature", "timestamp", "nonce", "msg_signature", "encrypt_type", "echostr", "openid"]
    ),
    TEXT,
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=QUERIES, body=st.binary(max_size=200), app=st.sampled_from([APP, PLAIN_APP]))
def test_no_random_request_is_taken(query: dict[str, str], body: bytes, app: AppSettings) -> None:
    for start in (b"", b"<xml><Encrypt>", b'{"Encrypt":"'):
        with pytest.raises((ForgedError, InvalidInputError)):
            open_push(app, query, start + body)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_pushes_crash_nothing_and_store_nothing_forged(
    data: st.DataObject, client: Any, make_settings: Any
) -> None:
    """Through the whole door: a genuine push, with pieces cut out, doubled or replaced."""
    fields = {"callback_token": TOKEN, "callback_aes_key": AES_KEY}
    desk = Desk(client, make_settings(app=fields))
    query, body = data.draw(st.sampled_from(SECURE))
    query = dict(query)
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed)))
        end = data.draw(st.integers(at, min(len(changed), at + 40)))
        changed[at:end] = data.draw(st.binary(max_size=20) | st.just(bytes(changed[at:end]) * 2))
    if data.draw(st.booleans()):
        query[data.draw(st.sampled_from(sorted(query)))] = data.draw(TEXT)
    with contextlib.suppress(ForgedError, InvalidInputError):
        desk.callbacks.receive("shop", query, bytes(changed))
    said = {packed.split(" ", 1)[1] for packed in client.lrange(keys.inbox("shop"), 0, -1)}
    assert said <= GENUINE
