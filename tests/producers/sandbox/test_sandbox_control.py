"""The control API."""

import json
from typing import Any

import pytest
from sandbox_client import SUBSCRIBE, Opener, WeChat

from producers.sandbox.memory.arrivals import Arrivals


async def test_received_messages_are_shown(open_wechat: Opener) -> None:
    wechat = await open_wechat(permits="any")
    await wechat.send_template("o1", "f1", page="index")
    sent = await wechat.send_subscribe("o1")
    at_ms = int(wechat.clock.at_s * 1000)
    assert await wechat.ask("received", openid="o1") == [
        {
            "at_ms": at_ms,
            "channel": "template",
            "template_id": "T",
            "page": "index",
            "data": {"keyword1": {"value": "签到"}},
            "form_id": "f1",
        },
        {
            "at_ms": at_ms,
            "channel": "subscribe",
            "template_id": "T",
            "page": None,
            "data": {"thing1": {"value": "签到"}},
            "msgid": sent["msgid"],
            "miniprogram_state": None,
        },
    ]
    assert await wechat.ask("received", openid="o2") == []


async def test_only_the_last_messages_are_kept_and_counts_stay_exact(open_wechat: Opener) -> None:
    wechat = await open_wechat(permits="any", keep_per_openid=2, keep_messages=3)
    for number in range(4):
        await wechat.send_template("o1", f"f{number}")
    await wechat.send_template("o2", "g0")
    kept = [message["form_id"] for message in await wechat.ask("received", openid="o1")]
    assert kept == ["f2", "f3"]
    await wechat.send_template("o2", "g1")
    kept = [message["form_id"] for message in await wechat.ask("received", openid="o1")]
    assert kept == ["f3"]
    stats = await wechat.ask("stats")
    assert (stats["accepted"], stats["recipients"]) == (6, 2)


async def test_the_same_message_to_the_same_user_is_a_duplicate(open_wechat: Opener) -> None:
    wechat = await open_wechat(permits="any")
    await wechat.send_template("o1", "f1")
    await wechat.send_template("o2", "f2")
    await wechat.send_template("o1", "f3", data={"keyword1": {"value": "other"}})
    assert (await wechat.ask("stats"))["duplicates"] == 0
    await wechat.send_template("o1", "f4")
    await wechat.send_template("o1", "f5")
    stats = await wechat.ask("stats")
    assert (stats["duplicates"], stats["duplicate_openids"]) == (2, 1)
    assert stats["duplicate_examples"] == ["o1"]


async def test_counts_are_streamed_as_ndjson(open_wechat: Opener) -> None:
    wechat = await open_wechat(permits="any")
    for number in range(1500):
        wechat.sandbox.state.deliveries.counts[f"o{number}"] = number
    async with wechat.session.get(f"{wechat.sandbox.url}/_sandbox/counts") as response:
        lines = (await response.text()).splitlines()
    assert len(lines) == 1500
    assert json.loads(lines[7]) == {"openid": "o7", "deliveries": 7}
    assert (await wechat.ask("stats"))["recipients"] == 1500


async def test_stats_count_errcodes_and_permits(wechat: WeChat) -> None:
    form = {"openid": "o1", "form_id": "f1"}
    pay = {"openid": "o1", "prepay_id": "wx1"}
    accept = {"openid": "o1", "template_id": "T", "count": 5}
    grants = {"form_ids": [form, form], "prepay_ids": [pay], "subscriptions": [accept]}
    assert await wechat.order("permits", grants) == {
        "form_ids": 1,
        "prepay_ids": 1,
        "subscriptions": 5,
    }
    for form_id in ("f1", "f1", "wx1"):
        await wechat.send_template("o1", form_id)
    await wechat.send_subscribe("o1")
    stats = await wechat.ask("stats")
    assert stats["permits"] == {
        "given": {"form_id": 1, "prepay_id": 3, "subscription": 5},
        "used": {"form_id": 1, "prepay_id": 1, "subscription": 1},
        "remaining": {"form_id": 0, "prepay_id": 2, "subscription": 4},
    }
    assert stats["apis"][SUBSCRIBE] == {"requests": 1, "by_errcode": {"0": 1}}
    assert stats["by_errcode"] == {"0": 4, "41029": 1}
    assert await wechat.ask("permit", id="wx1") == {"deliveries": 1}


