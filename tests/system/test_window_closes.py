"""A send window ends amid broadcasts: when WeChat says that sends arrived, on both channels."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from short_day import zone_showing
from stage import Stages

from producers.words import State

OPEN_S = 12
"""A unit starts within that, and sends for a while."""

LATE_S = 1.0
"""A slot ends before the window does; what a send takes until a busy machine's WeChat notes it."""


@pytest.mark.timeout(60)
def test_nothing_arrives_after_the_window_has_closed(
    stages: Stages, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    closes_s = int(time.time()) + OPEN_S
    with zone_showing(tmp_path, closes_s, 22 * 3600) as (zone, env):
        app = {"rate_per_second": 200, "send_window": "08:00-22:00", "zone": zone}
        stage = stages(app=app)
        stage.form_ids(3000)
        stage.accepts(3000)
        stage.unit(**env)
        broadcasts = [stage.create("template"), stage.create("subscribe")]
        eventually(lambda: stage.accepted > 100, "sends begin", within_s=OPEN_S)
        eventually(lambda: stage.lines("send_window_closed"), "it closes", within_s=2 * OPEN_S)
        eventually(lambda: not stage.ledger()["held"], "all that was claimed is settled")
        arrived = stage.stats["windows"]
        assert closes_s - 2 < arrived["last_at"] < closes_s + LATE_S
        for status in map(stage.status, broadcasts):
            assert (status.state, status.waiting) == (
                State.RUNNING,
                "waiting for the window, opens 08:00",
            )
            assert 0 < status.settled < 3000
            assert status.in_flight == 0
        assert stage.stats["windows"]["count"] == arrived["count"] == stage.accepted
