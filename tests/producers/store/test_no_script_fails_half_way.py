"""No script fails half-way: whatever it is given and finds, it succeeds or changes nothing.

Every script of the product is run from where it once ran in a shop's life (its keys, its arguments,
all of Redis at that moment), with one thing wrong at a time: an argument, the number of them, the
type of a key, what a field holds. A new script is noticed, for it has no such moment.
"""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Final

import pytest
import redis
from lasting_keys import everlasting
from moments import SCRIPTS, Moment, World, moments_of_a_life, touched

CASES: Final = int(os.environ.get("HALF_WAY_CASES", "120"))
"""Wrong things tried per script, drawn by lot from the same seed each time; 0: all of them."""

HOSTILE: Final = (
    "",
    "x",
    "-1",
    "0",
    "1.5",
    "1e400",
    "nan",
    "inf",
    "-inf",
    "9223372036854775807",
    "9223372036854775808",
    "1e-320",
    "a b",
    "a:b",
    "a\nb",
    "seen:T:x",
)


@pytest.fixture(scope="module")
def moments(valkey_url: str) -> dict[str, Moment]:
    """Give what each script was given."""
    return moments_of_a_life(valkey_url)


Wrong = Callable[[World, list[str], list[str]], None]
"""Makes one thing wrong: in Redis, in the keys or in the arguments."""


def wrong_arguments(moment: Moment) -> Iterator[tuple[str, Wrong]]:
    for place in range(len(moment.args)):
        for value in HOSTILE:
            yield f"ARGV {place + 1} is {value!r}", partial(put, place, value)
    yield "an argument is missing", lambda _, __, args: args and args.pop()
    yield "there is one argument more", lambda _, __, args: args.append("x")
    yield "there are no arguments", lambda _, __, args: args.clear()
    yield "a key is missing", lambda _, names, __: names and names.pop()


def put(place: int, value: str, _: World, __: list[str], args: list[str]) -> None:
    args[place] = value


def wrong_values(world: World, moment: Moment, names: list[bytes]) -> Iterator[tuple[str, Wrong]]:
    for name in names:
        kind = world.client.type(name).decode()
        yield f"{name.decode()} is gone", partial(delete, name)
        for other in sorted({*OF_ANOTHER_TYPE} - {kind}):
            yield f"{name.decode()} is a {other}", partial(retype, name, other)
        for value in HOSTILE if kind in {"string", "list"} else ():
            yield f"{name.decode()} holds {value!r}", partial(fill, name, kind, value)
        if kind == "zset":
            for score in (float("inf"), float("-inf"), 0.5, -1.0):
                yield f"{name.decode()} has a score {score}", partial(rescore, name, score)
        if kind == "hash":
            for field in world.client.hkeys(name):
                for value in HOSTILE:
                    what = f"{name.decode()} {field.decode()} is {value!r}"
                    yield what, partial(refill, name, field, value)


def one_wrong_type_each(
    names: list[bytes], cases: list[tuple[str, Wrong]], lot: random.Random
) -> Iterator[tuple[str, Wrong]]:
    """Yield one case of each key in which it is of a wrong type: a lot might pass over a key."""
    for name in names:
        yield lot.choice([case for case in cases if case[0].startswith(f"{name.decode()} is a ")])


def delete(name: bytes, world: World, *_: Any) -> None:
    world.client.delete(name)


def retype(name: bytes, kind: str, world: World, *_: Any) -> None:
    world.client.delete(name)
    OF_ANOTHER_TYPE[kind](world.client, name)


def fill(name: bytes, kind: str, value: str, world: World, *_: Any) -> None:
    if kind == "string":
        world.client.set(name, value)
    else:
        world.client.lpush(name, value)


def rescore(name: bytes, score: float, world: World, *_: Any) -> None:
    world.client.zadd(name, {world.client.zrange(name, 0, 0)[0]: score})


def refill(name: bytes, field: bytes, value: str, world: World, *_: Any) -> None:
    world.client.hset(name, field, value)


OF_ANOTHER_TYPE: Final[dict[str, Callable[[Any, bytes], Any]]] = {
    "string": lambda client, key: client.set(key, "x"),
    "list": lambda client, key: client.rpush(key, "x"),
    "hash": lambda client, key: client.hset(key, "x", "x"),
    "set": lambda client, key: client.sadd(key, "x"),
    "zset": lambda client, key: client.zadd(key, {"x": 1}),
}


def test_each_script_has_a_moment(moments: dict[str, Moment]) -> None:
    assert set(SCRIPTS) - set(moments) == set()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_it_succeeds_or_changes_nothing(
    moments: dict[str, Moment], valkey_url: str, name: str
) -> None:
    world, moment = World(valkey_url), moments[name]
    sha = world.client.script_load(SCRIPTS[name])
    names = touched(world, moment, sha)
    world.write(moment.world)
    cases = [*wrong_arguments(moment), *wrong_values(world, moment, names)]
    if CASES and len(cases) > CASES:
        lot = random.Random(name)
        cases = [*one_wrong_type_each(names, cases, lot), *lot.sample(cases, CASES)][:CASES]
    half_way = []
    for what, spoil in cases:
        world.write(moment.world)
        script_keys, args = [*moment.keys], [*moment.args]
        spoil(world, script_keys, args)
        before = world.look()
        try:
            world.client.evalsha(sha, len(script_keys), *script_keys, *args)
        except redis.ResponseError as error:
            after = world.look()
            if after != before:
                changed = {key for key in {*before, *after} if before.get(key) != after.get(key)}
                half_way.append(f"{what}: {error}: {changed}")
    world.client.flushdb()  # what was made wrong has no end
    world.client.close()
    assert half_way == [], f"{len(half_way)} of {len(cases)}"


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_what_has_ended_does_not_come_back_for_good(
    moments: dict[str, Moment], valkey_url: str, name: str
) -> None:
    """A key whose TTL was over just before gets one again, if it is written at all."""
    world, moment = World(valkey_url), moments[name]
    sha = world.client.script_load(SCRIPTS[name])
    for_good = {}
    for ended in touched(world, moment, sha):
        world.write(moment.world)
        world.client.delete(ended)
        with suppress(redis.ResponseError):
            world.client.evalsha(sha, len(moment.keys), *moment.keys, *moment.args)
        if found := everlasting(world.client):
            for_good[ended] = found
    world.client.flushdb()
    world.client.close()
    assert for_good == {}
