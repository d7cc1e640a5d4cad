"""Moments in a shop's life: each script of the product, as it was once run, and all of Redis then.

A test runs a script again from its moment, with something changed. A new script has no moment until
`live` makes it run.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
import redis
from cluster import client_of_all, flush
from lasting_keys import everlasting
from redis.commands.core import AsyncScript, Script
from redis.exceptions import ClusterCrossSlotError
from shop import TEMPLATE, Shop

import producers
import workers
from producers import store
from producers.access.api_keys import ApiKeys
from producers.access.limits import Limit, Limits
from producers.broadcasts.spec import Spec
from producers.callbacks.inbox import (
    DONE,
    LOOK,
    STORE,
    DoneArgs,
    InboxKeys,
    LookArgs,
    StoreArgs,
    StoreKeys,
)
from producers.exports import Exporter, Importer
from producers.planning.forecast import Forecaster
from producers.recipients.doubts import RESOLVE, Doubts, ResolveArgs, ResolveKeys
from producers.recipients.receipts import Receipts
from producers.retries import Retries
from producers.series import Series
from producers.settings import Settings
from producers.store import keys, scripts
from producers.store.lanes import reach
from producers.store.lanes.fence import guarded
from producers.store.scripts import Call
from producers.store.scripts import Script as Declared
from producers.suppressions import Suppressions
from producers.templates import Templates
from producers.users import Users
from producers.web.traffic.idempotency import REPLACE, AnswerArgs, AnswerKeys
from producers.webhooks import DeadLetters
from producers.webhooks.forget import Forgetter as WebhookForgetter
from producers.webhooks.outbox import Outbox
from producers.webhooks.wishes import Wishes
from producers.words import EventType
from workers.duties.peers import Peers
from workers.duties.recover import LANDED, LandedArgs, LandedKeys
from workers.lanes.copies import Copies
from workers.limits.limiter import PENALIZE, Limiter, PenalizeArgs, PenalizeKeys, Penalty
from workers.quotas.asking import ASK, JOT, AskArgs, AskKeys, JotArgs, JotKeys
from workers.quotas.readings import NOTE, NoteArgs, NoteKeys
from workers.sending.posting import POSTING, PostingArgs, PostingKeys
from workers.templates.clerk import BEGIN, END, BeginArgs, EndArgs, ListKeys
from workers.wechat.tokens import RELEASE, ReleaseArgs, ReleaseKeys

PRODUCERS: Final = Path(producers.__file__).parent
WORKERS: Final = Path(workers.__file__).parent
READ: Final[dict[str, Callable[[Any, bytes], Any]]] = {
    "string": lambda pipeline, key: pipeline.get(key),
    "list": lambda pipeline, key: pipeline.lrange(key, 0, -1),
    "hash": lambda pipeline, key: pipeline.hgetall(key),
    "set": lambda pipeline, key: pipeline.smembers(key),
    "zset": lambda pipeline, key: pipeline.zrange(key, 0, -1, withscores=True),
}
T = TypeVar("T")
Dump = dict[bytes, tuple[bytes, int]]


def standalone() -> dict[str, str]:
    """Return name → text of each script that is run by itself, and not put into others."""
    texts = {
        path.relative_to(folder.parent).with_suffix(""): path.read_text()
        for folder in (PRODUCERS, WORKERS)
        for path in folder.rglob("*.lua")
    }
    included = {
        Path(PRODUCERS.name, line.removeprefix("--@include "))
        for text in texts.values()
        for line in text.splitlines()
        if line.startswith("--@include ")
    }
    return {
        ".".join(path.parts): scripts.source(".".join(path.parent.parts), path.name)
        for path in texts.keys() - included
    }


SCRIPTS: Final = standalone()


def by_last_part(named: Mapping[str, T], name: str) -> T:
    """Return what stands under a script's name, by its last part, which no other has."""
    (found,) = (value for full, value in named.items() if full.rpartition(".")[2] == name)
    return found


@dataclass
class Moment:
    """A run of a script: what it was given, and all of Redis just before."""

    keys: list[str]
    args: list[str]
    world: Dump


