"""The inbox: kept before it is answered, removed after its effect, bounded, one hand at a time."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from log_lines import recorded
from wechat_pushes import CHANGE, NOW_S, POPUP, SENT, Desk, Request, choice, push, sent

from producers.callbacks.callbacks import Callbacks
from producers.callbacks.effects import Effects
from producers.errors import ForgedError, InvalidInputError, StoreUnavailableError, UnknownAppError
from producers.local.link import opened
from producers.recipients.receipts import Receipts
from producers.store import keys


def accepts(count: int, start: int = 0) -> list[Request]:
    return [push(POPUP, choice("accept"), openid=f"o{n}") for n in range(start, start + count)]


def receive(desk: Desk, *requests: Request) -> None:
    for query, body in requests:
        desk.callbacks.receive("shop", query, body)


def test_a_push_acts_when_it_is_worked_on_and_not_before(desk: Desk) -> None:
    receive(desk, push(POPUP, choice("accept")))
    assert (desk.count(), desk.callbacks.waiting("shop")) == (0, 1)
    assert desk.callbacks.work("shop") == 1
    assert (desk.count(), desk.callbacks.waiting("shop")) == (1, 0)
    assert desk.callbacks.work("shop") == 0


def test_more_than_a_batch_is_worked_on_at_once(desk: Desk) -> None:
    receive(desk, *accepts(250))
    assert desk.callbacks.work("shop") == 250
    assert all(desk.count(openid=f"o{n}") == 1 for n in range(250))


def test_a_full_inbox_takes_nothing_and_says_so(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(settings={"callback_inbox": 2})
    receive(desk, *accepts(2))
    [third] = accepts(1, 2)
    with pytest.raises(StoreUnavailableError, match="wait already"):
        receive(desk, third)
    assert desk.callbacks.waiting("shop") == 2
    desk.callbacks.work("shop")
    desk.take(third)  # WeChat pushes again, and it is no replay
    assert desk.count(openid="o2") == 1
    assert desk.counts() == {"stored": "3", "full": "1"}


def test_other_pushes_are_counted_and_take_no_room(
    open_desk: Callable[..., Desk], tmp_path: Path
) -> None:
    desk = open_desk(settings={"callback_inbox": 1})
    with recorded(tmp_path) as lines:
        desk.take(push("debug_demo", choice("accept")), push("weapp_audit_success"))
        written = lines()
    assert desk.counts() == {"dropped": "2"}
    assert [line["push"] for line in written if line["event"] == "push_dropped"] == [
        "debug_demo",
        "weapp_audit_success",
    ]


def test_pushes_whose_worker_died_before_they_were_removed_act_again_harmlessly(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dead between effect and removal: the next one acts again, and nothing doubles."""
    receive(desk, push(POPUP, choice("accept")), push(CHANGE, choice("reject", "U")))

    class Killed(BaseException):
        pass

    def die(*_: Any) -> None:
        raise Killed

    monkeypatch.setattr(desk.callbacks._inbox, "remove", die)
    with pytest.raises(Killed):
        desk.callbacks.work("shop")
    assert (desk.count(), desk.callbacks.waiting("shop")) == (1, 2)

    other = Callbacks(desk.client, desk.settings)
    assert other.work("shop") == 0  # until the dead one's lease ends
    desk.client.delete(keys.inbox_lease("shop"))
    assert other.work("shop") == 2
    assert (desk.count(), desk.callbacks.waiting("shop")) == (1, 0)


def test_one_who_comes_back_without_its_lease_removes_only_what_it_acted_on(desk: Desk) -> None:
    receive(desk, *accepts(2))
    late = desk.callbacks._inbox.look("shop")
    desk.client.delete(keys.inbox_lease("shop"))
    other = Callbacks(desk.client, desk.settings)
    assert other.work("shop") == 2
    receive(desk, *accepts(3, 2))
    desk.callbacks._inbox.remove("shop", late)
    assert desk.callbacks.waiting("shop") == 3


def test_a_lease_is_given_back_when_nothing_is_left_and_ends_by_itself(desk: Desk) -> None:
    receive(desk, *accepts(1))
    desk.callbacks._inbox.look("shop")
    assert 0 < desk.client.pttl(keys.inbox_lease("shop")) <= 10_000
    desk.callbacks.work("shop")
    assert desk.client.exists(keys.inbox_lease("shop")) == 0


def test_several_processes_at_once_count_each_push_once(desk: Desk) -> None:
    receive(desk, *accepts(120), *accepts(120))
    hands = [Callbacks(desk.client, desk.settings) for _ in range(4)]

    def work(hand: Callbacks) -> None:
        while hand.waiting("shop"):
            hand.work("shop")

    threads = [threading.Thread(target=work, args=(hand,)) for hand in hands]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [desk.count(openid=f"o{n}") for n in range(120)] == [1] * 120


