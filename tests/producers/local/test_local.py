"""The deployment of other people's tests: what it sends, forgets, and keeps away from."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import redis

from producers import Producer
from producers.errors import SettingsError
from producers.local import Local, LocalError
from producers.local.url import directory_of
from producers.store import keys
from producers.words import State

pytestmark = pytest.mark.timeout(90)
SUBSCRIBE = {
    "app": "shop",
    "channel": "subscribe",
    "template_id": "T",
    "audience": "all",
    "data": {"thing1": "每日签到"},
}
TEMPLATE = {**SUBSCRIBE, "channel": "template", "data": "a,b"}


@pytest.fixture(scope="module")
def whole_local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with Local(tmp_path_factory.mktemp("local"), post_timeout=2, window=0.1) as local:
        yield local


@pytest.fixture
def local(whole_local: Local) -> Iterator[Local]:
    yield whole_local
    whole_local.clean()


def accepts(local: Local, *openids: str) -> None:
    uploads = [{"openid": openid, "subscriptions": {"T": "accept"}} for openid in openids]
    local.producer.collect("shop", uploads)


def test_a_subscribe_broadcast_arrives(local: Local) -> None:
    accepts(local, "oA", "oB")
    created = local.producer.broadcast(**SUBSCRIBE, page="pages/sign/index")
    status = local.wait(created.id)
    assert (status.state, status.outcomes) == (State.FINISHED, {"delivered": 2})
    [message] = local.wechat.received("oA")
    assert message["data"] == {"thing1": {"value": "每日签到"}}
    assert (message["page"], message["template_id"]) == ("pages/sign/index", "T")
    assert local.wechat.counts() == {"oA": 1, "oB": 1}


def test_a_valkey_that_is_killed_starts_again(local: Local) -> None:
    accepts(local, "oA")
    url = local.settings.redis_url.get_secret_value()
    with redis.Redis.from_url(url, single_connection_client=True) as client:
        client.set("mark", 1, ex=60)
        assert client.execute_command("WAITAOF", 1, 0, 10_000)[0] == 1  # on its disk
    folder = directory_of(url)
    assert folder is not None
    os.kill(int((folder / "valkey.pid").read_text()), signal.SIGKILL)
    created = local.producer.broadcast(**SUBSCRIBE)
    status = local.wait(created.id)
    assert status.outcomes == {"delivered": 1}, (status.state, status.reason)


def test_a_template_broadcast_arrives(local: Local) -> None:
    local.producer.collect(
        "shop", [{"openid": "oA", "formId": "f1"}, {"openid": "oB", "prepayId": "wx1"}]
    )
    assert local.wait(local.producer.broadcast(**TEMPLATE).id).outcomes == {"delivered": 2}
    assert local.wechat.received("oA")[0]["form_id"] == "f1"


def test_whoever_waits_for_nothing_in_particular_waits_for_all(local: Local) -> None:
    accepts(local, "oA", "oB", "oA")
    ids = [local.producer.broadcast(**SUBSCRIBE, key=key).id for key in "ab"]
    assert local.wait().id in ids
    assert all(local.producer.status(one).complete for one in ids)
    assert local.wechat.counts() == {"oA": 2, "oB": 1}


def test_each_test_begins_with_nothing_and_with_the_same_workers(local: Local) -> None:
    accepts(local, "oA")
    assert local.wait(local.producer.broadcast(**SUBSCRIBE, key="k").id).settled == 1
    workers = local._client.zrange(keys.WORKERS, 0, -1)
    local.wechat.configure(blacklist=["每日"])
    local.clean()
    assert local.wechat.counts() == {}
    assert local.producer.broadcasts("shop").broadcasts == []
    assert local.producer.count_audience("shop", "all") == 0
    accepts(local, "oC")
    assert local.wait(local.producer.broadcast(**SUBSCRIBE, key="k").id).outcomes == {
        "delivered": 1
    }
    assert local.wechat.counts() == {"oC": 1}
    assert local._client.zrange(keys.WORKERS, 0, -1) == workers


def test_what_was_under_way_reaches_nobody_in_the_next_test(local: Local) -> None:
    local.work()
    accepts(local, *(f"o{n}" for n in range(50)))
    local.wechat.fail({"action": "delay", "ms": 300, "count": 10})
    local.producer.broadcast(**SUBSCRIBE)
    local.clean()
    accepts(local, "oA")
    local.wait(local.producer.broadcast(**SUBSCRIBE).id)
    assert local.wechat.counts() == {"oA": 1}


@pytest.mark.parametrize("time", ["first", "second"])
def test_a_single_message_arrives_in_each_test(local: Local, time: str) -> None:
    """Its carrier has the same id in all tests of a day."""
    accepts(local, "oA")
    posted = local.producer.message(
        app="shop", channel="subscribe", template_id="T", openid="oA", data={"thing1": time}
    )
    assert local.wait_message(posted.id).outcome == "delivered"
    [message] = local.wechat.received("oA")
    assert message["data"] == {"thing1": {"value": time}}


def test_a_single_message_under_way_does_not_reach_the_next_test(local: Local) -> None:
    local.work()
    accepts(local, "oA", "oA")
    message = {"app": "shop", "channel": "subscribe", "template_id": "T", "openid": "oA"}
    local.wechat.fail({"action": "errcode", "errcode": -1})
    local.producer.message(**message, data={"thing1": "old"})
    local.clean()
    accepts(local, "oA")
    local.wait_message(local.producer.message(**message, data={"thing1": "new"}).id)
    assert [one["data"]["thing1"]["value"] for one in local.wechat.received("oA")] == ["new"]


def test_the_http_service_runs_too_when_it_is_wanted(local: Local) -> None:
    url = local.serve()
    upload = {"openid": "oA", "subscriptions": {"T": "accept"}}
    request = Request(  # noqa: S310 - our own service
        f"{url}/v1/apps/shop/permits",
        json.dumps(upload).encode(),
        {"Authorization": f"Bearer {local.api_key('collect')}", "Content-Type": "application/json"},
    )
    with urlopen(request, timeout=20) as response:  # noqa: S310
        assert response.status == 200
    assert local.wait(local.producer.broadcast(**SUBSCRIBE).id).outcomes == {"delivered": 1}
    assert local.serve() == url


def test_faults_are_made_by_rule(local: Local) -> None:
    accepts(local, "oA", "oB", "oC")
    local.wechat.fail(
        {"action": "errcode", "errcode": 43101, "openid": "oA"},
        {"action": "cut_after", "openid": "oB", "count": 1},
    )
    status = local.wait(local.producer.broadcast(**SUBSCRIBE).id)
    assert status.outcomes == {"delivered": 1, "refused": 1, "in_doubt": 1}
    assert status.errcodes == {"43101": 1}


def test_only_given_permits_are_good_where_that_is_wanted(local: Local) -> None:
    local.wechat.configure(permits="given")
    local.wechat.give(subscriptions=[{"openid": "oA", "template_id": "T"}])
    accepts(local, "oA", "oB")
    status = local.wait(local.producer.broadcast(**SUBSCRIBE).id)
    assert status.outcomes == {"delivered": 1, "refused": 1}


def test_a_paused_broadcast_is_not_waited_for(local: Local) -> None:
    accepts(local, *(f"o{n}" for n in range(50)))
    created = local.producer.broadcast(**SUBSCRIBE, rate=1)
    local.producer.pause(created.id)
    status = local.wait(created.id)
    assert status.state is State.PAUSED
    assert status.settled < 50


def test_waiting_ends_and_says_how_far_it_is(local: Local) -> None:
    with pytest.raises(LocalError, match="no broadcast to wait for"):
        local.wait()
    accepts(local, "oA")
    local.wechat.fail({"action": "delay", "ms": 1000})
    created = local.producer.broadcast(**SUBSCRIBE)
    with pytest.raises(LocalError, match=r"not over within 0\.1 s: .*running"):
        local.wait(created.id, within_s=0.1)


def test_events_have_to_have_somewhere_to_go(local: Local) -> None:
    with pytest.raises(ValueError, match="callback"):
        local.wechat.push("wx1", "oA", "subscribe_msg_popup_event")


def test_the_variables_lead_other_producers_here(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in local.variables.items():
        monkeypatch.setenv(name, text)
    with Producer() as producer:
        assert producer.settings.redis_url == local.settings.redis_url
        producer.collect("shop", [{"openid": "oZ", "formId": "f"}])
    assert local.producer.count_audience("shop", "all") == 1


def test_no_app_is_led_to_wechat_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WXB_LANES", "3")
    monkeypatch.setenv("WXB_REDIS_URL", "redis://127.0.0.1:1/0")
    apps: dict[str, Any] = {
        "club": {"wechat_url": "https://api.weixin.qq.com", "rate_per_second": 50},
        "shop": {"appid": "wxshop"},
    }
    with Local(tmp_path, apps=apps) as local:
        assert {local.settings.wechat_base(app) for app in apps} == {local.wechat.url}
        assert local.settings.lanes == 1
        found = local.settings.apps
        assert (found["club"].rate_per_second, found["shop"].appid) == (50, "wxshop")
        assert len({app.appid for app in found.values()}) == 2


def test_a_wrong_field_is_named_and_leaves_nothing_running(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="WXB_APPS__SHOP__RATE_PER_SECOND"):
        Local(tmp_path, apps={"shop": {"rate_per_second": -1}})
    with pytest.raises(SettingsError, match="WXB_LANE: unknown"):
        Local(tmp_path, lane=2)
    with Local(tmp_path):
        pass  # the folder is free again
