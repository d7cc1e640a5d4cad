"""What lies in Redis after whole broadcasts: built by keys.py, in its own lane, with an end.

Runs the product's own callers, on one lane and on four.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.exceptions import ClusterCrossSlotError

from producers import store
from producers.broadcasts import Broadcasts
from producers.broadcasts.spec import Spec
from producers.permits.collect import Collector
from producers.settings import Settings
from producers.store import keys, scripts
from producers.store.lanes import reach
from producers.words import State
from workers.duties.peers import Peers
from workers.duties.recover import Recoverer
from workers.lanes.keeper import Keeper
from workers.limits.limiter import Limiter, Penalty
from workers.sending.claim import Claim
from workers.sending.hands import Hands
from workers.sending.settle import Answer, Settler
from workers.sending.take import Asking, Taker
from workers.sending.verdict import Action, Streak, Verdict
from workers.wechat.reply import Fate, Reply

OPENIDS = tuple(f"o{n:04}" for n in range(60))
WITHOUT_TTL = (
    keys.DEPLOYMENT,
    keys.WORKERS,
    re.escape(keys.SEEN),
    r"wxb:\{\d+\}:(fence|audience:.+|buckets:.+|size:.+|ledger:shop|stock:shop|ring:shop|first:shop|subs:.+)",
    r"wxb:\{\d+\}:(busy|due|doing|flying)",
    r"wxb:\{app:shop\}:(audiences|active)",
    r"\{wxb:jobs\}.*",
)
"""The short list in the docstring of keys.py, as patterns."""

DELIVERED = Verdict(Action.SETTLE, "spent", "delivered", streak=Streak.OK)
KEPT = Verdict(Action.KEEP, "keep", delay_ms=0)
SWAPPED = Verdict(Action.SWAP, "void", "no_permit", streak=Streak.REFUSAL)
DELAYED = Verdict(Action.DELAY, "back", delay_ms=0)
REQUEUED = Verdict(Action.REQUEUE, "back")
REFUSED = Verdict(Action.SETTLE, "void_all", "refused", streak=Streak.REFUSAL)


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator["redis.asyncio.Redis"]:
    client = store.connect_async(settings)
    try:
        yield client
    finally:
        await client.aclose()
        await client.connection_pool.disconnect()


class Worker:
    """A worker's callers around one client, without its threads, its clock and WeChat."""

    def __init__(self, client: "redis.Redis", settings: Settings, name: str) -> None:
        self.name = name
        self.client = client
        self.settings = settings
        self.broadcasts = Broadcasts(client, settings)
        self.keeper = Keeper(client, settings, self.broadcasts, name)
        self.recoverer = Recoverer(client, settings, self.broadcasts)
        self.taker = Taker(client, settings, name, self.broadcasts.ttl_ms)
        self.limiter = Limiter(client, name)
        self.hands = Hands(1000)
        self.flags: list[str] = []
        self.swapped: list[Claim] = []

    def take(self, most: int = 100) -> list[Claim]:
        claims: list[Claim] = []
        for lane in self.settings.layout.lanes:
            claims += self.taker.take(Asking.of("shop", lane, most), {}).claims
        return claims

    def reserve(self, plain: int, broadcast: str) -> None:
        app = self.settings.app("shop")
        self.limiter.reserve("shop", app, plain, {broadcast: (5.0, 1)}, 0, scripts.new_token())

    async def settle(self, *answers: tuple[Claim, Verdict]) -> None:
        """Settle through the product's settler, on a loop of this call's own."""
        async with connected(self.settings) as client:
            await self._settle_with(client, answers)

    async def _settle_with(
        self, client: "redis.asyncio.Redis", answers: tuple[tuple[Claim, Verdict], ...]
    ) -> None:
        settler = Settler(
            client,
            self.settings,
            self.name,
            self.broadcasts.ttl_ms,
            self.hands,
            lambda *flag: self.flags.append(flag[-1]),
        )
        self.hands.take([claim for claim, _ in answers])
        for claim, verdict in answers:
            reply = Reply(Fate.ANSWERED, 0 if verdict is DELIVERED else 41028, msgid="12")
            settler.put(Answer(claim, reply, verdict))
        deadline = time.monotonic() + 10
        while self.hands.held > len(self.hands.swapped):
            assert time.monotonic() < deadline, "not every answer was settled"
            await asyncio.sleep(0.002)
        self.hands.drop([*self.hands.swapped])
        self.swapped = [*self.hands.swapped]
        self.hands.swapped.clear()
        await settler.close()


