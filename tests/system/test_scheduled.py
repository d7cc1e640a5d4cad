"""A scheduled broadcast starts within a second of its time, whoever died meanwhile."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from stage import Stage

pytestmark = pytest.mark.cluster


def test_it_starts_in_time_though_the_unit_that_saw_it_was_killed(stage: Stage) -> None:
    stage.form_ids(20)
    first, _ = stage.unit(), stage.unit()
    at = datetime.now(UTC) + timedelta(seconds=7)
    broadcast = stage.create(at=at)
    stage.kill(first)
    stage.unit()

    while datetime.now(UTC) < at:
        assert stage.accepted == 0
        time.sleep(0.1)  # what must not happen is looked for until its time
    status = stage.wait(broadcast)

    assert (status.state, status.outcomes) == ("finished", {"delivered": 20})
    [start] = [row for row in stage.lines("broadcast_moved") if row["move"] == "start"]
    late = datetime.fromisoformat(start["time"]) - at
    assert timedelta(0) <= late < timedelta(seconds=1)
