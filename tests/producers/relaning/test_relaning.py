"""More lanes for a deployment that lives: all lies where it belongs, and nothing is another."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from moments import World
from shop import TEMPLATE, Shop

from producers import AsyncProducer, Producer, store
from producers.broadcasts.spec import Spec
from producers.care.audit import Auditor
from producers.errors import InvalidInputError, LayoutMismatchError, StoreUnavailableError
from producers.relaning import Relaner, dividing
from producers.relaning import leaving as leaving_module
from producers.relaning import moving as moving_module
from producers.relaning.carrying import cut_off
from producers.relaning.places import WAYS, Place, Way, Whereabouts
from producers.settings import Layout, Settings
from producers.store import keys
from producers.store.buckets import positions
from producers.suppressions import Suppressions

AFTER = 8
SUMS = {"total", "done", "sweeping", "swept", "hurried", "aside", "template_errors", "refusals"}
USERS = [f"o{n:03}" for n in range(120)]
SAID = {"app": "shop", "channel": "template", "template_id": TEMPLATE, "data": {"keyword1": "{a}"}}
both = pytest.mark.parametrize("lanes", [1, 2])
pytestmark = pytest.mark.cluster


class Life:
    """A shop in the middle of everything, and all of Redis then."""

    def __init__(self, client: Any, settings: Settings) -> None:
        self.shop = shop = Shop(client, settings)
        for user in USERS:
            shop.give(user, formIds=[f"{user}a", f"{user}b"], prepayId=f"wx{user}")
            shop.give(user, subscriptions={TEMPLATE: "accept", "V": "accept"}, id="1")
        everybody = [user.encode() for user in USERS]
        shop.audiences.import_rows("shop", "vip", everybody[20:])
        Suppressions(client, settings).import_rows("shop", "imported", everybody[:7])
        for user in USERS[::7]:
            shop.post(user, key=f"k{user}")
        spec = Spec.checked(**SAID, rows=True)
        rows = [{"openid": one, "a": one} for one in USERS]
        self.broadcasts = [
            shop.broadcast("template", weight=3),
            shop.broadcast("subscribe", "vip"),
            shop.broadcasts.create_with_rows(spec, rows).id,
            shop.broadcast("template", "vip", rate=1.0),
        ]
        for one in self.broadcasts:
            shop.open(one)
        shop.keeper.run_once()
        ways = itertools.cycle(
            [
                ("settle", "spent", "delivered", "ok"),
                ("settle", "void_all", "refused", "refusal"),
                ("delay", "back", "-", "-"),
                ("settle", "doubt", "in_doubt", "-"),
                ("settle", "spent", "delivered", "ok"),
            ]
        )
        for claim, (action, fate, outcome, streak) in zip(shop.take(40), ways, strict=False):
            shop.settle(claim, action, fate, outcome, streak=streak, msgid="7")
        shop.take(7)  # its worker died: they are in nobody's hands
        for one in self.broadcasts[:2]:
            shop.recover(one)
        shop.take(3)
        for user in USERS:  # Redis forgot something, and their permits proved used
            noted = keys.doubted(shop.lane(user), "shop")
            client.hset(noted, user, shop.now_ms())
            client.expire(noted, 3600)
        assert shop.wrong() == []


@pytest.fixture
def life(client: Any, settings: Settings) -> Life:
    return Life(client, settings)


@pytest.fixture
def free(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give a client that no fence stops; nobody drains in a moment."""
    monkeypatch.setattr(moving_module, "_DRAIN_S", 0.0)
    monkeypatch.setattr(leaving_module, "_READERS_S", 0.0)
    client = store.connect(settings, fenced=False)
    yield client
    client.close()
    client.connection_pool.disconnect()


def born(settings: Settings, lanes: int) -> Layout:
    return Layout(settings.buckets, [lanes])


def grown(settings: Settings, *lanes: int) -> Layout:
    return Layout(settings.buckets, [*lanes, AFTER])


def lying(layout: Layout) -> Whereabouts:
    return Whereabouts(layout, layout.heir(0))


def live_in(settings: Settings, layout: Layout) -> Settings:
    """Return the settings of who has known such a deployment all the time."""
    mine = settings.model_copy()
    mine.live_in(layout)
    return mine


