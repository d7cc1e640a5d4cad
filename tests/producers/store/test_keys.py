"""The keys: a user's lane never moves, a lane's keys share its tag, and all else has a TTL."""

import inspect
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lasting_keys import everlasting
from redis.crc import key_slot

from producers.access.api_keys import ApiKeys
from producers.audiences import Audiences
from producers.broadcasts import Broadcasts
from producers.broadcasts.spec import Spec
from producers.permits.collect import Collector
from producers.settings import Layout, Settings
from producers.store import keys

VALUES = {
    "day": 20_000,
    "lane": 3,
    "lanes": 16,
    "app": "shop",
    "openid": "oABC",
    "broadcast": "b1",
    "carrier": "m1",
    "bucket": 7,
    "slot": 11,
    "script": "take",
    "caller": "c1",
    "worker": "w1",
    "name": "vip",
    "channel": "subscribe",
    "key": "k1",
    "signature": "s1",
}
TYPES = ("string", "hash", "list", "set", "zset", "bitmap")
OPENIDS = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)


NO_KEYS = (
    "bucket_of",
    "place_of",
    "is_carrier",
    "is_test_carrier",
    "is_beside",
    "is_rows",
    "lane_prefix",
    "app_prefix",
)


def builders() -> dict[str, Callable[..., str]]:
    """Return every function that builds a key, by name."""
    return {
        name: function
        for name, function in inspect.getmembers(keys, inspect.isfunction)
        if function.__module__ == keys.__name__ and name not in NO_KEYS
    }


def parameters(function: Callable[..., str]) -> list[str]:
    return list(inspect.signature(function).parameters)


def build(function: Callable[..., str], **values: Any) -> str:
    return function(**{name: {**VALUES, **values}[name] for name in parameters(function)})


BUILDERS = builders()
OF_LANES = [name for name, function in BUILDERS.items() if "lane" in parameters(function)]
OF_API_KEYS = ["key_limit", "key_limit_reply", "web_sessions"]
OF_WORKERS = ["worker_apps", "closed_gates"]
OF_SERIES = ["series", "series_names"]
OF_TEMPLATES = ["templates"]
OF_APPS = [
    name
    for name in BUILDERS
    if name not in {*OF_LANES, *OF_API_KEYS, *OF_WORKERS, *OF_SERIES, *OF_TEMPLATES}
]


@given(OPENIDS, st.integers(1, 1_048_576))
def test_a_bucket_is_the_crc_of_the_openid(openid: str, buckets: int) -> None:
    bucket = keys.bucket_of(openid, buckets)
    assert 0 <= bucket < buckets
    assert bucket == zlib.crc32(openid.encode()) % buckets


def test_buckets_never_change_between_versions() -> None:
    assert keys.bucket_of("oGZUI0egBJY1zhBYw2KhdUfwVJJE", 16384) == 5369
    assert Layout(4, [4]).home_of("shop") == 2


@given(st.integers(1, 64), st.integers(1, 64), OPENIDS)
def test_a_bucket_lies_in_one_lane(lanes: int, per_lane: int, openid: str) -> None:
    buckets = lanes * per_lane
    assert keys.bucket_of(openid, buckets) % lanes == zlib.crc32(openid.encode()) % lanes


@given(st.text(st.characters(codec="utf-8")), st.integers(1, 1024))
def test_a_home_lane_is_one_of_the_lanes(name: str, lanes: int) -> None:
    assert 0 <= Layout(lanes, [lanes]).home_of(name) < lanes


@pytest.mark.parametrize("name", OF_LANES)
def test_every_key_of_a_lane_carries_its_tag(name: str) -> None:
    for lane in (0, 3, 17):
        key = build(BUILDERS[name], lane=lane)
        assert key.startswith(f"wxb:{{{lane}}}:")
        assert key_slot(key.encode()) == key_slot(str(lane).encode())


@pytest.mark.parametrize("name", OF_APPS)
def test_every_key_of_an_app_carries_its_tag(name: str) -> None:
    key = build(BUILDERS[name], key="{odd}key")
    assert key.startswith("wxb:{app:shop}:")
    assert key_slot(key.encode()) == key_slot(b"app:shop")


@pytest.mark.parametrize("name", OF_API_KEYS)
def test_what_api_keys_keep_carries_their_tag(name: str) -> None:
    key = build(BUILDERS[name], key="{odd}key")
    assert key_slot(key.encode()) == key_slot(keys.API_KEYS.encode()) == key_slot(b"keys")