async def test_the_config_changes_while_running(wechat: WeChat) -> None:
    assert (await wechat.send_template("o1", "f1"))["errcode"] == 41028
    changed = await wechat.order("config", {"permits": "any"})
    assert changed["permits"] == "any"
    assert (await wechat.send_template("o1", "f1"))["errcode"] == 0
    assert (await wechat.ask("config"))["permits"] == "any"


async def test_a_config_change_leaves_the_faults_unless_it_names_them(wechat: WeChat) -> None:
    await wechat.order("faults", [{"action": "errcode", "errcode": 1}])
    await wechat.order("config", {"permits": "any"})
    assert (await wechat.send_template("o1", "f1"))["errcode"] == 1
    await wechat.order("config", {"faults": []})
    assert (await wechat.send_template("o1", "f1"))["errcode"] == 0


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("config", {"permits": "some"}),
        ("config", {"unheard_of": 1}),
        ("config", []),
        ("faults", [{"action": "explode"}]),
        ("permits", {"form_ids": [{"openid": "o1"}]}),
        ("permits", b"{"),
        ("events", {"appid": "a", "openid": "o", "event": "e", "items": []}),
    ],
)
async def test_a_wrong_order_is_answered_400_and_changes_nothing(
    wechat: WeChat, name: str, body: Any
) -> None:
    before = await wechat.ask("config")
    data = body if isinstance(body, bytes) else json.dumps(body)
    url = f"{wechat.sandbox.url}/_sandbox/{name}"
    async with wechat.session.post(url, data=data) as response:
        assert response.status == 400
        assert (await response.json())["error"]
    assert await wechat.ask("config") == before


async def test_an_unknown_order_is_404_and_a_lacking_query_400(wechat: WeChat) -> None:
    for name, status in (("nothing", 404), ("received", 400), ("windows?ms=x", 400)):
        async with wechat.session.get(f"{wechat.sandbox.url}/_sandbox/{name}") as response:
            assert response.status == status


async def test_a_reset_forgets_all(open_wechat: Opener) -> None:
    wechat = await open_wechat(permits="any")
    await wechat.order("config", {"template_api": "retired"})
    await wechat.send_template("o1", "f1")
    await wechat.order("reset", {})
    stats = await wechat.ask("stats")
    assert (stats["accepted"], stats["requests"], stats["windows"]["count"]) == (0, 0, 0)
    assert (await wechat.send_template("o1", "f1"))["errcode"] == 40001
    await wechat.log_in()
    assert (await wechat.send_template("o1", "f1"))["errcode"] == 0


async def test_a_reset_of_some_parts_leaves_the_others(open_wechat: Opener) -> None:
    wechat = await open_wechat(permits="any")
    await wechat.send_template("o1", "f1")
    assert await wechat.order("reset", {"parts": ["deliveries"]}) == {"reset": ["deliveries"]}
    assert (await wechat.send_template("o1", "f1"))["errcode"] == 41029
    assert (await wechat.ask("stats"))["accepted"] == 0


async def test_windows_are_exact(open_wechat: Opener) -> None:
    wechat = await open_wechat(permits="any")
    for wait_s in (0, 0.5, 0.25, 0.25, 2):
        wechat.clock.advance(wait_s)
        await wechat.send_subscribe("o1")
    windows = (await wechat.ask("stats"))["windows"]
    assert (windows["count"], windows["max_per_second"]) == (5, 3)
    assert windows["mean_per_second"] == pytest.approx(4 / 3)
    assert (await wechat.ask("windows", ms="500"))["max"] == 2
    assert (await wechat.ask("windows", ms="3001"))["max"] == 5


def test_arrivals_stay_bounded_and_the_fullest_second_right() -> None:
    arrivals = Arrivals(keep=1000)
    for number in range(5000):
        arrivals.add(1000 + number / 128)
    described = arrivals.describe()
    assert described["max_per_second"] == 128
    assert described["kept"] <= 1000
    assert described["kept"] + described["dropped"] == described["count"] == 5000
    assert arrivals.max_in(2) == 256


def test_a_clock_that_steps_back_is_taken_to_stand_still() -> None:
    arrivals = Arrivals(keep=1000)
    for at_s in (10.0, 9.0, 11.5):
        arrivals.add(at_s)
    assert arrivals.max_per_second == 2
    assert arrivals.describe()["last_at"] == 11.5
