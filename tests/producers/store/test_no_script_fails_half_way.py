"""No script fails half-way: whatever it is given and finds, it succeeds or changes nothing.

Every script of the product is run from where it once ran in a shop's life (its keys, its arguments,
all of Redis at that moment), with one thing wrong at a time: an argument, the number of them, the
type of a key, what a field holds. A new script is noticed, for it has no such moment.
"""

import asyncio
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import redis
from redis.commands.core import AsyncScript, Script
from shop import TEMPLATE, Shop

import producers
import workers
from producers import store
from producers.access.api_keys import ApiKeys
from producers.access.limits import Limit, Limits
from producers.planning.forecast import Forecaster
from producers.recipients.doubts import Doubts
from producers.recipients.receipts import Receipts
from producers.settings import Settings
from producers.store import keys, scripts
from producers.users import Users
from workers.duties.peers import Peers
from workers.lanes.copies import Copies
from workers.limits.limiter import Limiter, Penalty

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
FOLDERS: Final = (Path(producers.__file__).parent, Path(workers.__file__).parent)
READ: Final[dict[str, Callable[[Any, bytes], Any]]] = {
    "string": lambda pipeline, key: pipeline.get(key),
    "list": lambda pipeline, key: pipeline.lrange(key, 0, -1),
    "hash": lambda pipeline, key: pipeline.hgetall(key),
    "set": lambda pipeline, key: pipeline.smembers(key),
    "zset": lambda pipeline, key: pipeline.zrange(key, 0, -1, withscores=True),
}
Dump = dict[bytes, tuple[bytes, int]]


def standalone() -> dict[str, str]:
    """Return sha → name of each script that is run by itself, and not put into others."""
    found = {}
    texts = {path: path.read_text() for folder in FOLDERS for path in folder.rglob("*.lua")}
    included = {
        line.removeprefix("--@include ")
        for text in texts.values()
        for line in text.splitlines()
        if line.startswith("--@include ")
    }
    for path in texts:
        root = next(folder for folder in FOLDERS if path.is_relative_to(folder))
        within = path.relative_to(root).with_suffix("")
        if within.as_posix() not in included:
            package = ".".join((root.name, *within.parent.parts))
            found[package, path.stem] = scripts.source(package, path.stem)
    return {f"{package}.{name}": text for (package, name), text in found.items()}


SCRIPTS: Final = standalone()


@dataclass
class Moment:
    """A run of a script: what it was given, and all of Redis just before."""

    keys: list[str]
    args: list[str]
    world: Dump


class World:
    """All of Redis, read and put back as bytes."""

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url)

    def read(self) -> Dump:
        names = sorted(self.client.keys("*"))
        pipeline = self.client.pipeline(transaction=False)
        for name in names:
            pipeline.dump(name)
            pipeline.pexpiretime(name)
        answers = pipeline.execute()
        found = zip(names, zip(answers[0::2], answers[1::2], strict=True), strict=True)
        return {name: kept for name, kept in found if kept[0] is not None}  # one just ended

    def look(self) -> dict[bytes, Any]:
        """Return what lies under each key, and its end; a dump may differ by the order alone."""
        names = sorted(self.client.keys("*"))
        pipeline = self.client.pipeline(transaction=False)
        for name in names:
            pipeline.type(name)
        kinds = pipeline.execute()
        for name, kind in zip(names, kinds, strict=True):
            READ[kind.decode()](pipeline, name)
            pipeline.pexpiretime(name)
        answers = pipeline.execute()
        return dict(zip(names, zip(kinds, answers[0::2], answers[1::2], strict=True), strict=True))

    def write(self, dump: Dump) -> None:
        pipeline = self.client.pipeline(transaction=False)
        pipeline.flushdb()
        soon_ms = time.time_ns() // 1_000_000 + 600_000  # nothing is to end while it is compared
        for name, (value, until_ms) in dump.items():
            ends_ms = max(until_ms, soon_ms) if until_ms > 0 else 0
            pipeline.restore(name, ends_ms, value, absttl=True)
        pipeline.execute()


