"""A primary with sentinels: another takes its place, with what it was told in time."""

from collections.abc import Callable, Iterator

import pytest

from producers.local.link import Link
from producers.local.sentinels import Sentinels, sentinels

pytestmark = pytest.mark.timeout(90)
Eventually = Callable[..., object]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    """Give a primary with a replica, behind links, and three sentinels."""
    with sentinels(tmp_path_factory.mktemp("sentinels"), links=True) as made:
        yield made


@pytest.fixture
def whole(watched: Sentinels) -> Sentinels:
    watched.start_all()
    watched.await_healthy()
    return watched


def test_a_replica_that_lags_takes_over_without_the_last_moments(whole: Sentinels) -> None:
    primary, [replica] = whole.primary, whole.replicas
    primary.client.set("k", "early")
    assert primary.client.wait(1, 5000) == 1
    link = primary.link
    assert isinstance(link, Link)
    link.lag(3600)
    primary.client.set("k", "late")
    primary.server.kill()
    assert whole.await_takeover(primary) is replica
    link.lag(0)  # not before: what is on its way arrives while the link does not know of the end
    assert replica.client.get("k") == "early"
    primary.server.start()
    whole.await_healthy()
    assert primary.client.get("k") == "early", "it follows who replaced it"


def test_what_a_replica_is_streamed_comes_late_and_in_order(
    whole: Sentinels, eventually: Eventually
) -> None:
    primary, [replica] = whole.primary, whole.replicas
    assert primary.link is not None
    primary.link.lag(0.5)
    for number in range(100):
        primary.client.rpush("list", number)
    assert primary.client.wait(1, 100) == 0
    assert primary.client.wait(1, 10_000) == 1
    primary.link.lag(0)
    primary.client.rpush("list", 100)
    eventually(lambda: replica.client.llen("list") == 101, "all arrived")
    assert replica.client.lrange("list", 0, -1) == [str(number) for number in range(101)]


def test_a_failover_that_was_asked_for_forgets_nothing(whole: Sentinels) -> None:
    primary, [replica] = whole.primary, whole.replicas
    primary.client.set("kept", 1)
    assert primary.client.wait(1, 5000) == 1
    assert whole.failover() is replica
    assert replica.client.get("kept") == "1"