def spec(**changes: Any) -> Spec:
    fields: dict[str, Any] = {
        "app": "shop",
        "channel": "template",
        "template_id": "T",
        "data": {"keyword1": "hello"},
        "audience": "all",
    }
    return Spec.checked(**{**fields, **changes})


@pytest.fixture
def worker(client: "redis.Redis", settings: Settings) -> Worker:
    return Worker(client, settings, "host:1:a")


@pytest.fixture
def crowd(client: "redis.Redis", settings: Settings) -> None:
    """Sixty users: two form_ids and an accept each, every tenth a prepay_id too."""
    Collector(client, settings).collect(
        "shop",
        (
            {
                "openid": openid,
                "formIds": [f"{openid}-a-form-id", f"{openid}-b-form-id"],
                "subscriptions": {"T": "accept"},
                **({"prepayId": f"wx{openid}prepay"} if number % 10 == 0 else {}),
            }
            for number, openid in enumerate(OPENIDS)
        ),
    )


async def broadcast_through_everything(worker: Worker) -> list[str]:
    """Run broadcasts through every script, and through every way that a message can go."""
    client, broadcasts = worker.client, worker.broadcasts
    ids = [
        broadcasts.create(spec(), key="once").id,
        broadcasts.create(spec(channel="subscribe", data={"thing1": "hello"})).id,
        broadcasts.create(spec(rate=50, priority=True)).id,
    ]
    assert broadcasts.create(spec(), key="once").known
    async with connected(worker.settings) as async_client:
        await Peers(async_client, worker.name).beat()
        await Penalty(async_client).hit("shop", 300, 1, 10)
    other = Worker(client, worker.settings, "host:2:b")
    first = worker.take(10)
    worker.reserve(5, ids[0])
    ways = (REQUEUED, DELAYED, SWAPPED, REFUSED)
    unlike = [(claim, ways[n % len(ways)]) for n, claim in enumerate(first[:-1])]
    await worker.settle(*unlike, (first[-1], DELIVERED))
    worker.keeper.run_once()
    form_ids = [claim for claim in worker.take(20) if claim.kind == "f"]
    await worker.settle(*((claim, KEPT) for claim in form_ids[:3]))
    for lane in worker.settings.layout.lanes:
        for broadcast in ids:
            other.recoverer.recover("shop", broadcast, lane, worker.name)
    for _ in range(30):
        other.keeper.run_once()
        worker.keeper.run_once()
        claims = other.take()
        await other.settle(*((claim, DELIVERED) for claim in claims))
        if all(broadcasts.status(broadcast).complete for broadcast in ids):
            break
        for lane in worker.settings.layout.lanes:
            hold_nobody_back(client, lane)
    other.keeper.run_once()
    worker.keeper.run_once()
    return ids


def hold_nobody_back(client: "redis.Redis", lane: int) -> None:
    """Let every delay and every lease be over: time is not in this test's hand."""
    client.delete(keys.sending(lane, "shop"))
    for key in client.scan_iter(keys.delayed(lane, "*").replace("{", r"{")):
        for item in client.zrange(key, 0, -1):
            client.zadd(key, {item: 0})
        client.zadd(keys.due(lane), {key.rpartition(":")[2]: 0})