class World:
    """All of Redis, read and put back as bytes."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.client = client_of_all(url)

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
        flush(self._url)
        pipeline = self.client.pipeline(transaction=False)
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
        self._names |= {guarded(text): name for name, text in SCRIPTS.items()}
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
    users = [user for lane in settings.layout.lanes for user in users_of(shop, lane, 6)]
    for user in users:
        shop.give(user, formIds=[f"{user}a", f"{user}b"], prepayId=f"wx{user}")
        shop.give(user, subscriptions={TEMPLATE: "accept"}, id="1")
        shop.give(user, subscriptions={TEMPLATE: "accept", "V": "reject"}, id="2")
    everybody = [user.encode() for user in users]
    for _ in range(2):
        shop.audiences.import_rows("shop", "vip", everybody)
    shop.audiences.replace_rows("shop", "vip", everybody[:4])
    shop.audiences.remove_rows("shop", "vip", everybody[:1])
    Wishes(shop.client, settings).tell()
    timed, counted = shop.broadcast(weight=3, purpose="news"), shop.broadcast("subscribe")
    shop.broadcasts.pause(timed)
    shop.broadcasts.resume(timed)
    shop.keeper.run_once()
    for user in users:  # of each lane some are not being sent something else just then
        shop.post(user)
    receipts, doubts, copies = (
        Receipts(shop.client, settings),
        Doubts(shop.client, settings),
        Copies(shop.client),
    )
    Limiter(shop.client, "w1").reserve("shop", settings.app("shop"), 3, {timed: (5.0, 1)}, 0, "t")
    first = shop.take(4)
    shop.settle(first[0], "settle", "void_all", "refused", errcode=43101, streak="refusal")
    shop.settle(first[1], "delay", "back", "-", streak="-")
    shop.settle(first[2], "keep", "keep", "-", streak="-")
    shop.settle(first[3], streak="ok", msgid="7")
    copies.mark(timed, 0, "unsure", "1")
    shop.client.set(keys.forgot(0), "run", ex=60)
    copies.give_canary("shop", counted, 0, 3)
    copies.open("shop", timed, [0])
    shop.open(counted)
    for claim in shop.take(6):
        shop.settle(claim, "settle", "doubt", "in_doubt", errcode=41029, streak="used")
    shop.take(4)
    for broadcast in (timed, counted):
        shop.recover(broadcast)
        shop.keeper.run_once()
    write(shop, keys.flight(0, timed), "1:oX", "aside 99999 f:x 9999999999999 1 9 1")
    for replay in (True, False):
        doubts.aside(timed, replay=replay)
    for doubt in list(doubts.of(counted))[:1]:
        receipts.settle("shop", doubt.openid, TEMPLATE, msgid="9", errcode=0, at_ms=shop.now_ms())
    doubts.decide(counted, "failed")
    Forecaster(shop.client, settings).forecast("shop", "template", audience="vip")
    Limits(shop.client).admit(0, (Limit(keys.upload_flood(0, "shop", "o1"), 5),))
    shop.wrong()
    run_a_series(shop, settings)
    shop.broadcasts.cancel(timed)
    shop.keeper.run_once()
    retry(shop, settings, users[1])
    suppressions = Suppressions(shop.client, settings)
    suppressions.import_rows("shop", "imported", everybody[2:4])
    suppressions.opt_out("shop", "o2")
    suppressions.remove_rows("shop", everybody[3:4])
    move(shop, settings)
    Users(shop.client, settings).forget("shop", "o2")
    send_rows(shop)
    await live_on(shop, settings, counted)


def send_rows(shop: Shop) -> None:
    """Load rows in two steps, the second with one who has a row."""
    spec = Spec.checked(
        app="shop", channel="template", template_id=TEMPLATE, data={"keyword1": "{n}"}, rows=True
    )
    rows = [{"openid": f"o{number}", "n": number} for number in range(40)]
    for place in range(2):
        draft = shop.broadcasts._rows.load("shop", spec, rows)
        if place:
            shop.broadcasts._rows.discard("shop", draft.name)
    shop.broadcasts.create_with_rows(spec, rows)


def move(shop: Shop, settings: Settings) -> None:
    """Let an app arrive where it is, and an expression be counted."""
    shop.audiences.count("shop", "all & vip")
    lines = [*Exporter(shop.client, settings).export("shop")]
    Importer(shop.client, settings).load("shop", lines, again=True)


def retry(shop: Shop, settings: Settings, user: str) -> None:
    """Retry a broadcast that was cancelled when one of its recipients had an outcome."""
    ended = shop.broadcast(audience="vip")
    Copies(shop.client).question(ended, 0, "abort 40037", 200)
    shop.broadcasts.cancel(ended)
    write(shop, keys.outcomes(0, ended, shop.bucket(user)), user, "failed 45009")
    Retries(shop.client, settings).retry(ended, "failed,cancelled")


def put_in_order(shop: Shop, users: list[str]) -> None:
    """Let a broadcast go by what ends first."""
    for user in users:
        ends_ms = shop.now_ms() + 60_000
        shop.client.delete(keys.permits(shop.lane(user), "shop", user))
        shop.give(user, formIds=[{"formId": f"{user}soon", "expire": ends_ms}])
    shop.audiences.import_rows("shop", "soon", [user.encode() for user in users])
    shop.broadcasts.cancel(shop.broadcast(audience="soon", rate=0.01))


def run_a_series(shop: Shop, settings: Settings) -> None:
    """Let a series run once, and end."""
    series = Series(shop.client, settings)
    spec = {"app": "shop", "channel": "template", "template_id": TEMPLATE, "audience": "all"}
    series.create("evening", "0 21 * * *", **spec, data={"keyword1": "a"})
    shop.client.hset(keys.series("shop", "evening"), "next_ms", 1)
    shop.client.zadd(keys.SERIES_DUE, {"shop evening": 1})
    series.tick()
    series.pause("shop", "evening")
    series.resume("shop", "evening")
    series.delete("shop", "evening")


def users_of(shop: Shop, lane: int, number: int) -> list[str]:
    """Return the first openids of a lane."""
    of_lane = (openid for n in itertools.count() if shop.lane(openid := f"o{n}") == lane)
    return list(itertools.islice(of_lane, number))


def write(shop: Shop, key: str, field: str, value: str) -> None:
    """Write into a hash past the scripts, with the end that it would have."""
    shop.client.hset(key, field, value)
    shop.client.expire(key, 60)


async def live_on(shop: Shop, settings: Settings, counted: str) -> None:
    """Run what has no part in a broadcast, or takes a second to come about."""
    put_in_order(shop, [user for lane in settings.layout.lanes for user in users_of(shop, lane, 6)])
    shop.audiences.delete("shop", "vip")
    answer, inbox = keys.web_answer("shop", "k"), keys.inbox("shop")
    lease, counts = keys.inbox_lease("shop"), keys.inbox_counts("shop")
    listed, wanted = (
        ListKeys(keys.templates("shop", "subscribe"), keys.TEMPLATES_DUE),
        "subscribe shop",
    )
    templates = Templates(shop.client, settings)
    for _ in range(2):
        templates.show("shop")
    began = shop.now_ms()
    api_keys = ApiKeys(shop.client, settings)
    api_keys.lease(api_keys.create("n", ["shop"], ["send"]).key, 5)
    flights = [keys.flight(0, counted), keys.flight(0, "other")]
    here = InboxKeys(inbox, lease)
    limiter = keys.limiter("shop")
    write(shop, keys.quotas("shop"), "subscribe", "100 1 99 60 60 1")
    runs: list[tuple[Declared[Any, Any], Any, Any, list[str], list[str]]] = [
        (REPLACE, AnswerKeys(answer), AnswerArgs("mine", "kept", 1000), [], []),
        (
            STORE,
            StoreKeys(inbox, counts, keys.push_seen("shop", "s")),
            StoreArgs("push", 10, shop.now_ms(), 60_000, "digest", 0),
            [],
            [],
        ),
        (LOOK, here, LookArgs("w1", 5000, 10), [], []),
        (DONE, here, DoneArgs("w1"), ["1 push", "1 other"], []),
        (
            RESOLVE,
            ResolveKeys(keys.lane_broadcast(0, counted), keys.doubts(0, counted)),
            ResolveArgs(keys.lane_prefix(0), counted, "failed"),
            ["7:oX", "8:oY"],
            [],
        ),
        (LANDED, LandedKeys(keys.flying(0), keys.flight(0, "gone")), LandedArgs("gone"), [], []),
        (POSTING, PostingKeys(), PostingArgs("w1"), ["7:oX 5", "8:oY 6 9:oZ 7"], flights),
        (BEGIN, listed, BeginArgs(wanted, "w1", 9000, 3000, 50, 9000, 60_000), [], []),
        (
            END,
            listed,
            EndArgs(wanted, "w1", began, "failed", "", "HTTP 404", 6000, 9000, 60_000),
            [],
            [],
        ),
        (ASK, AskKeys(keys.quotas("shop"), limiter), AskArgs("subscribe", 9, 9, 5), [], []),
        (JOT, JotKeys(keys.quotas("shop")), JotArgs("error:template", "no", 60_000), [], []),
        (
            NOTE,
            NoteKeys(keys.quotas("shop"), limiter),
            NoteArgs("subscribe", 100, 1, 99, 60, 60, 3, 2**41),
            [],
            [],
        ),
        (RELEASE, ReleaseKeys(keys.token_lock("shop")), ReleaseArgs("w1"), [], []),
        (
            PENALIZE,
            PenalizeKeys(keys.limiter("shop")),
            PenalizeArgs(10, 100, 1000, 1, 5, 1000),
            [],
            [],
        ),
    ]
    for item in ("7:oX", "8:oY"):
        write(shop, keys.doubts(0, counted), item, f"1 2 s:{TEMPLATE}")
        bucket, openid = item.split(":")
        write(shop, keys.outcomes(0, counted, int(bucket)), openid, "in_doubt")
    write(shop, keys.flight(0, counted), "7:oX", f"w1 5 s:{TEMPLATE} 1 1 0 n")
    write(shop, keys.flight(0, "other"), "8:oY", f"w1 6 s:{TEMPLATE} 1 1 0 n")
    shop.client.set(answer, "mine", px=10_000)
    shop.client.set(keys.token_lock("shop"), "w1", px=10_000)
    shop.client.rpush(inbox, "1 push", "1 other")
    shop.client.expire(inbox, 60)
    for script, names, args, more, more_keys in runs:
        if script is END:
            shop.client.hset(listed.list, "began_ms", began)
        script.on(shop.client)(names, args, more, more_keys=more_keys)
    async_client = store.connect_async(settings)
    outbox = Outbox(async_client, shop.settings, {"shop": 2}, 5000)
    for lane in 2 * [*settings.layout.lanes]:
        for letter in await outbox.take(lane, 5):
            await outbox.failed(letter, "HTTP 500", 0)
    for lane in settings.layout.lanes:
        for letter in await outbox.take(lane, 5):
            await outbox.died(letter, "HTTP 410")
    DeadLetters(shop.client, settings).replay("shop")
    for number in range(100):
        WebhookForgetter(shop.client, settings).forget("shop", f"o{number}")
    with suppress(Exception):
        peers = Peers(async_client, "w1")
        await peers.beat()
        await Penalty(async_client).hit("shop", 300, 10, 100, 1000)
        await peers.leave()
    await async_client.aclose()
    await async_client.connection_pool.disconnect()


def moments_of_a_life(url: str, lanes: int = 1) -> dict[str, Moment]:
    """Live once on an empty Redis; return what each script was given."""
    world = World(url)
    world.client.flushall()
    world.client.script_flush()  # a script that is known is called past what records it
    hooks = {
        "webhook_url": "https://shop.example/",
        "webhook_secret": f"whsec_{'a' * 32}",
        "webhook_events": [*EventType],
    }
    bounds = {"per_user_per_day": {"news": 20}, "keep_for_messages_of": {"V": 1}}
    apps = {"shop": {"appid": "wx0000000000000001", "secret": "shop-secret", **hooks, **bounds}}
    fields: dict[str, Any] = {"redis_url": url, "apps": apps, "buckets": 256, "lanes": lanes}
    settings = Settings(_env_file=None, **fields)
    recorder = Recorder(world)
    call, async_call, into = Script.__call__, AsyncScript.__call__, Call.into

    def seen(self: Any, keys: Any = None, args: Any = None, client: Any = None) -> Any:
        recorder.see(self, keys, args)
        return call(self, keys, args, client)

    async def async_seen(self: Any, keys: Any = None, args: Any = None, client: Any = None) -> Any:
        recorder.see(self, keys, args)
        return await async_call(self, keys, args, client)

    def seen_with_others(self: Call, pipeline: Any) -> None:
        recorder.see(self.registered, self.keys, self.argv)
        into(self, pipeline)

    client = store.connect(settings)
    store.check_layout(client, settings)
    if client.info("cluster")["cluster_enabled"]:  # a client of one server does not know
        reach.learn(client, ClusterCrossSlotError())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Script, "__call__", seen)
        patch.setattr(AsyncScript, "__call__", async_seen)
        patch.setattr(Call, "into", seen_with_others)
        asyncio.run(live(Shop(client, settings), settings))
    client.close()
    client.connection_pool.disconnect()
    assert everlasting(world.client) == []
    world.client.close()
    return recorder.moments


def touched(world: World, moment: Moment, sha: str) -> list[bytes]:
    """Return the keys there are that the script looks at, as MONITOR sees it."""
    with suppress(redis.ResponseError):
        named = touched_by(world, moment, sha)
    return [key for key in moment.world if key.decode() in named]


def touched_by(world: World, moment: Moment, sha: str) -> set[str]:
    """Run a script from its moment; return the keys that its commands name, as MONITOR sees it."""
    world.write(moment.world)
    calls: list[list[str]] = []
    with world.client.monitor() as monitor:
        try:
            world.client.evalsha(sha, len(moment.keys), *moment.keys, *moment.args)
        finally:
            world.client.echo("the end")
        for line in monitor.listen():
            if line["client_type"] == "lua":
                calls.append(line["command"].split(" "))
            elif "the end" in line["command"]:
                break
    named: set[str] = set()
    for call in calls:
        with suppress(redis.ResponseError):  # a command without a key
            named.update(world.client.command_getkeys(*call))
    return named
