"""Idempotency keys: the same request again has one effect and one answer."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from web_house import BROADCASTS, PERMITS, TEMPLATE, Caller, Got, House

NDJSON = "application/x-ndjson"
VIP = "/v1/apps/shop/audiences/vip"
SPEC = {"channel": "template", "template_id": TEMPLATE, "audience": "all", "data": "a,b"}


def answers(house: House) -> list[str]:
    return list(house.client.scan_iter("*answer:*"))


@pytest.mark.parametrize(
    ("path", "body", "other"),
    [
        (PERMITS, {"openid": "oA", "formId": "f1"}, {"openid": "oA", "formId": "f2"}),
        (BROADCASTS, SPEC, {**SPEC, "data": "a,c"}),
        (f"{VIP}/members", {"openids": ["oA"]}, {"openids": ["oB"]}),
    ],
)
def test_the_same_again_gets_the_same_answer(
    shop: Caller, house: House, path: str, body: Any, other: Any
) -> None:
    shop("PUT", VIP, b"oZ", "text/plain")
    first = shop.post(path, body, Idempotency_Key="k1")
    again = shop.post(path, body, Idempotency_Key="k1")
    assert first.status in {200, 201}
    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers.get("location") == first.headers.get("location")
    assert "idempotent-replay" not in first.headers
    assert again.headers["idempotent-replay"] == "true"
    reused = shop.post(path, other, Idempotency_Key="k1")
    assert (reused.status, reused.kind) == (422, "key-reused")
    [kept] = answers(house)
    assert 0 < house.client.ttl(kept) <= 24 * 3600


def test_a_key_counts_for_one_route_and_what_it_is_of(shop: Caller) -> None:
    members, body = "/v1/apps/shop/audiences/{}/members", {"openids": ["oA"]}
    for name in ("vip", "late"):
        shop("PUT", f"/v1/apps/shop/audiences/{name}", {"openids": ["oB"]})
        got = shop.post(members.format(name), body, Idempotency_Key="k1")
        assert (got.status, got.json["added"]) == (200, 1)
        assert "idempotent-replay" not in got.headers
    assert shop.post(BROADCASTS, SPEC, Idempotency_Key="k1").status == 201
    assert shop.post(PERMITS, {"openid": "oA", "formId": "f"}, Idempotency_Key="k1").json["new"]


def test_another_key_is_another_request(shop: Caller, house: House) -> None:
    made = {
        caller.post(BROADCASTS, SPEC, Idempotency_Key=key).json["id"]
        for caller in (shop, house.caller())
        for key in ("k1", "k2")
    }
    assert len(made) == 4


def test_of_many_at_once_one_is_at_work(shop: Caller) -> None:
    got: list[Got] = []

    def call() -> None:
        got.append(shop.post(BROADCASTS, SPEC, Idempotency_Key="k1"))

    threads = [threading.Thread(target=call) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status for answer in got} <= {201, 409}
    assert len({answer.body for answer in got if answer.status == 201}) == 1
    assert {answer.kind for answer in got if answer.status == 409} <= {"in-progress"}
    assert len(shop.get(BROADCASTS).json["broadcasts"]) == 1


def test_while_the_first_is_at_work_others_are_told_to_wait(shop: Caller, house: House) -> None:
    halfway, on = threading.Event(), threading.Event()
    got: list[Got] = []

    def lines() -> Iterator[bytes]:
        yield b'{"openid":"oA","formId":"f1"}\n'
        halfway.set()
        assert on.wait(20)

    def call() -> None:
        got.append(shop.post(PERMITS, lines(), NDJSON, Idempotency_Key="k1"))

    first = threading.Thread(target=call)
    first.start()
    assert halfway.wait(20)
    while not answers(house):
        pass
    body = b'{"openid":"oA","formId":"f1"}\n'
    told = shop.post(PERMITS, body, NDJSON, Idempotency_Key="k1")
    on.set()
    first.join()
    assert (told.status, told.kind) == (409, "in-progress")
    assert int(told.headers["retry-after"]) >= 1
    again = shop.post(PERMITS, body, NDJSON, Idempotency_Key="k1")
    assert (again.body, again.headers["idempotent-replay"]) == (got[0].body, "true")
    other = shop.post(PERMITS, body * 2, NDJSON, Idempotency_Key="k1")
    assert other.kind == "key-reused"


def test_what_failed_is_not_kept(shop: Caller, house: House) -> None:
    path = f"{VIP}/members"
    body = {"openids": ["oA"]}
    assert shop.post(path, body, Idempotency_Key="k1").status == 404
    assert answers(house) == []
    shop("PUT", VIP, b"oZ", "text/plain")
    assert shop.post(path, body, Idempotency_Key="k1").json["added"] == 1


def test_a_process_that_died_before_its_answer_was_kept_made_no_second_one(
    shop: Caller, house: House
) -> None:
    first = shop.post(BROADCASTS, SPEC, Idempotency_Key="k1")
    house.client.delete(*answers(house))
    again = shop.post(BROADCASTS, SPEC, Idempotency_Key="k1")
    assert again.json == {**first.json, "known": True}
    house.client.delete(*answers(house))
    other = shop.post(BROADCASTS, {**SPEC, "data": "b"}, Idempotency_Key="k1")
    assert (other.status, other.kind) == (422, "key-reused")


def test_a_dead_process_blocks_its_key_for_half_a_minute_at_most(
    shop: Caller, house: House, eventually: Callable[..., Any]
) -> None:
    halfway, on = threading.Event(), threading.Event()

    def lines() -> Iterator[bytes]:
        yield b'{"openid":"oA","formId":"f1"}\n'
        halfway.set()
        on.wait(20)

    first = threading.Thread(
        target=shop.post, args=(PERMITS, lines(), NDJSON), kwargs={"Idempotency_Key": "k1"}
    )
    first.start()
    assert halfway.wait(20)
    [claim] = eventually(lambda: answers(house), "the key is claimed")
    assert house.client.get(claim).startswith("at-work ")
    assert 0 < house.client.pttl(claim) <= 30_000
    on.set()
    first.join()


def test_an_answer_never_replaces_anothers_claim(shop: Caller, house: House) -> None:
    """Whoever was paused for longer than its lease comes too late."""
    halfway, on = threading.Event(), threading.Event()

    def lines() -> Iterator[bytes]:
        yield b'{"openid":"oA","formId":"f1"}\n'
        halfway.set()
        on.wait(20)

    first = threading.Thread(
        target=shop.post, args=(PERMITS, lines(), NDJSON), kwargs={"Idempotency_Key": "k1"}
    )
    first.start()
    assert halfway.wait(20)
    while not (found := answers(house)):
        pass
    house.client.set(found[0], "at-work another", px=30_000)
    on.set()
    first.join()
    assert house.client.get(found[0]) == "at-work another"


@pytest.mark.parametrize("key", ["", "a b", "x" * 129, "ä"])
def test_a_key_that_is_none_is_told(shop: Caller, key: str) -> None:
    got = shop.post(PERMITS, {"openid": "oA", "formId": "f"}, Idempotency_Key=key)
    assert (got.status, got.kind) == (422, "invalid")


def test_a_kept_answer_is_what_was_sent(shop: Caller, house: House) -> None:
    got = shop.post(PERMITS, {"openid": "oA", "formId": "f1"}, Idempotency_Key="k1")
    [kept] = answers(house)
    assert json.loads(house.client.get(kept).partition(" ")[2])["body"] == got.body.decode()
