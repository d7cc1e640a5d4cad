"""Redis is silent: each request says so in time, and the service is well as soon as Redis is."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from own_valkey import own_valkey
from web_house import Caller, opened

from producers import store

UPLOAD = [{"openid": "oA", "subscriptions": {"T": "accept"}}]
SPEC = {"channel": "subscribe", "template_id": "T", "audience": "all", "data": {"thing1": "a"}}
APP = "/v1/apps/shop"

ASKED: dict[str, Callable[[Caller], Any]] = {
    "permits": lambda caller: caller.post(f"{APP}/permits", UPLOAD),
    "broadcast": lambda caller: caller.post(f"{APP}/broadcasts", SPEC),
    "status": lambda caller: caller.get(f"{APP}/broadcasts/none"),
    "audience": lambda caller: caller("PUT", f"{APP}/audiences/vip", b"oA\n", "text/plain"),
    "plan": lambda caller: caller.get(f"{APP}/permits/plan?openid=oA&most=2"),
    "ready": lambda caller: caller.get("/readyz"),
}


@pytest.mark.timeout(60)
def test_each_request_ends_in_time_while_redis_is_silent_and_works_when_it_is_back() -> None:
    with own_valkey() as valkey:
        store.check_layout(valkey.client, valkey.settings)
        settings = valkey.made(producer_timeout=1)
        with opened(settings) as house:
            caller = house.master()
            assert caller.post(f"{APP}/permits", UPLOAD).status == 200
            answers: dict[str, tuple[int, float]] = {}

            def ask(what: str) -> None:
                began = time.monotonic()
                got = ASKED[what](caller)
                answers[what] = (got.status, time.monotonic() - began)

            with valkey.stalled():
                asking = [threading.Thread(target=ask, args=(what,)) for what in ASKED]
                for thread in asking:
                    thread.start()
                for thread in asking:
                    thread.join()
            assert {status for status, _ in answers.values()} == {503}, answers
            # the key is looked up, then the work is done: each waits a second at the most
            assert max(seconds for _, seconds in answers.values()) < 3.5, answers
            assert caller.post(f"{APP}/permits", UPLOAD).status == 200
            assert house.anybody.get("/readyz").status == 200