@pytest.mark.parametrize("lanes", [1, 4])
async def test_every_recipient_of_every_broadcast_ends_in_one_outcome(
    worker: Worker, crowd: None
) -> None:
    for broadcast in await broadcast_through_everything(worker):
        status = worker.broadcasts.status(broadcast)
        assert (status.state, status.complete) == (State.FINISHED, True)
        assert status.total == status.settled == sum(status.outcomes.values()) == len(OPENIDS)
        assert (status.queued, status.delayed, status.in_flight) == (0, 0, 0)


@pytest.mark.parametrize("lanes", [1, 4])
async def test_every_use_is_counted_once(worker: Worker, crowd: None) -> None:
    await broadcast_through_everything(worker)
    ledger: Counter[str] = Counter()
    stock: Counter[str] = Counter()
    for lane in worker.settings.layout.lanes:
        for name, uses in worker.client.hgetall(keys.ledger(lane, "shop")).items():
            ledger[name] += int(uses)
        for name, uses in worker.client.hgetall(keys.stock(lane, "shop")).items():
            stock[name[0]] += int(uses) if ":" in name else 0
    collected = {"f": 120, "p": 18, "s": 60}
    for kind, uses in collected.items():
        assert ledger[f"collected:{kind}"] == uses
        gone = sum(ledger[f"{fate}:{kind}"] for fate in ("spent", "void", "expired"))
        assert gone + stock[kind] == uses


@pytest.mark.parametrize("lanes", [1, 4])
async def test_each_key_has_an_end_but_for_those_that_keys_py_names(
    worker: Worker, crowd: None
) -> None:
    await broadcast_through_everything(worker)
    endless = [key for key in worker.client.scan_iter(count=1000) if worker.client.ttl(key) == -1]
    leaked = [key for key in endless if not any(re.fullmatch(known, key) for known in WITHOUT_TTL)]
    assert leaked == []
    assert endless


@pytest.mark.parametrize("lanes", [1, 4])
async def test_each_key_is_one_that_keys_py_builds(worker: Worker, crowd: None) -> None:
    ids = await broadcast_through_everything(worker)
    known = set(known_keys(worker, ids))
    ours = {key for key in worker.client.scan_iter(count=1000) if key.startswith("wxb:")}
    assert ours - known == set()
    for name in ("permits", "outcomes", "msgids", "lane", "home", "fence", "limiter"):
        assert any(f":{name}" in key for key in ours), name


def known_keys(worker: Worker, ids: list[str]) -> Iterator[str]:
    """Yield every key that keys.py can build for these users, workers and broadcasts."""
    settings = worker.settings
    callers = ("host:1:a", "host:2:b")
    yield from (keys.DEPLOYMENT, keys.WORKERS, keys.APPS)
    app_wide = (keys.audiences, keys.active, keys.history, keys.limiter, keys.token)
    yield from (build("shop") for build in app_wide)
    yield keys.idempotency("shop", "once")
    yield from (keys.limiter_reply("shop", caller) for caller in callers)
    yield from (keys.broadcast_limiter("shop", broadcast) for broadcast in ids)
    for lane in settings.layout.lanes:
        yield from (keys.fence(lane), keys.keeper(lane), keys.busy(lane))
        yield from (keys.due(lane), keys.doing(lane), keys.flying(lane))
        per_app = (keys.ring, keys.priority_ring, keys.sending, keys.stock, keys.ledger)
        yield from (build(lane, "shop") for build in per_app)
        today = int(worker.client.time()[0]) // 86_400
        yield from (keys.dead_permits(lane, "shop", day) for day in (today - 1, today))
        yield from (keys.forgot(lane), keys.doubted(lane, "shop"))
        yield keys.audience_size(lane, "shop", "all")
        yield keys.audience_buckets(lane, "shop", "all")
        for script in ("take:shop", "settle:shop"):
            yield from (keys.reply(lane, script, caller) for caller in callers)
        collects = keys.reply(lane, "collect", "*")
        yield from worker.client.scan_iter(collects, count=1000)
    for broadcast in ids:
        yield keys.home(worker.broadcasts.home_lane(broadcast), broadcast)
        for lane in settings.layout.lanes:
            per_broadcast = (
                keys.lane_broadcast,
                keys.queue,
                keys.delayed,
                keys.flight,
                keys.tries,
                keys.suspects,
                keys.doubts,
                keys.recipients,
                keys.pace,
            )
            yield from (build(lane, broadcast) for build in per_broadcast)
    for openid in OPENIDS:
        lane, bucket, _ = keys.place_of(openid, settings)
        yield keys.permits(lane, "shop", openid)
        yield keys.subscriptions(lane, "shop", openid)
        yield keys.marks(lane, "shop", openid)
        yield keys.audience(lane, "shop", "all", bucket)
        for broadcast in ids:
            yield keys.outcomes(lane, broadcast, bucket)
            yield keys.msgids(lane, broadcast, bucket)


