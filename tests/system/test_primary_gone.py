"""A primary of a cluster is killed and never comes back: its replica has its lanes from then on."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from crash import Backstage
from stage import DATA, TEMPLATE, Stage

from producers import AsyncProducer, Producer
from producers.errors import StoreUnavailableError
from producers.local.cluster import Cluster, cluster
from producers.store import keys

LANES = 6
TAKEN_OVER_S = 12.0
"""A node timeout of 2 s, the vote of the others, and what a busy machine adds."""
AFTER_S = 4.0
"""Until our own clients have followed, once the cluster has."""
PAUSE_S = 0.2
"""Of a backend that tries again."""

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path / "cluster", 3, 1) as nodes:
        yield nodes


@pytest.fixture
def stage(nodes: Cluster, tmp_path: Path) -> Iterator[Stage]:
    backstage = Backstage()
    stage = Stage(backstage, nodes.url, tmp_path / "stage", lanes=LANES, buckets=LANES * 32)
    try:
        yield stage
    finally:
        stage.close()
        backstage.close()


def again(call: Callable[[], Any]) -> Any:
    """Call until it is stored, as a backend does; the same call loses nothing."""
    ends = time.monotonic() + TAKEN_OVER_S + AFTER_S
    while True:
        try:
            return call()
        except StoreUnavailableError:
            assert time.monotonic() < ends, "the replica has taken over, and nobody follows it"
            time.sleep(PAUSE_S)


async def again_async(call: Callable[[], Any]) -> Any:
    ends = time.monotonic() + TAKEN_OVER_S + AFTER_S
    while True:
        try:
            return await call()
        except StoreUnavailableError:
            assert time.monotonic() < ends, "the replica has taken over, and nobody follows it"
            await asyncio.sleep(PAUSE_S)


def spec() -> dict[str, Any]:
    return {
        "app": "shop",
        "channel": "template",
        "template_id": TEMPLATE,
        "audience": "all",
        "data": DATA["template"],
    }


def test_collecting_creating_and_sending_go_on_without_a_primary_that_is_gone_for_good(
    nodes: Cluster, stage: Stage, eventually: Callable[..., Any]
) -> None:
    lost = next(
        each
        for each in nodes.primaries()
        if each.port == stage.client.place_of(keys.active("shop"))[1]
    )
    theirs = [n for n in range(LANES) if stage.client.place_of(keys.lane_prefix(n))[1] == lost.port]
    user = next(
        f"new{n}" for n in range(100) if keys.place_of(f"new{n}", stage.settings)[0] in theirs
    )
    stage.form_ids(300, each=3)
    stage.unit()
    running = stage.create(rate=50)
    eventually(lambda: stage.status(running).settled >= 20, "it sends", within_s=20)
    loop_user = f"{user}x"

    async def of_a_loop(producer: AsyncProducer) -> tuple[str, str]:
        upload = [{"openid": loop_user, "formId": "loop"}]
        report = await again_async(lambda: producer.collect("shop", upload))
        assert report.new + report.known == 1
        first = (await again_async(lambda: producer.broadcast(**spec(), key="loop"))).id
        return first, (await again_async(lambda: producer.broadcast(**spec(), key="loop"))).id

    def taken_over() -> float:
        nodes.await_takeover(lost)
        return time.monotonic()

    async def both(producer: Producer) -> tuple[Any, tuple[str, str], float]:
        def blocking() -> tuple[int, str, str]:
            upload = [{"openid": user, "formId": "blocking"}]
            report = again(lambda: producer.collect("shop", upload))
            made = [again(lambda: producer.broadcast(**spec(), key="one")).id for _ in range(2)]
            return report.new + report.known, made[0], made[1]

        async with AsyncProducer(stage.settings) as loop_producer:
            await loop_producer.count_audience("shop", "all")  # connected, as in a backend's life
            producer.count_audience("shop", "all")
            lost.server.kill()
            taking_over = asyncio.to_thread(taken_over)
            return await asyncio.gather(
                asyncio.to_thread(blocking), of_a_loop(loop_producer), taking_over
            )

    with Producer(stage.settings) as producer:
        blocking, of_loop, taken_over_at = asyncio.run(both(producer))
        assert time.monotonic() - taken_over_at < AFTER_S
    assert not lost.server.answers
    stored, *made = blocking
    assert stored == 1
    assert len({*made}) == len({*of_loop}) == 1, "the same key, the same broadcast"
    status = stage.wait(running, 60)
    assert status.settled == status.total == 300
    assert set(status.outcomes) <= {"delivered", "in_doubt"}
    assert status.outcomes["delivered"] > 250
    for broadcast in (made[0], of_loop[0]):
        assert stage.wait(broadcast, 60).complete
    assert stage.accepted <= 3 * 300, "nobody is sent more than the permits that were given"
