"""Redis fills up under a running broadcast: what was sent is recorded, and no one gets it twice."""

from typing import Any

import pytest
from stage import Stage

from producers.broadcasts import Broadcasts
from producers.broadcasts.spec import Spec
from producers.store import keys


@pytest.mark.one_server
def test_what_was_sent_is_recorded_on_a_full_redis_and_the_rest_waits_for_room(
    slow_stage: Stage, eventually: Any
) -> None:
    stage = slow_stage
    stage.wechat.configure(latency={"fixed_ms": 300})
    stage.accepts(900)
    stage.unit(WXB_APPS__SHOP__RATE_PER_SECOND="300")
    spec = Spec.checked(
        app="shop",
        channel="subscribe",
        template_id="T" * 43,
        data={"thing1": "签到提醒"},
        audience="all",
    )
    broadcast = stage.broadcasts.create(spec).id
    look = Broadcasts(stage.client, stage.settings)
    eventually(lambda: look.status(broadcast).settled > 100, "a hundred are sent")
    try:
        stage.client.config_set("maxmemory", "1mb")
        eventually(
            lambda: not stage.client.hlen(keys.flight(0, broadcast)),
            "what was in flight is settled",
            within_s=10,
        )
        status = look.status(broadcast)
        assert 100 < status.settled < 900
        assert status.outcomes == {"delivered": stage.accepted}
    finally:
        stage.client.config_set("maxmemory", "0")
    ended = stage.wait(broadcast)
    assert ended.outcomes == {"delivered": 900}
    assert stage.stats["duplicates"] == 0
