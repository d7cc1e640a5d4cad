"""How often a create asks one thing after the other: a proxy before a real Valkey counts it.

Each of these trips is waited for, however far Redis is. The numbers are exact, so that nobody adds
one unawares.
"""

from collections.abc import Callable, Iterator

import pytest
import redis
from distance import Distance, away, through

from producers import store
from producers.audiences import Audiences
from producers.broadcasts import Broadcasts
from producers.broadcasts.spec import Spec
from producers.settings import Settings

LANES = pytest.mark.parametrize("lanes", [1, 16])
FEW = 40
RTT_MS = 40
"""All of a pipeline leaves within so long, also where the tests have little of a core."""


@pytest.fixture
def distance(valkey_url: str) -> Iterator[Distance]:
    """Give a way to Valkey that counts trips."""
    with away(valkey_url, RTT_MS) as distance:
        yield distance


@pytest.fixture
def far(
    client: "redis.Redis",
    make_settings: Callable[..., Settings],
    settings: Settings,
    distance: Distance,
    lanes: int,
) -> Iterator[Broadcasts]:
    """Give broadcasts to a few by that way, which one was created by; templates are off."""
    audiences = Audiences(client, settings)
    audiences.import_rows("shop", "few", (b"oFew%d" % n for n in range(FEW)))
    url = through(distance, settings.redis_url.get_secret_value())
    there = make_settings(lanes=lanes, redis_url=url, app={"templates": "off"})
    connection = store.connect(there)
    broadcasts = Broadcasts(connection, there)
    broadcasts.pause(broadcasts.create(spec()).id)  # connects, and loads the scripts
    yield broadcasts
    connection.close()


def spec() -> Spec:
    return Spec.checked(
        app="shop", channel="template", template_id="T", audience="few", data={"keyword1": "a"}
    )


@LANES
def test_a_create_for_few_is_a_look_and_a_step(far: Broadcasts, distance: Distance) -> None:
    before = distance.trips
    created = far.create(spec())
    assert distance.trips - before == 2
    assert far.status(created.id).queued == FEW


@LANES
def test_its_key_is_claimed_in_between(far: Broadcasts, distance: Distance) -> None:
    before = distance.trips
    created = far.create(spec(), key="today")
    assert distance.trips - before == 3
    assert far.create(spec(), key="today").id == created.id


@LANES
def test_a_move_is_made_at_home_read_and_brought_to_all_lanes(
    far: Broadcasts, distance: Distance
) -> None:
    created = far.create(spec())
    before = distance.trips
    far.pause(created.id)
    assert distance.trips - before == 3