def content(client: Any, place: Place, after: Whereabouts) -> Any:
    """Return what a key holds, in whichever lane, and see that it lies where it belongs."""
    name, way = place.name, place.way
    if way in {Way.USER, Way.BUCKET, Way.HOME}:
        assert after.of_whole(place) == place.lane, name
        if way is Way.HOME:  # what is carried from node to node may have another order
            return Counter(client.hgetall(name).items())
        return Counter({client.execute_command("DUMP", name, NEVER_DECODE=True): 1})
    if way in {Way.LIST, Way.HASH, Way.ZSET}:
        read = {
            Way.LIST: lambda: client.lrange(name, 0, -1),
            Way.HASH: lambda: client.hgetall(name).items(),
            Way.ZSET: lambda: client.zrange(name, 0, -1, withscores=True),
        }[way]
        items = read()
        lane_of = after.of_items(place)
        heads = items if way is Way.LIST else [item for item, _ in items]
        assert {lane_of(item) for item in heads} <= {place.lane}, name
        return Counter(items)
    if way is Way.BITS:
        bits = positions(client.execute_command("GET", name, NEVER_DECODE=True), 0)
        assert {after.of_bucket(bit) for bit in bits} <= {place.lane}, name
        return Counter(bits)
    if place.kind == "lane":
        has = client.hgetall(name)
        sums = {field: int(has[field]) for field in has if field in SUMS or field[:2] == "o:"}
        return Counter({field: n for field, n in sums.items() if n})
    if place.kind == "size":
        return Counter({"members": int(client.get(name))})
    if place.kind == "stock":
        return Counter({f: int(n) for f, n in client.hgetall(name).items() if f != "trimmed"})
    if place.kind in {"ledger", "hooks"} and place.way is Way.HEIR:
        return Counter({client.execute_command("DUMP", name, NEVER_DECODE=True): 1})
    return Counter()


def everything(client: Any, after: Whereabouts) -> dict[str, Any]:
    """Return what all lanes hold together, by the names of their keys without the lane."""
    found: dict[str, Any] = {}
    for name in client.scan_iter(match="wxb:{[0-9]*"):
        place = Place.of(name)
        assert place is not None
        some = content(client, place, after)
        if some:
            found.setdefault(place.rest, Counter()).update(some)
    return found


def ends(client: Any) -> dict[str, int]:
    """Return when each key ends that goes whole, without its lane."""
    found = {}
    for name in client.scan_iter(match="wxb:{[0-9]*"):
        place = Place.of(name)
        if place is not None and place.way in {Way.USER, Way.BUCKET, Way.HOME}:
            found[place.rest] = client.pexpiretime(name)
    return found


def audited(client: Any, settings: Settings, layout: Layout) -> dict[str, Any]:
    audit = Auditor(client, live_in(settings, layout)).run()
    assert audit.wrong == []
    return audit.as_dict()


@both
def test_everything_lies_where_it_belongs_and_the_sums_are_what_they_were(
    life: Life, settings: Settings, free: Any, lanes: int
) -> None:
    before = everything(free, lying(born(settings, lanes)))
    kinds = {name.partition(":")[0] for name in before}
    assert kinds >= {"permits", "subs", "queue", "delayed", "flight", "doubts", "mail", "rows"}
    assert "doubted" in kinds
    sums, until = audited(free, settings, born(settings, lanes)), ends(free)
    done = Relaner(free, settings).run(AFTER)
    assert (done.before, done.after, done.strange, done.resumed) == (lanes, AFTER, [], False)
    assert done.keys
    assert free.hgetall(keys.DEPLOYMENT)["lanes"] == str(AFTER)
    assert "relaning" not in free.hgetall(keys.DEPLOYMENT)
    assert everything(free, lying(grown(settings, lanes))) == before
    assert ends(free) == until
    assert audited(free, settings, grown(settings, lanes)) == sums


def test_what_is_too_large_for_one_trip_lies_where_it_belongs_too(
    life: Life, settings: Settings, free: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dividing, "PAGE", 3)
    monkeypatch.setattr(dividing, "_TOGETHER", 2)
    monkeypatch.setattr(dividing, "_SMALL", dict.fromkeys(dividing.DIVIDED, 2))
    lanes = settings.lanes
    before = everything(free, lying(born(settings, lanes)))
    Relaner(free, settings).run(AFTER)
    assert everything(free, lying(grown(settings, lanes))) == before
    audited(free, settings, grown(settings, lanes))