@pytest.mark.parametrize("name", OF_SERIES)
def test_all_series_lie_where_one_look_finds_what_is_due(name: str) -> None:
    key = build(BUILDERS[name])
    assert key_slot(key.encode()) == key_slot(keys.SERIES_DUE.encode()) == key_slot(b"wxb:series")


@pytest.mark.parametrize("name", OF_TEMPLATES)
def test_all_lists_of_templates_lie_where_one_look_finds_what_is_wanted(name: str) -> None:
    slot = key_slot(keys.TEMPLATES_DUE.encode())
    assert key_slot(build(BUILDERS[name]).encode()) == slot == key_slot(b"wxb:templates")


def test_no_two_functions_build_the_same_key() -> None:
    built = [build(function) for function in BUILDERS.values()]
    assert len(set(built)) == len(built)


@pytest.mark.parametrize("name", BUILDERS)
def test_every_argument_tells_keys_apart(name: str) -> None:
    function = BUILDERS[name]
    for parameter in parameters(function):
        other = 9 if isinstance(VALUES[parameter], int) else "other"
        assert build(function, **{parameter: other}) != build(function)


@pytest.mark.parametrize("name", BUILDERS)
def test_every_docstring_begins_with_the_type(name: str) -> None:
    doc = inspect.getdoc(BUILDERS[name]) or ""
    assert doc.startswith(tuple(f"{kind}: " for kind in TYPES))


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_lanes_spread_over_the_slots_of_a_cluster(lanes: int) -> None:
    thirds = {key_slot(str(lane).encode()) * 3 // 16384 for lane in range(lanes)}
    assert thirds == {0, 1, 2}


CONSTANTS = (
    keys.DEPLOYMENT,
    keys.SERVER,
    keys.SERVERS,
    keys.WORKERS,
    keys.SEEN,
    keys.API_KEYS,
    keys.APPIDS,
    keys.SERIES_DUE,
)


def test_what_may_stay_for_ever_are_keys_each_with_its_reason() -> None:
    assert set(keys.LASTING) <= {*BUILDERS.values(), *CONSTANTS}
    assert all(keys.LASTING.values())


@pytest.mark.parametrize("name", BUILDERS)
def test_a_key_without_a_ttl_is_found_unless_it_is_one_that_stays(client: Any, name: str) -> None:
    key = build(BUILDERS[name])
    client.hset(key, mapping={"rate": 1})
    assert everlasting(client) == ([] if BUILDERS[name] in keys.LASTING else [key])
    client.expire(key, 60)
    assert everlasting(client) == []


def test_keys_that_stay_only_under_conditions_are_found_without_them(client: Any) -> None:
    built_beside, limiter = keys.audience(0, "shop", "~vip", 1), keys.limiter("shop")
    client.sadd(built_beside, "oA")
    client.hset(limiter, "next_us", 1)
    assert everlasting(client) == [built_beside, limiter]
    client.delete(limiter, built_beside)


@pytest.mark.parametrize("lanes", [1, 4])
def test_every_other_key_has_a_ttl(client: Any, settings: Settings) -> None:
    Collector(client, settings).collect(
        "shop",
        [
            {"openid": "oA", "formIds": ["f1", "f2"], "prepayId": "p1"},
            {"openid": "oB", "subscriptions": {"T1": "accept", "T2": "reject"}, "id": "i1"},
            {"openid": "oA", "formId": "f0", "expire": 1},
        ],
    )
    Audiences(client, settings).import_rows("shop", "vip", [b"o%d" % n for n in range(500)])
    api_keys = ApiKeys(client, settings)
    api_keys.lease(api_keys.create("shop's backend", ["shop"], ["collect"]).key, 5)
    broadcasts = Broadcasts(client, settings)
    for number, (audience, priority) in enumerate(
        [("vip", False), ("vip", True), ("all", False), ("all", True)]
    ):
        spec = Spec.checked(
            app="shop",
            channel="template",
            template_id="T1",
            data="a,b",
            audience=audience,
            priority=priority,
        )
        broadcast = broadcasts.create(spec, key=f"k{number}").id
        broadcasts.pause(broadcast)
        broadcasts.resume(broadcast)
        if number % 2:
            broadcasts.cancel(broadcast)
    assert everlasting(client) == []
