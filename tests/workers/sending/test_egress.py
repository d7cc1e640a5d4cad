"""The way out: what sends and token calls tell of it, and how connections are tried."""

import time
from typing import Any

import pytest
from send_path import soon

from workers.limits.breaker import SILENT, Trouble
from workers.limits.gate import Gate
from workers.sending.egress import Egress
from workers.wechat.reply import Fate, Reply

ANSWERED = Reply(Fate.ANSWERED)
UNANSWERED = Reply(Fate.UNANSWERED, errmsg="TimeoutError")
UNSENT = Reply(Fate.UNSENT, errmsg="ClientConnectorError")


class Bench:
    """The way out of one app, to a WeChat that takes connections when a test lets it."""

    def __init__(self) -> None:
        self.tried = 0
        self.is_up = False
        self.woken = 0
        self.gate = Gate(1.0)
        wechat: Any = self
        self.egress = Egress(wechat, {"shop": self.gate}, "w1", self._wake)

    async def reaches(self, app: str) -> bool:
        assert app == "shop"
        self.tried += 1
        return self.is_up

    def _wake(self) -> None:
        self.woken += 1

    @property
    def trouble(self) -> Trouble | None:
        return self.gate.breaker.trouble


@pytest.fixture
def bench() -> Bench:
    return Bench()


def events(lines: list[Any]) -> list[str]:
    return [line["event"] for line in lines]


async def test_unanswered_sends_close_the_gate_and_an_answer_opens_it(
    bench: Bench, lines: list[Any]
) -> None:
    for _ in range(SILENT):
        assert bench.trouble is None
        bench.egress.note("shop", UNANSWERED)
    assert bench.trouble is Trouble.NO_ANSWER
    bench.egress.note("shop", ANSWERED)
    assert bench.trouble is None
    assert bench.woken == 1
    assert events(lines) == ["gate_closed", "gate_opened"]
    assert bench.tried == 0, "connections do come up"


async def test_without_a_connection_one_is_tried_until_it_comes_up(
    bench: Bench, lines: list[Any]
) -> None:
    bench.egress.note("shop", UNSENT)
    bench.egress.note("shop", UNSENT)
    assert bench.trouble is Trouble.NO_CONNECTION
    await soon(lambda: bench.tried == 1, "it is tried at once")
    bench.is_up = True
    await soon(lambda: bench.woken == 1, "one came up")
    assert bench.tried == 2
    assert bench.trouble is Trouble.NO_ANSWER, "a message probes"
    assert bench.gate.breaker.next_at <= time.monotonic()
    assert events(lines) == ["gate_closed"]
    bench.egress.close()


async def test_a_token_call_tells_of_connections_and_not_of_lost_sends(
    bench: Bench, lines: list[Any]
) -> None:
    bench.egress.heard("shop", Fate.UNSENT, "ClientConnectorError")
    assert bench.trouble is Trouble.NO_CONNECTION
    bench.egress.heard("shop", Fate.ANSWERED, "")
    assert bench.trouble is None
    for _ in range(SILENT):
        bench.egress.note("shop", UNANSWERED)
    bench.egress.heard("shop", Fate.ANSWERED, "")
    assert bench.trouble is Trouble.NO_ANSWER
    assert events(lines) == ["gate_closed", "gate_opened", "gate_closed"]
    bench.egress.close()


async def test_a_worker_that_drains_tries_no_more_connections(
    bench: Bench, lines: list[Any]
) -> None:
    bench.egress.note("shop", UNSENT)
    await soon(lambda: bench.tried == 1, "it is tried")
    bench.egress.drain()
    await soon(lambda: not bench.egress._connecting, "it ends")
    assert bench.tried <= 2
    assert events(lines) == ["gate_closed"]