@both
def test_a_broadcast_goes_on_where_it_was_and_each_gets_it_once(
    life: Life, settings: Settings, free: Any, lanes: int
) -> None:
    told = {one: life.shop.outcomes(one) for one in life.broadcasts}
    assert all(told.values())
    Relaner(free, settings).run(AFTER)
    more = live_in(settings, grown(settings, lanes))
    shop = Shop(store.connect(more), more, "w2")
    for one in life.broadcasts:
        for lane in more.layout.lanes:
            shop.recoverer.recover("shop", one, lane, "w1")
    for _ in range(30):
        for lane, one in itertools.product(more.layout.lanes, life.broadcasts):
            if waits := shop.client.zrange(keys.delayed(lane, one), 0, -1):  # their time comes
                shop.client.zadd(keys.delayed(lane, one), dict.fromkeys(waits, 1), xx=True)
                shop.client.zadd(keys.due(lane), {one: 0})
        shop.keeper.run_once()
        for claim in shop.take():
            assert claim.openid not in told.get(claim.broadcast, {})
            shop.settle(claim)
        shop.client.delete(*(keys.sending(lane, "shop") for lane in more.layout.lanes))
    for one in life.broadcasts[:3]:
        status = shop.broadcasts.status(one)
        assert (status.state, status.settled) == ("finished", status.total), one
        assert told[one].items() <= shop.outcomes(one).items()
    assert shop.wrong() == []
    shop.client.connection_pool.disconnect()


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.timeout(90)
@both
def test_killed_at_any_command_it_goes_on_when_it_is_run_again(
    life: Life, settings: Settings, free: Any, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(settings.redis_url.get_secret_value())
    saved = world.read()
    world.write(saved)
    before = everything(free, lying(born(settings, lanes)))
    sums = audited(free, settings, born(settings, lanes))
    send = redis.Connection.send_packed_command
    left = 0

    def dies(self: Any, command: Any, check_health: bool = True) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed
        send(self, command, check_health)

    monkeypatch.setattr(redis.Connection, "send_packed_command", dies)
    at, ends = 1, False
    while not ends:
        left = at
        try:
            Relaner(free, settings).run(AFTER)
            ends = True
        except Killed:
            left = 0
            free.connection_pool.disconnect()
            done = Relaner(free, settings).run(AFTER)
            assert done.before in {lanes, AFTER}
        left = 0
        assert everything(free, lying(grown(settings, lanes))) == before, f"killed at command {at}"
        if at % 10 == 1:
            assert audited(free, settings, grown(settings, lanes)) == sums
        world.write(saved)
        at += 1 + at // 8
    assert at > 50
    world.client.close()


@pytest.mark.timeout(90)
@both
def test_another_run_takes_over_from_one_that_lives(
    life: Life, settings: Settings, free: Any, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earlier one wakes up when the later one has ended, and changes nothing any more."""
    world = World(settings.redis_url.get_secret_value())
    saved = world.read()
    before = everything(free, lying(born(settings, lanes)))
    other = store.connect(settings, fenced=False)
    send = redis.Connection.send_packed_command
    left = 0

    def stands_still(self: Any, command: Any, check_health: bool = True) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            Relaner(other, settings).run(AFTER)
        send(self, command, check_health)

    monkeypatch.setattr(redis.Connection, "send_packed_command", stands_still)
    overtaken = 0
    for at in range(3, 250, 13):
        world.write(saved)
        left = at
        try:
            Relaner(free, settings).run(AFTER)
        except (InvalidInputError, StoreUnavailableError, redis.RedisError):
            overtaken += 1
        left = 0
        free.connection_pool.disconnect()
        has = free.hgetall(keys.DEPLOYMENT)
        assert (has["lanes"], has.get("relaning"), has.get("relaner")) == (str(AFTER), None, None)
        assert everything(free, lying(grown(settings, lanes))) == before, f"stood still at {at}"
    assert overtaken > 5
    other.connection_pool.disconnect()
    world.client.close()


def test_an_overtaken_run_whose_connections_came_up_again_ends_too(
    life: Life, settings: Settings, free: Any
) -> None:
    other = store.connect(settings, fenced=False)

    def overtake(what: str, looked_at: int) -> None:
        if what == "keys" and looked_at:
            Relaner(other, settings).run(AFTER)
            free.connection_pool.disconnect()  # the next command connects anew

    with pytest.raises(InvalidInputError, match="began later"):
        Relaner(free, settings, overtake).run(AFTER)
    other.connection_pool.disconnect()


def test_what_it_would_do_is_what_it_does(life: Life, settings: Settings, free: Any) -> None:
    told: list[str] = []
    plan = Relaner(free, settings).plan(AFTER)
    assert free.hget(keys.DEPLOYMENT, "relaning") is None
    done = Relaner(free, settings, lambda what, _: told.append(what)).run(AFTER)
    names = ("before", "after", "keys", "shared", "divided", "broadcasts", "audiences", "stocks")
    assert [getattr(plan, one) for one in names] == [getattr(done, one) for one in names]
    assert {"keys", "lanes"} <= set(told)
    assert Relaner(free, settings).run(AFTER).keys == 0


@pytest.mark.parametrize(("number", "said"), [(3, "divide"), (0, "multiple"), (2048, "at most")])
def test_other_numbers_are_refused(
    life: Life, settings: Settings, free: Any, number: int, said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said):
        Relaner(free, settings).run(number)
    assert free.hget(keys.DEPLOYMENT, "relaning") is None


def test_one_change_at_a_time(life: Life, settings: Settings, free: Any) -> None:
    free.hset(keys.DEPLOYMENT, "relaning", "4")
    with pytest.raises(InvalidInputError, match="to 4 lanes is under way"):
        Relaner(free, settings).run(AFTER)
    assert Relaner(free, settings).run(4).resumed


def test_what_nobody_of_us_put_there_is_left_and_told(
    life: Life, settings: Settings, free: Any
) -> None:
    free.set("wxb:{0}:queue:b1", "no list", px=60_000)
    assert Relaner(free, settings).run(AFTER).strange == ["wxb:{0}:queue:b1"]
    assert free.get("wxb:{0}:queue:b1") == "no list"


def test_a_node_that_is_taken_for_a_server_is_refused(
    cluster_url: str, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(redis_url=cluster_url)
    client = store.connect(settings, fenced=False)
    client.hset(keys.DEPLOYMENT, mapping={"lanes": "1", "buckets": "256"})
    with pytest.raises(InvalidInputError, match=r"redis\+cluster"):
        Relaner(client, settings).run(4)
    client.delete(keys.DEPLOYMENT)
    client.connection_pool.disconnect()


def test_who_is_cut_off_learns_which_lanes_there_are(
    client: Any, settings: Settings, free: Any
) -> None:
    client.hlen(keys.DEPLOYMENT)
    free.hset(keys.DEPLOYMENT, mapping={"relaning": "4", "divided": "1"})
    assert settings.layout == born(settings, 1)
    cut_off(free, ("worker",))
    client.hlen(keys.DEPLOYMENT)
    assert settings.layout == born(settings, 1), "it was not one of these"
    cut_off(free)
    client.hlen(keys.DEPLOYMENT)
    assert settings.layout == Layout(settings.buckets, [1], 4, 1)


def test_every_kind_of_key_of_a_lane_has_its_way() -> None:
    """A key function of a lane that the table does not know would be lost."""
    kinds = set()
    for name, one in vars(keys).items():
        arguments = getattr(one, "__annotations__", {})
        if callable(one) and next(iter(arguments), "") == "lane" and name != "lane_prefix":
            texts = {"int": 7, int: 7}
            given = [texts.get(kind, "x") for arg, kind in arguments.items() if arg != "return"]
            place = Place.of(one(*given))
            assert place is not None, name
            assert place.way is not None, name
            kinds.add(place.kind)
    assert set(WAYS) - kinds == {"relaning", "never"}


@pytest.fixture
def unset(make_settings: Callable[..., Settings], client: Any) -> Settings:
    """Give settings that take the lanes of the deployment, which has one."""
    told = make_settings()
    settings = told.model_copy()
    settings.model_fields_set.discard("lanes")
    store.check_layout(client, told)
    return settings


def test_a_producer_follows(unset: Settings, free: Any) -> None:
    producer = Producer(unset)
    assert producer.import_audience("shop", "vip", ["o1", "o2", "o3"]).added == 3
    Relaner(free, unset).run(4)
    assert producer.count_audience("shop", "vip") == 3
    rows = iter(["o3", "o4", "o5"])  # can be read once only
    assert producer.import_audience("shop", "vip", rows).added == 2
    Relaner(free, unset).run(8)
    assert producer.within(2.0).import_audience("shop", "vip", ["o5", "o6"]).added == 1
    assert producer.count_audience("shop", "vip") == 6
    assert producer.settings.layout.counts == (1, 4, 8)
    producer.close()


async def test_an_awaited_producer_follows(unset: Settings, free: Any) -> None:
    async with AsyncProducer(unset) as producer:
        assert await producer.count_audience("shop", "all") == 0
        Relaner(free, unset).run(4)
        calls = [producer.import_audience("shop", "vip", [f"o{n}"]) for n in range(8)]
        assert sum(one.added for one in await asyncio.gather(*calls)) == 8
        assert producer.settings.layout.counts == (1, 4)


def test_a_producer_that_is_told_other_lanes_says_so_when_it_begins(
    settings: Settings, free: Any
) -> None:
    told = settings.model_copy()
    producer = Producer(settings)
    assert producer.count_audience("shop", "all") == 0
    Relaner(free, settings).run(4)
    assert producer.count_audience("shop", "all") == 0, "it is told what there was"
    producer.close()
    producer = Producer(told)
    with pytest.raises(LayoutMismatchError, match="WXB_LANES is 1, this deployment has 4"):
        producer.count_audience("shop", "all")
    producer.close()
