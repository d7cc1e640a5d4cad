"""Phones that file permits which WeChat does not know: what they cost everybody else."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stage import Stage, Stages

from producers.care.audit import Auditor
from workers.sending import verdict

HONEST = 1800
LIARS = 30
SEND = "/cgi-bin/message/wxopen/template/send"


class Phones(threading.Thread):
    """Phones of users liar0 …, each of which files ten permits of its own making now and again."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(daemon=True)
        self._stage = stage
        self._filed = 0
        self._end = threading.Event()

    def file(self) -> None:
        """File ten permits of each."""
        self._filed += 10
        self._stage.collector.collect(
            "shop",
            (
                {
                    "openid": f"liar{phone}",
                    "formIds": [f"bogus{phone}x{self._filed + n}" for n in range(10)],
                }
                for phone in range(LIARS)
            ),
        )

    def run(self) -> None:
        while not self._end.wait(0.1):
            self.file()

    def end(self) -> None:
        self._end.set()
        self.join(10)


@pytest.mark.alone
@pytest.mark.timeout(120)
def test_phones_that_refill_bogus_permits_cost_a_broadcast_five_percent(
    stages: Stages,
) -> None:
    stage = stages(app={"rate_per_second": 400})
    stage.form_ids(HONEST, each=2)
    phones = Phones(stage)
    phones.file()
    stage.unit()
    phones.start()
    try:
        for round_ in (1, 2):
            started = time.monotonic()
            status = stage.wait(stage.create(), 50)
            took_s = time.monotonic() - started
            assert status.outcomes == {"delivered": HONEST, "no_permit": LIARS}
            dead = stage.stats["apis"][SEND]["by_errcode"]["41028"]
            assert dead <= 0.05 * HONEST, "the first broadcast paid, the second nothing"
            assert took_s <= 1.05 * HONEST / 400 + 3, round_  # the canary, and a busy machine
    finally:
        phones.end()
    assert dead <= 500
    assert Auditor(stage.client, stage.settings).run().wrong == []


HURRIED = """
import workers.sending.verdict

workers.sending.verdict._YOUNG_WAIT_MS //= 10
broker = workers.broker
"""


@pytest.mark.timeout(90)
def test_a_bogus_prepay_id_holds_a_broadcast_up_for_two_minutes_at_most(
    stage: Stage, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    """By a clock that runs ten times as fast for it: here twelve seconds."""
    stage.form_ids(100)
    stage.collector.collect("shop", [{"openid": "liar0", "prepayId": "wx2026bogus"}])
    (tmp_path / "hurried.py").write_text(HURRIED)
    stage.command(
        ["dramatiq", "hurried", "-p", "1", "-t", "2", "--skip-logging"], PYTHONPATH=str(tmp_path)
    )
    eventually(lambda: stage.lines("worker_started"), "the unit started")
    started = time.monotonic()
    status = stage.wait(stage.create())
    took_s = time.monotonic() - started
    assert status.outcomes == {"delivered": 100, "no_permit": 1}
    assert len(stage.lines("message_settled")) >= 101 + verdict._YOUNG_TRIES
    assert verdict._YOUNG_TRIES * verdict._YOUNG_WAIT_MS <= 90_000
    assert took_s <= 12 + 5, "three attempts, two waits, and a busy machine"
