"""Lanes are divided while servers die, and others take over that lack what was just copied."""

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from failover import pair
from stage import stages_at

from producers import store
from producers.care.audit import Auditor
from producers.permits.ledger import totals
from producers.settings import Layout
from producers.store import keys
from producers.store.lanes.layout import follow

pytestmark = pytest.mark.timeout(120)
Eventually = Callable[..., Any]
USERS = 4000
COMMAND = [sys.executable, "-m", "producers.cli", "lanes", "64", "--json"]


@pytest.mark.parametrize("lag_s", [0.1, 0.3])
def test_what_a_failover_forgot_is_copied_again_and_not_taken_away(
    tmp_path: Path, eventually: Eventually, lag_s: float
) -> None:
    """It meets the new primary with its next connection, and by that no error."""
    with pair(tmp_path / "servers") as servers, stages_at(servers.url, tmp_path) as stages:
        stage = stages(lanes=None)
        stage.permits("template", USERS)
        servers.primary.client.wait(1, 5000)
        servers.lag(lag_s)
        looks = store.connect(stage.settings, role="worker")
        change = stage.command(COMMAND)

        def is_shut() -> bool:
            follow(looks, stage.settings)
            lane = stage.settings.layout.shut
            return lane is not None and lane >= 6 and bool(looks.exists(keys.shut(lane)))

        eventually(is_shut, "a lane is shut", every_s=0.0)
        time.sleep(0.02)
        stage.kill(change, signal.SIGSTOP)
        servers.fail_over()
        stage.kill(change, signal.SIGCONT)
        assert change.wait(60) == 0, stage.logs[-1].read_text()  # it goes on by itself
        looks.connection_pool.disconnect()

        follow(stage.client, stage.settings)
        assert stage.settings.layout == Layout(256, [16, 64])
        assert Auditor(stage.client, stage.settings).run().wrong == []
        assert totals(stage.client, stage.settings, "shop").total.available == USERS
