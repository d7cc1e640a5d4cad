"""Splitting: a window at a time, every recipient exactly once, whoever splits beside."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from producers import store
from producers.audiences import Audiences
from producers.broadcasts import Broadcasts
from producers.broadcasts.spec import Spec
from producers.broadcasts.split import Splitter
from producers.settings import Settings
from producers.store import keys

both_layouts = pytest.mark.parametrize("lanes", [1, 4])


def import_members(client: Any, settings: Settings, openids: Any, name: str = "vip") -> None:
    Audiences(client, settings).import_rows("shop", name, (openid.encode() for openid in openids))


def create(client: Any, settings: Settings, audience: str = "vip", **changes: Any) -> str:
    spec = Spec.checked(
        app="shop", channel="template", template_id="T", data="a", audience=audience, **changes
    )
    return Broadcasts(client, settings).create(spec).id


def openids(count: int) -> Iterator[str]:
    return (f"oU{n}" for n in range(count))


def biggest_bucket(count: int, settings: Settings) -> int:
    return max(Counter(keys.bucket_of(one, settings.buckets) for one in openids(count)).values())


def window(settings: Settings) -> int:
    """Return one second of the app's default rate, a lane's share of it, at least 100."""
    return max(100, 300 // settings.lanes)


def is_split(client: Any, settings: Settings, broadcast: str) -> bool:
    return all(
        client.hget(keys.lane_broadcast(lane, broadcast), "split") == "done"
        for lane in settings.layout.lanes
    )


def drain(client: Any, settings: Settings, broadcast: str, most: int) -> Counter[str]:
    """Take from the queues as workers do, until all is split; no queue is ever longer than told."""
    taken: Counter[str] = Counter()
    while True:
        done = is_split(client, settings, broadcast)
        found = 0
        for lane in settings.layout.lanes:
            queue = keys.queue(lane, broadcast)
            assert client.llen(queue) <= most
            for item in client.lpop(queue, 50) or ():
                found += 1
                taken[item.partition(":")[2]] += 1
        if done and not found:
            return taken


class Splitters:
    """Threads that split one broadcast as fast as they can, each on its own connection."""

    def __init__(self, settings: Settings, broadcast: str, threads: int = 2) -> None:
        self._settings = settings
        self._broadcast = broadcast
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(threads)
        self._runs = [self._pool.submit(self._run) for _ in range(threads)]

    def _run(self) -> int:
        client = store.connect(self._settings, connections=1)
        splitter = Splitter(client, self._settings)
        moved = 0
        while not self._stop.is_set():
            for lane in self._settings.layout.lanes:
                moved += splitter.fill(self._broadcast, lane)
        client.connection_pool.disconnect()
        return moved

    def stop(self) -> int:
        """Return how many recipients they say they moved."""
        self._stop.set()
        moved = sum(run.result(10) for run in self._runs)
        self._pool.shutdown()
        return moved


@pytest.mark.parametrize("lanes", [4])
def test_two_splitters_at_once_give_every_recipient_once(
    client: Any, settings: Settings, lanes: int
) -> None:
    count = 50_000
    import_members(client, settings, openids(count))
    broadcast = create(client, settings)
    splitters = Splitters(settings, broadcast)
    try:
        most = window(settings) + biggest_bucket(count, settings)
        taken = drain(client, settings, broadcast, most)
    finally:
        moved = splitters.stop()
    assert taken == Counter(openids(count))
    assert moved == count
    status = Broadcasts(client, settings).status(broadcast)
    assert (status.total, status.expected, status.queued) == (count, count, 0)


@both_layouts
def test_members_who_come_meanwhile_bring_nobody_twice(client: Any, settings: Settings) -> None:
    count = 20_000
    import_members(client, settings, openids(count))
    broadcast = create(client, settings)
    late = {f"oLate{n}" for n in range(5000)}
    splitters = Splitters(settings, broadcast)
    joining = threading.Thread(target=import_members, args=(client, settings, sorted(late)))
    joining.start()
    try:
        most = window(settings) + biggest_bucket(count, settings) + 200
        taken = drain(client, settings, broadcast, most)
    finally:
        splitters.stop()
        joining.join()
    assert max(taken.values()) == 1
    assert set(openids(count)) <= set(taken) <= {*openids(count), *late}
    assert Broadcasts(client, settings).status(broadcast).total == taken.total()


@both_layouts
def test_a_full_window_is_not_filled_further(client: Any, settings: Settings) -> None:
    count = 20_000
    import_members(client, settings, openids(count))
    broadcast = create(client, settings)
    splitter = Splitter(client, settings)
    moved = [splitter.fill(broadcast, lane) for lane in settings.layout.lanes]
    for lane in settings.layout.lanes:
        length = client.llen(keys.queue(lane, broadcast))
        assert length == moved[lane]
        assert window(settings) <= length < window(settings) + biggest_bucket(count, settings)
        assert splitter.fill(broadcast, lane) == 0
        client.lpop(keys.queue(lane, broadcast))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 300),
        ({"rate": 150}, 150),
        ({"rate": 100_000}, 300),
        ({"rate": 2}, 100),
    ],
)
def test_a_window_is_a_second_of_sending(
    client: Any, settings: Settings, changes: dict[str, Any], expected: int
) -> None:
    import_members(client, settings, openids(2000))
    broadcast = create(client, settings, **changes)
    length = client.llen(keys.queue(0, broadcast))
    assert expected <= length < expected + biggest_bucket(2000, settings)


def test_the_window_is_a_setting(client: Any, make_settings: Any) -> None:
    settings = make_settings(window=timedelta(seconds=3))
    import_members(client, settings, openids(2000))
    length = client.llen(keys.queue(0, create(client, settings)))
    assert 900 <= length < 900 + biggest_bucket(2000, settings)


@both_layouts
def test_an_unlimited_app_still_has_a_window(client: Any, make_settings: Any, lanes: int) -> None:
    settings = make_settings(lanes=lanes, app={"rate_per_second": 0})
    import_members(client, settings, openids(15_000))
    broadcast = create(client, settings)
    for lane in range(lanes):
        Splitter(client, settings).fill(broadcast, lane)
    assert Broadcasts(client, settings).status(broadcast).queued < 15_000


@both_layouts
@pytest.mark.parametrize("members", [0, 1, 2])
def test_tiny_audiences_are_split_whole(client: Any, settings: Settings, members: int) -> None:
    import_members(client, settings, openids(members))
    broadcast = create(client, settings)
    assert is_split(client, settings, broadcast)
    status = Broadcasts(client, settings).status(broadcast)
    assert (status.total, status.queued) == (members, members)


def test_more_buckets_than_one_script_takes(client: Any, make_settings: Any) -> None:
    client.flushall()
    settings = make_settings(buckets=16_384, window=timedelta(minutes=5))
    import_members(client, settings, openids(5000))
    broadcast = create(client, settings)
    assert drain(client, settings, broadcast, 5000) == Counter(openids(5000))


def test_a_bucket_beyond_lua_s_stack_is_moved_whole(client: Any, make_settings: Any) -> None:
    client.flushall()
    settings = make_settings(buckets=1)
    import_members(client, settings, openids(20_000))
    broadcast = create(client, settings)
    assert Splitter(client, settings).fill(broadcast, 0) == 20_000
    assert drain(client, settings, broadcast, 20_000) == Counter(openids(20_000))


def test_one_broadcast_joins_its_ring_once(client: Any, settings: Settings) -> None:
    import_members(client, settings, openids(3000))
    broadcast = create(client, settings)
    for _ in range(5):
        client.ltrim(keys.queue(0, broadcast), 1, 0)
        Splitter(client, settings).fill(broadcast, 0)
    assert client.lrange(keys.ring(0, "shop"), 0, -1) == [broadcast]


def test_what_is_split_wakes_the_workers(client: Any, settings: Settings, eventually: Any) -> None:
    import_members(client, settings, openids(2000))
    ears = client.pubsub(ignore_subscribe_messages=True)
    ears.subscribe(keys.WAKE)
    assert ears.get_message(timeout=5) is None  # subscribed
    broadcast = create(client, settings)
    heard: list[str] = []

    def woken() -> bool:
        message = ears.get_message(timeout=0.1)
        heard.extend([message["data"]] if message else [])
        return {"wake 0 shop", f"go {broadcast}"} <= set(heard)

    eventually(woken, "the channel told of new work")
    ears.close()


def test_an_unknown_broadcast_moves_nothing(client: Any, settings: Settings) -> None:
    before = set(client.scan_iter())
    assert Splitter(client, settings).fill("b-404", 0) == 0
    assert set(client.scan_iter()) == before


def test_two_broadcasts_of_one_audience_are_split_apart(client: Any, settings: Settings) -> None:
    import_members(client, settings, openids(200))
    first, second = create(client, settings), create(client, settings)
    for broadcast in (first, second):
        assert drain(client, settings, broadcast, 200) == Counter(openids(200))
    assert client.lrange(keys.ring(0, "shop"), 0, -1) == [first, second]
