"""Faults by rule, and answers that take their time."""

import asyncio
import random
import statistics
import time
from typing import Any

import aiohttp
import pytest
from pydantic import ValidationError
from sandbox_client import SUBSCRIBE, TEMPLATE, Opener, WeChat

from producers.sandbox import FaultRule, Latency


async def errcodes(wechat: WeChat, openids: str, **more: Any) -> list[int]:
    return [(await wechat.send_subscribe(openid, **more))["errcode"] for openid in openids]


async def test_an_errcode_comes_with_its_usual_text_or_its_own(open_wechat: Opener) -> None:
    wechat = await open_wechat(permits="any")
    rule = {"action": "errcode", "errcode": 45009}
    await wechat.order("faults", [rule])
    assert (await wechat.send_subscribe("o1"))["errmsg"].startswith("reach max api daily quota")
    await wechat.order("faults", [{**rule, "errmsg": "mine"}])
    assert (await wechat.send_subscribe("o1"))["errmsg"].startswith("mine rid: ")
    assert (await wechat.ask("stats"))["accepted"] == 0


async def test_a_delivery_can_report_a_failure(open_wechat: Opener) -> None:
    wechat = await open_wechat(permits="any")
    await wechat.order("faults", [{"action": "errcode", "errcode": -1, "accept": True}])
    assert (await wechat.send_subscribe("o1"))["errcode"] == -1
    stats = await wechat.ask("stats")
    assert stats["accepted"] == 1
    assert stats["apis"][SUBSCRIBE]["by_errcode"] == {"-1": 1}


async def test_a_rule_skips_then_counts_then_ends(open_wechat: Opener) -> None:
    wechat = await open_wechat(permits="any")
    rule = {"api": "subscribe/send", "action": "errcode", "errcode": -1, "skip": 1, "count": 2}
    await wechat.order("faults", [rule])
    assert await errcodes(wechat, "aaaa") == [0, -1, -1, 0]
    described = (await wechat.ask("faults"))[0]
    assert (described["seen"], described["hits"]) == (3, 2)


async def test_a_rule_can_be_for_some_openids_or_a_template(open_wechat: Opener) -> None:
    wechat = await open_wechat(permits="any")
    await wechat.order(
        "faults",
        [
            {"openid": "a", "action": "errcode", "errcode": 1},
            {"openid": ["b", "c"], "action": "errcode", "errcode": 2},
            {"template_id": "V", "action": "errcode", "errcode": 3},
            {"api": TEMPLATE, "action": "errcode", "errcode": 4},
        ],
    )
    assert await errcodes(wechat, "abcd") == [1, 2, 2, 0]
    assert await errcodes(wechat, "ad", template_id="V") == [1, 3]
    assert (await wechat.send_template("d", "f"))["errcode"] == 4


async def test_a_rule_hits_with_its_probability(open_wechat: Opener) -> None:
    wechat = await open_wechat(permits="any")
    await wechat.order("faults", [{"action": "errcode", "errcode": 1, "probability": 0.5}])
    hits = sum(await errcodes(wechat, "a" * 100))
    assert 30 < hits < 70


async def test_token_calls_can_fail_too(open_wechat: Opener) -> None:
    wechat = await open_wechat()
    await wechat.order("faults", [{"api": "/token", "action": "errcode", "errcode": -1}])
    query = {"grant_type": "client_credential", "appid": "wx1", "secret": "s"}
    assert (await wechat.get("/cgi-bin/token", **query))["errcode"] == -1


@pytest.mark.parametrize(("action", "accepted"), [("cut_before", 0), ("cut_after", 1)])
async def test_a_cut_closes_without_an_answer(
    open_wechat: Opener, action: str, accepted: int
) -> None:
    wechat = await open_wechat(permits="any")
    await wechat.order("faults", [{"api": SUBSCRIBE, "action": action, "count": 1}])
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await wechat.send_subscribe("o1")
    assert (await wechat.ask("stats"))["accepted"] == accepted


@pytest.mark.parametrize("accept", [False, True])
async def test_a_proxy_page_may_hide_a_delivery(open_wechat: Opener, accept: bool) -> None:
    wechat = await open_wechat(permits="any")
    await wechat.order("faults", [{"api": SUBSCRIBE, "action": "status", "accept": accept}])
    url = f"{wechat.sandbox.url}{SUBSCRIBE}?access_token={wechat.token}"
    body = {"touser": "o1", "template_id": "T", "data": {}}
    async with wechat.session.post(url, json=body) as response:
        assert (response.status, response.content_type) == (502, "text/html")
    assert (await wechat.ask("stats"))["accepted"] == int(accept)


async def test_garbage_is_200_and_no_json(open_wechat: Opener) -> None:
    wechat = await open_wechat(permits="any", faults=[{"api": SUBSCRIBE, "action": "garbage"}])
    with pytest.raises(ValueError, match="Expecting"):
        await wechat.send_subscribe("o1")


async def test_a_slow_drip_is_the_true_answer(open_wechat: Opener) -> None:
    wechat = await open_wechat(permits="any")
    await wechat.order("faults", [{"action": "slow_drip", "ms": 60}])
    started = time.monotonic()
    assert (await wechat.send_subscribe("o1"))["errcode"] == 0
    assert time.monotonic() - started > 0.04


async def test_a_hang_ends_in_silence(open_wechat: Opener) -> None:
    wechat = await open_wechat(permits="any")
    await wechat.order("faults", [{"action": "hang", "ms": 30}])
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await wechat.send_subscribe("o1")
    assert (await wechat.ask("stats"))["accepted"] == 0


async def test_a_delay_is_added_to_the_latency(open_wechat: Opener) -> None:
    wechat = await open_wechat(permits="any", latency={"fixed_ms": 20})
    await wechat.order("faults", [{"action": "delay", "ms": 20}])
    started = time.monotonic()
    assert (await wechat.send_subscribe("o1"))["errcode"] == 0
    assert time.monotonic() - started > 0.038


async def test_a_slow_answer_does_not_hold_up_others(open_wechat: Opener) -> None:
    wechat = await open_wechat(permits="any")
    await wechat.order("faults", [{"openid": "slow", "action": "delay", "ms": 60_000}])
    slow = asyncio.ensure_future(wechat.send_subscribe("slow"))
    assert await errcodes(wechat, "abc") == [0, 0, 0]
    assert not slow.done()
    slow.cancel()


def test_an_errcode_rule_without_an_errcode_is_refused() -> None:
    with pytest.raises(ValidationError, match="needs an errcode"):
        FaultRule.model_validate({"action": "errcode"})


def test_lognormal_latency_has_its_median() -> None:
    rng = random.Random(1)
    latency = Latency(fixed_ms=10, median_ms=50, sigma=0.5)
    drawn = [latency.draw_ms(rng) for _ in range(4000)]
    assert 57 < statistics.median(drawn) < 63
    assert min(drawn) > 10


def test_tails_take_their_share() -> None:
    rng = random.Random(1)
    latency = Latency.model_validate({"tails": [{"percent": 5, "ms": 900}], "fixed_ms": 1})
    drawn = [latency.draw_ms(rng) for _ in range(10_000)]
    assert 400 < drawn.count(900) < 600
    assert drawn.count(900) + drawn.count(1) == len(drawn)
