"""What is created is looked at beside the app's templates, as far as they are known."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from clerks import LIST, clerk_of, shelve
from moments import World
from shop import Shop

from producers.broadcasts.create import Broadcasts
from producers.broadcasts.spec import Spec
from producers.errors import InvalidInputError
from producers.rehearsals import DryRuns
from producers.retries import Retries
from producers.rows import BadRowsError
from producers.sandbox.thread import SandboxThread
from producers.series import Series
from producers.settings import Settings
from producers.store import deadline, keys
from producers.templates import Field, Template, Templates
from producers.words import Channel

T1 = Template(
    "T1",
    "会议通知",
    "one_off",
    (Field("thing1", "thing", "地点"), Field("enum_string2", "enum_string", "状态", "", ("开",))),
)
GOOD = {"thing1": "三楼", "enum_string2": "开"}
HOUR_MS = 3_600_000
SPEC: dict[str, Any] = {"app": "shop", "channel": "subscribe", "audience": "all"}
AT_WECHAT = {
    "template_id": "T1",
    "title": "会议通知",
    "content": "地点:{{thing1.DATA}}\n状态:{{enum_string2.DATA}}\n",
    "enums": {"enum_string2": ["开"]},
}


@pytest.fixture(scope="module")
def wechat() -> Iterator[SandboxThread]:
    with SandboxThread() as thread:
        yield thread


@pytest.fixture
def at_wechat(
    wechat: SandboxThread, shop: Shop, make_settings: Callable[..., Settings]
) -> Settings:
    """Settings whose WeChat is the sandbox, which has T1 and forgot all else."""
    wechat.reset()
    wechat.configure(templates=[AT_WECHAT])
    return make_settings(wechat_url=wechat.url, post_timeout=2)


def asked(wechat: SandboxThread) -> int:
    return int(wechat.stats()["apis"].get(LIST, {}).get("requests", 0))


def ways_to_create(shop: Shop) -> dict[str, Callable[..., Any]]:
    """Return each way in which something to be sent is created."""
    ended = shop.broadcast("subscribe", template_id="T1", data=GOOD)
    shop.broadcasts.cancel(ended)
    series = Series(shop.client, shop.settings)
    retries = Retries(shop.client, shop.settings)
    return {
        "broadcast": lambda **spec: shop.broadcast("subscribe", **spec),
        "series": lambda **spec: series.create("s", "0 21 * * *", **SPEC, **spec),
        "message": lambda **spec: shop.post("oA", **spec),
        "retry": lambda **spec: retries.retry(ended, "cancelled", **spec),
    }


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"template_id": "T0", "data": GOOD}, "has no such template on channel subscribe"),
        ({"template_id": "T1", "data": {"thing1": "x"}}, "data lacks enum_string2 (状态)"),
        ({"template_id": "T1", "data": {**GOOD, "date3": "2026-01-01"}}, "data has date3"),
        ({"template_id": "T1", "data": {**GOOD, "enum_string2": "关"}}, "enum_string2 is '关'"),
    ],
)
def test_what_no_template_fits_is_refused_before_anything_is_stored(
    shop: Shop, spec: dict[str, Any], said: str
) -> None:
    ways = ways_to_create(shop)
    shelve(shop.client, T1)
    world = World(shop.settings.redis_url.get_secret_value())
    before = world.look()
    for name, create in ways.items():
        with pytest.raises(InvalidInputError) as refused:
            create(**spec)
        assert said in str(refused.value), name
        assert "T1 会议通知" in str(refused.value), name
    assert world.look() == before
    world.client.close()
    found = DryRuns(shop.client, shop.settings).look(**SPEC, **spec)
    assert any(said in fault for fault in found.faults)


def test_what_a_template_fits_is_created(shop: Shop) -> None:
    shelve(shop.client, T1)
    shop.give("oA", subscriptions={"T1": "accept"})
    shop.broadcast("subscribe", template_id="T1", data=GOOD)
    shop.post("oA", template_id="T1", data=GOOD)
    assert not DryRuns(shop.client, shop.settings).look(**SPEC, template_id="T1", data=GOOD).faults


def test_rows_whose_values_are_not_listed_are_bad(shop: Shop) -> None:
    shelve(shop.client, T1)
    said = {**SPEC, "template_id": "T1", "data": {"thing1": "三楼", "enum_string2": "{state}"}}
    del said["audience"]
    spec = Spec.checked(**said, audience="", rows=True)
    rows = ["openid,state", "oA,开", "oB,关"]
    with pytest.raises(BadRowsError, match="enum_string2 is '关'; the template has 开"):
        shop.broadcasts.create_with_rows(spec, rows)
    assert shop.broadcasts.create_with_rows(spec, rows[:2]).id
    lacks = Spec.checked(**{**said, "data": {"thing1": "{state}"}}, audience="", rows=True)
    with pytest.raises(InvalidInputError, match="data lacks enum_string2"):
        shop.broadcasts.create_with_rows(lacks, rows)
    found = DryRuns(shop.client, shop.settings).look(**said, audience="", rows=rows)
    assert any("the template has 开" in fault for fault in found.faults)


def test_a_template_that_was_just_added_is_not_refused_for_an_old_list(
    at_wechat: Settings, shop: Shop, wechat: SandboxThread
) -> None:
    shelve(shop.client, Template("OLD"), age_ms=HOUR_MS)
    here = Shop(shop.client, at_wechat)
    with clerk_of(at_wechat):
        here.broadcast("subscribe", template_id="T1", data=GOOD)
        with pytest.raises(InvalidInputError, match="no such template on channel"):
            here.broadcast("subscribe", template_id="OLD", data={"thing1": "x"})
    assert asked(wechat) == 1  # the second one believes a list that is so young


def test_a_post_of_a_template_that_was_just_added_is_not_refused_either(
    at_wechat: Settings, shop: Shop
) -> None:
    shelve(shop.client, Template("OLD"), age_ms=HOUR_MS)
    with clerk_of(at_wechat):
        assert Shop(shop.client, at_wechat).post("oA", template_id="T1", data=GOOD)


def test_the_first_broadcast_of_a_new_app_waits_for_its_list(
    at_wechat: Settings, shop: Shop
) -> None:
    with clerk_of(at_wechat), pytest.raises(InvalidInputError, match="it has T1 会议通知"):
        Shop(shop.client, at_wechat).broadcast("subscribe", template_id="T0")


def quickly(create: Callable[[], Any]) -> Any:
    started = time.monotonic()
    made = create()
    assert time.monotonic() - started < 0.7
    return made


def test_without_a_worker_nobody_waits_and_an_old_list_calls_nothing_unknown(shop: Shop) -> None:
    assert quickly(lambda: shop.broadcast("subscribe", template_id="T0"))
    shelve(shop.client, T1, age_ms=HOUR_MS)
    later = Shop(shop.client, shop.settings)
    assert quickly(lambda: later.broadcast("subscribe", template_id="T0"))
    with pytest.raises(InvalidInputError, match="data lacks"):  # its fields do not change
        quickly(lambda: later.broadcast("subscribe", template_id="T1", data={"thing1": "x"}))


def test_a_wechat_that_hangs_costs_one_wait_and_refuses_nothing(
    at_wechat: Settings, shop: Shop, wechat: SandboxThread
) -> None:
    wechat.fail({"api": "gettemplate", "action": "hang", "ms": 9_000})
    at_wechat = at_wechat.model_copy(update={"post_timeout": timedelta(seconds=8)})
    here = Shop(shop.client, at_wechat)
    with clerk_of(at_wechat):
        started = time.monotonic()
        here.broadcast("subscribe", template_id="T0")
        assert 1 < time.monotonic() - started < 3
        quickly(lambda: here.broadcast("subscribe", template_id="T0"))
        # nor does another process wait
        quickly(lambda: Shop(shop.client, at_wechat).broadcast("subscribe", template_id="T0"))


def test_no_call_waits_beyond_its_own_time(at_wechat: Settings, shop: Shop, wechat: Any) -> None:
    wechat.fail({"api": "gettemplate", "action": "hang", "ms": 3_000})
    with clerk_of(at_wechat), deadline.within(0.6):
        quickly(lambda: Shop(shop.client, at_wechat).broadcast("subscribe", template_id="T0"))


def test_a_first_message_does_not_wait_and_has_the_list_read(
    at_wechat: Settings, shop: Shop, eventually: Any, wechat: SandboxThread
) -> None:
    wechat.configure(latency={"fixed_ms": 300})
    with clerk_of(at_wechat):
        quickly(lambda: Shop(shop.client, at_wechat).post("oA", template_id="T0"))
        known = Templates(shop.client, at_wechat)
        eventually(lambda: known._read("shop", Channel.SUBSCRIBE).templates, "the list is read")


def test_an_app_whose_lists_are_off_is_asked_nothing(
    shop: Shop, make_settings: Callable[..., Settings]
) -> None:
    shelve(shop.client, T1)
    off = Shop(shop.client, make_settings(app={"templates": "off"}))
    assert off.broadcast("subscribe", template_id="T0")
    assert not shop.client.exists(keys.TEMPLATES_DUE)
    with pytest.raises(InvalidInputError, match="its setting is off"):
        Templates(shop.client, off.settings).show("shop")


def test_what_a_key_made_goes_on_after_its_template_went(shop: Shop) -> None:
    series = Series(shop.client, shop.settings)
    shelve(shop.client, T1)

    def create() -> list[Any]:
        spec = {**SPEC, "template_id": "T1", "data": GOOD}
        posted = {"template_id": "T1", "data": GOOD, "key": "k"}
        return [
            series.create("s", "0 21 * * *", **spec).name,
            shop.post("oA", **posted),
            shop.broadcasts.create(Spec.checked(**spec), "k").id,
        ]

    made = create()
    shelve(shop.client, Template("OTHER"))
    fresh = Templates(shop.client, shop.settings)
    shop.messages._templates = series._templates = shop.broadcasts._templates = fresh
    assert create() == made


def test_a_tick_asks_nobody_whether_the_template_is_still_there(shop: Shop) -> None:
    series = Series(shop.client, shop.settings)
    shelve(shop.client, T1)
    series.create("s", "0 21 * * *", **SPEC, template_id="T1", data=GOOD)
    shelve(shop.client, Template("OTHER"))
    shop.client.hset(keys.series("shop", "s"), "next_ms", 1)
    shop.client.hset(keys.series("shop", "s"), "missed", "run")
    shop.client.zadd(keys.SERIES_DUE, {"shop s": 1})
    assert series.tick() == 1
    assert series.show("shop", "s").last_broadcast


def test_few_of_a_process_wait_at_once_and_the_others_go_on(
    at_wechat: Settings, shop: Shop, wechat: SandboxThread
) -> None:
    wechat.fail({"api": "gettemplate", "action": "hang", "ms": 3_000})
    broadcasts = Broadcasts(shop.client, at_wechat)
    took: list[float] = []

    def create() -> None:
        started = time.monotonic()
        broadcasts._templates.faults("shop", Channel.SUBSCRIBE, "T0", {})
        took.append(time.monotonic() - started)

    with clerk_of(at_wechat):
        threads = [threading.Thread(target=create) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sum(seconds > 1 for seconds in took) <= 2


def test_a_spoilt_list_is_no_list(shop: Shop) -> None:
    key = keys.templates("shop", "subscribe")
    for text in ("", "[", "7", '{"templates": [{}]}'):
        shop.client.hset(key, mapping={"list": text, "read_at_ms": shop.now_ms()})
        shop.client.pexpire(key, 60_000)
        assert Templates(shop.client, shop.settings).look("shop").templates == {}
