"""Before a broadcast goes out, over HTTP: the dry run, a test send."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from every_key import every_key
from web_house import BROADCASTS, PERMITS, TEMPLATE, Caller, House

from producers.store import keys
from producers.store.clock import now_ms

DRY_RUN = f"{BROADCASTS}/dry-run"
TEST_SEND = f"{BROADCASTS}/test-send"
KEYS_OWN = ("wxb:{keys}:limit_ms:", "wxb:{keys}:reply:")
"""What each request of an API key leaves: its rate."""

SPEC: dict[str, Any] = {
    "channel": "template",
    "template_id": TEMPLATE,
    "audience": "all",
    "data": "a,b",
}


def give(shop: Caller, people: int = 10) -> None:
    uploads = [{"openid": f"o{n}", "formIds": [f"f{n}"]} for n in range(people)]
    assert shop.post(PERMITS, uploads).status == 200


def test_a_dry_run_answers_with_what_would_become_of_it(
    house: House, shop: Caller, valkey_url: str
) -> None:
    give(shop)
    reader = house.caller("read")
    before = every_key(valkey_url, but=KEYS_OWN)
    got = reader.post(DRY_RUN, {**SPEC, "rate": 2, "expires_in_s": 1})
    assert got.status == 200
    assert (got.json["recipients"], got.json["reachable"], got.json["late"]) == (10, 10, 8)
    assert (got.json["faults"], got.json["eta_s"]) == ([], 5)
    assert every_key(valkey_url, but=KEYS_OWN) == before
    assert shop.get(BROADCASTS).json["broadcasts"] == []


def test_faults_are_told_in_the_answer_not_as_a_problem(shop: Caller) -> None:
    give(shop)
    got = shop.post(DRY_RUN, {**SPEC, "data": {"nonsense": "a"}, "at": "soon", "audience": "vip"})
    assert got.status == 200
    told = " ".join(got.json["faults"])
    assert all(word in told for word in ("nonsense", "soon", "no audience 'vip'"))
    series = shop.post(DRY_RUN, {**SPEC, "every": "0 21 * *", "name": "x"})
    assert "five fields" in series.json["faults"][0]


def test_a_test_send_says_when_nobody_would_send_it(house: House, shop: Caller) -> None:
    give(shop)
    spec = {name: value for name, value in SPEC.items() if name != "audience"}
    for body in (spec, {**spec, "audience": "(vip | new) - churned & " * 4 + "all"}):
        got = shop.post(TEST_SEND, {**body, "openids": ["o1"]})
        assert got.kind == "conflict"
    assert "no worker alive" in got.json["detail"]
    assert shop.get(BROADCASTS).json["broadcasts"] == []
    for wrong in ([], ["o1"] * 21, ["o 1"], "o1"):
        assert shop.post(TEST_SEND, {**SPEC, "openids": wrong}).kind == "invalid"
    assert shop.post(TEST_SEND, {**SPEC, "openids": ["o1"], "wait_s": 11}).kind == "invalid"
    twice = shop.post(TEST_SEND, {**SPEC, "openids": ["o1", "o1"], "at": "soon"})
    assert [one["detail"][:4] for one in twice.json["faults"]] == ["test", "at '"]
    assert house.caller("read").post(TEST_SEND, {**SPEC, "openids": ["o1"]}).status == 403


def test_who_waits_for_answers_holds_no_thread_and_only_so_many_do(
    house: House, shop: Caller
) -> None:
    give(shop)
    house.client.zadd(keys.WORKERS, {"w1": now_ms(house.client) + 60_000})  # who never sends
    with ThreadPoolExecutor(20) as pool:
        asked = {**SPEC, "openids": ["o1"], "wait_s": 1}
        answers = [pool.submit(shop.post, TEST_SEND, asked) for _ in range(20)]
        began = time.monotonic()
        assert shop.get(BROADCASTS).status == 200
        assert time.monotonic() - began < 0.9
        got = [one.result() for one in answers]
    assert {one.status for one in got} == {200}
    assert not any(one.json["ended"] for one in got)
    assert [trial["state"] for one in got for trial in one.json["trials"]] == ["waiting"] * 20
    message = got[0].json["trials"][0]["message"]
    assert shop.get(f"/v1/apps/shop/messages/{message}").json["state"] == "waiting"
    assert house.service.services.waiting["shop"] == 0


def test_it_is_asked_like_everything_else(house: House, shop: Caller) -> None:
    assert house.anybody.post(DRY_RUN, SPEC).status == 401
    assert house.caller("collect").post(DRY_RUN, SPEC).status == 403
    assert shop.post(DRY_RUN, {**SPEC, "channel": "smoke"}).kind == "invalid"
    # a typing error makes nothing
    assert shop.post(f"{BROADCASTS}/dryrun", SPEC).status in {404, 405}
    assert shop.post(f"{BROADCASTS}/dry_run", SPEC).status == 404
    series = {**SPEC, "name": "s", "every": "0 21 * * *"}
    for query in ("dry_run=true", "x=1&dryRun=1", "dry-run"):
        got = shop.post(f"{BROADCASTS}?{query}", SPEC)
        assert (got.kind, "nothing was done" in got.json["detail"]) == ("invalid", True)
        assert shop.post(f"/v1/apps/shop/series?{query}", series).kind == "invalid"
    assert shop.get("/v1/apps/shop/series").json["series"] == []
    assert shop.get(BROADCASTS).json["broadcasts"] == []
