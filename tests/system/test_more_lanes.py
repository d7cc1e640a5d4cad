"""A deployment that lives gets more lanes: one stands still, the others go on, and nobody twice."""

import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from stage import Stage, Stages
from web_house import Caller, Got

from producers import Producer, store
from producers.access.api_keys import ApiKeys, Scope
from producers.errors import LaneDividedError
from producers.settings import Layout
from producers.store import keys
from producers.store.lanes.layout import follow
from producers.store.retry import repeat

Eventually = Callable[..., Any]
USERS = 3000
pytestmark = pytest.mark.cluster
COMMAND = [sys.executable, "-m", "producers.cli", "lanes", "64", "--json"]


class Change:
    """A change of the lanes of a stage, by the real command."""

    def __init__(self, stage: Stage, eventually: Eventually) -> None:
        self._stage = stage
        self._eventually = eventually
        self._looks = store.connect(stage.settings, role="worker")
        self.process = stage.command(COMMAND)

    @property
    def layout(self) -> Layout:
        repeat("looking", lambda: follow(self._looks, self._stage.settings))
        return self._stage.settings.layout

    def stop_with_a_lane_shut(self, after: int) -> int:
        """Let it stand still while a lane is shut, and so many were divided; return which."""

        def is_caught() -> bool:
            layout = self.layout
            if layout.shut is None or layout.divided < after:
                return False
            self._stage.kill(self.process, signal.SIGSTOP)
            shut = self.layout.shut
            if shut is not None and repeat("looking", lambda: self._looks.exists(keys.shut(shut))):
                return True
            self._stage.kill(self.process, signal.SIGCONT)
            return False

        self._eventually(is_caught, "a lane is shut", every_s=0.0)
        assert self.layout.shut is not None
        return self.layout.shut

    def end(self) -> dict[str, Any]:
        """Let it come to its end; return what it says."""
        assert self.process.wait(40) == 0
        self._looks.connection_pool.disconnect()
        said: dict[str, Any] = orjson.loads(self._stage.logs[-1].read_bytes().splitlines()[-1])
        return said


@pytest.mark.timeout(120)
@pytest.mark.parametrize("channel", ["template", "subscribe"])
def test_one_lane_stands_still_the_others_go_on_and_nobody_gets_it_twice(
    stages: Stages, eventually: Eventually, channel: str
) -> None:
    stage = stages(lanes=None, app={"rate_per_second": 500})
    assert stage.settings.layout == Layout(256, [16])  # as many as one is born with
    stage.permits(channel, USERS)
    broadcast = stage.create(channel)
    units = [stage.unit(), stage.unit()]
    producer = Producer(stage.settings.model_copy())
    eventually(lambda: stage.accepted > 200, "it is under way")

    change = Change(stage, eventually)
    lane = change.stop_with_a_lane_shut(after=3)
    layout = change.layout
    inside = [f"o{n}" for n in range(USERS) if layout.of_openid(f"o{n}") == lane]
    outside = next(f"o{n}" for n in range(USERS) if layout.of_openid(f"o{n}") != lane)
    assert producer.collect("shop", [{"openid": outside, "formId": "new"}]).new == 1
    with pytest.raises(LaneDividedError, match="again in a moment"):
        producer.within(1).collect("shop", [{"openid": inside[0], "formId": "new"}])
    left = eventually(
        lambda: (n := USERS - stage.status(broadcast).settled) <= len(inside) and n,
        "all others got theirs",
    )
    assert left > 0
    stage.kill(change.process)

    change = Change(stage, eventually)
    eventually(lambda: change.layout.divided > 7, "it goes on", every_s=0.0)
    stage.kill(change.process)
    if channel == "template":  # who dies with a message on its way leaves it in doubt
        stage.kill(units.pop())
        units.append(stage.unit())
    again = stage.create(channel, at=datetime.now(UTC) + timedelta(hours=1))
    said = Change(stage, eventually).end()
    assert (said["before"], said["after"], said["resumed"]) == (16, 64, True)
    assert stage.client.hget(keys.DEPLOYMENT, "relaning") is None

    status = stage.wait(broadcast)
    assert status.outcomes == {"delivered": USERS}
    assert stage.broadcasts.cancel(again) == "cancelled"  # it was created amid the change
    assert producer.collect("shop", [{"openid": inside[0], "formId": "new"}]).new == 1
    assert producer.settings.layout == Layout(256, [16, 64])
    producer.close()
    stage.assert_sound(broadcast, USERS)
    for lane in range(16):
        assert [*stage.client.scan_iter(f"{keys.lane_prefix(lane)}*")] == [keys.shut(lane)]
    assert [unit.poll() for unit in units] == [None, None]
    assert not stage.lines("worker_outlived")
    assert not stage.lines("worker_broken")


@pytest.mark.timeout(60)
def test_a_service_goes_on_and_answers_503_for_who_is_on_the_way(
    stages: Stages, eventually: Eventually
) -> None:
    stage = stages(lanes=None)
    service = stage.command([sys.executable, "-m", "producers.cli", "web", "--port", "0"])
    [line] = eventually(lambda: stage.lines("web_started"), "it listens")
    key = ApiKeys(stage.client, stage.settings).create("test", ("shop",), tuple(Scope), 10_000)
    caller = Caller(line["port"], key.token)

    def give(openid: str, form_id: str) -> Got:
        return caller.post("/v1/apps/shop/permits", {"openid": openid, "formId": form_id})

    change = Change(stage, eventually)
    lane = change.stop_with_a_lane_shut(after=2)
    layout = change.layout
    inside = next(f"o{n}" for n in range(USERS) if layout.of_openid(f"o{n}") == lane)
    given = {inside}
    for openid in [f"o{n}" for n in range(40)]:  # the first one too, and none waits for the others
        got = give(openid, "a")
        shut = layout.of_openid(openid) == lane
        assert (got.status, openid) == (503 if shut else 200, openid)
        given |= set() if shut else {openid}
    refused = give(inside, "a")
    assert "retry-after" in refused.headers
    assert "lanes are being added" in refused.json["detail"]
    assert caller.get("/readyz").status == 200
    stage.kill(change.process, signal.SIGCONT)
    assert change.end()["after"] == 64
    assert give(inside, "a").status == 200
    assert stage.ledger()["collected"] == len(given)
    assert service.poll() is None


@pytest.mark.timeout(60)
def test_a_service_whose_redis_forgot_lanes_ends_and_stores_nothing_where_nobody_looks(
    stages: Stages, eventually: Eventually
) -> None:
    stage = stages(lanes=None)
    stage.client.hset(keys.DEPLOYMENT, mapping={"lanes": "64", "earlier": "16", "layout": "2"})
    service = stage.command([sys.executable, "-m", "producers.cli", "web", "--port", "0"])
    eventually(lambda: stage.lines("web_started"), "it listens")
    stage.client.hset(keys.DEPLOYMENT, "lanes", "16")  # a backup of before
    stage.client.hdel(keys.DEPLOYMENT, "earlier")
    assert service.wait(20) == 75
    [line] = stage.lines("web_outlived")
    assert line["why"] == "redis knows of fewer lanes than there were"
