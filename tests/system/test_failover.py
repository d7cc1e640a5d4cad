"""A primary is killed, and a replica that lags takes over: who gets it twice, and what is in doubt.

The replica is 300 ms behind, and takes over at once, at the same address.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from crash import Backstage
from failover import LAG_S, Pair, pair
from stage import Stage, stages_at

from producers.broadcasts.status import Status
from producers.local.sentinels import sentinels
from producers.store import keys

pytestmark = pytest.mark.timeout(120)
Eventually = Callable[..., object]

USERS, RATE = 1500, 500


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Pair]:
    with pair(tmp_path / "servers") as servers:
        yield servers


def failed_over(
    servers: Pair, stage: Stage, channel: str, eventually: Eventually, *, comes_back: bool
) -> tuple[str, Status]:
    """Broadcast, kill the primary in the middle, and return how it ended."""
    for _ in range(2):  # whoever is sent to again could be reached again
        stage.permits(channel, USERS)
    servers.primary.client.wait(1, 5000)
    servers.lag(LAG_S)
    for _ in range(2):
        stage.unit()
    broadcast = stage.create(channel)
    eventually(lambda: stage.accepted > USERS / 3, "a third is sent")
    servers.fail_over()
    if comes_back:
        servers.comes_back()
    return broadcast, stage.wait(broadcast, 60)


def recorded(stage: Stage, broadcast: str) -> dict[str, str]:
    """Return openid → outcome."""
    found: dict[str, str] = {}
    for bucket in range(stage.settings.buckets):
        rows = stage.client.hgetall(keys.outcomes(0, broadcast, bucket))
        found.update({openid: row.split(" ")[0] for openid, row in rows.items()})
    return found


@pytest.mark.parametrize("channel", ["template", "subscribe"])
def test_what_the_replica_lacked_is_in_doubt_and_nobody_is_refused(
    servers: Pair, tmp_path: Path, channel: str, eventually: Eventually
) -> None:
    with stages_at(servers.url, tmp_path, app={"rate_per_second": RATE}) as stages:
        stage = stages()
        broadcast, status = failed_over(servers, stage, channel, eventually, comes_back=False)
        assert status.state == "finished", "it does not pause"
        assert status.outcomes.keys() <= {"delivered", "in_doubt"}
        assert sum(status.outcomes.values()) == USERS
        got = stage.wechat.counts()
        outcomes = recorded(stage, broadcast)
        assert {openid for openid, one in outcomes.items() if one == "delivered"} <= got.keys()
        lacked = 2 * LAG_S * RATE  # what one lag holds, and as much again for a slow machine
        assert status.outcomes.get("in_doubt", 0) <= lacked
        assert stage.stats["duplicates"] <= (0 if channel == "template" else lacked)
        assert [line["paused"] for line in stage.lines("server_changed")][:1] == [False]


@pytest.mark.parametrize("channel", ["template", "subscribe"])
def test_with_a_replica_that_is_waited_for_nobody_is_even_in_doubt(
    servers: Pair, tmp_path: Path, channel: str, eventually: Eventually
) -> None:
    with stages_at(
        servers.url, tmp_path, app={"rate_per_second": RATE}, redis_replicas=1
    ) as stages:
        stage = stages()
        broadcast, status = failed_over(servers, stage, channel, eventually, comes_back=True)
        assert status.outcomes == {"delivered": USERS}
        stage.assert_sound(broadcast, USERS)


def test_the_workers_follow_whom_the_sentinels_choose(
    tmp_path: Path, eventually: Eventually
) -> None:
    backstage = Backstage()
    with sentinels(tmp_path / "servers") as servers:
        app = {"rate_per_second": 300}
        stage = Stage(backstage, servers.url, tmp_path / "stage", app=app)
        try:
            stage.permits("template", USERS)
            stage.unit()
            broadcast = stage.create()
            eventually(lambda: stage.accepted > USERS / 3, "a third is sent")
            lost = servers.primary
            lost.server.kill()
            servers.await_takeover(lost)
            status = stage.wait(broadcast)
            assert status.outcomes.keys() <= {"delivered", "in_doubt"}
            stage.assert_sound(broadcast, USERS)
        finally:
            stage.close()
            backstage.close()


@pytest.mark.parametrize("channel", ["template", "subscribe"])
def test_a_primary_that_stood_still_and_goes_on_is_asked_nothing_any_more(
    tmp_path: Path, eventually: Eventually, channel: str
) -> None:
    """It takes what it is told until the sentinels come back to it, ten seconds later."""
    backstage = Backstage()
    with sentinels(tmp_path / "servers") as servers:
        app = {"rate_per_second": 200}
        stage = Stage(backstage, servers.url, tmp_path / "stage", app=app)
        try:
            for _ in range(2):
                stage.permits(channel, USERS)
            for _ in range(2):
                stage.unit()
            before = stage.ledger()["collected"]
            broadcast = stage.create(channel)
            eventually(lambda: stage.accepted > USERS / 4, "a quarter is sent")
            old = servers.primary
            old.server.stall()
            servers.await_takeover(old)
            old.server.go_on()
            collected = [
                stage.collector.collect("shop", [{"openid": f"x{n}", "formIds": [f"late{n}"]}]).new
                for n in range(100)
            ]
            status = stage.wait(broadcast, 60)
            assert status.outcomes.keys() <= {"delivered", "in_doubt", "no_permit"}
            assert stage.stats["duplicates"] <= 5  # what was in the lag, or written as it woke up
            assert stage.ledger()["collected"] >= before + sum(collected)
        finally:
            stage.close()
            backstage.close()


def test_without_its_replica_nothing_is_sent_and_what_was_is_counted(
    servers: Pair, tmp_path: Path, eventually: Eventually
) -> None:
    with stages_at(
        servers.url, tmp_path, app={"rate_per_second": RATE}, redis_replicas=1
    ) as stages:
        stage = stages()
        stage.permits("template", USERS)
        stage.unit()
        broadcast = stage.create()
        eventually(lambda: stage.accepted > USERS / 3, "a third is sent")
        servers.replica.server.stall()
        eventually(
            lambda: any(line["counted"] for line in stage.lines("replicas_behind")),
            "what was out is settled",
        )
        sent = stage.accepted
        time.sleep(2)  # the fault's own duration
        assert stage.accepted == sent
        assert int(stage.client.get(keys.UNREPLICATED) or 0) > 0
        servers.replica.server.go_on()
        assert stage.wait(broadcast).outcomes == {"delivered": USERS}
        stage.assert_sound(broadcast, USERS)