@pytest.mark.parametrize("lanes", [4])
async def test_a_script_touches_the_keys_of_one_hash_tag_only(worker: Worker, crowd: None) -> None:
    """As MONITOR sees it: what Lua runs within a script, beside the keys that it was given."""
    seen: list[tuple[str, set[str]]] = []
    reach.learn(worker.client, ClusterCrossSlotError())  # as on a cluster
    with worker.client.monitor() as monitor:
        await broadcast_through_everything(worker)
        worker.client.echo("the end")
        for command in iter(monitor.next_command, None):
            text = command["command"]
            if text == "ECHO the end":
                break
            tags = set(re.findall(r"(?:^|\s)(?:wxb:)?(\{[^{}\s]+\}):?[a-z]", text))
            if text.startswith("EVALSHA"):
                names = text.split(" ")[3 : 3 + int(text.split(" ")[2])]
                tags = {tag for name in names for tag in re.findall(r"\{[^{}]+\}", name)}
                seen.append((text, tags))
            elif command["client_type"] == "lua" and text.split(" ")[0] not in ("PUBLISH", "TIME"):
                seen[-1][1].update(re.findall(r"\{[^{}]+\}", text.split(" ")[1]))
    assert len(seen) > 100
    mixed = [(text[:200], tags) for text, tags in seen if len(tags) > 1]
    assert mixed == []
    assert {tag for _, tags in seen for tag in tags} >= {"{0}", "{1}", "{2}", "{3}", "{app:shop}"}


@pytest.mark.parametrize("lanes", [4])
async def test_a_user_lives_in_the_lane_of_the_openids_bucket(worker: Worker, crowd: None) -> None:
    for openid in OPENIDS:
        lane = keys.bucket_of(openid, worker.settings.buckets) % 4
        assert worker.client.zcard(keys.permits(lane, "shop", openid)) >= 2
    broadcast = worker.broadcasts.create(spec()).id
    for lane in range(4):
        items = worker.client.lrange(keys.queue(lane, broadcast), 0, -1)
        assert items
        for item in items:
            bucket, openid = item.split(":")
            assert int(bucket) == keys.bucket_of(openid, worker.settings.buckets)
            assert int(bucket) % 4 == lane


@pytest.mark.parametrize("lanes", [4])
async def test_one_lane_opens_the_flood_for_all(worker: Worker, crowd: None) -> None:
    """Before the first delivery only the canary's lane is taken from, at most K of it."""
    broadcast = worker.broadcasts.create(spec()).id
    claims = worker.take()
    home = worker.broadcasts.home_lane(broadcast)
    assert {claim.lane for claim in claims} == {home}
    assert len(claims) <= worker.settings.canary
    await worker.settle((claims[0], DELIVERED))
    assert "opened" in worker.flags
    worker.keeper.run_once()
    assert {claim.lane for claim in worker.take()} == {0, 1, 2, 3}


def test_a_broadcast_lives_as_long_as_its_life_and_the_retention(worker: Worker) -> None:
    whole = timedelta(days=7) + worker.settings.retention + timedelta(days=1)
    assert worker.broadcasts.ttl_ms == whole / timedelta(milliseconds=1)
