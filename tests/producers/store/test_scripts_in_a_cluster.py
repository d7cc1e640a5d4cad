"""Each script stays in one slot of a cluster, and touches only what it was given.

What it was given: its KEYS, and what begins with the lane's prefix where that is an argument.
"""

from collections.abc import Iterator, Sequence

import pytest
import redis
from cluster import strict
from moments import SCRIPTS, Moment, World, by_last_part, moments_of_a_life, touched_by
from redis.crc import key_slot

from producers.store import keys

LANES = (1, 4)
DERIVED = {
    "create": ("due",),
    "move": ("due", "hooks"),
    "join": ("due",),
    "keep": ("home", "lane", "delayed", "queue", "flight", "ring", "first", "flying", "busy"),
    "forget": ("marks", "dead", "doubted", "daily"),
}
"""Script → what it finds by the name of one of its KEYS, as its header says."""


# whoever comes first waits for two whole lives, each command of them looked at: 10 s alone
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def moments(cluster_url: str) -> dict[int, dict[str, Moment]]:
    """Give what each script was given in a life on a cluster, by number of lanes."""
    return {lanes: moments_of_a_life(cluster_url, lanes) for lanes in LANES}


@pytest.fixture(scope="module")
def world(cluster_url: str) -> Iterator[World]:
    world = World(cluster_url)
    yield world
    world.client.flushall()
    world.client.close()


def undeclared(world: World, moment: Moment, text: str, derived: Sequence[str] = ()) -> set[str]:
    """Run a script from a moment; return the keys it touched without having been given them."""
    sha = world.client.script_load(strict(text))
    given = [arg for arg in moment.args if arg.startswith(f"{keys.PREFIX}:{{")]
    lane = moment.keys[0].partition("}:")[0]
    given += [f"{lane}}}:{kind}" for kind in derived]
    return {
        name
        for name in touched_by(world, moment, sha)
        if name not in moment.keys and not name.startswith(tuple(given))
    }


@pytest.mark.parametrize("lanes", LANES)
def test_each_script_has_a_moment(moments: dict[int, dict[str, Moment]], lanes: int) -> None:
    assert set(SCRIPTS) - set(moments[lanes]) == set()


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_it_touches_one_slot_and_what_it_was_given(
    moments: dict[int, dict[str, Moment]], world: World, lanes: int, name: str
) -> None:
    moment = moments[lanes][name]
    assert len({key_slot(key.encode()) for key in moment.keys}) == 1
    derived = DERIVED.get(name.rpartition(".")[2], ())
    assert undeclared(world, moment, SCRIPTS[name], derived) == set()


@pytest.mark.parametrize("other", ["wxb:{1}:fence", "wxb:fence", "wxb:{app:shop}:active"])
def test_a_script_that_touches_another_slot_fails(
    moments: dict[int, dict[str, Moment]], world: World, other: str
) -> None:
    moment = by_last_part(moments[1], "landed")
    with pytest.raises(redis.ResponseError, match="do not hash to the same slot"):
        undeclared(world, moment, f"redis.call('EXISTS', '{other}')")


def test_a_key_of_the_same_slot_that_a_script_was_not_given_is_found(
    moments: dict[int, dict[str, Moment]], world: World
) -> None:
    moment = by_last_part(moments[1], "landed")
    other = keys.fence(0)
    assert undeclared(world, moment, f"redis.call('EXISTS', '{other}')") == {other}
    assert undeclared(world, moment, f"redis.call('EXISTS', '{other}')", ["fence"]) == set()
