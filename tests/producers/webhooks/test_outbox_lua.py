"""The outbox's scripts: an event is stored with its change, leased, and bounded."""

from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import ResponseError
from webhook_end import SECRET

from producers.broadcasts.lifecycle import MOVE, MoveArgs, MoveKeys
from producers.settings import Settings
from producers.store import keys
from producers.webhooks import DeadLetters
from producers.webhooks.events import Event, id_of, place_of
from producers.webhooks.outbox import DONE, TAKE, DoneArgs, DueKeys, TakeArgs
from producers.webhooks.wishes import Wishes

NOW = 1_700_000_000_000
PREFIX = keys.lane_prefix(0)
DUE = DueKeys(keys.hooks_due(0))


@pytest.fixture
def hooked(client: Any, make_settings: Callable[..., Settings]) -> Settings:
    """Give settings of two apps that want webhooks, and told to Redis."""
    app = {"secret": "s", "webhook_url": "https://a.example/", "webhook_secret": SECRET}
    apps = {"shop": {"appid": "wx1", **app}, "cafe": {"appid": "wx2", **app}}
    settings = make_settings(apps=apps, webhook_kept=10)
    Wishes(client, settings).tell()
    return settings


class Box:
    """Runs the scripts at a time of the test's."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.take_script, self.done_script = TAKE.on(client), DONE.on(client)

    def move(
        self,
        broadcast: str,
        move: str = "pause",
        *,
        app: str = "shop",
        at: int = NOW,
        token: str = "",
    ) -> Any:
        home = keys.home(0, broadcast)
        if not self.client.exists(home):
            state = {"state": "running", "generation": 1, "app": app}
            self.client.hset(home, mapping=state)
            self.client.pexpire(home, 600_000)
        args = MoveArgs(move, "why", "", "", 600_000, 0.0, "")
        return MOVE.on(self.client)(MoveKeys(home), args, token=token, now=at)

    def take(self, at: int = NOW, most: int = 100, **places: int) -> list[tuple[str, ...]]:
        more = [value for one in (places or {"shop": 100}).items() for value in one]
        _, *rows = self.take_script(DUE, TakeArgs(PREFIX, 1000, most), more, now=at)
        return list(zip(*[iter(rows)] * 5, strict=True))

    def done(
        self, row: tuple[str, ...], verdict: str, at: int = NOW, delay: int = 0, lease_end: int = 0
    ) -> int:
        app, event, until, tried, _ = row
        attempts = int(tried.split()[0]) + 1 if tried else 1
        args = DoneArgs(
            PREFIX, app, event, lease_end or int(until), verdict, delay, attempts, "why"
        )
        return int(self.done_script(DUE, args, now=at))


@pytest.fixture
def box(client: Any, hooked: Settings) -> Box:
    return Box(client)


def types(rows: list[tuple[str, ...]]) -> list[str]:
    return [Event.read(app, 0, 0, event, text).type for app, event, _, _, text in rows]


def test_a_move_and_its_event_are_one_and_the_same_call_makes_no_other(box: Box) -> None:
    assert box.move("b1", token="t" * 32)[0] == 1
    assert box.move("b1", token="t" * 32)[0] == 1
    assert box.move("b1")[0] == 0  # it is paused
    (row,) = box.take()
    event = Event.read(row[0], 0, 0, row[1], row[4])
    assert (event.type, event.at_ms, event.broadcast) == ("broadcast.paused", NOW, "b1")
    assert event.details["generation"] == 2


@pytest.mark.parametrize("move", ["resume", "expire"])
def test_what_nobody_asked_for_leaves_nothing(box: Box, move: str) -> None:
    box.move("b1", "pause", app="other")
    box.move("b1", move)
    box.move("m1", "finish")  # a carrier's end is nobody's news
    assert box.client.keys("*hooks:*") == []
    box.move("m2", "pause")
    assert types(box.take()) == ["broadcast.paused"]


def test_an_event_is_out_once_and_holds_back_those_after_it(box: Box) -> None:
    box.move("b1", "pause")
    box.move("b1", "cancel")
    box.move("b2", "pause")
    rows = box.take()
    assert [(row[1].split()[0], kind) for row, kind in zip(rows, types(rows), strict=True)] == [
        ("b1", "broadcast.paused"),
        ("b2", "broadcast.paused"),
    ]
    assert box.take(NOW + 999) == []
    assert box.done(rows[0], "delivered") == 1
    (second,) = box.take(NOW + 1)
    assert types([second]) == ["broadcast.cancelled"]


def test_a_lease_that_ended_gives_the_same_event_out_again(box: Box) -> None:
    box.move("b1")
    (first,) = box.take()
    (again,) = box.take(NOW + 1000)
    assert again[1] == first[1]
    assert box.done(first, "again") == box.done(first, "dead") == 0  # it is another's now
    assert box.done(first, "delivered") == 1  # but it did arrive
    assert box.done(again, "again", delay=5) == 0
    assert box.take(NOW + 100_000) == []


def test_a_failed_event_waits_as_long_as_it_is_told_and_counts_its_tries(box: Box) -> None:
    box.move("b1")
    (row,) = box.take()
    box.done(row, "again", delay=500)
    assert box.take(NOW + 499) == []
    (row,) = box.take(NOW + 500)
    assert row[3] == "1 why"


def test_of_an_app_no_more_are_out_than_it_has_places(box: Box) -> None:
    for number in range(5):
        box.move(f"b{number}")
        box.move(f"c{number}", app="cafe")
    rows = box.take(shop=2, cafe=3)
    assert sorted(row[0] for row in rows) == ["cafe"] * 3 + ["shop"] * 2
    assert box.take(NOW + 10, shop=2, cafe=3) == []
    shops = [row for row in rows if row[0] == "shop"]
    box.done(shops[0], "again", NOW + 20, delay=100_000)
    assert [row[0] for row in box.take(NOW + 20, shop=2, cafe=3)] == ["shop"]
    assert len(box.take(NOW + 2000, most=4, shop=100, cafe=100)) == 4


def test_what_is_kept_is_bounded_and_dead_letters_make_room(box: Box, hooked: Settings) -> None:
    letters = DeadLetters(box.client, hooked)
    for number in range(12):
        box.move(f"b{number}")
    assert (letters.box("shop").waiting, letters.box("shop").dropped) == (10, 2)
    box.move("c1", app="cafe")  # another app has room of its own
    assert letters.box("cafe").waiting == 1
    for row in box.take(most=3):
        box.done(row, "dead")
    assert letters.box("shop").dead == 3
    for number in range(20, 22):
        box.move(f"b{number}", at=NOW + 1)
    found = letters.box("shop")
    assert (found.waiting, found.dead, found.dropped) == (9, 1, 2)
    texts = box.client.hvals(keys.hook_events(0, "shop"))
    assert found.bytes == sum(len(text.encode()) for text in texts)


def test_one_event_pushes_out_a_hundred_dead_letters_at_the_most(
    box: Box, client: Any, hooked: Settings
) -> None:
    client.hset(keys.hooks(0), "shop", "200 1000000 broadcast.paused")
    for number in range(109):
        box.move(f"b{number}")
    while rows := box.take():
        for row in rows:
            box.done(row, "dead")
    client.hset(keys.hooks(0), "shop", "10 1000000 broadcast.paused")
    box.move("c1")
    found = DeadLetters(client, hooked).box("shop")
    assert (found.waiting, found.dead, found.dropped) == (0, 9, 1)
    box.move("c2")
    found = DeadLetters(client, hooked).box("shop")
    assert (found.waiting, found.dead, found.dropped) == (1, 9, 1)


def test_bytes_are_bounded_too(box: Box, client: Any, hooked: Settings) -> None:
    client.hset(keys.hooks(0), "shop", "10000 300 broadcast.paused")
    for number in range(10):
        box.move(f"b{number}")
    found = DeadLetters(client, hooked).box("shop")
    assert found.bytes <= 300
    assert found.waiting + found.dropped == 10
    assert found.dropped > 0


def test_a_box_that_somebody_spoiled_costs_no_move(box: Box) -> None:
    box.client.set(keys.hook_queue(0, "shop"), "x", px=60_000)
    assert box.move("b1")[:2] == [1, "paused"]
    assert box.take() == []


def test_wishes_follow_the_settings_and_leave_other_apps_alone(
    client: Any, hooked: Settings, make_settings: Callable[..., Settings]
) -> None:
    assert Wishes(client, hooked).tell() == 0
    assert client.hget(keys.hooks(0), "shop").startswith("10 33554432 broadcast.finished ")
    assert Wishes(client, make_settings()).tell() == 1
    assert client.hkeys(keys.hooks(0)) == ["cafe"]


def test_an_id_leads_back_to_its_event() -> None:
    assert place_of(id_of(3, "b1 0000000000000007")) == (3, "b1 0000000000000007")
    assert place_of("evt_b1") is None


def test_ids_stay_apart_when_redis_forgot_the_last_number(box: Box) -> None:
    box.move("b1", "pause")
    (first,) = box.take()
    box.client.delete(keys.hook_kept(0, "shop"))
    box.move("b1", "cancel", at=NOW + 1)
    box.done(first, "delivered")
    (second,) = box.take(NOW + 1)
    assert second[1] != first[1]


def test_wrong_arguments_are_refused(box: Box) -> None:
    box.move("b1")
    with pytest.raises(ResponseError, match="places"):
        box.take(shop=0)
    (row,) = box.take()
    with pytest.raises(ResponseError, match="verdict"):
        box.done(row, "perhaps")


def test_a_thousand_events_of_an_app_hold_redis_for_no_longer_than_one(box: Box) -> None:
    """Each script looks at what it gives out, not at what waits."""
    box.client.hset(keys.hooks(0), "shop", "100000 100000000 broadcast.paused")
    for number in range(1000):
        box.move(f"b{number}")
    rows = box.take(most=16, shop=4)
    assert len(rows) == 4
    commands = box.client.info("commandstats")
    before = {name: one["calls"] for name, one in commands.items()}
    box.done(rows[0], "delivered")
    assert len(box.take(NOW + 1, most=16, shop=4)) == 1
    after = box.client.info("commandstats")
    calls = sum(one["calls"] - before.get(name, 0) for name, one in after.items())
    assert calls < 80
