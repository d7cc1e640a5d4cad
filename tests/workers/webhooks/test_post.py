"""Posting a webhook: signed as Standard Webhooks says, told apart by its answer, never leaking."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError
from webhook_end import HERE, SECRET, End, of_app

from producers.settings import Settings, signing_keys
from workers.webhooks import patience
from workers.webhooks.post import Answer, Poster
from workers.webhooks.signature import headers

OTHER = "whsec_" + "b" * 32


def test_the_specifications_library_verifies_a_signature() -> None:
    body = '{"type":"broadcast.finished","data":{"reason":"不要了"}}'
    signed = headers(signing_keys(SECRET), "evt_b1_7_0", int(time.time()), body.encode())
    assert Webhook(SECRET).verify(body, signed)["type"] == "broadcast.finished"
    for wrong in ({"webhook-id": "evt_b1_8_0"}, {"webhook-timestamp": str(int(time.time()) - 9)}):
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(body, {**signed, **wrong})
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER).verify(body, signed)


def test_while_a_secret_is_changed_either_verifies() -> None:
    signed = headers(signing_keys(f"{SECRET} {OTHER}"), "evt_1", int(time.time()), b"{}")
    assert signed["webhook-signature"].count("v1,") == 2
    for secret in (SECRET, OTHER):
        Webhook(secret).verify("{}", signed)


async def posted(
    make_settings: Callable[..., Settings],
    answer: web.Response | int | Coroutine[Any, Any, int],
    **app: object,
) -> Answer:
    with End(answer=lambda _: answer).open() as end:
        settings = make_settings(app=of_app(end.url, **app), webhook_networks=[HERE])
        poster = Poster(settings)
        try:
            return await poster.post("shop", "evt_1", int(time.time()), b'{"type": "x"}')
        finally:
            await poster.close()


@pytest.mark.parametrize(
    ("status", "error", "final"),
    [
        (200, "", False),
        (204, "", False),
        (301, "HTTP 301", False),
        (400, "HTTP 400", False),
        (410, "HTTP 410", True),
        (500, "HTTP 500", False),
    ],
)
async def test_what_an_answer_means(
    make_settings: Callable[..., Settings], status: int, error: str, final: bool
) -> None:
    answer = await posted(make_settings, status)
    assert (answer.status, answer.error, answer.final) == (status, error, final)


@pytest.mark.parametrize(
    ("after", "seconds"), [("7", 7), ("99999999", 3600), ("-1", 0), ("Wed, 21 Oct", 0)]
)
async def test_the_other_side_may_ask_for_a_pause_of_an_hour_at_most(
    make_settings: Callable[..., Settings], after: str, seconds: int
) -> None:
    refusal = web.Response(status=429, headers={"Retry-After": after})
    assert (await posted(make_settings, refusal)).retry_after_s == seconds


async def test_an_answer_says_how_long_it_took(make_settings: Callable[..., Settings]) -> None:
    async def late() -> int:
        await asyncio.sleep(0.05)  # of the other side
        return 204

    assert 50 <= (await posted(make_settings, late())).latency_ms < 20_000


async def test_an_answer_is_not_unpacked(make_settings: Callable[..., Settings]) -> None:
    bomb = web.Response(status=200, body=b"no gzip", headers={"Content-Encoding": "gzip"})
    assert (await posted(make_settings, bomb)).error == ""


async def test_who_does_not_listen_is_said_without_the_url(
    make_settings: Callable[..., Settings],
) -> None:
    url = "http://127.0.0.1:9/hook?token=hush"
    poster = Poster(make_settings(app=of_app(url), webhook_networks=[HERE]))
    answer = await poster.post("shop", "evt_1", 0, b"{}")
    await poster.close()
    assert answer.status == 0
    assert answer.error == "ConnectionRefusedError"


def test_pauses_grow_to_an_hour_and_differ() -> None:
    for attempts, least, most in ((1, 5, 10), (4, 40, 80), (30, 1800, 3600)):
        drawn = [patience.delay_ms(attempts) for _ in range(50)]
        assert least * 1000 <= min(drawn) < max(drawn) <= most * 1000
    assert patience.delay_ms(1, retry_after_s=60) == 60_000


def test_an_event_is_given_up_after_a_day_and_some_tries() -> None:
    day = 86_400_000
    assert not patience.is_over(100, day - 1)
    assert not patience.is_over(5, 10 * day)  # it waited for others, or for a worker
    assert patience.is_over(6, day)