def test_a_push_that_fails_of_itself_does_not_hold_up_the_others(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settle = Receipts.settle

    def fail_for_one(self: Receipts, app: str, openid: str, *args: Any, **more: Any) -> str:
        if openid == "oBad":
            raise redis.ResponseError("a fault of ours")
        return settle(self, app, openid, *args, **more)

    monkeypatch.setattr(Receipts, "settle", fail_for_one)
    receive(desk, push(SENT, sent(), openid="oBad"), *accepts(1))
    desk.client.rpush(keys.inbox("shop"), "5 of another version", '6 {"event":"x"}')
    with recorded(tmp_path) as lines:
        assert desk.callbacks.work("shop") == 4
        written = lines()
    assert desk.count(openid="o0") == 1
    failed = [(line["openid"], line["error"]) for line in written if line["event"] == "push_failed"]
    assert failed == [("oBad", "ResponseError"), ("", "JSONDecodeError"), ("", "KeyError")]


@pytest.mark.parametrize(
    "fault",
    [
        redis.exceptions.OutOfMemoryError(),
        redis.exceptions.ReadOnlyError(),
        redis.ResponseError("MISCONF Redis is configured to save RDB snapshots, but"),
        redis.ResponseError("BUSY Redis is busy running a script"),
        redis.ResponseError("NOREPLICAS Not enough good replicas to write."),
    ],
)
def test_when_redis_cannot_take_anything_a_push_is_kept_for_later(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, fault: redis.RedisError
) -> None:
    receive(desk, *accepts(1))
    act = Effects.act

    def full(*_: Any) -> None:
        raise fault

    monkeypatch.setattr(Effects, "act", full)
    with pytest.raises(StoreUnavailableError):
        desk.callbacks.work("shop")
    monkeypatch.setattr(Effects, "act", act)
    assert desk.callbacks.work("shop") == 1
    assert desk.count(openid="o0") == 1


def test_without_redis_a_push_is_not_taken(
    open_desk: Callable[..., Desk], make_settings: Any, client: Any
) -> None:
    port = client.connection_pool.connection_kwargs["port"]
    with opened(port) as link:
        desk = open_desk(settings={"redis_url": link.url, "redis_timeout": 1})
        away = redis.Redis.from_url(link.url, decode_responses=True)
        callbacks = Callbacks(away, desk.settings)
        link.cut()
        with pytest.raises(StoreUnavailableError, match="WeChat pushes it again"):
            callbacks.receive("shop", *push(POPUP, choice("accept")))
        link.heal()
        callbacks.receive("shop", *push(POPUP, choice("accept")))
        assert callbacks.work("shop") == 1
        away.close()


def test_everything_has_an_end_and_lies_at_the_apps_own_tag(desk: Desk) -> None:
    receive(desk, *accepts(2), push("debug_demo"))
    desk.callbacks._inbox.look("shop")
    found = [key for key in desk.client.keys("*") if key != keys.DEPLOYMENT]
    assert len(found) == 6
    for key in found:
        assert key.startswith("wxb:{app:shop}:")
        assert desk.client.pttl(key) > 0


def test_an_unknown_app_is_named(desk: Desk) -> None:
    for call in (
        lambda: desk.callbacks.verify("shoe", {}),
        lambda: desk.callbacks.receive("shoe", {}, b""),
        lambda: desk.callbacks.work("shoe"),
    ):
        with pytest.raises(UnknownAppError):
            call()


def test_what_is_refused_and_what_a_push_did_is_logged(desk: Desk, tmp_path: Path) -> None:
    with recorded(tmp_path) as lines:
        with pytest.raises(ForgedError):
            receive(desk, push(POPUP, choice("accept"), token="another"))
        with pytest.raises(InvalidInputError):
            receive(desk, push(POPUP))
        desk.take(push(POPUP, choice("accept"), choice("reject", "U"), choice("ban", "V")))
        desk.take(push(POPUP, choice("accept"), choice("reject", "U")))
        written = lines()
    refused = [line["reason"] for line in written if line["event"] == "push_refused"]
    assert refused == ["signature", "subscribe_msg_popup_event: its List holds no item"]
    sums = ("items", "given", "known", "withdrawn")
    acted = [
        [line[name] for name in ("push", "openid", "created_at_ms", *sums)]
        for line in written
        if line["event"] == "push_acted"
    ]
    assert acted == [
        [POPUP, "oAnna", NOW_S * 1000, 3, 1, 0, 1],
        [POPUP, "oAnna", NOW_S * 1000, 2, 0, 2, 0],
    ]


def test_the_loop_acts_on_its_own_and_ends_when_told(
    desk: Desk, eventually: Callable[..., Any]
) -> None:
    stop = threading.Event()
    loop = threading.Thread(target=desk.callbacks.run, args=(stop,))
    loop.start()
    try:
        receive(desk, *accepts(3))
        eventually(lambda: desk.count(openid="o2") == 1, "the loop acts on what is received")
        elsewhere = Callbacks(desk.client, desk.settings)
        elsewhere.receive("shop", *push(POPUP, choice("accept"), openid="oElsewhere"))
        eventually(lambda: desk.count(openid="oElsewhere") == 1, "and on what others received")
    finally:
        stop.set()
        loop.join(10)
    assert not loop.is_alive()


def test_the_loop_outlives_a_fault(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Any]
) -> None:
    faults = [RuntimeError("ours"), StoreUnavailableError("away")]
    look = desk.callbacks._inbox.look

    def fail_first(app: str) -> Any:
        if faults:
            raise faults.pop()
        return look(app)

    monkeypatch.setattr(desk.callbacks._inbox, "look", fail_first)
    receive(desk, *accepts(1))
    stop = threading.Event()
    loop = threading.Thread(target=desk.callbacks.run, args=(stop,))
    loop.start()
    try:
        eventually(lambda: desk.count(openid="o0") == 1, "the loop goes on after its faults")
    finally:
        stop.set()
        loop.join(10)
