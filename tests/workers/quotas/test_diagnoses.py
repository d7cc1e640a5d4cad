"""A refusal that nobody knows is asked about once, and nothing of its recipient is kept."""

import asyncio
from typing import Any

import orjson
import pytest
import redis
from cli_runs import run
from quota_desk import Desk, Opener

from producers.quotas import Quotas
from producers.store import keys
from workers.quotas.diagnoses import MOST, PATH, Diagnoses, in_words
from workers.wechat.envelope import SUBSCRIBE_SEND

OPENID = "oSECRETSECRETSECRETSECRETSEC"
BODY = {
    "touser": OPENID,
    "template_id": "T",
    "data": {"thing1": {"value": "13800138000"}, "date2": {"value": "2026-11-24"}},
}


def diagnoses(it: Desk) -> Diagnoses:
    return Diagnoses(it.settings, it.readings._asking, {"shop": it.gate})


async def refused(it: Desk, errcode: int) -> None:
    """Let a send be refused, and wait to be asked about."""
    token = it.readings._asking._tokens["shop"].ready
    assert token is not None
    it.wechat.fail(
        {"api": SUBSCRIBE_SEND, "action": "errcode", "errcode": errcode, "errmsg": "what now"}
    )
    reply = await it.readings._asking._wechat.send(
        "shop", token.value, SUBSCRIBE_SEND, orjson.dumps(BODY)
    )
    assert (reply.errcode, bool(reply.rid)) == (errcode, True)
    it.gate.unexplained[errcode] = reply.rid


def asked(it: Desk) -> int:
    return int(it.wechat.stats()["apis"].get(PATH, {}).get("requests", 0))


async def test_what_wechat_knows_of_it_is_kept_without_its_recipient(
    desk: Opener, lines: list[Any], client: "redis.Redis"
) -> None:
    it = await desk()
    await refused(it, 99_999)
    await diagnoses(it).run()
    (one,) = Quotas(client, it.settings).limits("shop").diagnoses
    assert (one.errcode, len(one.rid)) == (99_999, 26)
    for part in ("sent data, template_id, touser", "data of date2, thing1", "99999 what now"):
        assert part in one.text
    told = [line for line in lines if line["event"] == "errcode_diagnosed"]
    assert [line["said"] for line in told] == [one.text]
    kept = str(client.hgetall(keys.diagnoses("shop"))) + str(told)
    token = it.readings._asking._tokens["shop"].ready.value
    for secret in (OPENID, "13800138000", token, "access_token"):
        assert secret not in kept
    shown = " ".join(
        (await asyncio.to_thread(run, it.settings, "limits", "-a", "shop")).out.split()
    )
    assert "errcode 99999" in shown
    assert "errcode 99999" in (await asyncio.to_thread(run, it.settings, "doctor")).out


async def test_it_is_asked_once_a_day_and_five_codes_at_the_most(desk: Opener) -> None:
    it = await desk()
    for errcode in (*[70_001] * 3, *range(70_002, 70_010)):
        await refused(it, errcode)
        await diagnoses(it).run()
        assert it.gate.unexplained == {}
    assert asked(it) == MOST


async def test_off_by_the_setting_nothing_is_asked(desk: Opener) -> None:
    it = await desk({"read_quota": False})
    await refused(it, 99_999)
    await diagnoses(it).run()
    assert asked(it) == 0


async def test_a_wechat_that_does_not_say_is_told(desk: Opener, client: "redis.Redis") -> None:
    it = await desk()
    it.gate.unexplained[70_001] = "00000000-00000000-00000000"
    await diagnoses(it).run()
    (one,) = Quotas(client, it.settings).limits("shop").diagnoses
    assert one.text.startswith("rid/get: 76001")


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (None, "nothing is known of it"),
        ({"request_body": "no JSON", "response_body": 5}, "nothing is known of it"),
        ({"request_body": f'{{"{OPENID} x": 1}}'}, "sent fields without names"),
        ({"client_ip": "1.2.3.4; secret"}, "nothing is known of it"),
        (
            {"response_body": '{"errcode": 1, "errmsg": "access_token=ABCDEF wrong rid: x"}'},
            "answered 1 access_token=… wrong",
        ),
        ({"cost_in_ms": 30, "client_ip": "127.0.0.1"}, "in 30 ms; from 127.0.0.1"),
    ],
)
def test_only_names_and_numbers_are_told(request_: object, said: str) -> None:
    assert in_words(request_) == said