class Recorder:
    """Keeps the fullest moment of each script."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._names = {text: name for name, text in SCRIPTS.items()}
        self.moments: dict[str, Moment] = {}

    def see(self, script: Any, names: Any, args: Any) -> None:
        text = script.script
        name = self._names.get(text.decode() if isinstance(text, bytes) else text)
        if name is None:
            return
        moment = Moment(
            [str(key) for key in names or ()], [str(arg) for arg in args or ()], self._world.read()
        )
        known = self.moments.get(name)
        if known is None or self._weight(moment) >= self._weight(known):
            self.moments[name] = moment

    @staticmethod
    def _weight(moment: Moment) -> tuple[int, int]:
        there = sum(key.encode() in moment.world for key in moment.keys)
        return there, len(moment.args)


async def live(shop: Shop, settings: Settings) -> None:
    """Let happen in a shop whatever runs a script."""
    users = [f"o{n}" for n in range(6)]
    for user in users:
        shop.give(user, formIds=[f"{user}a", f"{user}b"], prepayId=f"wx{user}")
        shop.give(user, subscriptions={TEMPLATE: "accept"}, id="1")
        shop.give(user, subscriptions={TEMPLATE: "accept", "V": "reject"}, id="2")
    everybody = [user.encode() for user in users]
    for _ in range(2):
        shop.audiences.import_rows("shop", "vip", everybody)
    shop.audiences.replace_rows("shop", "vip", everybody[:4])
    shop.audiences.remove_rows("shop", "vip", everybody[:1])
    timed, counted = shop.broadcast(), shop.broadcast("subscribe")
    shop.broadcasts.pause(timed)
    shop.broadcasts.resume(timed)
    shop.keeper.run_once()
    shop.post("o1")
    receipts, doubts = Receipts(shop.client, settings), Doubts(shop.client, settings)
    copies = Copies(shop.client)
    Limiter(shop.client, "w1").reserve("shop", settings.app("shop"), 3, {timed: (5.0, 1)}, 0, "t")
    first = shop.take(4)
    shop.settle(first[0], "settle", "void_all", "refused", errcode=43101, streak="refusal")
    shop.settle(first[1], "delay", "back", "-", streak="-")
    shop.settle(first[2], "keep", "keep", "-", streak="-")
    shop.settle(first[3], streak="ok", msgid="7")
    copies.mark(timed, 0, "unsure", "1")
    copies.give_canary("shop", counted, 0, 3)
    copies.open("shop", timed, 0)
    shop.open(counted)
    for claim in shop.take(6):
        shop.settle(claim, "settle", "doubt", "in_doubt", streak="-")
    shop.take(4)
    for broadcast in (timed, counted):
        shop.recover(broadcast)
        shop.keeper.run_once()
    shop.client.hset(keys.flight(0, timed), "1:oX", "aside 99999 f:x 9999999999999 1 9 1")
    for replay in (True, False):
        doubts.aside(timed, replay=replay)
    for doubt in list(doubts.of(counted))[:1]:
        receipts.settle("shop", doubt.openid, TEMPLATE, msgid="9", errcode=0, at_ms=shop.now_ms())
    doubts.decide(counted, "failed")
    Forecaster(shop.client, settings).forecast("shop", "template", audience="vip")
    Limits(shop.client).admit(0, (Limit(keys.upload_flood(0, "shop", "o1"), 5),))
    shop.wrong()
    shop.broadcasts.cancel(timed)
    shop.keeper.run_once()
    Users(shop.client, settings).forget("shop", "o2")
    await live_on(shop, settings, counted)


async def live_on(shop: Shop, settings: Settings, counted: str) -> None:
    """Run what has no part in a broadcast, or takes a second to come about."""
    shop.audiences.delete("shop", "vip")
    answer, inbox = keys.web_answer("shop", "k"), keys.inbox("shop")
    lease, counts = keys.inbox_lease("shop"), keys.inbox_counts("shop")
    api_keys = ApiKeys(shop.client, settings)
    api_keys.lease(api_keys.create("n", ["shop"], ["send"]).key, 5)
    raw = {
        "producers.web.traffic.idempotency": ([answer], ["mine", "kept", 1000]),
        "producers.callbacks.inbox_store": (
            [inbox, counts, keys.push_seen("shop", "s")],
            ["", "push", 10, shop.now_ms(), 60_000, "digest", 0],
        ),
        "producers.callbacks.inbox_look": ([inbox, lease], ["w1", 5000, 10]),
        "producers.callbacks.inbox_done": ([inbox, lease], ["w1", "1 push", "1 other"]),
        "producers.recipients.resolve": (
            [keys.lane_broadcast(0, counted), keys.doubts(0, counted)],
            [keys.lane_prefix(0), counted, "failed", "7:oX", "8:oY"],
        ),
        "workers.duties.landed": (
            [f"{keys.lane_prefix(0)}flying", keys.flight(0, "gone")],
            ["gone"],
        ),
        "workers.sending.posting": (
            [keys.flight(0, counted), keys.flight(0, "other")],
            ["w1", "7:oX 5", "8:oY 6 9:oZ 7"],
        ),
        "workers.wechat.release": ([keys.token_lock("shop")], ["w1"]),
        "workers.limits.penalize": ([keys.limiter("shop")], ["", 10, 100]),
    }
    for item in ("7:oX", "8:oY"):
        shop.client.hset(keys.doubts(0, counted), item, f"1 2 s:{TEMPLATE}")
        bucket, openid = item.split(":")
        shop.client.hset(keys.outcomes(0, counted, int(bucket)), openid, "in_doubt")
    shop.client.hset(keys.flight(0, counted), "7:oX", f"w1 5 s:{TEMPLATE} 1 1 0 n")
    shop.client.hset(keys.flight(0, "other"), "8:oY", f"w1 6 s:{TEMPLATE} 1 1 0 n")
    shop.client.set(answer, "mine", px=10_000)
    shop.client.set(keys.token_lock("shop"), "w1", px=10_000)
    shop.client.rpush(inbox, "1 push", "1 other")
    for name, (script_keys, args) in raw.items():
        shop.client.register_script(SCRIPTS[name])(keys=script_keys, args=args)
    async_client = store.connect_async(settings)
    with suppress(Exception):
        peers = Peers(async_client, "w1")
        await peers.beat()
        await Penalty(async_client).hit("shop", 10, 100)
        await peers.leave()
    await async_client.aclose()
    await async_client.connection_pool.disconnect()


@pytest.fixture(scope="module")
def moments(valkey_url: str) -> dict[str, Moment]:
    """Live once, and keep what each script was given."""
    world = World(valkey_url)
    world.client.flushall()
    world.client.script_flush()  # a script that is known is called past what records it
    apps = {"shop": {"appid": "wx0000000000000001", "secret": "shop-secret"}}
    fields: dict[str, Any] = {"redis_url": valkey_url, "apps": apps, "buckets": 256}
    settings = Settings(_env_file=None, **fields)
    recorder = Recorder(world)
    call, async_call = Script.__call__, AsyncScript.__call__

    def seen(self: Any, keys: Any = None, args: Any = None, client: Any = None) -> Any:
        recorder.see(self, keys, args)
        return call(self, keys, args, client)

    async def async_seen(self: Any, keys: Any = None, args: Any = None, client: Any = None) -> Any:
        recorder.see(self, keys, args)
        return await async_call(self, keys, args, client)

    client = store.connect(settings)
    store.check_layout(client, settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Script, "__call__", seen)
        patch.setattr(AsyncScript, "__call__", async_seen)
        asyncio.run(live(Shop(client, settings), settings))
    client.close()
    client.connection_pool.disconnect()
    return recorder.moments


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


def touched(world: World, moment: Moment, sha: str) -> list[bytes]:
    """Return the keys there are that the script looks at, as MONITOR sees it."""
    world.write(moment.world)
    with world.client.monitor() as monitor:
        with suppress(redis.ResponseError):
            world.client.evalsha(sha, len(moment.keys), *moment.keys, *moment.args)
        world.client.echo("the end")
        text = ""
        for line in monitor.listen():
            if line["client_type"] == "lua":
                text += f" {line['command']} "
            elif "the end" in line["command"]:
                break
    return [key for key in moment.world if f" {key.decode()} " in text]


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
        cases = random.Random(name).sample(cases, CASES)
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
    world.client.close()
    assert half_way == [], f"{len(half_way)} of {len(cases)}"
